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

// mounter mounts and unmounts layers: it takes the steps in order, each of which goes on record before it
// is taken, and undoes them in reverse. Only an Unmount goes on when it cannot write the record, as on a
// full disk.
type mounter struct {
	opener
	binder
	table *table
	boot  string // the start of the system, see record.Boot
	binds bool   // whether layers are shown by bindings, and not by links
}

// withMounter calls do with a mounter for the HCS and the mount table of this machine.
func withMounter(do func(mt *mounter) error) error {
	mt, err := newMounter()
	if err != nil {
		return err
	}
	return do(mt)
}

// mount opens a layer, unless it is open, and shows it at a target.
func (mt *mounter) mount(ctx context.Context, m *Mount, path string) error {
	r, err := newRecord(m)
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
		if err := stderrors.Join(mt.filter.Find(), mt.checkHides(&r, &at)); err != nil {
			return err
		}
		at.Bound, at.ReadOnly = mt.boot, slices.Contains(m.Options, "ro")
	}
	unlockTarget, err := mt.table.lockTarget(at.Key)
	if err != nil {
		return err
	}
	defer unlockTarget()
	if _, err := mt.withEntry(at.Key, mt.clearTarget); err != nil {
		return err
	}
	if err := mt.checkTarget(&at); err != nil {
		return err
	}
	unlockLayer, err := mt.table.lockLayer(r.Key)
	if err != nil {
		return err
	}
	defer unlockLayer()
	return mt.openAndShow(ctx, r, at)
}

