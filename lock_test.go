package mount

import (
	"context"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

func newTable(t *testing.T) table {
	t.Helper()
	table := table{filepath.Join(t.TempDir(), "table")}
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
	var inside atomic.Int32
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := 0; i < 100; i++ {
				unlock, err := table.lockSource(context.Background(), keyOf("a"))
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
}

func TestWaitingForALockEndsWithTheContext(t *testing.T) {
	table := newTable(t)
	unlock := mustLock(t, table.lockTarget, keyOf("a"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := table.lockTarget(ctx, keyOf("a"))
	wantError(t, err, "", context.Canceled)
	unlock()
	mustLock(t, table.lockTarget, keyOf("a"))()
}

// endedContext ends once somebody waits for it.
type endedContext struct{ context.Context }

func (endedContext) Err() error { return nil }

func TestALockThatIsGivenTooLateIsGivenBack(t *testing.T) {
	table := newTable(t)
	unlock := mustLock(t, table.lockTarget, keyOf("a"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if late, _ := table.lockTarget(endedContext{ctx}, keyOf("a")); late != nil {
		t.Error("got the lock that another holds")
	}
	unlock()
	mustLock(t, table.lockTarget, keyOf("a"))()
}
