package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/pkg/errors"
)

const layerType = "windows-layer" // the type of mount that a snapshotter hands out for a layer

// mounter carries out mounts over HCS, the bind filter and the table.
type mounter struct {
	hcs    hcs
	filter bindFilter
	table  *table
	boot   string // the start of the system, see record.Boot
	binds  bool   // shows layers by bindings, and not by links
}

// withMounter calls do with a mounter for the HCS and the mount table of this machine.
func withMounter(do func(mt *mounter) error) error {
	mt, err := newMounter()
	if err != nil {
		return err
	}
	return do(mt)
}

// mount opens a layer, unless it is open, and shows it at a target by a link or a binding.
func (mt *mounter) mount(ctx context.Context, m *Mount, path string) error {
	r, err := m.record()
	if err != nil {
		return err
	}
	path, err = absoluteTarget(path)
	if err != nil {
		return err
	}
	at, err := newTarget(path)
	if err != nil {
		return err
	}
	r.Boot = mt.boot
	if mt.binds {
		if err := stderrors.Join(mt.filter.Find(), mt.checkCover(&r, &at)); err != nil {
			return err
		}
		at.Bound, at.ReadOnly = mt.boot, slices.Contains(m.Options, "ro")
	}
	unlockTarget, err := mt.table.lockTarget(at.Key)
	if err != nil {
		return err
	}
	defer unlockTarget()
	if _, err := mt.withEntry(at.Key, mt.makeWay); err != nil {
		return err
	}
	if err := mt.inspect(&at); err != nil {
		return err
	}
	unlockLayer, err := mt.table.lockLayer(r.Key)
	if err != nil {
		return err
	}
	defer unlockLayer()
	return mt.show(ctx, r, at)
}

// record returns the record of the layer that m mounts, as far as m tells, or why m is refused.
func (m *Mount) record() (record, error) {
	if err := checkType(m.Type); err != nil {
		return record{}, err
	}
	if err := checkSource(m.Source); err != nil {
		return record{}, err
	}
	parents, err := m.GetParentPaths()
	if err != nil {
		return record{}, err
	}
	source := filepath.Clean(m.Source)
	resolved, layer, err := resolveSource(source)
	return record{Key: layer, Source: source, Resolved: resolved, Parents: parents, ReadOnly: isReadOnly(source)}, err
}

// makeWay makes way for a mount at a target that is on record: what a killed process or a restart
// of the system left is unmounted. A mount that is live is left alone and is an error.
func (mt *mounter) makeWay(e *entry, at *target) error {
	// A binding is not looked for: whether it is listed under the name of the target is no proof.
	there := at.Bound == mt.boot && !isGone(at.Resolved)
	if at.Bound == "" {
		var err error
		if there, err = e.isLinked(at); err != nil {
			return err
		}
	}
	if there && at.Shown && mt.isOpen(&e.record) {
		return errors.Wrapf(os.ErrExist, "failed to mount at %s: it shows layer %s", at.Path, e.Source)
	}
	return mt.takeAway(e, at)
}

// inspect refuses a target at which the layer cannot be shown.
func (mt *mounter) inspect(at *target) error {
	err := mt.table.whileBusy(at.inspect)
	if err == nil && at.Bound != "" && !at.Made {
		err = mt.checkUnbound(at)
	}
	return err
}

