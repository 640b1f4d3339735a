package mount

import (
	stderrors "errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/pkg/errors"
)

// table is the mount table, a directory on disk:
//
//	mounts/<target>.json      the record of a mount
//	mounts/<target>.pending   one that is being put in the table, or taken out
//	layers/<source>/<target>  an empty file: the layer is shown at the target
//
// <target> and <source> are the keys of the paths. The empty file is there before
// the record and removed after it, so that a record is found by target and by
// source. Its name gets the suffix ".closing" before the layer is closed.
// A record is written under the locks of its target and of its layer, and read
// under one of the two, or by peek.
type table struct {
	dir string
	// pause comes before anything that failed for an instant is tried again, in
	// the table or elsewhere.
	pause pauser
}

func (t table) recordPath(target key) string {
	return filepath.Join(t.dir, "mounts", string(target)+".json")
}

func (t table) pendingPath(target key) string {
	return filepath.Join(t.dir, "mounts", string(target)+".pending")
}

func (t table) layerPath(source key) string {
	return filepath.Join(t.dir, "layers", string(source))
}

// markPath is the empty file that tells where a record's layer is shown.
func (t table) markPath(r record) string {
	return filepath.Join(t.layerPath(r.SourceKey), string(r.TargetKey))
}

const closingSuffix = ".closing"

// prepare creates the table, or makes sure that the one which is there can be
// believed.
func (t table) prepare() error {
	for _, dir := range []string{t.dir, filepath.Join(t.dir, "mounts"), filepath.Join(t.dir, "layers")} {
		if err := t.makeDir(dir); err != nil {
			return errors.Wrap(err, "mount table")
		}
	}
	return nil
}

// makeDir makes sure that a directory of the table is there and can be believed:
// anybody may create directories in %ProgramData%.
func (t table) makeDir(path string) error {
	return t.whileBusy(func() error {
		err := checkPrivateDir(path)
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := createPrivateDir(path); !errors.Is(err, os.ErrExist) {
			return err
		}
		return checkPrivateDir(path) // another process was faster
	})
}

// has tells whether the target has a record, or a pending one, or may have: why
// it cannot be looked at, reading it tells.
func (t table) has(target key) bool {
	for _, path := range []string{t.recordPath(target), t.pendingPath(target)} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

// read returns the record of a target; its error matches os.ErrNotExist when
// there is none.
func (t table) read(target key) (record, error) {
	return t.readRecord(t.recordPath(target), target)
}

// readPending returns the record that a process was about to put in the table,
// or to take out, when it was killed. One that is not whole is removed: then
// nothing else had been done.
func (t table) readPending(target key) (record, error) {
	path := t.pendingPath(target)
	r, err := t.readRecord(path, target)
	if !errors.Is(err, errDamaged) {
		return r, err
	}
	if err := t.remove(path); err != nil {
		return record{}, errors.Wrap(err, "mount table")
	}
	return record{}, errors.WithStack(os.ErrNotExist)
}

// peek returns the record of a target, or else the pending one, without a lock. A
// pending one that is not whole is being written; or its process was killed, before
// anything was done, and it stays until somebody mounts or unmounts there.
func (t table) peek(target key) (record, error) {
	r, err := t.read(target)
	if !errors.Is(err, os.ErrNotExist) {
		return r, err
	}
	r, err = t.readRecord(t.pendingPath(target), target)
	if errors.Is(err, errDamaged) {
		return record{}, errors.WithStack(os.ErrNotExist)
	}
	return r, err
}

func (t table) readRecord(path string, target key) (record, error) {
	file, err := t.open(path, openPrivate)
	if err != nil {
		return record{}, errors.Wrap(err, "mount table")
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxRecord+1))
	if err != nil {
		return record{}, errors.Wrap(err, "mount table")
	}
	r, err := decodeRecord(data)
	if err == nil && r.TargetKey != target {
		err = errors.Errorf("is the record of %s", r.Target)
	}
	if err != nil {
		return record{}, errors.WithStack(fmt.Errorf("mount table: %w %s: %w", errDamaged, path, err))
	}
	return r, nil
}

// add puts a record in the table, durably, and whole or not at all.
func (t table) add(r record) error {
	err := t.writePending(r)
	if err == nil {
		err = t.makeDir(t.layerPath(r.SourceKey))
	}
	if err == nil {
		err = t.write(t.markPath(r), nil)
	}
	if err == nil {
		err = t.commit(r)
	}
	return errors.Wrapf(err, "mount table: failed to record %s", r.Target)
}

