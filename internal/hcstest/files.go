package hcstest

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// files is a table that processes share: a file <hash><ext> in dir for each entry,
// as JSON, or empty when it is unknown. Beside them are the journal, the personality
// and the planned faults.
//
// Each is locked while someone reads or changes it, and is changed in place: it is
// never removed or replaced, as whoever waits for the lock would then get that of
// a file which nobody else can see.
type files[T entry] struct{ dir, ext string }

func (s files[T]) update(key string, f func(*T, func() error) error) error {
	// The key is no file name, and may be longer than one.
	return s.updateFile(fmt.Sprintf("%x%s", sha256.Sum256([]byte(key)), s.ext), f)
}

func (s files[T]) updateFile(name string, f func(*T, func() error) error) error {
	return withLock(filepath.Join(s.dir, name), func(file *os.File) error {
		var e T
		if err := json.NewDecoder(file).Decode(&e); err != nil && err != io.EOF {
			return err
		}
		return f(&e, func() error {
			if e.unknown() {
				return file.Truncate(0)
			}
			return overwrite(file, e)
		})
	})
}

func (s files[T]) each(f func(*T, func() error) error) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) != s.ext {
			continue
		}
		if info, err := entry.Info(); err != nil || info.Size() == 0 {
			if err != nil {
				return err
			}
			continue
		}
		if err := s.updateFile(entry.Name(), f); err != nil {
			return err
		}
	}
	return nil
}

// file is a table that processes share in one file, since it is mostly read as a whole. It
// is locked and changed as each of files is.
type file[T entry] struct{ path string }

func (s file[T]) update(key string, f func(*T, func() error) error) error {
	return s.with(f, func(entries *memory[T], f func(*T, func() error) error) error { return entries.update(key, f) })
}

func (s file[T]) each(f func(*T, func() error) error) error { return s.with(f, (*memory[T]).each) }

// with calls do with the entries, and with f, which it makes keep them in the file.
func (s file[T]) with(f func(*T, func() error) error, do func(*memory[T], func(*T, func() error) error) error) error {
	return withLock(s.path, func(file *os.File) error {
		entries := &memory[T]{known: map[string]T{}}
		if err := json.NewDecoder(file).Decode(&entries.known); err != nil && err != io.EOF {
			return err
		}
		return do(entries, func(e *T, keep func() error) error {
			return f(e, func() error {
				if err := keep(); err != nil {
					return err
				}
				return overwrite(file, entries.known)
			})
		})
	})
}

// fileJournal is a journal that processes share: the file calls in dir, one call a
// line.
type fileJournal struct{ dir string }

func (s fileJournal) record(call string) error {
	return s.withJournal(func(file *os.File) error {
		// O_APPEND does not do: Wine looks for the end and then writes there, so
		// that it needs the lock as well.
		if _, err := file.Seek(0, io.SeekEnd); err != nil {
			return err
		}
		_, err := file.WriteString(call + "\n")
		return err
	})
}

func (s fileJournal) calls() ([]string, error) {
	var data []byte
	err := s.withJournal(func(file *os.File) (err error) {
		data, err = io.ReadAll(file)
		return err
	})
	return splitLines(data), err
}

func (s fileJournal) forgetCalls() error {
	return s.withJournal(func(file *os.File) error { return file.Truncate(0) })
}

func (s fileJournal) withJournal(f func(*os.File) error) error {
	return withLock(filepath.Join(s.dir, "calls"), f)
}

func splitLines(data []byte) []string {
	text := strings.TrimSuffix(string(data), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// isEmpty reports whether the file is there and empty. A file that each call asks
// for is made, if empty, as it costs more that it is not there: Wine then looks for
// its name in the whole directory.
func isEmpty(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() == 0
}

// overwrite makes the JSON of a value the first one in a file, whose lock the
// caller holds. That is one write, so that a kill leaves the old value or the new
// one. What was longer keeps its end: a reader stops after the first value.
func overwrite(file *os.File, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(append(data, '\n'), 0)
	return err
}

// withLock calls f with the file, which is made when needed, while this process
// and no other, and this goroutine and no other, holds its lock. The system drops
// the lock of a process that is killed.
func withLock(path string, f func(*os.File) error) error {
	file, err := kept.take(path)
	if err != nil {
		return err
	}
	if err := lock(file); err != nil {
		return errors.Join(&fs.PathError{Op: "lock", Path: path, Err: err}, file.Close())
	}
	defer kept.put(path, file)
	return f(file)
}

// KeepFiles makes this process keep the files of models open between calls, which
// halves the time of a call under Wine. Their directories then have to stay until
// the process ends, which also closes them.
func KeepFiles() { kept.keep(100) }

// kept has the files that are open and not in use.
var kept keeper

type keeper struct {
	mu    sync.Mutex
	max   int
	count int
	files map[string][]*os.File // by path
}

// keep sets how many files are kept.
func (k *keeper) keep(max int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.max = max
}

// take opens a file that nobody else has until it is put back: of two goroutines
// that take the same path, each gets a file that locks the other out.
func (k *keeper) take(path string) (*os.File, error) {
	file := k.find(path)
	if file == nil {
		return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// find returns a file that was kept, or nil.
func (k *keeper) find(path string) *os.File {
	k.mu.Lock()
	defer k.mu.Unlock()
	files := k.files[path]
	if len(files) == 0 {
		return nil
	}
	k.count--
	k.files[path] = files[:len(files)-1]
	return files[len(files)-1]
}

// put unlocks a file that was taken, and keeps it or else closes it.
func (k *keeper) put(path string, file *os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.count >= k.max || unlock(file) != nil {
		file.Close() // and so unlock it
		return
	}
	if k.files == nil {
		k.files = map[string][]*os.File{}
	}
	k.files[path] = append(k.files[path], file)
	k.count++
}
