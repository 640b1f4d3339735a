//go:build !windows

package mount

import (
	stderrors "errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// BenchmarkMount compares mounting and unmounting with what cannot be less: the
// five calls and a symlink, in the same run.
func BenchmarkMount(b *testing.B) {
	b.Run("bare calls and symlink", func(b *testing.B) {
		h := newBareHost(b)
		m, target := h.scratch("2"), h.target("a")
		b.ReportAllocs()
		for i := 0; i < b.N; i++ {
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
			for i := 0; i < b.N; i++ {
				h.mustMount(m, target)
				h.mustUnmount(target)
			}
		})
	}
}

// BenchmarkManyMounts mounts different layers at once, on a model whose calls
// take 10 ms. All of them should take about as long as one.
func BenchmarkManyMounts(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHost(b)
			h.model.Latency = 10 * time.Millisecond
			for i := 0; i < n; i++ {
				h.scratch(fmt.Sprint(i))
			}
			for i := 0; i < b.N; i++ {
				h.atOnce(n, func(name string) error { return h.mount(h.scratchMount(name), h.target(name)) })
				b.StopTimer()
				h.atOnce(n, func(name string) error { return h.unmount(h.target(name)) })
				b.StartTimer()
			}
		})
	}
}

// atOnce calls do from n goroutines, with the names "0" to n-1.
func (h *host) atOnce(n int, do func(name string) error) {
	h.t.Helper()
	var all sync.WaitGroup
	for i := 0; i < n; i++ {
		name := fmt.Sprint(i)
		all.Add(1)
		go func() {
			defer all.Done()
			if err := do(name); err != nil {
				h.t.Error(err)
			}
		}()
	}
	all.Wait()
}