// update replaces a record, durably, and whole or not at all.
func (t table) update(r record) error {
	err := t.writePending(r)
	if err == nil {
		err = t.commit(r)
	}
	return errors.Wrapf(err, "mount table: failed to record %s", r.Target)
}

func (t table) writePending(r record) error {
	data, err := r.encode()
	if err != nil {
		return err
	}
	if again, err := decodeRecord(data); err != nil {
		return err // nor could Unmount read it
	} else if again != r { // JSON puts U+FFFD in place of what is not Unicode
		return errors.Errorf("%+v would be read as %+v", r, again)
	}
	return t.write(t.pendingPath(r.TargetKey), data)
}

func (t table) commit(r record) error {
	return t.rename(t.pendingPath(r.TargetKey), t.recordPath(r.TargetKey))
}

func (t table) write(path string, data []byte) error {
	file, err := t.open(path, createPrivate)
	if errors.Is(err, os.ErrExist) { // a killed process left it
		if err := t.remove(path); err != nil {
			return err
		}
		file, err = t.open(path, createPrivate)
	}
	if err != nil {
		return err
	}
	if len(data) > 0 {
		if _, err = file.Write(data); err == nil {
			err = file.Sync()
		}
	}
	return stderrors.Join(err, file.Close())
}

// drop takes a record out of the table. Until all is gone it is a pending one.
func (t table) drop(r record) error {
	err := t.rename(t.recordPath(r.TargetKey), t.pendingPath(r.TargetKey))
	for _, path := range []string{
		t.markPath(r),
		t.markPath(r) + closingSuffix,
		t.layerPath(r.SourceKey), // not empty while the layer is shown elsewhere
		t.pendingPath(r.TargetKey),
	} {
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) {
			break
		}
		err = t.remove(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Wrapf(err, "mount table: failed to forget %s", r.Target)
}

// list returns the keys of all targets that have a record, or a pending one, and
// an errDamaged for each file that is neither.
func (t table) list() (keys []key, foreign []error, err error) {
	entries, err := t.readDir(filepath.Join(t.dir, "mounts"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, errors.Wrap(err, "mount table")
	}
	for _, entry := range entries { // in order of their names, so that a key's two follow each other
		extension := filepath.Ext(entry.Name())
		target := key(strings.TrimSuffix(entry.Name(), extension))
		if !target.valid() || extension != ".json" && extension != ".pending" {
			path := filepath.Join(t.dir, "mounts", entry.Name())
			foreign = append(foreign, errors.WithStack(fmt.Errorf("mount table: %w %s: not as this package names it", errDamaged, path)))
			continue
		}
		if len(keys) == 0 || keys[len(keys)-1] != target {
			keys = append(keys, target)
		}
	}
	return keys, foreign, nil
}

// setClosing remembers that a record's layer is about to be closed. Should the
// process be killed then, the layer is half open.
func (t table) setClosing(r record) error {
	err := t.rename(t.markPath(r), t.markPath(r)+closingSuffix)
	if errors.Is(err, os.ErrNotExist) { // closing it has failed before
		return nil
	}
	return errors.Wrapf(err, "mount table: failed to record %s", r.Target)
}

// shown is what an empty file tells: a target at which a layer is shown, and
// whether the layer was about to be closed there.
type shown struct {
	target  key
	closing bool
}

// targets returns where a layer is shown. A process that was killed may have left
// a target that has no record.
func (t table) targets(source key) ([]shown, error) {
	entries, err := t.readDir(t.layerPath(source))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Wrap(err, "mount table")
	}
	var targets []shown
	for _, entry := range entries {
		target := key(strings.TrimSuffix(entry.Name(), closingSuffix))
		if !target.valid() {
			return nil, errors.Errorf("mount table: foreign file %s", filepath.Join(t.layerPath(source), entry.Name()))
		}
		targets = append(targets, shown{target, string(target) != entry.Name()})
	}
	return targets, nil
}

// others returns the records of the other targets at which r's layer is shown.
func (t table) others(r record) ([]record, error) {
	targets, err := t.targets(r.SourceKey)
	if err != nil {
		return nil, err
	}
	var others []record
	for _, at := range targets {
		if at.target == r.TargetKey {
			continue
		}
		other, err := t.read(at.target)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if other.SourceKey == r.SourceKey {
			other.closing = at.closing
			others = append(others, other)
		}
	}
	return others, nil
}
