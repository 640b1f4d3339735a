package table

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"testing"
)

func mustLock(t *testing.T, lock func(Key) (func(), error), key Key) (unlock func()) {
	t.Helper()
	unlock, err := lock(key)
	must(t, err)
	return unlock
}

func TestLock_OfAnotherNameOrKindDoesNotWait(t *testing.T) {
	table := newTable(t)
	defer mustLock(t, table.LockTarget, keyOf("a"))()
	mustLock(t, table.LockTarget, keyOf("b"))()
	mustLock(t, table.LockLayer, keyOf("a"))()
	mustLock(t, tableIn(t, table.dir).LockTarget, keyOf("b"))()
}

func TestLock_OneHasItAtATime(t *testing.T) {
	one := newTable(t)
	other := tableIn(t, one.dir) // as another process has it
	var inside atomic.Int32
	var all sync.WaitGroup
	for i := range 8 {
		table := []*Table{one, other}[i%2]
		all.Add(1)
		go func() {
			defer all.Done()
			for range 100 {
				unlock, err := table.LockLayer(keyOf("a"))
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d have the lock", n)
				}
				runtime.Gosched()
				inside.Add(-1)
				unlock()
			}
		}()
	}
	all.Wait()
	if n := len(one.locks.locks) + len(other.locks.locks); n != 0 {
		t.Errorf("%d locks are remembered that nobody has", n)
	}
}

// awaitUsers waits until n goroutines have or want a lock.
func (k *keyLocks) awaitUsers(name string, n int) {
	isThere := func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.locks[name] != nil && k.locks[name].users == n
	}
	for !isThere() {
		runtime.Gosched()
	}
}

func TestLock_WaitingKeepsNoThread(t *testing.T) {
	const goroutines = 200
	table := newTable(t)
	unlock := mustLock(t, table.LockTarget, keyOf("a"))
	threads := pprof.Lookup("threadcreate")
	before := threads.Count()
	var all sync.WaitGroup
	for range goroutines {
		all.Add(1)
		go func() {
			defer all.Done()
			unlock, err := table.LockTarget(keyOf("a"))
			if err != nil {
				t.Error(err)
				return
			}
			unlock()
		}()
	}
	table.locks.awaitUsers("t"+string(keyOf("a")), 1+goroutines)
	if more := threads.Count() - before; more > goroutines/4 {
		t.Errorf("%d goroutines that wait have made %d threads", goroutines, more)
	}
	unlock()
	all.Wait()
}

// A child that has the lock "layer" until its input ends. It says so before it locks, and after.
func init() {
	tasks["lock"] = func(dir string) error {
		fmt.Println("ready")
		unlock, err := New(dir, "boot", noPause).LockLayer(keyOf("layer"))
		if err != nil {
			return err
		}
		fmt.Println("locked")
		_, err = io.Copy(io.Discard, os.Stdin)
		unlock()
		return err
	}
}

func TestLock_ExcludesOtherProcessesAndEndsWithItsOwn(t *testing.T) {
	table := newTable(t)
	unlock := mustLock(t, table.LockLayer, keyOf("layer"))
	child := child("lock", table.dir)
	stdin, err := child.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	said := make(chan string, 2)
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			said <- lines.Text()
		}
		close(said)
	}()
	if first := <-said; first != "ready" {
		t.Fatalf("the child says %q", first)
	}
	mustLock(t, table.LockLayer, keyOf("other"))()
	select {
	case early := <-said:
		t.Errorf("the child says %q while this process has the lock", early)
	default:
	}
	unlock()
	if second := <-said; second != "locked" {
		t.Fatalf("the child says %q", second)
	}
	mustLock(t, table.LockLayer, keyOf("other"))() // which the child does not have
	locked := make(chan func(), 1)
	go func() { locked <- mustLock(t, table.LockLayer, keyOf("layer")) }()
	table.locks.awaitUsers("l"+string(keyOf("layer")), 1)
	if len(locked) != 0 {
		t.Error("this process has the lock, too")
	}
	must(t, child.Process.Kill())
	(<-locked)()
	_ = child.Wait() // it was killed
}