// show opens the layer, unless another target shows it already, and shows it at the target.
func (mt *mounter) show(ctx context.Context, r record, at target) error {
	e, err := mt.table.entry(r.Key)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	shared := err == nil && e.isShown() && mt.isOpen(&e.record)
	if err == nil && !shared {
		// It is half open, or the system was started again, or other code closed it.
		err := mt.takeAway(e, nil)
		if err == nil {
			err = mt.inspect(&at) // where it may have put a directory back
		}
		if err != nil {
			return err
		}
	}
	if !shared {
		// ActivateLayer may let a layer pass that other code has open, and PrepareLayer then
		// refuses it. To undo the one would close the layer for the other.
		if volume := mt.openElsewhere(ctx, r.Source); volume != "" {
			return errors.Wrapf(errorSharingViolation, "failed to open layer %s: it is open already, as %s", r.Source, volume)
		}
		e = &entry{record: r, table: mt.table}
	}
	defer e.close()
	e.Targets = append(slices.DeleteFunc(e.Targets, func(old target) bool { return old.Key == at.Key }), at)
	if err = mt.table.addIndex(at.Key, r.Key); err == nil {
		err = e.save(true)
	}
	if err != nil {
		return withUndo(err, stderrors.Join(mt.table.sweep(r.Key), mt.table.removeIndex(at.Key)))
	}
	if !shared {
		err = mt.openLayer(ctx, &e.record)
		if errors.Is(err, errLeftOpen) {
			return withUndo(err, e.save(true)) // for Unmount to close the layer
		}
		if err != nil {
			return withUndo(err, e.drop())
		}
		err = e.save(true)
	}
	added := e.at(at.Key)
	switch {
	case err != nil:
		if added.Bound != "" {
			added.Bound = neverBound
		}
	case added.Bound != "":
		err = mt.bind(&e.record, added)
	default:
		err = e.link(added, mt.table.pause)
		added.Linked = !isGone(added.Resolved)
	}
	if err == nil {
		added.Shown = true
		err = e.save(false)
	}
	if err != nil {
		added.Shown = false
		return withUndo(err, mt.takeAway(e, added))
	}
	return nil
}

// unmountAll unmounts path until nothing is left to unmount.
func (mt *mounter) unmountAll(path string) error {
	for {
		if found, err := mt.unmount(path); !found || err != nil {
			return err
		}
	}
}

// unmount unmounts what path stands for, a target or the directory of a layer, and reports whether
// it was a target.
func (mt *mounter) unmount(path string) (found bool, err error) {
	if path == "" {
		return false, nil
	}
	path, err = absolute(path)
	if err != nil {
		return false, errors.WithMessage(err, "failed to unmount")
	}
	at, err := newTarget(path)
	if err != nil {
		return false, err
	}
	if found, err := mt.unmountTarget(at.Key); found || err != nil {
		return found, err
	}
	_, layer, err := resolveSource(path)
	if err != nil {
		return false, err
	}
	if there, err := mt.table.isThere(); err != nil || !there && !isLayer(path) {
		return false, err
	}
	if layer != at.Key {
		// Path is a link. Mount makes such a link, too, to a layer that other targets
		// may show, but not while somebody else has the lock of its target.
		unlock, err := mt.table.lockTarget(at.Key)
		if err != nil {
			return false, err
		}
		defer unlock()
		if found, err := mt.withEntry(at.Key, mt.takeAway); found || err != nil {
			return found, err
		}
		if _, layer, err = resolveSource(path); err != nil {
			return false, err
		}
	}
	return false, mt.unmountSource(path, layer)
}

// unmountTarget unmounts the mount at a target, and reports whether there was one.
func (mt *mounter) unmountTarget(target key) (found bool, err error) {
	if there, err := mt.table.isThere(); !there || err != nil {
		return false, err
	}
	found, err = mt.withEntry(target, mt.takeAway)
	if found || err != nil || isGone(mt.table.indexPath(target)) {
		return found, err
	}
	// The index has no content, after a power failure or because its process was killed.
	unlock, err := mt.table.lockTarget(target) // but for a Mount that is writing it
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, err := mt.table.layerAt(target); !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return false, mt.table.removeIndex(target)
}

// withEntry calls do with the record of the layer that is shown at a target, under the
// lock of the layer, and reports whether there is one.
func (mt *mounter) withEntry(target key, do func(e *entry, at *target) error) (found bool, err error) {
	layer, err := mt.table.layerAt(target)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	unlock, err := mt.table.lockLayer(layer)
	if err != nil {
		return false, err
	}
	defer unlock()
	e, err := mt.table.entry(layer)
	if err == nil {
		defer e.close()
		if at := e.at(target); at != nil {
			return true, do(e, at)
		}
	} else if errors.Is(err, os.ErrNotExist) {
		err = mt.table.sweep(layer)
	}
	// A process was killed before it had the record, or after it had dropped it.
	if now, indexErr := mt.table.layerAt(target); err == nil && indexErr == nil && now == layer {
		err = mt.table.removeIndex(target)
	}
	return false, err
}