// newRecord returns the record of the layer that m mounts, as far as m tells, or why m is refused.
func newRecord(m *Mount) (record, error) {
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

// checkHides refuses a target where a binding would hide files that are needed. Otherwise HCS could not
// find the layer or its parents, other processes could not find the table, and Unmount could not find a
// target below.
func (mt *mounter) checkHides(r *record, at *target) error {
	needed := []string{r.Source, r.Resolved}
	for _, given := range append([]string{mt.table.dir}, r.Parents...) {
		resolved, _, _, err := canonical(given)
		if err != nil {
			return errors.WithMessagef(err, "failed to mount at %s", at.Path)
		}
		needed = append(needed, given, resolved)
	}
	covered := barePath(at.Resolved)
	for _, path := range needed {
		if path = barePath(path); isIn(path, covered) || isIn(covered, path) {
			return errors.Errorf("failed to mount at %s: it would hide files of %s", at.Path, path)
		}
	}
	if isEmpty(at.Resolved) {
		return nil // as most targets are: the whole table need not be read
	}
	below, _, err := mt.table.below(at.Path)
	if err == nil && len(below) > 0 {
		err = errors.Wrapf(os.ErrExist, "failed to mount at %s: layers are mounted in it, such as at %s", at.Path, below[0].Path)
	}
	return err
}

// clearTarget unmounts what a killed process or a restart of the system left at a target that is on
// record. A live mount is refused.
func (mt *mounter) clearTarget(e *entry, at *target) error {
	// A binding is not looked up in the list: it may be listed by another name.
	isPresent := at.Bound == mt.boot && !isGone(at.Resolved)
	if at.Bound == "" {
		var err error
		if isPresent, err = at.isLinked(&e.record); err != nil {
			return err
		}
	}
	if isPresent && at.Shown && mt.isOpen(&e.record) {
		return errors.Wrapf(os.ErrExist, "failed to mount at %s: it shows layer %s", at.Path, e.Source)
	}
	return mt.unmountFrom(e, at)
}

// checkTarget refuses a target that is in use, and fills in what is there.
func (mt *mounter) checkTarget(at *target) error {
	err := mt.table.pause.whileBusy(at.inspect)
	if err == nil && at.Bound != "" && !at.Made {
		err = mt.checkUnbound(at)
	}
	return err
}

// openAndShow opens the layer, unless another target shows it, and shows it at the target.
func (mt *mounter) openAndShow(ctx context.Context, r record, at target) error {
	e, err := mt.openEntry(r.Key, &at)
	if err != nil {
		return err
	}
	isOpen := e != nil
	if !isOpen {
		// ActivateLayer may succeed for a layer that other code has open, and PrepareLayer then
		// fails. To undo ActivateLayer would close the layer for the other code.
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
		return withUndo(err, stderrors.Join(mt.table.sweep(r.Key), mt.table.remove(mt.table.indexPath(at.Key))))
	}
	added := e.targetAt(at.Key)
	if !isOpen {
		if err = mt.openLayer(ctx, &e.record); err == nil {
			err = e.save(true)
		} else if !errors.Is(err, errLeftOpen) {
			return withUndo(err, e.drop())
		}
		if err != nil && added.Bound != "" {
			added.Bound, added.Made = neverBound, false
		}
		if errors.Is(err, errLeftOpen) {
			return withUndo(err, e.save(true)) // so that Unmount can close the layer
		}
	}
	if err == nil {
		err = mt.showAt(e, added)
	}
	if err == nil {
		added.Shown = true
		err = e.save(false)
	}
	if err != nil {
		added.Shown = false
		return withUndo(err, mt.unmountFrom(e, added))
	}
	return nil
}

// openEntry returns the entry of a layer that is open and shown at a target, or nil when the layer
// has to be opened. What is left of an earlier mount of the layer is cleared away first.
func (mt *mounter) openEntry(layer key, at *target) (*entry, error) {
	e, err := mt.table.entry(layer)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if e.isShown() && mt.isOpen(&e.record) {
		return e, nil
	}
	// It is half open, or was opened before a restart, or other code has closed it.
	if err := mt.unmountFrom(e, nil); err != nil {
		return nil, err
	}
	return nil, mt.checkTarget(at) // at which unmountFrom may have put a directory back
}

// showAt links or binds the open layer to a target.
func (mt *mounter) showAt(e *entry, at *target) error {
	if at.Bound != "" {
		return mt.bind(&e.record, at)
	}
	err := at.link(&e.record, mt.table.pause)
	at.Linked = !isGone(at.Resolved)
	return err
}

// isOpen reports whether the layer of a record is open, as far as can be known.
func (mt *mounter) isOpen(r *record) bool { return r.Boot == mt.boot && mt.mayBeOpen(r) }

// unmountAll unmounts path until nothing is left to unmount.
func (mt *mounter) unmountAll(path string) error {
	for {
		if wasTarget, err := mt.unmount(path); !wasTarget || err != nil {
			return err
		}
	}
}

// unmount unmounts what is at path, which is a target or the directory of a layer, and reports whether it
// was a target.
func (mt *mounter) unmount(path string) (wasTarget bool, err error) {
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
	if wasTarget, err := mt.unmountTarget(at.Key); wasTarget || err != nil {
		return wasTarget, err
	}
	_, layer, err := resolveSource(path)
	if err != nil {
		return false, err
	}
	if exists, err := mt.table.holdIfThere(); err != nil || !exists && !isLayer(path) {
		return false, err
	}
	if layer != at.Key {
		// The path is a link. A Mount may be making it at this instant, to a layer that has other
		// targets. That Mount holds the lock of the target until it is done.
		unlock, err := mt.table.lockTarget(at.Key)
		if err != nil {
			return false, err
		}
		defer unlock()
		if wasTarget, err := mt.withEntry(at.Key, mt.unmountFrom); wasTarget || err != nil {
			return wasTarget, err
		}
		if _, layer, err = resolveSource(path); err != nil {
			return false, err
		}
	}
	return false, mt.unmountSource(path, layer)
}

// unmountTarget unmounts the mount at a target, and reports whether there was one.
func (mt *mounter) unmountTarget(target key) (wasTarget bool, err error) {
	if exists, err := mt.table.holdIfThere(); !exists || err != nil {
		return false, err
	}
	wasTarget, err = mt.withEntry(target, mt.unmountFrom)
	if wasTarget || err != nil || isGone(mt.table.indexPath(target)) {
		return wasTarget, err
	}
	// The file of the index has no content, because the power failed or its process was killed, or
	// because a Mount is writing it at this instant. Such a Mount holds the lock.
	unlock, err := mt.table.lockTarget(target)
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, err := mt.table.layerAt(target); !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return false, mt.table.remove(mt.table.indexPath(target))
}

// withEntry calls do with the entry of the layer that is shown at a target, under the lock of the
// layer, and reports whether there is one.
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
		if at := e.targetAt(target); at != nil {
			return true, do(e, at)
		}
	} else if errors.Is(err, os.ErrNotExist) {
		err = mt.table.sweep(layer)
	}
	// The process that wrote the index was killed before it wrote the record, or after it dropped it.
	if now, indexErr := mt.table.layerAt(target); err == nil && indexErr == nil && now == layer {
		err = mt.table.removeIndex(target, layer)
	}
	return false, err
}

