package mount

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

const (
	soakWorkers = 8
	soakLayers  = 50
	// soakShared of the layers are everybody's. Of the others each belongs to one
	// worker, as unmounting by source takes away what others have mounted.
	soakShared = 10
	soakRounds = 10
)

// TestMount_ThousandsOfCyclesLeaveNothing mounts and unmounts 50 layers from 8
// goroutines, 5,000 times in all (200 with -short), by links and by bindings, with
// transient errors of HCS on the way.
func TestMount_ThousandsOfCyclesLeaveNothing(t *testing.T) {
	cycles := 5000
	if testing.Short() {
		cycles = 200
	}
	h := newSoakHost(t)
	h.soakRound(soakWorkers * 5) // so that the runtime has its threads and their handles
	handles, goroutines := handleCount(t), runtime.NumGoroutine()
	for round := 0; round < soakRounds; round++ {
		h.soakRound(cycles / soakRounds)
	}
	h.wantNothing()
	h.wantTargetsAsBefore()
	// The runtime keeps its threads, with a few handles each, and may start more.
	if now := handleCount(t); now > handles+50 {
		t.Errorf("%d handles, %d before", now, handles)
	} else {
		t.Logf("%d cycles, %d handles before and %d after", cycles, handles, now)
	}
	if now := runtime.NumGoroutine(); now > goroutines {
		t.Errorf("%d goroutines, %d before", now, goroutines)
	}
}

// newSoakHost is a winHost with the layers s0 to s49. Every worker has two
// targets: the first is absent, and the second a directory to which a layer is bound.
func newSoakHost(t *testing.T) *winHost {
	h := newWinHost(t)
	for i := 0; i < soakLayers; i++ {
		h.write(h.path("layers", fmt.Sprintf("s%d", i), "sandbox.vhdx"))
	}
	for worker := 0; worker < soakWorkers; worker++ {
		h.mkdir(h.secondTarget(worker))
	}
	return h
}

func (h *winHost) firstTarget(worker int) string  { return h.path(fmt.Sprintf("first%d", worker)) }
func (h *winHost) secondTarget(worker int) string { return h.path(fmt.Sprintf("second%d", worker)) }

// soakRound shares the cycles among the workers. The journal is emptied: the
// calls of 5,000 cycles are of use to nobody.
func (h *winHost) soakRound(cycles int) {
	h.t.Helper()
	// All that are planned together are fewer than one mount stands.
	h.faults("ActivateLayer 0x15 2", "PrepareLayer 0x48f 2", "DeactivateLayer 0x15 2")
	var all sync.WaitGroup
	for worker := 0; worker < soakWorkers; worker++ {
		worker := worker
		all.Add(1)
		go func() {
			defer all.Done()
			for i := worker; i < cycles; i += soakWorkers {
				if err := h.soakCycle(worker); err != nil {
					h.t.Errorf("worker %d, cycle %d: %v", worker, i, err)
					return
				}
			}
		}()
	}
	all.Wait()
	h.ResetCalls()
}

// soakCycle mounts a layer, every other time at a second target as well, and
// unmounts it: one that is shared by its targets, and one's own by its source.
func (h *winHost) soakCycle(worker int) error {
	n := rand.Intn(soakLayers)
	shared := n < soakShared
	if !shared {
		n += worker - (n-soakShared)%soakWorkers // of each eight, one belongs to each worker
	}
	m := h.mountOf(fmt.Sprintf("s%d", n))
	targets := []string{h.firstTarget(worker), h.secondTarget(worker)}[:1+rand.Intn(2)]
	for i, target := range targets {
		// Only a directory that stays is bound over: others list the bindings, and have it open
		// for an instant. Under Wine a directory that is removed then goes later.
		if err := mountAndLookup(m, target, i > 0); err != nil {
			return err
		}
	}
	if !shared && rand.Intn(2) == 0 {
		return Unmount(m.Source, 0)
	}
	for _, target := range targets {
		if err := Unmount(target, 0); err != nil {
			return err
		}
	}
	return nil
}

func mountAndLookup(m *Mount, target string, bind bool) error {
	err := withEngine(func(e *engine) error {
		e.binds = bind
		return e.mount(context.Background(), m, target)
	})
	if err != nil {
		return err
	}
	info, err := Lookup(target)
	if err == nil && info.Source != m.Source {
		err = fmt.Errorf("%s shows %s, want %s", target, info.Source, m.Source)
	}
	return err
}

// wantTargetsAsBefore fails the test unless the first targets are absent and the
// second ones empty directories.
func (h *winHost) wantTargetsAsBefore() {
	h.t.Helper()
	if left, err := filepath.Glob(h.path("first*")); err != nil || len(left) != 0 {
		h.t.Errorf("left at the targets: %q, %v", left, err)
	}
	for worker := 0; worker < soakWorkers; worker++ {
		h.wantDirectory(h.secondTarget(worker))
	}
}

// handleCount returns how many handles this process has open. Wine 8 does not
// count them (it succeeds with 0); there it is how many files Linux has open for
// the process, which include those of locks and directories. No garbage is
// collected before, as that would close a file which nobody has closed.
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
