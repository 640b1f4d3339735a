// Package table is the mount table: a directory with a file for each mount, so that any process can unmount
// what another one has mounted.
//
//	mounts/<boot>-<layer>-<target>   the record of a mount
//	lock                             see LockLayer and LockTarget
//
// The name of a file identifies the start of Windows in which the layer was mounted, the layer, and the target.
// The directory listing is the index: there is no separate index that could contradict the records.
//
// A process changes a file only while it holds the lock of the layer. To list mounts it reads files without a
// lock. If another program, such as a scanner, has a file open, the package retries opening, creating or
// removing it.
package table

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/retry"
	"github.com/seed-941ae793/mount/internal/winfs"
)

// Table is a mount table as one process uses it, in one start of Windows.
type Table struct {
	dir   string
	boot  string
	pause retry.Pause
	locks keyLocks

	mu       sync.Mutex
	held     []*os.File // the directories of the table and the lock file, kept open: see hold
	resolved string     // "" until Resolved
}

// New returns the table in dir. The directory is created when it is first needed. The argument boot is the ID of
// this start of Windows (see Boot).
func New(dir, boot string, pause retry.Pause) *Table {
	return &Table{dir: dir, boot: boot, pause: pause, locks: keyLocks{locks: map[string]*keyLock{}}}
}

// Resolved returns the directory of the table, with the links in its path resolved.
func (t *Table) Resolved() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.resolved == "" {
		name, err := winfs.Resolve(t.dir)
		if err != nil {
			return "", errors.Wrap(err, "mount table")
		}
		t.resolved = name.Path
	}
	return t.resolved, nil
}

// Key identifies a path: all names of a file have the same key.
type Key string

// KeyOf returns the key of a name.
func KeyOf(name winfs.Name) Key {
	sum := sha256.Sum256([]byte(name.Folded()))
	return Key(hex.EncodeToString(sum[:16]))
}

// OfNoLayer returns the key to use as LayerKey for a mount at target that has no layer.
func (target Key) OfNoLayer() Key { return KeyOf(winfs.Name{Path: "no layer " + string(target)}) }

// Name is the name of a mount's file.
type Name struct {
	boot string
	// LayerKey identifies the layer's directory, and TargetKey the target.
	LayerKey, TargetKey Key
}

func (n Name) String() string { return n.boot + "-" + string(n.LayerKey) + "-" + string(n.TargetKey) }

// IsStale reports whether the layer was mounted before the last restart of Windows. When Windows shuts down, HCS
// forgets all layers, and the bind filter forgets all bindings.
func (t *Table) IsStale(n Name) bool { return n.boot != t.boot }

// At returns the names of the mounts at a target. A target has at most one mount. There may be more names if a
// power failure has brought back a file that was removed.
func (t *Table) At(target Key) ([]Name, error) { return t.match("*-" + string(target)) }

// Of returns the names of the mounts of a layer.
func (t *Table) Of(layer Key) ([]Name, error) { return t.match("*-" + string(layer) + "-*") }

// All returns the names of all mounts.
func (t *Table) All() ([]Name, error) { return t.match("*") }

func (t *Table) match(pattern string) ([]Name, error) {
	if isThere, err := t.hold(false); err != nil || !isThere {
		return nil, err // if there is no table, nothing is mounted
	}
	var names []Name
	err := winfs.WhileBusy(t.pause, func() error {
		files, err := winfs.Match(t.mounts(), pattern)
		names = nil
		for _, file := range files {
			if parts := strings.Split(file, "-"); len(parts) == 3 {
				names = append(names, Name{parts[0], Key(parts[1]), Key(parts[2])})
			}
		}
		return err
	})
	return names, errors.Wrap(err, "mount table")
}

func (t *Table) mounts() string { return filepath.Join(t.dir, "mounts") }

// hold opens the directory of the table and keeps it open, so that no other directory can take its place. It
// reports whether the table exists. If there is no directory, hold creates it if mayMake is set.
//
// hold first makes sure that the directory can be trusted. Any user may create one in %ProgramData% before this
// package does. If an untrusted user owns the directory, hold moves it aside and creates a new one.
func (t *Table) hold(mayMake bool) (isThere bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held != nil {
		return true, nil
	}
	if _, err := os.Lstat(t.dir); errors.Is(err, os.ErrNotExist) && !mayMake {
		return false, nil
	}
	err = winfs.WhileBusy(t.pause, t.openAll)
	if errors.Is(err, winfs.ErrUntrusted) {
		aside := fmt.Sprintf("%s.untrusted-%x", t.dir, time.Now().UnixNano())
		moveErr := winfs.WhileBusy(t.pause, func() error { return winfs.MoveUntrusted(t.dir, aside) })
		if err = winfs.WhileBusy(t.pause, t.openAll); err != nil && moveErr != nil { // or another process has moved it
			err = fmt.Errorf("%w; moving it aside: %w", err, moveErr)
		}
	}
	return err == nil, errors.Wrap(err, "mount table")
}

// openAll opens the directory of the table and what is in it. It creates what is missing, and makes sure that what
// exists can be trusted. The lock file is the last element of held.
func (t *Table) openAll() error {
	if err := CheckDir(t.dir); err != nil { // before OpenPrivateDir changes the access list
		return err
	}
	for _, name := range []string{"", "mounts", "lock"} {
		open := winfs.OpenPrivateDir
		if name == "lock" {
			open = openLocks
		}
		file, err := open(filepath.Join(t.dir, name))
		if err != nil {
			t.close()
			return err
		}
		t.held = append(t.held, file)
	}
	return nil
}

func (t *Table) close() {
	for _, file := range t.held {
		_ = file.Close() // cannot lose data: nothing was written to the file
	}
	t.held = nil
}

// CheckDir returns an error if the directory dir contains anything that is not part of a mount table: then this
// package must not change its access list. CheckDir returns nil if dir does not exist, or if an untrusted user
// owns it, since such a directory is moved aside.
func CheckDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || winfs.CheckOwner(dir) != nil {
		return nil
	}
	if err != nil {
		return err
	}
	for _, file := range entries {
		if name := file.Name(); name != "mounts" && name != "lock" {
			return errors.Errorf("%s contains %q, which is not part of a mount table", dir, name)
		}
	}
	return nil
}

// LockTarget locks a target against other goroutines and processes, so that only one Mount at a time uses it.
// Mount takes this lock before the lock of the layer. Nobody holds two target locks or two layer locks.
func (t *Table) LockTarget(target Key) (unlock func(), err error) {
	return t.lock("t" + string(target))
}

// LockLayer locks a layer against other goroutines and processes. Only the holder of the lock may change the
// records of the layer and call HCS for the layer.
func (t *Table) LockLayer(layer Key) (unlock func(), err error) { return t.lock("l" + string(layer)) }

func (t *Table) lock(name string) (unlock func(), err error) {
	if _, err := t.hold(true); err != nil {
		return nil, err
	}
	unlockHere := t.locks.lock(name)
	var unlockFile func()
	err = winfs.WhileBusy(t.pause, func() (err error) {
		unlockFile, err = lockFile(t.held[len(t.held)-1], name)
		return err
	})
	if err != nil {
		unlockHere()
		return nil, errors.Wrap(err, "mount table: lock")
	}
	return func() { unlockFile(); unlockHere() }, nil
}

// Close closes the directory of the table. Only tests need it: Windows does not remove a directory that is
// kept open.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.close()
}
