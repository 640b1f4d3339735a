//go:build !windows

package mount

import (
	stderrors "errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pkg/errors"
)

// fill puts n records in the table, of other layers at other targets.
func (h *host) fill(n int) {
	h.t.Helper()
	if err := h.table.hold(); err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < n; i++ {
		e := &entry{record: h.otherRecord(i), table: h.table}
		if err := stderrors.Join(h.table.addIndex(e.Targets[0].Key, e.Key), e.save(true)); err != nil {
			h.t.Fatal(err)
		}
		e.close()
	}
}

func (h *host) otherRecord(i int) record {
	source, path := h.path("layers", fmt.Sprintf("other%d", i)), h.path("other", fmt.Sprint(i))
	return record{Boot: h.boot, Key: keyOf(source), Source: source, Resolved: source, Volume: h.path("volumes", fmt.Sprintf("Volume{%d}", i)),
		Targets: []target{{Path: path, Resolved: path, Key: keyOf(path), Shown: true}}}
}

// damage makes the table such that whoever reads anything of the first n other
// layers, or the list of all layers, fails.
func (h *host) damage(n int) {
	for i := 0; i < n; i++ {
		r := h.otherRecord(i)
		h.write(h.table.layerPath(r.Key), "torn")
		h.write(h.table.indexPath(r.Targets[0].Key), "torn")
	}
}

func TestMountUnmountAndLookupReadNothingOfOtherLayers(t *testing.T) {
	h := newHost(t)
	h.fill(100)
	h.damage(100)
	if _, err := h.list(); !errors.Is(err, errDamaged) {
		t.Fatal("nobody would notice who reads the whole table")
	}
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, h.target("b"))
	h.mustLookup(h.target("a"))
	h.mustUnmount(h.target("a"))
	h.mustUnmount(m.Source)
	if _, err := h.lookup(h.target("b")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("looking up what is unmounted: %v", err)
	}
	if err := h.unmount(h.target("none")); err != nil {
		t.Errorf("unmounting what is no mount: %v", err)
	}
	h.wantOpen()
}

func (h *host) mustLookup(target string) {
	h.t.Helper()
	if _, err := h.lookup(target); err != nil {
		h.t.Fatal(err)
	}
}

func TestAllocationsDoNotGrowWithTheNumberOfRecords(t *testing.T) {
	few, many := allocations(t, 10), allocations(t, 1000)
	// What the runtime allocates meanwhile counts as well.
	if many > few*1.1 {
		t.Errorf("%.0f allocations with 1,000 other records, %.0f with 10", many, few)
	}
}

// allocations is how often a mount, a lookup and an unmount allocate with n other
// records in the table.
func allocations(t *testing.T, n int) float64 {
	h := newHost(t)
	h.fill(n)
	m, target := h.scratch("2"), h.target("a")
	return testing.AllocsPerRun(20, func() {
		h.mustMount(m, target)
		h.mustLookup(target)
		h.mustUnmount(target)
	})
}

// BenchmarkTable shows that what an operation costs does not depend on the
// number of records.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		h := newHost(b)
		h.fill(n)
		m, target := h.scratch("2"), h.target("a")
		b.Run(fmt.Sprintf("mount and unmount/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; i < b.N; i++ {
				h.mustMount(m, target)
				h.mustUnmount(target)
			}
		})
		h.mustMount(m, target)
		b.Run(fmt.Sprintf("lookup/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; i < b.N; i++ {
				h.mustLookup(target)
			}
		})
		h.mustUnmount(target)
	}
}

// BenchmarkThroughput mounts and unmounts 64 layers from 256 goroutines, with a
// model whose calls take 10 ms, and compares with what the calls alone allow in
// the same run: the ratio of the times. Each layer goes through its rounds at its
// own pace, as in a runtime; or all begin each at the same instant, so that what
// this package does for one cannot be done while another waits for a call.
//
// The baseline is honest since both make the same calls, in the same order and
// under the same exclusion, which is checked. In a round the four goroutines of a
// layer all mount it at a target of their own and then, when all have, unmount it.
// So the first asks whether the layer is open and opens it (four calls), the others
// need no call, and the last closes it (two): six calls, one at a time. The baseline
// knows who is first and last, and the volume, from memory, and does no more than the
// calls, a mutex and the link.
func BenchmarkThroughput(b *testing.B) {
	b.Run("own pace", func(b *testing.B) { benchmarkThroughput(b, throughputRounds) })
	b.Run("same instant", func(b *testing.B) { benchmarkThroughput(b, 1) })
}

