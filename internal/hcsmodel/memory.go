package hcsmodel

import "sync"

// memory is a store for one process.
type memory struct {
	mu      sync.Mutex
	open    map[string]layer
	journal []string
}

func (s *memory) update(key string, f func(*layer) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.open[key]
	if err := f(&l); err != nil {
		return err
	}
	if l.open() {
		s.open[key] = l
	} else {
		delete(s.open, key)
	}
	return nil
}

func (s *memory) layers() ([]layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var layers []layer
	for _, l := range s.open {
		layers = append(layers, l)
	}
	return layers, nil
}

func (s *memory) forgetLayers() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = map[string]layer{}
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
