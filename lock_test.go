package mount

import (
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"testing"
)

func newTable(t *testing.T) *table {
	t.Helper()
	table := &table{dir: filepath.Join(t.TempDir(), "table"), pause: pause}
	if err := table.hold(); err != nil {
		t.Fatal(err)
	}
	if held, ok := any(table.held).(interface{ close() }); ok {
		t.Cleanup(held.close) // Windows removes no directory that is held
	}
	return table
}

func mustLock(t *testing.T, lock func(key) (func(), error), k key) (unlock func()) {
	t.Helper()
	unlock, err := lock(k)
	if err != nil {
		t.Fatal(err)
	}
	return unlock
}

func TestLocksOfOtherNamesDoNotWait(t *testing.T) {
	table := newTable(t)
	unlock := mustLock(t, table.lockTarget, keyOf("a"))
	defer unlock()
	mustLock(t, table.lockTarget, keyOf("b"))()
	mustLock(t, table.lockLayer, keyOf("a"))()
}

func TestOnlyOneHoldsALockAtATime(t *testing.T) {
	one := newTable(t)
	// What another process does is done here by another table of the same directory.
	other := &table{dir: one.dir, pause: pause}
	if err := other.hold(); err != nil {
		t.Fatal(err)
	}
	if held, ok := any(other.held).(interface{ close() }); ok {
		t.Cleanup(held.close)
	}
	var inside atomic.Int32
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		table := []*table{one, other}[i%2]
		all.Add(1)
		go func() {
			defer all.Done()
			for i := 0; i < 100; i++ {
				unlock, err := table.lockLayer(keyOf("a"))
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				runtime.Gosched()
				inside.Add(-1)
				unlock()
			}
		}()
	}
	all.Wait()
	if n := len(one.turns.waiting); n != 0 {
		t.Errorf("%d locks are remembered that nobody waits for", n)
	}
}

// awaitQueue waits until n goroutines have or want a lock.
func awaitQueue(table *table, name string, n int) {
	for !isQueued(table, name, n) {
		runtime.Gosched()
	}
}

func isQueued(table *table, name string, n int) bool {
	table.turns.mu.Lock()
	defer table.turns.mu.Unlock()
	turn := table.turns.waiting[name]
	return turn != nil && turn.users == n
}

func TestGoroutinesThatWaitForALockKeepNoThreadWaiting(t *testing.T) {
	const goroutines = 200
	table := newTable(t)
	unlock := mustLock(t, table.lockTarget, keyOf("a"))
	threads := pprof.Lookup("threadcreate")
	before := threads.Count()
	var all sync.WaitGroup
	for i := 0; i < goroutines; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			unlock, err := table.lockTarget(keyOf("a"))
			if err != nil {
				t.Error(err)
				return
			}
			unlock()
		}()
	}
	awaitQueue(table, "t"+string(keyOf("a")), 1+goroutines)
	if more := threads.Count() - before; more > goroutines/4 {
		t.Errorf("%d goroutines that wait made %d threads", goroutines, more)
	}
	unlock()
	all.Wait()
}