// benchmarkThroughput lets all layers begin at the same instant after so many
// rounds.
func benchmarkThroughput(b *testing.B, rounds int) {
	bare, full := newBareHost(b), newHost(b)
	var bareTime, fullTime time.Duration
	for _, h := range []*host{bare.host, full} {
		h.scratchLayers(throughputLayers)
		h.model.Latency = 10 * time.Millisecond
	}
	b.ResetTimer()
	for i := 0; i < b.N; i++ { // in turns, as other work on the machine comes and goes
		bareTime += timed(func() { bare.rounds(rounds, bare.bareMount, bare.bareUnmount) })
		fullTime += timed(func() {
			full.rounds(rounds, full.mount, func(_ *Mount, target string) error { return full.unmount(target) })
		})
	}
	b.StopTimer()
	mounts := float64(b.N * throughputLayers * rounds * throughputTargets)
	b.ReportMetric(mounts/bareTime.Seconds(), "bare-mounts/s")
	b.ReportMetric(mounts/fullTime.Seconds(), "mounts/s")
	b.ReportMetric(fullTime.Seconds()/bareTime.Seconds(), "times-bare")
	b.ReportMetric((fullTime-bareTime).Seconds()*1e6/mounts, "extra-µs/mount")
	for _, h := range []*host{bare.host, full} {
		if got, want := len(h.model.Calls()), b.N*throughputLayers*rounds*6; got != want {
			b.Errorf("%d calls, want %d", got, want)
		}
	}
}

const throughputLayers, throughputTargets, throughputRounds = 64, 4, 10

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func (h *host) scratchLayers(n int) {
	for i := 0; i < n; i++ {
		h.scratch(fmt.Sprint(i))
	}
}

// rounds mounts and then unmounts every layer at several targets at once, n times.
// No layer waits for another.
func (h *host) rounds(n int, mount, unmount func(m *Mount, target string) error) {
	h.t.Helper()
	h.atOnce(throughputLayers, func(layer string) error {
		m := h.scratchMount(layer)
		for i := 0; i < n; i++ {
			for _, do := range []func(*Mount, string) error{mount, unmount} {
				h.atOnce(throughputTargets, func(name string) error { return do(m, h.target(layer+"-"+name)) })
			}
		}
		return nil
	})
}

// bareHost mounts with the calls of HCS and the link alone.
type bareHost struct {
	*host
	layers map[string]*bareLayer // by source
}

// bareLayer counts the targets of a layer.
type bareLayer struct {
	sync.Mutex
	targets int
	volume  string
}

func newBareHost(b *testing.B) *bareHost {
	h := &bareHost{newHost(b), map[string]*bareLayer{}}
	for i := 0; i < throughputLayers; i++ {
		h.layers[h.scratchMount(fmt.Sprint(i)).Source] = &bareLayer{}
	}
	return h
}

func (h *bareHost) bareMount(m *Mount, target string) error {
	l := h.layers[m.Source]
	l.Lock()
	defer l.Unlock()
	if l.targets == 0 {
		_, _ = h.model.GetLayerMountPath(m.Source) // is it open elsewhere?
		if err := h.model.ActivateLayer(m.Source); err != nil {
			return err
		}
		if err := h.model.PrepareLayer(m.Source, []string{`C:\layers\1`, `C:\layers\0`}); err != nil {
			return err
		}
		var err error
		if l.volume, err = h.model.GetLayerMountPath(m.Source); err != nil {
			return err
		}
	}
	l.targets++
	return os.Symlink(l.volume+"/", target)
}

func (h *bareHost) bareUnmount(m *Mount, target string) error {
	l := h.layers[m.Source]
	l.Lock()
	defer l.Unlock()
	if err := os.Remove(target); err != nil {
		return err
	}
	if l.targets--; l.targets > 0 {
		return nil
	}
	if err := h.model.UnprepareLayer(m.Source); err != nil {
		return err
	}
	return h.model.DeactivateLayer(m.Source)
}
