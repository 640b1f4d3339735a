package mount

import (
	"sync"

	"github.com/pkg/errors"
)

// lockTarget and lockLayer wait until no other goroutine or process holds the same lock. That of a
// layer is for its record, its targets and the calls of HCS; that of a target keeps two Mounts from
// it. Whoever needs both takes the target's first, and never two of a kind.
func (t *table) lockTarget(target key) (unlock func(), err error) {
	return t.lock("t" + string(target))
}

func (t *table) lockLayer(layer key) (unlock func(), err error) { return t.lock("l" + string(layer)) }

func (t *table) lock(name string) (unlock func(), err error) {
	if err := t.hold(); err != nil {
		return nil, err
	}
	leave := t.queue(name)
	var unlockFile func()
	err = t.whileBusy(func() (err error) {
		unlockFile, err = t.held.lock(name)
		return err
	})
	if err != nil {
		leave()
		return nil, errors.Wrap(err, "mount table: failed to lock")
	}
	return func() { unlockFile(); leave() }, nil
}

// turn is held by the goroutine of this process that holds a lock or is the next to have it.
// The others wait for their turn: to wait for a file lock blocks a thread of the system.
type turn struct {
	sync.Mutex
	users int // goroutines that have the turn or wait for it
}

// queue waits for the turn of this goroutine, which lasts until it leaves.
func (t *table) queue(name string) (leave func()) {
	t.mu.Lock()
	if t.turns[name] == nil {
		t.turns[name] = &turn{}
	}
	turn := t.turns[name]
	turn.users++
	t.mu.Unlock()
	turn.Lock()
	return func() {
		turn.Unlock()
		t.mu.Lock()
		defer t.mu.Unlock()
		if turn.users--; turn.users == 0 {
			delete(t.turns, name)
		}
	}
}
