package hcsmodel

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// files is a store that processes share:
//
//	<hash>.layer   a layer that is open, as JSON
//	<hash>.lock    locked while someone reads or changes that layer
//	calls          the journal, one call a line
//	calls.lock     locked while someone reads or changes the journal
//
// A locked file is never removed: whoever waits for it would then hold a lock
// that nobody else can see.
type files struct{ dir string }

func (s files) update(key string, f func(*layer) error) error {
	// The key is no file name, and may be longer than one.
	return s.updateFile(fmt.Sprintf("%x", sha256.Sum256([]byte(key))), f)
}

func (s files) updateFile(hash string, f func(*layer) error) error {
	path := filepath.Join(s.dir, hash)
	return withLock(path+".lock", func() error {
		var l layer
		data, err := os.ReadFile(path + ".layer")
		if err == nil {
			err = json.Unmarshal(data, &l)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		before := l
		if err := f(&l); err != nil {
			return err
		}
		switch {
		case l.open():
			data, err := json.Marshal(l)
			if err != nil {
				return err
			}
			return replace(path+".layer", data)
		case before.open():
			return os.Remove(path + ".layer")
		}
		return nil
	})
}

func (s files) layers() ([]layer, error) {
	var layers []layer
	err := s.each(func(l *layer) error {
		if l.open() { // not closed since its file was found
			layers = append(layers, *l)
		}
		return nil
	})
	return layers, err
}

func (s files) forgetLayers() error {
	return s.each(func(l *layer) error {
		*l = layer{}
		return nil
	})
}

func (s files) each(f func(*layer) error) error {
	paths, err := filepath.Glob(filepath.Join(s.dir, "*.layer"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		hash := strings.TrimSuffix(filepath.Base(path), ".layer")
		if err := s.updateFile(hash, f); err != nil {
			return err
		}
	}
	return nil
}

func (s files) record(call string) error {
	path := filepath.Join(s.dir, "calls")
	// O_APPEND alone does not do: Wine looks for the end and then writes there.
	return withLock(path+".lock", func() error {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
		if err != nil {
			return err
		}
		_, err = file.WriteString(call + "\n")
		return errors.Join(err, file.Close())
	})
}

func (s files) calls() ([]string, error) {
	var lines []string
	path := filepath.Join(s.dir, "calls")
	err := withLock(path+".lock", func() (err error) {
		lines, err = readLines(path)
		return err
	})
	return lines, err
}

func (s files) forgetCalls() error {
	path := filepath.Join(s.dir, "calls")
	return withLock(path+".lock", func() error { return os.WriteFile(path, nil, 0o666) })
}

// readLines returns the lines of a file; one that is absent has none.
func readLines(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	text := strings.TrimSuffix(string(data), "\n")
	if err != nil || text == "" {
		return nil, err
	}
	return strings.Split(text, "\n"), nil
}

// replace writes a file so that whoever reads it, after a kill as well, finds
// either the old or the new content. The caller holds the lock of the file.
func replace(path string, data []byte) error {
	if err := os.WriteFile(path+".tmp", data, 0o666); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// withLock calls f while this process and no other, and this goroutine and no
// other, holds the lock of the file. The system drops the lock of a process that
// is killed.
func withLock(path string, f func() error) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := lock(file); err != nil {
		return &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return f() // closing the file unlocks it
}
