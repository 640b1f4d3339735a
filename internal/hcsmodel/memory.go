package hcsmodel

import "sync"

// memory is a store for one process.
type memory struct {
	mu      sync.Mutex
	known   map[string]layer
	journal []string
}

func (s *memory) update(key string, f func(*layer, func() error) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(key, f)
}

func (s *memory) updateLocked(key string, f func(*layer, func() error) error) error {
	l := s.known[key]
	return f(&l, func() error {
		if l.unknown() {
			delete(s.known, key)
		} else {
			s.known[key] = l
		}
		return nil
	})
}

func (s *memory) each(f func(*layer, func() error) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.known {
		if err := s.updateLocked(key, f); err != nil {
			return err
		}
	}
	return nil
}

func (s *memory) record(call string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = append(s.journal, call)
	return nil
}

func (s *memory) calls() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.journal...), nil
}

func (s *memory) forgetCalls() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = nil
	return nil
}
