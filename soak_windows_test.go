package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

// TestThousandsOfCyclesLeaveNothingBehind mounts and unmounts 50 layers from 8
// goroutines, 5,000 times in all (500 with -short), with transient errors of HCS
// on the way.
func TestThousandsOfCyclesLeaveNothingBehind(t *testing.T) {
	const layers, workers = 50, 8
	cycles := 5000
	if testing.Short() {
		cycles = 500
	}
	h := newWinHost(t)
	for i := 0; i < layers; i++ {
		h.write(h.path("layers", fmt.Sprintf("s%d", i), "sandbox.vhdx"))
	}
	h.soak(layers, workers, workers*4) // so that the runtime has its threads and their handles
	runtime.GC()
	handles, goroutines := handleCount(t), runtime.NumGoroutine()

	const rounds = 10
	for round := 0; round < rounds; round++ {
		// No mount can meet more of them than it stands.
		h.faults("ActivateLayer 0x15 2", "PrepareLayer 0x48f 2", "DeactivateLayer 0x15 2")
		h.soak(layers, workers, cycles/rounds)
		h.ResetCalls()
	}

	h.wantNothing()
	if left, err := filepath.Glob(h.path("mnt*")); err != nil || len(left) != 0 {
		t.Errorf("left at the targets: %q, %v", left, err)
	}
	runtime.GC()
	// A thread of the runtime has a handle or two, and there may be more of them.
	if now := handleCount(t); now > handles+50 {
		t.Errorf("%d handles, %d before", now, handles)
	} else {
		t.Logf("%d cycles, %d handles before and %d after", cycles, handles, now)
	}
	if now := runtime.NumGoroutine(); now > goroutines {
		t.Errorf("%d goroutines, %d before", now, goroutines)
	}
}

// soak shares the cycles among the workers. Every third cycle shows the layer at
// a second target and unmounts it by its source.
func (h *winHost) soak(layers, workers, cycles int) {
	h.t.Helper()
	var all sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		worker := worker
		all.Add(1)
		go func() {
			defer all.Done()
			target, second := h.path(fmt.Sprintf("mnt%d", worker)), h.path(fmt.Sprintf("mnt%d-second", worker))
			for i := worker; i < cycles; i += workers {
				// No two workers have a layer at once, which unmounting it by its
				// source would take away from the other.
				layer := fmt.Sprintf("s%d", (i/workers*workers+worker)%(layers/workers*workers))
				if err := h.cycle(h.scratch(layer), target, second, i%3 == 0); err != nil {
					h.t.Error(err)
					return
				}
			}
		}()
	}
	all.Wait()
}

func (h *winHost) cycle(m *Mount, target, second string, twice bool) error {
	if err := m.Mount(target); err != nil {
		return err
	}
	if _, err := Lookup(target); err != nil {
		return err
	}
	if !twice {
		return Unmount(target, 0)
	}
	if err := m.Mount(second); err != nil {
		return err
	}
	return Unmount(m.Source, 0)
}

// handleCount returns how many handles this process has open. Wine 8 does not
// count them; there it is how many files Linux has open for it.
func handleCount(t *testing.T) int {
	t.Helper()
	var count uint32
	proc := windows.NewLazySystemDLL("kernel32.dll").NewProc("GetProcessHandleCount")
	if ok, _, err := proc.Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&count))); ok == 0 {
		t.Fatalf("GetProcessHandleCount: %v", err)
	}
	if count > 0 {
		return int(count)
	}
	files, err := os.ReadDir(`Z:\proc\self\fd`)
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
