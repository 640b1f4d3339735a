package mount

import (
	stderrors "errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkg/errors"
)

// table is the mount table, a directory on disk:
//
//	layers/<source key>   the record of a layer that is or may be open
//	targets/<target key>  the source key of the layer that is shown there
//	lock                  see lockLayer and lockTarget
//
// The record of a layer is the truth, and is durable before HCS is asked to open the layer. It is
// changed under the lock of the layer and read without one. The files under targets are an index
// to the records, which proves nothing by itself. One whose layer has no such target is removed; for
// one that has lost its content in a power failure, all records are searched. An index is made before
// the record names the target, and removed after the record no longer does.
type table struct {
	dir   string
	pause pauser
	mu    sync.Mutex
	held  *heldDir // nil until hold
	turns turns
}

func (t *table) layerPath(k key) string { return filepath.Join(t.dir, "layers", string(k)) }
func (t *table) indexPath(k key) string { return filepath.Join(t.dir, "targets", string(k)) }

// unfinishedSuffix ends the name of a record's file until it is written.
const unfinishedSuffix = ".new"

// errUntrusted is found, by errors.Is, in the error of a file that belongs to a user whom the table does
// not trust.
var errUntrusted = errors.WithMessage(os.ErrPermission, "it cannot be trusted")

// hold makes the table, or makes sure that the directory there can be trusted, and holds it open, so
// that no other directory can take its place. A directory that an untrusted user made there in advance
// is moved aside.
func (t *table) hold() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held != nil {
		return nil
	}
	try := func() error {
		held, err := holdDir(t.dir)
		if err == nil {
			t.held = held
		}
		return errors.Wrap(err, "mount table")
	}
	err := t.pause.whileBusy(try)
	if !errors.Is(err, errUntrusted) {
		return err
	}
	aside := fmt.Sprintf("%s.untrusted-%x", t.dir, time.Now().UnixNano())
	moveErr := os.Rename(t.dir, aside)
	if err = t.pause.whileBusy(try); err == nil || moveErr == nil { // another process may have moved it
		return err
	}
	return fmt.Errorf("%w, and cannot be moved aside: %w", err, moveErr)
}