// unmountSource unmounts the layer in the directory path from all its targets, and closes it. A layer
// that is in no record is closed as well.
func (mt *mounter) unmountSource(path string, layer key) error {
	unlock, err := mt.table.lockLayer(layer)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := mt.table.entry(layer)
	if err == nil {
		return mt.unmountFrom(e, nil)
	}
	isDamaged := errors.Is(err, errDamaged) // then the targets of the layer are not known
	if !isDamaged && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err = nil
	if isDamaged || isLayer(path) {
		if err = checkSource(path); err == nil {
			r := &record{Source: path, ReadOnly: isReadOnly(path)}
			if isDamaged {
				err = mt.closeForCertain(r)
			} else if err = mt.closeLayer(r); errors.Is(err, errDoubtful) {
				err = nil // nothing says that it has ever been open
			}
		}
	}
	if err == nil && isDamaged {
		err = mt.table.remove(mt.table.layerPath(layer))
	}
	if err != nil {
		return err
	}
	return mt.table.sweep(layer)
}

// unmountFrom takes the layer of an entry away from one of its targets, or from all of them when only
// is nil. It closes the layer with the last target that shows it. After a failure the record stays, so that
// the unmount can be repeated.
func (mt *mounter) unmountFrom(e *entry, only *target) error {
	defer e.close()
	// If the volume is gone, other code has closed the layer, and may have opened it again.
	isOurs := e.Boot == mt.boot && (!e.isShown() || mt.isOpen(&e.record))
	rest := record{Targets: slices.DeleteFunc(slices.Clone(e.Targets), func(at target) bool { return only == nil || at.Key == only.Key })}
	if !isOurs || !rest.isShown() {
		rest.Targets = nil // those of mounts that were killed go with the last one
	}
	var leaving []*target
	for i := range e.Targets {
		if at := &e.Targets[i]; rest.targetAt(at.Key) == nil {
			leaving = append(leaving, at)
		}
	}
	err := mt.hideAll(e, leaving)
	if len(rest.Targets) == 0 {
		if isOurs {
			if closeErr := mt.closeForCertain(&e.record); closeErr != nil {
				return stderrors.Join(err, closeErr, e.save(false))
			}
		}
		if e.Boot = ""; err == nil { // should the record stay, it says that the layer is closed
			return e.drop()
		}
	}
	if err != nil {
		return stderrors.Join(err, e.save(false))
	}
	e.Targets = rest.Targets
	err = e.save(false)
	for i := 0; i < len(leaving) && err == nil; i++ {
		err = mt.table.removeIndex(leaving[i].Key, e.Key)
	}
	return err
}

// hideAll hides the layer at several targets.
func (mt *mounter) hideAll(e *entry, targets []*target) error {
	// First record which targets are about to change, and where the link is gone already: what somebody
	// else has put there stays.
	for _, at := range targets {
		if at.Shown && at.Linked && at.Replaced {
			linked, err := at.isLinked(&e.record)
			at.Restored = !linked && err == nil
		}
		if isGone(at.Resolved) {
			at.MadeID = "" // unbind may make the directory anew
		}
		at.Shown = false
	}
	// Should that fail, as on a full disk, the layer is closed all the same. Only if this process is
	// killed, too, may a directory be missing at a target.
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

// hide takes the layer away from a target and restores what was there before.
func (mt *mounter) hide(r *record, at *target) error {
	if at.Bound == "" {
		return mt.table.pause.whileBusy(func() error { return at.unlink(r) })
	}
	if at.Restored || r.Volume == "" {
		return nil // the target is bound, and its directory made, only once the volume is on record
	}
	switch {
	case mt.filter.Find() != nil: // without a filter nothing is bound
	case at.Bound == mt.boot:
		if err := mt.unbind(r, at); err != nil {
			return err
		}
	case at.Made && len(mt.boundTo(at)) > 0:
		at.Made = false // another program uses the directory: to remove it could remove what is bound
	}
	if !at.Made {
		return nil
	}
	err := mt.table.pause.whileBusy(at.removeMade)
	return errors.Wrap(err, "failed to remove the directory that was made for a binding")
}
