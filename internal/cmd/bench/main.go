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
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	few       = `C:\bench\few`  // a mount table
	many      = `C:\bench\many` // a mount table with 1,000 more mounts
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
	check(fill(many))

	const bare, link, containerds = 0, 2, 7
	contenders := []struct {
		name    string
		target  string
		table   string
		cycle   func(target string) error
		against int // the contender to compare with
		costs   []time.Duration
	}{
		{name: "bare calls of hcsshim", target: directory, table: few, cycle: bareCalls, against: bare},
		{name: "  with those of the bind filter", target: directory, table: few, cycle: bareBindingCalls, against: bare},
		{name: "this package, by a link", target: absent, table: few, cycle: ours, against: bare},
		{name: "  at a directory", target: directory, table: few, cycle: ours, against: bare},
		{name: "  with 1,000 other mounts", target: absent, table: many, cycle: ours, against: link},
		{name: "this package, by a binding", target: absent, table: few, cycle: ourBinding, against: containerds},
		{name: "  at a directory", target: directory, table: few, cycle: ourBinding, against: containerds},
		{name: "containerd 2.4.2", target: directory, table: few, cycle: theirs, against: bare}, // it takes nothing else
	}
	check(os.Mkdir(directory, 0o777))
	for round := range *rounds + 1 {
		for i := range contenders {
			c := &contenders[(round+i)%len(contenders)]
			check(mount.SetTableDir(c.table))
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
	fmt.Printf("%-32s %8s %8s   times: %8s %8s\n", "", "median", "min", "median", "min")
	for _, c := range contenders {
		other := contenders[c.against]
		median, least, otherMedian, otherLeast := ms(c.costs[len(c.costs)/2]), ms(c.costs[0]), ms(other.costs[len(other.costs)/2]), ms(other.costs[0])
		fmt.Printf("%-32s %8.2f %8.2f   %15.2f %8.2f  %s\n", c.name, median, least, median/otherMedian, least/otherLeast, other.name)
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

// fill adds copies of the record of one mount to a mount table, as of other layers at other targets.
func fill(table string) error {
	m := mount.Mount{Type: "windows-layer", Source: layer, Options: options}
	if err := errors.Join(mount.SetTableDir(table), m.Mount(absent)); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(table, "mounts", "*"))
	if err != nil || len(names) != 1 {
		return fmt.Errorf("records: %q, %w", names, err)
	}
	record, err := os.ReadFile(names[0])
	boot, _, _ := strings.Cut(names[0], "-")
	for i := range 1000 {
		err = errors.Join(err, os.WriteFile(fmt.Sprintf("%s-%032x-%032x", boot, i, i), record, 0o600))
	}
	return errors.Join(err, mount.Unmount(absent, 0))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
