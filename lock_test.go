package mount

import (
	"context"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pkg/errors"
)

func newTable(t *testing.T) table {
	t.Helper()
	table := table{filepath.Join(t.TempDir(), "table"), pause}
	if err := table.prepare(); err != nil {
		t.Fatal(err)
	}
	return table
}

func mustLock(t *testing.T, lock func(context.Context, key) (func(), error), k key) (unlock func()) {
	t.Helper()
	unlock, err := lock(context.Background(), k)
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
	mustLock(t, table.lockSource, keyOf("a"))()
}

func TestOnlyOneHoldsALockAtATime(t *testing.T) {
	table := newTable(t)
	for name, lock := range map[string]func() (func(), error){
		"lock":      func() (func(), error) { return table.lockSource(context.Background(), keyOf("a")) },
		"file lock": func() (func(), error) { return lockFile(table.dir, "a") },
	} {
		t.Run(name, func(t *testing.T) {
			var inside atomic.Int32
			var all sync.WaitGroup
			for i := 0; i < 8; i++ {
				all.Add(1)
				go func() {
					defer all.Done()
					for i := 0; i < 100; i++ {
						unlock, err := lock()
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
		})
	}
}

func TestWaitingForALockEndsWithTheContext(t *testing.T) {
	table := newTable(t)
	unlock := mustLock(t, table.lockTarget, keyOf("a"))
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		awaitQueue(table, "t"+string(keyOf("a")), 2)
		cancel()
	}()
	for _, when := range []string{"while waiting", "before"} {
		if _, err := table.lockTarget(ctx, keyOf("a")); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled %s: %v", when, err)
		}
	}
	unlock()
	mustLock(t, table.lockTarget, keyOf("a"))()
	if n := len(queues.byName); n != 0 {
		t.Errorf("%d locks are remembered that nobody waits for", n)
	}
}

// awaitQueue waits until n goroutines have or want a lock.
func awaitQueue(table table, name string, n int) {
	for !isQueued(table, name, n) {
		runtime.Gosched()
	}
}

func isQueued(table table, name string, n int) bool {
	queues.Lock()
	defer queues.Unlock()
	w := queues.byName[table.dir+name]
	return w != nil && w.users == n
}

// endedWait returns what unlocks the lock "a" of a table, which another process
// seems to have. A wait for it, which leaves the queue with leave, has ended with
// its context.
func endedWait(t *testing.T, table table, leave func()) (unlock func()) {
	t.Helper()
	unlock, err := lockFile(table.dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := table.lockFile(ctx, "a", leave); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	return unlock
}

func awaitGoroutines(n int) {
	for runtime.NumGoroutine() > n {
		runtime.Gosched()
	}
}

func TestALockOfTheFileThatIsGivenTooLateIsGivenBack(t *testing.T) {
	table := newTable(t)
	goroutines := runtime.NumGoroutine()
	left := make(chan struct{})
	unlock := endedWait(t, table, func() { close(left) })
	unlock()
	<-left
	again, err := lockFile(table.dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	again()
	awaitGoroutines(goroutines)
}

func TestWaitsThatEndBlockOneThreadTogether(t *testing.T) {
	table := newTable(t)
	goroutines := runtime.NumGoroutine()
	leave, err := queue(context.Background(), table.dir+"a")
	if err != nil {
		t.Fatal(err)
	}
	unlock := endedWait(t, table, leave)
	waiting := make(chan error)
	before := runtime.NumGoroutine()
	for i := 0; i < 100; i++ {
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			_, err := table.lock(ctx, "a")
			waiting <- err
		}()
		awaitQueue(table, "a", 2) // with the wait that has ended, whose thread is blocked
		cancel()
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if more := runtime.NumGoroutine() - before; more > 10 {
		t.Errorf("100 waits that have ended left %d goroutines", more)
	}
	unlock()
	awaitGoroutines(goroutines)
	again, err := table.lock(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	again()
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
			unlock, err := table.lockTarget(context.Background(), keyOf("a"))
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
