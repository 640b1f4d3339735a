package mount

import (
	"context"
	"sync"

	"github.com/pkg/errors"
)

// lockTarget and lockSource wait until no other goroutine or process holds the
// same lock. Whoever needs both takes the target's first, and never two of a
// kind.
func (t table) lockTarget(ctx context.Context, target key) (unlock func(), err error) {
	return t.lock(ctx, "t"+string(target))
}

func (t table) lockSource(ctx context.Context, source key) (unlock func(), err error) {
	return t.lock(ctx, "s"+string(source))
}

func (t table) lock(ctx context.Context, name string) (unlock func(), err error) {
	leave, err := queue(ctx, t.dir+name)
	if err != nil {
		return nil, errors.WithStack(err)
	}
	unlock, err = t.lockFile(ctx, name, leave)
	return unlock, errors.Wrap(err, "mount table: failed to lock")
}

// lockFile waits until no other process holds the lock, or until ctx ends, and
// then leaves the queue: once it is unlocked, or was not locked.
func (t table) lockFile(ctx context.Context, name string, leave func()) (unlock func(), err error) {
	lock := func() (unlock func(), err error) {
		var unlockFile func()
		err = t.whileBusy(func() error {
			unlockFile, err = lockFile(t.dir, name)
			return err
		})
		if err != nil {
			leave()
			return nil, err
		}
		return func() { unlockFile(); leave() }, nil
	}
	if ctx.Done() == nil {
		return lock()
	}
	type result struct {
		unlock func()
		err    error
	}
	locked := make(chan result, 1)
	go func() {
		unlock, err := lock()
		locked <- result{unlock, err}
	}()
	select {
	case r := <-locked:
		return r.unlock, r.err
	case <-ctx.Done():
		// The system cannot be told to stop waiting; what it gives is given back.
		// Until then nobody else has its turn: each would block one more thread.
		go func() {
			if r := <-locked; r.err == nil {
				r.unlock()
			}
		}()
		return nil, ctx.Err()
	}
}

// queues holds, by name, the locks that goroutines of this process hold or wait
// for. They wait here, and one at a time for the other processes: to wait for a
// file lock blocks a thread of the system.
var queues = struct {
	sync.Mutex
	byName map[string]*waiting
}{byName: map[string]*waiting{}}

type waiting struct {
	turn  chan struct{} // holds a value while a goroutine has its turn
	users int           // goroutines that have their turn or wait for it
}

// queue waits for the turn of this goroutine, which lasts until it leaves. It
// must leave once.
func queue(ctx context.Context, name string) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	queues.Lock()
	w := queues.byName[name]
	if w == nil {
		w = &waiting{turn: make(chan struct{}, 1)}
		queues.byName[name] = w
	}
	w.users++
	queues.Unlock()

	forget := func() {
		queues.Lock()
		defer queues.Unlock()
		if w.users--; w.users == 0 {
			delete(queues.byName, name)
		}
	}
	select {
	case w.turn <- struct{}{}:
		return func() { <-w.turn; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}