// holdIfThere holds the table if there is one, and reports whether there is. Without a table nothing is
// mounted.
func (t *table) holdIfThere() (bool, error) {
	if _, err := os.Lstat(t.dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	err := t.hold()
	return err == nil, err
}

// checkContent refuses a directory that holds anything but a table, because holdDir would rewrite its
// access list.
func checkContent(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, file := range entries {
		if !slices.Contains([]string{"layers", "targets", "lock"}, file.Name()) {
			return errors.Errorf("%s holds %q and is not for a mount table alone", dir, file.Name())
		}
	}
	return nil
}

// lockTarget waits until no other goroutine or process holds the lock of the target, and takes it.
// It keeps two Mounts from the same target. A Mount takes it before the lock of the layer; nobody
// takes two locks of a kind.
func (t *table) lockTarget(target key) (unlock func(), err error) {
	return t.lock("t" + string(target))
}

// lockLayer does for a layer what lockTarget does for a target. Its holder alone may change the record
// and the targets of the layer, and call HCS for it.
func (t *table) lockLayer(layer key) (unlock func(), err error) {
	return t.lock("l" + string(layer))
}

func (t *table) lock(name string) (unlock func(), err error) {
	if err := t.hold(); err != nil {
		return nil, err
	}
	leave := t.turns.wait(name)
	var unlockFile func()
	err = t.pause.whileBusy(func() (err error) {
		unlockFile, err = t.held.lock(name)
		return err
	})
	if err != nil {
		leave()
		return nil, errors.Wrap(err, "mount table: failed to lock")
	}
	return func() { unlockFile(); leave() }, nil
}

// layerAt returns the key of the layer that the index has for a target. The error matches
// os.ErrNotExist when the target is not in the index, or when its file there is empty and no record has
// the target.
func (t *table) layerAt(target key) (layer key, err error) {
	layer, err = t.readIndex(target)
	if err != nil || layer.valid() {
		return layer, err
	}
	// A power failure may have left the file without its content.
	layer = ""
	unread, err := t.each(func(r record) {
		if r.targetAt(target) != nil {
			layer = r.Key
		}
	})
	if layer != "" {
		return layer, nil
	}
	if err == nil && len(unread) == 0 {
		err = os.ErrNotExist
	}
	return "", errors.WithStack(stderrors.Join(append(unread, err)...))
}

// readIndex returns what the file of a target in the index holds, which is a key unless it is damaged.
func (t *table) readIndex(target key) (key, error) {
	file, data, err := t.readFile(t.indexPath(target))
	if err != nil {
		return "", err
	}
	file.Close()
	return key(strings.TrimSpace(string(data))), nil
}

func (t *table) addIndex(target, layer key) error {
	file, err := t.openFile(t.indexPath(target), true)
	if err == nil {
		_, err = file.WriteString(string(layer) + "\n")
		err = stderrors.Join(err, file.Close())
	}
	return errors.Wrap(err, "mount table")
}

// removeIndex removes a target of a layer from the index. What another layer has there stays: after a
// power failure the records of two layers may have the same target.
func (t *table) removeIndex(target, layer key) error {
	now, err := t.readIndex(target)
	if errors.Is(err, os.ErrNotExist) || err == nil && now.valid() && now != layer {
		return nil
	}
	if err != nil {
		return err
	}
	return t.remove(t.indexPath(target))
}

// entry returns the entry of a layer. The error matches os.ErrNotExist when there is none, and
// errDamaged when its file is not what this package writes.
func (t *table) entry(layer key) (*entry, error) {
	file, data, err := t.readFile(t.layerPath(layer))
	if err != nil {
		return nil, err
	}
	r, size, err := decodeRecord(data)
	if err == nil && r.Key != layer {
		err = errors.Errorf("is the record of %s", r.Source)
	}
	trustErr := checkTrust(file)
	if err == nil && trustErr == nil {
		return &entry{r, t, file, size}, nil
	}
	file.Close()
	if trustErr != nil && !errors.Is(trustErr, errUntrusted) { // nobody can tell
		return nil, errors.Wrap(trustErr, "mount table")
	}
	err = stderrors.Join(trustErr, err)
	return nil, errors.WithStack(fmt.Errorf("mount table: %w %s: %w", errDamaged, file.Name(), err))
}

// read returns the record of a layer, with the errors of entry.
func (t *table) read(layer key) (record, error) {
	e, err := t.entry(layer)
	if err != nil {
		return record{}, err
	}
	e.close()
	return e.record, nil
}

// recordAt returns the record of the layer that the index has for a target. The error matches
// os.ErrNotExist when there is none.
func (t *table) recordAt(target key) (record, error) {
	if exists, err := t.holdIfThere(); err != nil {
		return record{}, err
	} else if !exists {
		return record{}, errors.WithStack(os.ErrNotExist)
	}
	layer, err := t.layerAt(target)
	if err != nil {
		return record{}, err
	}
	return t.read(layer)
}

// each calls f with every record, and returns an error for each file that cannot be read as one.
func (t *table) each(f func(record)) (unread []error, err error) {
	var entries []os.DirEntry
	err = t.pause.whileBusy(func() (err error) {
		entries, err = os.ReadDir(filepath.Join(t.dir, "layers"))
		return err
	})
	if err != nil {
		return nil, errors.Wrap(err, "mount table")
	}
	for _, file := range entries {
		if strings.HasSuffix(file.Name(), unfinishedSuffix) {
			continue // it is being written, or its process was killed
		}
		r, err := t.read(key(file.Name()))
		switch {
		case err == nil:
			f(r)
		case !errors.Is(err, os.ErrNotExist): // which means that the layer was unmounted meanwhile
			unread = append(unread, err)
		}
	}
	return unread, nil
}

// below returns the targets on record below dir, the deepest first, and an error for each file of
// the table that cannot be read as a record.
func (t *table) below(dir string) (targets []target, unread []error, err error) {
	dir, err = absolute(dir)
	if err != nil {
		return nil, nil, errors.WithMessage(err, "failed to look for mounts")
	}
	if exists, err := t.holdIfThere(); !exists || err != nil {
		return nil, nil, err
	}
	resolved, folded, _, err := canonical(dir)
	if err != nil {
		return nil, nil, err
	}
	unread, err = t.each(func(r record) {
		for _, at := range r.Targets {
			below := isBelow(at.Resolved, resolved) || folded != resolved && isBelow(foldCase(at.Resolved), folded)
			if !below && isBelow(foldCase(at.Path), foldCase(dir)) { // perhaps in the volume of a layer that is shown below dir
				now, err := newTarget(at.Path)
				below = err == nil && now.Key == at.Key
			}
			if below {
				targets = append(targets, at)
			}
		}
	})
	slices.SortFunc(targets, func(a, b target) int { return len(b.Path) - len(a.Path) })
	return targets, unread, err
}

// readFile returns a file of the table, open, and its content.
func (t *table) readFile(path string) (*os.File, []byte, error) {
	file, err := t.openFile(path, false)
	if err != nil {
		return nil, nil, errors.Wrap(err, "mount table")
	}
	data, err := io.ReadAll(file)
	if err != nil {
		file.Close()
	}
	return file, data, errors.Wrap(err, "mount table")
}

func (t *table) openFile(path string, create bool) (file *os.File, err error) {
	err = t.pause.whileBusy(func() error {
		file, err = openPrivate(path, create)
		return err
	})
	return file, err
}

// sweep removes the unfinished file of a record, which its writer left when it was killed.
func (t *table) sweep(layer key) error { return t.remove(t.layerPath(layer) + unfinishedSuffix) }

// remove removes a file of the table, if it is there.
func (t *table) remove(path string) error {
	err := t.pause.whileBusy(func() error { return os.Remove(path) })
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Wrap(err, "mount table")
}
