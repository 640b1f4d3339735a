package mount

import (
	"sync"
)

// turns makes the goroutines of this process that want the same lock wait for each other, so that
// one of them at a time waits for other processes: waiting for a file lock blocks a thread of the
// system.
type turns struct {
	mu      sync.Mutex
	waiting map[string]*turn
}

// turn is held by the goroutine that has a lock or is the next to get it.
type turn struct {
	sync.Mutex
	users int // the goroutines that hold the turn or wait for it
}

// wait waits for the turn of this goroutine, which lasts until it calls leave.
func (t *turns) wait(name string) (leave func()) {
	t.mu.Lock()
	if t.waiting == nil {
		t.waiting = map[string]*turn{}
	}
	if t.waiting[name] == nil {
		t.waiting[name] = &turn{}
	}
	turn := t.waiting[name]
	turn.users++
	t.mu.Unlock()
	turn.Lock()
	return func() {
		turn.Unlock()
		t.mu.Lock()
		defer t.mu.Unlock()
		if turn.users--; turn.users == 0 {
			delete(t.waiting, name)
		}
	}
}
