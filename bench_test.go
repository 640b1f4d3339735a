//go:build !windows

package mount

import (
	stderrors "errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// BenchmarkMount compares a mount and an unmount with the least that they need: the calls of HCS and a link.
func BenchmarkMount(b *testing.B) {
	b.Run("bare calls and link", func(b *testing.B) {
		h := newBareHost(b, "2")
		m, target := h.scratch("2"), h.target("a")
		b.ReportAllocs()
		for range b.N {
			if err := stderrors.Join(h.bareMount(m, target), h.bareUnmount(m, target)); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, way := range []string{"link", "binding"} {
		b.Run("mount and unmount by a "+way, func(b *testing.B) {
			h := newHost(b)
			if way == "binding" {
				h.bindsAt = "a"
			}
			m, target := h.scratch("2"), h.target("a")
			b.ReportAllocs()
			for range b.N {
				h.mustMount(m, target)
				h.mustUnmount(target)
			}
		})
	}
}

// BenchmarkTable shows what many other mounts in the table cost. It reports the ratio to the cost of 10 of
// them, in the same run.
func BenchmarkTable(b *testing.B) {
	for _, op := range []string{"mount and unmount", "lookup"} {
		for _, n := range []int{1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", op, n), func(b *testing.B) {
				few, many := newHost(b), newHost(b)
				few.fill(10)
				many.fill(n)
				var fewTime, manyTime time.Duration
				for range b.N { // in turns, as other work on the machine comes and goes
					fewTime += timed(func() { few.operate(op) })
					manyTime += timed(func() { many.operate(op) })
				}
				b.ReportMetric(manyTime.Seconds()/fewTime.Seconds(), "times-10")
				b.ReportMetric(float64(fewTime.Microseconds())/float64(b.N), "µs-with-10")
			})
		}
	}
}

func (h *host) operate(op string) {
	m, target := h.scratch("2"), h.target("a")
	if op == "lookup" {
		_, _ = h.lookup(target)
		return
	}
	h.mustMount(m, target)
	h.mustUnmount(target)
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// BenchmarkMount_ManyLayersAtOnce mounts different layers at once, with a model whose calls take 10 ms. All of them
// should take about as long as one.
func BenchmarkMount_ManyLayersAtOnce(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHost(b)
			h.model.Latency = 10 * time.Millisecond
			for i := range n {
				h.scratch(fmt.Sprint(i))
			}
			for range b.N {
				h.atOnce(n, func(name string) error { return h.mount(h.scratchMount(name), h.target(name)) })
				b.StopTimer()
				h.atOnce(n, func(name string) error { return h.unmount(h.target(name)) })
				b.StartTimer()
			}
		})
	}
}

// BenchmarkMount_Throughput mounts and unmounts 64 layers from 256 goroutines, with a model whose calls take 10
// ms. It reports the ratio to the time that the calls alone take, in the same run. In "own pace" each layer
// goes through its rounds at its own pace, as in a runtime. In "same instant" all layers begin each round at
// once: while one of them waits for a call, this package has no work to do for another.
//
// The baseline makes the same calls, in the same order and under the same exclusion, which is checked. In a
// round the four goroutines of a layer all mount it, each at its own target, and once all have, unmount it. The
// first asks whether the layer is open and opens it (four calls). The others ask whether it is still open (one
// call each), and the last one closes it (two): nine calls, one at a time. The baseline knows from memory who
// is first and last. It does no more than the calls, a mutex and the link.
func BenchmarkMount_Throughput(b *testing.B) {
	b.Run("own pace", func(b *testing.B) { benchmarkThroughput(b, throughputRounds) })
	b.Run("same instant", func(b *testing.B) { benchmarkThroughput(b, 1) })
}

const (
	throughputLayers  = 64
	throughputTargets = 4
	throughputRounds  = 10
	callsPerRound     = 4 + (throughputTargets - 1) + 2
)

// benchmarkThroughput lets all layers begin at the same instant after so many rounds.
func benchmarkThroughput(b *testing.B, rounds int) {
	var layers []string
	for i := range throughputLayers {
		layers = append(layers, fmt.Sprint(i))
	}
	bare, full := newBareHost(b, layers...), newHost(b)
	for _, h := range []*host{bare.host, full} {
		for _, name := range layers {
			h.scratch(name)
		}
		h.model.Latency = 10 * time.Millisecond
	}
	var bareTime, fullTime time.Duration
	b.ResetTimer()
	for range b.N { // in turns, as other work on the machine comes and goes
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
		if got, want := len(h.model.Calls()), b.N*throughputLayers*rounds*callsPerRound; got != want {
			b.Errorf("%d calls, want %d", got, want)
		}
	}
}

// rounds mounts and then unmounts every layer at several targets at once, n times. No layer waits for another.
func (h *host) rounds(n int, mount, unmount func(m *Mount, target string) error) {
	h.t.Helper()
	h.atOnce(throughputLayers, func(layer string) error {
		m := h.scratchMount(layer)
		for range n {
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
}

func newBareHost(b *testing.B, layers ...string) *bareHost {
	h := &bareHost{newHost(b), map[string]*bareLayer{}}
	for _, name := range layers {
		h.layers[h.scratchMount(name).Source] = &bareLayer{}
	}
	return h
}

func (h *bareHost) bareMount(m *Mount, target string) error {
	l := h.layers[m.Source]
	l.Lock()
	defer l.Unlock()
	volume, err := h.model.GetLayerMountPath(m.Source) // is it open?
	if l.targets == 0 {
		if err := h.model.ActivateLayer(m.Source); err != nil {
			return err
		}
		if err := h.model.PrepareLayer(m.Source, []string{`C:\layers\1`, `C:\layers\0`}); err != nil {
			return err
		}
		volume, err = h.model.GetLayerMountPath(m.Source)
	}
	if err != nil {
		return err
	}
	l.targets++
	return os.Symlink(volume+"/", target)
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
