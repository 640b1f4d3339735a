//go:build windows

// Command bench measures what it costs to mount a layer at one target and to unmount
// it again: the bare calls of hcsshim, without and with those of the bind filter that show
// the layer, this module's package mount by a link and by a binding, and containerd's. They
// take turns on one sample layer, so that what else the machine does meets all. It is for
// the simulated HCS and bind filter, which all pay for alike; scripts/bench runs it.
//
// A link is made by a call of Linux, which costs less than one of Windows: see scripts/wine.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/Microsoft/go-winio/pkg/bindfilter"
	"github.com/Microsoft/hcsshim"
	containerd "github.com/containerd/containerd/v2/core/mount"
	"github.com/seed-941ae793/mount"
)

const (
	layer     = `C:\bench\scratch`
	base      = `C:\bench\base`
	absent    = `C:\bench\absent`
	directory = `C:\bench\directory`
)

// options are the mount options of the layer, which name its parent.
var options []string

// inTurn is how many cycles one contender runs before the next one's turn.
const inTurn = 5

func main() {
	rounds := flag.Int("rounds", 60, "how many turns each contender has")
	drive := flag.String("drive", "unknown", "what file system drive C: is on")
	flag.Parse()
	check(makeSample())

	const bare, bareBinding = 0, 1
	contenders := []struct {
		name   string
		target string
		cycle  func(target string) error
		least  int // the contender that makes the bare calls alone
		costs  []time.Duration
	}{
		{name: "bare calls of hcsshim", target: directory, cycle: bareCalls, least: bare},
		{name: "  with those of the bind filter", target: directory, cycle: bareBindingCalls, least: bare},
		{name: "this package, by a link", target: absent, cycle: ours, least: bare},
		{name: "  at a directory", target: directory, cycle: ours, least: bare},
		{name: "this package, by a binding", target: absent, cycle: ourBinding, least: bareBinding},
		{name: "  at a directory", target: directory, cycle: ourBinding, least: bareBinding},
		{name: "containerd 2.4.2", target: directory, cycle: theirs, least: bareBinding}, // it takes nothing else
	}
	check(os.Mkdir(directory, 0o777))
	for round := range *rounds + 1 {
		for i := range contenders {
			c := &contenders[(round+i)%len(contenders)]
			for range inTurn {
				start := time.Now()
				if err := c.cycle(c.target); err != nil {
					check(fmt.Errorf("%s: %w", c.name, err))
				}
				if round > 0 { // the first is to warm up
					c.costs = append(c.costs, time.Since(start))
				}
			}
		}
	}

	for i := range contenders {
		slices.SortFunc(contenders[i].costs, cmp.Compare)
	}
	fmt.Printf("Mount and unmount of a layer with one target, ms; %d rounds of %d cycles each, in turns; C: on %s\n", *rounds, inTurn, *drive)
	fmt.Printf("%-32s %8s %8s   more than the bare calls: %8s %8s\n", "", "median", "min", "median", "min")
	for _, c := range contenders {
		least := contenders[c.least].costs
		median, leastMedian := c.costs[len(c.costs)/2], least[len(least)/2]
		fmt.Printf("%-32s %8.2f %8.2f   %25s %8.2f %8.2f\n", c.name, ms(median), ms(c.costs[0]), "", ms(median-leastMedian), ms(c.costs[0]-least[0]))
	}
}

func bareCalls(string) error { return whileOpen(func(string) error { return nil }) }

// bareBindingCalls binds the layer and looks once at what is bound.
func bareBindingCalls(target string) error {
	return whileOpen(func(volume string) error {
		if err := bindfilter.ApplyFileBinding(target, volume, false); err != nil {
			return err
		}
		if _, err := bindfilter.GetBindMappings(target); err != nil {
			return err
		}
		return bindfilter.RemoveFileBinding(target)
	})
}

// whileOpen calls show with the mount path of the layer, which it opens and closes.
func whileOpen(show func(volume string) error) error {
	info := hcsshim.DriverInfo{HomeDir: filepath.Dir(layer)}
	id := filepath.Base(layer)
	if err := hcsshim.ActivateLayer(info, id); err != nil {
		return err
	}
	if err := hcsshim.PrepareLayer(info, id, []string{base}); err != nil {
		return err
	}
	volume, err := hcsshim.GetLayerMountPath(info, id)
	if err != nil {
		return err
	}
	if err := show(volume); err != nil {
		return err
	}
	if err := hcsshim.UnprepareLayer(info, id); err != nil {
		return err
	}
	return hcsshim.DeactivateLayer(info, id)
}

func ours(target string) error {
	m := mount.Mount{Type: "windows-layer", Source: layer, Options: options}
	if err := m.Mount(target); err != nil {
		return err
	}
	return mount.Unmount(target, 0)
}

// ourBinding is ours with the bind filter, as containerd's is.
func ourBinding(target string) error {
	mount.UseBindFilter(true)
	defer mount.UseBindFilter(false)
	return ours(target)
}

func theirs(target string) error {
	m := containerd.Mount{Type: "windows-layer", Source: layer, Options: options}
	if err := m.Mount(target); err != nil {
		return err
	}
	return containerd.Unmount(target, 0)
}

// makeSample makes a writable layer and its base layer.
func makeSample() error {
	parents, err := json.Marshal([]string{base})
	if err != nil {
		return err
	}
	options = []string{mount.ParentLayerPathsFlag + string(parents)}
	for _, dir := range []string{filepath.Join(base, "Files"), layer} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(layer, "sandbox.vhdx"), nil, 0o666)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