// unmountSource unmounts the layer in the directory path from all its targets, and closes it also
// where the table does not know it.
func (mt *mounter) unmountSource(path string, layer key) error {
	unlock, err := mt.table.lockLayer(layer)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := mt.table.entry(layer)
	if err == nil {
		return mt.takeAway(e, nil)
	}
	damaged := errors.Is(err, errDamaged) // nobody knows where the layer is shown
	if !damaged && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err = nil
	if damaged || isLayer(path) {
		if err = checkSource(path); err == nil {
			err = mt.closeLayer(&record{Source: path, ReadOnly: isReadOnly(path)}, damaged)
		}
	}
	if err == nil && damaged {
		err = mt.table.remove(mt.table.layerPath(layer))
	}
	if err != nil {
		return err
	}
	return mt.table.sweep(layer)
}

// takeAway takes a layer from one of its targets, or from all when that is nil. It
// closes the layer with the last target that shows it. What it could not do is in the
// error, and then the record stays, so that it can be tried again.
func (mt *mounter) takeAway(e *entry, one *target) error {
	defer e.close()
	// Where the volume has gone other code has closed the layer, and may have opened it again.
	ours := e.Boot == mt.boot && (!e.isShown() || mt.isOpen(&e.record))
	leaves := func(at target) bool { return one == nil || at.Key == one.Key }
	rest := record{Targets: slices.DeleteFunc(slices.Clone(e.Targets), leaves)}
	if !ours || !rest.isShown() {
		rest.Targets = nil // what is left of mounts that were killed goes too
	}
	var leaving []*target
	for i := range e.Targets {
		if at := &e.Targets[i]; rest.at(at.Key) == nil {
			leaving = append(leaving, at)
		}
	}
	err := mt.leave(e, leaving)
	if len(rest.Targets) == 0 {
		if ours {
			if closeErr := mt.closeLayer(&e.record, true); closeErr != nil {
				return stderrors.Join(err, closeErr, e.save(false))
			}
		}
		if e.Boot = ""; err == nil { // should the record stay: the layer is closed
			return e.drop()
		}
	}
	if err != nil {
		return stderrors.Join(err, e.save(false))
	}
	e.Targets = rest.Targets
	err = e.save(false)
	for i := 0; i < len(leaving) && err == nil; i++ {
		err = mt.table.removeIndex(leaving[i].Key)
	}
	return err
}

// leave makes targets of a layer as they were before it was shown there.
func (mt *mounter) leave(e *entry, targets []*target) error {
	// First goes on record that a link has gone already, whose directory is not ours to
	// put back, and what is about to go.
	for _, at := range targets {
		if at.Shown && at.Linked && at.Replaced {
			linked, err := e.isLinked(at)
			at.Restored = !linked && err == nil
		}
		at.Shown = false
	}
	// Should that fail, as on a full disk, the layer is closed all the same: only a
	// process that is killed meanwhile leaves less than it should.
	markErr := e.save(false)
	var errs []error
	for _, at := range targets {
		err := mt.hide(&e.record, at)
		if at.Restored = at.Restored || err == nil; err != nil {
			errs = append(errs, err, markErr)
		}
	}
	return stderrors.Join(errs...)
}

// hide takes the layer from a target, at which is then what was there before.
func (mt *mounter) hide(r *record, at *target) error {
	if at.Bound == "" {
		return mt.table.whileBusy(func() error { return r.unlink(at) })
	}
	if at.Restored || r.Volume == "" {
		return nil // it was not bound, and its directory not made, before the volume was on record
	}
	switch {
	case mt.filter.Find() != nil: // then nothing is bound
	case at.Bound == mt.boot:
		if err := mt.unbind(r, at); err != nil {
			return err
		}
	case at.Made && len(mt.boundAt(at)) > 0:
		at.Made = false // another program uses it: to remove it might remove what is bound
	}
	if !at.Made {
		return nil
	}
	err := mt.table.whileBusy(func() error { return removeEmptyDir(at.Resolved) })
	return errors.Wrap(err, "failed to remove the directory that was made for a binding")
}
