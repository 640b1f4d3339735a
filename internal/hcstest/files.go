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

// files is a table that processes share. Each entry has a file <hash><ext> in dir, which holds the entry as JSON. The
// file is empty if the entry is unknown. The journal, the personality and the planned faults are in the same
// directory.
//
// A process locks a file while it reads or changes it, and changes it in place. No process removes or replaces a
// file: another process that is waiting for the lock would then get the lock of a file that nobody else can see.
type files[T entry] struct{ dir, ext string }

func (s files[T]) update(key string, f func(*T, func() error) error) error {
	// The key itself is not a valid file name, and may be too long for one.
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

// file is a table that processes share, in a single file: it is mostly read as a whole. Processes lock and change
// the file as they do those of files.
type file[T entry] struct{ path string }

func (s file[T]) update(key string, f func(*T, func() error) error) error {
	return s.with(f, func(entries *memory[T], f func(*T, func() error) error) error { return entries.update(key, f) })
}

func (s file[T]) each(f func(*T, func() error) error) error { return s.with(f, (*memory[T]).each) }

// with reads the entries from the file and calls do with them and with f. It wraps f so that keep also writes the
// entries to the file.
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

// fileJournal is a journal that processes share. It is the file calls in dir, which has a line for each call.
type fileJournal struct{ dir string }

func (s fileJournal) record(call string) error {
	return s.withJournal(func(file *os.File) error {
		// O_APPEND would not be enough: Wine finds the end of the file and then writes there, in two steps.
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

// isEmpty reports whether the file exists and is empty. The callers create a file that each call looks at even if
// they have nothing to write to it: looking for an absent file takes longer, since Wine then searches the whole
// directory for the name.
func isEmpty(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() == 0
}

// overwrite writes the JSON of a value to the beginning of a file. The caller must hold the lock of the file.
// overwrite makes a single write, so that the file has the old value or the new one if the process is killed. If the
// old value was longer, its end stays in the file; a reader stops after the first value.
func overwrite(file *os.File, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(append(data, '\n'), 0)
	return err
}

// withLock opens the file, or creates it, and calls f while it holds the lock of the file. The lock excludes other
// processes and other goroutines. If the process is killed, the system releases the lock.
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

// KeepFiles makes this process keep the files of models open between calls, until the process ends. This halves the
// time of a call under Wine. The directories of the models then have to exist until the process ends.
func KeepFiles() { kept.keep(100) }

// kept has the files that are open but not in use.
var kept keeper

type keeper struct {
	mu    sync.Mutex
	max   int
	count int
	files map[string][]*os.File // by path
}

// keep sets the largest number of files to keep open.
func (k *keeper) keep(max int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.max = max
}

// take returns an open file that nobody else has until the caller puts it back. If two goroutines take the same path,
// each gets an open file of its own, so that the lock of one excludes the other.
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

// put unlocks a file that the caller has taken. It keeps the file open for later use if there is room, and closes it
// otherwise.
func (k *keeper) put(path string, file *os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.count >= k.max || unlock(file) != nil {
		file.Close() // also unlocks it
		return
	}
	if k.files == nil {
		k.files = map[string][]*os.File{}
	}
	k.files[path] = append(k.files[path], file)
	k.count++
}
