package table

import "sync"

// keyLocks has a lock for each name, for the goroutines of this process. A goroutine takes it before the file
// lock, so that for each name only one goroutine at a time waits for other processes: waiting for a file lock
// blocks an operating system thread.
type keyLocks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int // how many goroutines hold the lock or wait for it
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
