package table

import "sync"

// keyLocks makes the goroutines of this process that want the same lock wait for each other, so that
// one of them at a time waits for other processes: waiting for a file lock blocks a thread of the
// system.
type keyLocks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int // the goroutines that hold the lock or wait for it
}

func (k *keyLocks) lock(name string) (unlock func()) {
	k.mu.Lock()
	l := k.locks[name]
	if l == nil {
		l = &keyLock{}
		k.locks[name] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, name)
		}
	}
}
