//go:build !windows

package mount

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// fill puts n records in the table, of other layers at other targets.
func (h *host) fill(n int) {
	h.t.Helper()
	if err := h.table.prepare(); err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < n; i++ {
		if err := h.table.add(h.otherRecord(i)); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *host) otherRecord(i int) record {
	r := record{Target: h.path("other", fmt.Sprint(i)), Source: h.path("layers", fmt.Sprintf("other%d", i)), Volume: "volume"}
	r.TargetKey, r.SourceKey = keyOf(r.Target), keyOf(r.Source)
	return r
}

func TestMountUnmountAndLookupReadNoRecordOfAnotherLayer(t *testing.T) {
	h := newHost(t)
	h.fill(100)
	for i := 0; i < 100; i++ { // whoever reads one fails
		h.write(h.table.recordPath(h.otherRecord(i).TargetKey), "torn")
	}
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, h.target("b"))
	if _, err := h.lookup(context.Background(), h.target("a")); err != nil {
		t.Error(err)
	}
	h.mustUnmount(h.target("a"))
	h.mustUnmount(m.Source)
	if open := h.model.OpenLayers(); len(open) != 0 {
		t.Errorf("open layers: %q", open)
	}
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
				if _, err := h.lookup(context.Background(), target); err != nil {
					b.Fatal(err)
				}
			}
		})
		h.mustUnmount(target)
	}
}

// BenchmarkThroughput mounts and unmounts 64 layers from 256 goroutines, with a
// model whose calls take 10 ms, and compares with what the calls alone allow.
//
// Each four goroutines share a layer. The baseline does for a layer what this
// package does, without a table: under a lock of the layer it makes the same
// calls for the same count of targets, and the same link.
func BenchmarkThroughput(b *testing.B) {
	const layers, goroutines = 64, 256
	run := func(b *testing.B, h *host, mount, unmount func(layer int, target string) error) {
		h.model.Latency = 10 * time.Millisecond
		for i := 0; i < layers; i++ {
			h.scratch(fmt.Sprint(i))
		}
		b.ResetTimer()
		for i := 0; i < b.N; i++ {
			h.atOnce(goroutines, func(name string) error {
				var g int
				if _, err := fmt.Sscan(name, &g); err != nil {
					return err
				}
				for cycle := 0; cycle < 4; cycle++ {
					if err := mount(g%layers, h.target(name)); err != nil {
						return err
					}
					if err := unmount(g%layers, h.target(name)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		b.ReportMetric(float64(b.N*goroutines*4)/b.Elapsed().Seconds(), "mounts/s")
	}
	b.Run("calls alone", func(b *testing.B) {
		h := newHost(b)
		bare := make([]bareLayer, layers)
		run(b, h, func(layer int, target string) error {
			return bare[layer].mount(h, h.scratchMount(fmt.Sprint(layer)).Source, target)
		}, func(layer int, target string) error {
			return bare[layer].unmount(h, h.scratchMount(fmt.Sprint(layer)).Source, target)
		})
	})
	b.Run("mount and unmount", func(b *testing.B) {
		h := newHost(b)
		run(b, h, func(layer int, target string) error {
			return h.mount(h.scratchMount(fmt.Sprint(layer)), target)
		}, func(_ int, target string) error {
			return h.unmount(target)
		})
	})
}

// bareLayer counts the targets of a layer, in memory.
type bareLayer struct {
	sync.Mutex
	targets int
}

func (l *bareLayer) mount(h *host, source, target string) error {
	l.Lock()
	defer l.Unlock()
	if l.targets == 0 {
		if err := h.model.ActivateLayer(source); err != nil {
			return err
		}
		if err := h.model.PrepareLayer(source, []string{`C:\layers\1`}); err != nil {
			return err
		}
	}
	path, err := h.model.GetLayerMountPath(source)
	if err != nil {
		return err
	}
	l.targets++
	return os.Symlink(path, target)
}

func (l *bareLayer) unmount(h *host, source, target string) error {
	l.Lock()
	defer l.Unlock()
	if err := os.Remove(target); err != nil {
		return err
	}
	if l.targets--; l.targets > 0 {
		return nil
	}
	if err := h.model.UnprepareLayer(source); err != nil {
		return err
	}
	return h.model.DeactivateLayer(source)
}
