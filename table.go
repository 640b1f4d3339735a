package mount

import (
	"context"
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
//	lock                  see lock
//
// The record of a layer is the truth, and it is on the disk before HCS is asked to open the layer.
// It is changed under the lock of the layer, and read without one. Under targets is an index to it,
// which proves nothing by itself: one that has lost its layer, or its content in a power failure,
// is passed over. It is made before the record names the target and removed after that.
type table struct {
	dir   string
	pause pauser // before anything that failed for an instant is tried again, also elsewhere
	mu    sync.Mutex
	held  *heldDir // once the directory has been checked
	turns map[string]*turn
}

func (t *table) layerPath(k key) string { return filepath.Join(t.dir, "layers", string(k)) }
func (t *table) indexPath(k key) string { return filepath.Join(t.dir, "targets", string(k)) }

const newSuffix = ".new" // of a record until it is whole

// hold makes the table, or makes sure that what is there can be believed, and holds
// it open: no other directory can then take its place. What an untrusted user has made
// there in advance is moved aside.
func (t *table) hold() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held != nil {
		return nil
	}
	try := func() error {
		held, err := holdDir(t.dir)
		if err == nil {
			t.held, t.turns = held, map[string]*turn{}
		}
		return errors.Wrap(err, "mount table")
	}
	err := t.whileBusy(try)
	if !errors.Is(err, errUntrusted) {
		return err
	}
	aside := fmt.Sprintf("%s.untrusted-%x", t.dir, time.Now().UnixNano())
	moveErr := os.Rename(t.dir, aside)
	if err = t.whileBusy(try); err == nil || moveErr == nil { // or another process has moved it
		return err
	}
	return fmt.Errorf("%w, and cannot be moved aside: %w", err, moveErr)
}

// errUntrusted matches the error of a file that belongs to a user whom the table does not trust.
var errUntrusted = errors.WithMessage(os.ErrPermission, "it cannot be trusted")

// isThere reports whether there is a table, and holds it. Without one nothing is mounted.
func (t *table) isThere() (bool, error) {
	if _, err := os.Lstat(t.dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	err := t.hold()
	return err == nil, err
}

// checkContent refuses a directory that holds anything but a table, whose access
// list holdDir would rewrite.
func checkContent(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !slices.Contains([]string{"layers", "targets", "lock"}, entry.Name()) {
			return errors.Errorf("%s holds %q and is not for a mount table alone", dir, entry.Name())
		}
	}
	return nil
}

// layerAt returns the key of the layer that the index has for a target. The error
// matches os.ErrNotExist when the target is not in it, or no layer has the target.
func (t *table) layerAt(target key) (layer key, err error) {
	file, data, err := t.readFile(t.indexPath(target))
	if err != nil {
		return "", err
	}
	file.Close()
	if layer = key(strings.TrimSpace(string(data))); layer.valid() {
		return layer, nil
	}
	// After a power failure the file may be there without its content.
	layer = ""
	unread, err := t.each(func(r record) {
		if r.at(target) != nil {
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

func (t *table) addIndex(target, layer key) error {
	file, err := t.openFile(t.indexPath(target), true)
	if err == nil {
		_, err = file.WriteString(string(layer) + "\n")
		err = stderrors.Join(err, file.Close())
	}
	return errors.Wrap(err, "mount table")
}

func (t *table) removeIndex(target key) error { return t.remove(t.indexPath(target)) }

// read returns the record of a layer, with the errors of entry.
func (t *table) read(layer key) (record, error) {
	e, err := t.entry(layer)
	if err != nil {
		return record{}, err
	}
	e.close()
	return e.record, nil
}

// each calls f with every record, and returns an error for each file that cannot be read as one.
func (t *table) each(f func(record)) (unread []error, err error) {
	var entries []os.DirEntry
	err = t.whileBusy(func() (err error) {
		entries, err = os.ReadDir(filepath.Join(t.dir, "layers"))
		return err
	})
	if err != nil {
		return nil, errors.Wrap(err, "mount table")
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), newSuffix) {
			continue // it is being written, or its process was killed
		}
		r, err := t.read(key(entry.Name()))
		switch {
		case err == nil:
			f(r)
		case !errors.Is(err, os.ErrNotExist): // or else unmounted since
			unread = append(unread, err)
		}
	}
	return unread, nil
}

// entry is the record of a layer with its file, for the holder of the layer's lock.
type entry struct {
	record
	table *table
	file  *os.File
	size  int64 // of what the file holds in whole lines
}

// entry returns the entry of a layer. The error matches os.ErrNotExist when there is
// none, and errDamaged when it cannot be made out.
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

// readFile returns a file of the table, open, and what is in it.
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

// sweep removes what the writer of a record left when it was killed.
func (t *table) sweep(layer key) error { return t.remove(t.layerPath(layer) + newSuffix) }

// maxSize is how long a file may grow before it is written anew: that of a base layer
// which is mounted at one target after another, for as long as the system runs.
const maxSize = 1 << 16

// save records the record as it is now. It must be durable where something that
// outlives a power failure, such as a link, depends on it.
func (e *entry) save(durable bool) error {
	err := e.append(durable)
	return errors.Wrapf(err, "mount table: failed to record layer %s", e.Source)
}

func (e *entry) append(durable bool) error {
	if e.file == nil || e.size > maxSize {
		return e.write()
	}
	n, err := e.file.WriteAt(e.encode(), e.size)
	if err != nil {
		return err
	}
	if e.size += int64(n); durable {
		err = e.file.Sync()
	}
	return err
}

// write writes a file with nothing but the record, durably, and whole or not at all.
func (e *entry) write() error {
	path, data := e.table.layerPath(e.Key), e.encode()
	if err := e.table.sweep(e.Key); err != nil {
		return err
	}
	file, err := e.table.openFile(path+newSuffix, true)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	e.close() // nothing can take the place of a file that is open
	if err == nil {
		err = e.table.whileBusy(func() error { return moveDurably(path+newSuffix, path) })
	}
	if err != nil {
		return stderrors.Join(err, file.Close())
	}
	e.file, e.size = file, int64(len(data))
	return nil
}

// drop takes the layer out of the table, and its targets out of the index.
func (e *entry) drop() error {
	e.close()
	err := e.table.remove(e.table.layerPath(e.Key))
	if err != nil {
		return stderrors.Join(err, e.save(false)) // that it is closed
	}
	err = e.table.sweep(e.Key)
	for i := 0; i < len(e.Targets) && err == nil; i++ {
		err = e.table.removeIndex(e.Targets[i].Key)
	}
	return err
}

// close closes the file. What had to be written was flushed.
func (e *entry) close() {
	if e.file != nil {
		_ = e.file.Close()
		e.file = nil
	}
}

// whileBusy runs try, which opens, makes, renames or removes a file, and runs it
// again when something else has the file open, such as a scanner. No context ends
// that: the pauses take less than half a second.
func (t *table) whileBusy(try func() error) error {
	return t.pause.retry(context.Background(), isBusy, try)
}

func (t *table) openFile(path string, create bool) (file *os.File, err error) {
	err = t.whileBusy(func() error {
		file, err = openPrivate(path, create)
		return err
	})
	return file, err
}

// remove removes a file of the table, if it is there.
func (t *table) remove(path string) error {
	err := t.whileBusy(func() error { return os.Remove(path) })
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Wrap(err, "mount table")
}
