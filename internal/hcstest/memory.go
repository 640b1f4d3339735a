package hcstest

import "sync"

// memory is a table of one process.
type memory[T entry] struct {
	mu    sync.Mutex
	known map[string]T
}

func (s *memory[T]) update(key string, f func(*T, func() error) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(key, f)
}

func (s *memory[T]) updateLocked(key string, f func(*T, func() error) error) error {
	e := s.known[key]
	return f(&e, func() error {
		if e.unknown() {
			delete(s.known, key)
		} else {
			s.known[key] = e
		}
		return nil
	})
}

func (s *memory[T]) each(f func(*T, func() error) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.known {
		if err := s.updateLocked(key, f); err != nil {
			return err
		}
	}
	return nil
}

// memoryJournal is a journal of one process.
type memoryJournal struct {
	mu    sync.Mutex
	lines []string
}

func (s *memoryJournal) record(call string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, call)
	return nil
}

func (s *memoryJournal) calls() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lines...), nil
}

func (s *memoryJournal) forgetCalls() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = nil
	return nil
}
