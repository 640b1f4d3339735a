package mount

import (
	"context"
	stderrors "errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pkg/errors"
)

// layerType is the type of mount that a snapshotter hands out for a layer.
const layerType = "windows-layer"

// mounter carries out mounts over HCS and the table.
type mounter struct {
	hcs   hcs
	table table
}

// layer is what HCS has to know of a layer.
type layer struct {
	source  string
	parents []string
}

func (mt *mounter) all(ctx context.Context, mounts []Mount, target string) error {
	for i := range mounts {
		if err := mt.mount(ctx, &mounts[i], target); err != nil {
			// ctx may be why it failed, and must not keep the rest mounted.
			return withUndo(err, mt.unmountMounts(context.Background(), mounts[:i], target))
		}
	}
	return nil
}

func (mt *mounter) unmountMounts(ctx context.Context, mounts []Mount, target string) error {
	var errs []error
	for i := len(mounts) - 1; i >= 0; i-- {
		mountpoint, err := mounts[i].mountpoint(target)
		if errors.Is(err, os.ErrNotExist) { // unmounted before, with what it was in
			continue
		}
		if err == nil {
			err = mt.unmountAll(ctx, mountpoint)
		}
		errs = append(errs, err)
	}
	return stderrors.Join(errs...)
}

func (mt *mounter) mount(ctx context.Context, m *Mount, target string) error {
	l, err := m.layer()
	if err != nil {
		return err
	}
	target, err = m.mountpoint(target)
	if err != nil {
		return err
	}
	// The link gets the name that Unmount will find, where the target was given
	// by its 8.3 name.
	target = filepath.Join(filepath.Dir(target), longName(target))
	r := record{Target: target, Source: l.source, Base: len(l.parents) == 0}
	if r.Resolved, err = resolveTarget(target); err != nil {
		return err
	}
	r.TargetKey = keyOf(foldCase(r.Resolved))
	if r.SourceKey, err = sourceKey(l.source); err != nil {
		return err
	}
	if err := mt.table.prepare(); err != nil {
		return err
	}

	unlockTarget, err := mt.table.lockTarget(ctx, r.TargetKey)
	if err != nil {
		return err
	}
	defer unlockTarget()
	if err := mt.clear(ctx, r.TargetKey); err != nil {
		return err
	}
	err = mt.table.whileBusy(func() (err error) {
		r.Replaced, err = inspect(target)
		return err
	})
	if err != nil {
		return err
	}

	unlockSource, err := mt.table.lockSource(ctx, r.SourceKey)
	if err != nil {
		return err
	}
	defer unlockSource()
	return mt.show(ctx, l, r)
}

// layer returns the layer that m mounts, or why m is refused.
func (m *Mount) layer() (layer, error) {
	if m.Type != layerType {
		return layer{}, errors.Errorf("invalid windows mount type: '%s'", m.Type)
	}
	if err := checkSource(m.Source); err != nil {
		return layer{}, err
	}
	parents, err := m.GetParentPaths()
	return layer{filepath.Clean(m.Source), parents}, err
}

// clear makes way for a mount at target. A mount that is live is left alone and
// is an error; what a killed process or a reboot left is unmounted.
func (mt *mounter) clear(ctx context.Context, target key) error {
	r, unlock, err := mt.find(ctx, target)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	var shown bool
	err = mt.table.whileBusy(func() (err error) {
		shown, err = r.isShown()
		return err
	})
	if err != nil {
		return err
	}
	if shown {
		open, err := mt.isOpen(ctx, r)
		if err != nil {
			return err
		}
		if open {
			return errors.Wrapf(os.ErrExist, "failed to mount at %s: it shows layer %s", r.Target, r.Source)
		}
	}
	return mt.unmountRecord(r)
}

// find returns the record of a target, whose lock the caller holds, and locks
// its layer. The error matches os.ErrNotExist when there is no record.
func (mt *mounter) find(ctx context.Context, target key) (r record, unlock func(), err error) {
	r, err = mt.table.read(target)
	if errors.Is(err, os.ErrNotExist) {
		if sweepErr := mt.sweep(ctx, target); sweepErr != nil {
			err = sweepErr
		}
		return record{}, nil, err
	}
	if err != nil {
		return record{}, nil, err
	}
	unlock, err = mt.table.lockSource(ctx, r.SourceKey)
	return r.reachable(), unlock, err
}

// sweep drops a record that is pending since its process was killed: before HCS
// was called, or when the layer had been closed.
func (mt *mounter) sweep(ctx context.Context, target key) error {
	r, err := mt.table.readPending(target)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	unlock, err := mt.table.lockSource(ctx, r.SourceKey)
	if err != nil {
		return err
	}
	defer unlock()
	return mt.table.drop(r)
}

// isOpen tells whether the layer of a record is open. Only while it is does HCS
// know its volume. A read-only layer has none: its directory shows it, open or
// not.
func (mt *mounter) isOpen(ctx context.Context, r record) (bool, error) {
	var path string
	err := mt.retry(ctx, func() (err error) {
		path, err = mt.mountPath(r.Source)
		return err
	})
	switch {
	case err == nil:
		return strings.EqualFold(path, r.Volume), nil
	case isTransient(err) && ctx.Err() != nil:
		return false, err
	case isTransient(err):
		// Assumption: HCS may say so of a layer that is closed, too. The volume of
		// that has gone, and with it what the link leads to, which Windows then
		// does not find.
		_, statErr := os.Stat(r.link())
		if statErr == nil || errors.Is(statErr, os.ErrNotExist) {
			return statErr == nil, nil
		}
		return false, fmt.Errorf("%w (nor can its files tell whether it is open: %w)", err, statErr)
	case isNotOpen(err) || isAny(err, errorInvalidParameter):
		return false, nil
	}
	return false, err
}

// show opens the layer, unless another target shows it already, and puts the
// link at the target. Either all is done or nothing.
func (mt *mounter) show(ctx context.Context, l layer, r record) error {
	open, err := mt.shared(ctx, r)
	if err != nil {
		return err
	}
	if open != nil {
		// HCS knows the layer by the path it was opened with.
		r.Source, r.Volume = open.Source, open.Volume
	}
	if err := mt.table.add(r); err != nil {
		return withUndo(err, mt.table.drop(r))
	}
	if open == nil {
		if r.Volume, err = mt.openLayer(ctx, l); err != nil {
			var open *leftOpen
			if errors.As(err, &open) {
				return err // the record stays, for Unmount to close the layer
			}
			return withUndo(err, mt.table.drop(r))
		}
		if err := mt.table.update(r); err != nil {
			return withUndo(err, mt.release(r))
		}
	}
	if err := r.show(mt.table.whileBusy); err != nil {
		return withUndo(err, mt.release(r))
	}
	return nil
}

// shared returns the record of another target that shows r's layer, and nil
// when the layer is to be opened.
func (mt *mounter) shared(ctx context.Context, r record) (*record, error) {
	others, err := mt.table.others(r)
	if err != nil {
		return nil, err
	}
	var killed *record
	for i := range others {
		other := &others[i]
		if !other.isWhole() {
			killed = other
			continue
		}
		open, err := mt.isOpen(ctx, *other)
		if err != nil {
			return nil, err
		}
		if open {
			return other, nil
		}
		// The system was started again. Where it was not, and the layer is open
		// after all, activating it fails and harms nobody.
	}
	if killed == nil {
		return nil, nil
	}
	// Nobody can tell how far the killed process had come.
	return nil, mt.closeLayer(killed.Source)
}

// unmountAll unmounts path until nothing is left to unmount.
func (mt *mounter) unmountAll(ctx context.Context, path string) error {
	for {
		if found, err := mt.unmount(ctx, path); !found || err != nil {
			return err
		}
	}
}

// unmount unmounts what path stands for, a target or the directory of a layer,
// and tells whether the table knew it.
func (mt *mounter) unmount(ctx context.Context, path string) (found bool, err error) {
	if path == "" {
		return false, nil
	}
	path, err = absolute(path)
	if err != nil {
		return false, errors.WithMessage(err, "failed to unmount")
	}
	target, err := targetKey(path)
	if err != nil {
		return false, err
	}
	if found, err := mt.unmountTarget(ctx, target, ""); found || err != nil {
		return found, err
	}
	source, mounted, err := mt.asSource(ctx, path, target)
	if err != nil {
		return false, err
	}
	if mounted {
		return mt.unmount(ctx, path)
	}
	targets, err := mt.table.targets(source)
	if err != nil {
		return false, err
	}
	var errs []error
	for _, at := range targets {
		one, err := mt.unmountTarget(ctx, at.target, source)
		found = found || one
		errs = append(errs, err)
	}
	if err := stderrors.Join(errs...); found || err != nil {
		return found, err
	}
	if !isLayer(path) {
		return false, nil
	}
	mounted, err = mt.closeUnknown(ctx, path, source)
	if !mounted || err != nil {
		return false, err
	}
	return mt.unmount(ctx, path)
}

// unmountTarget unmounts the mount at a target, unless it shows another layer than
// source. That may be "", for any.
func (mt *mounter) unmountTarget(ctx context.Context, target, source key) (found bool, err error) {
	if !mt.table.has(target) {
		return false, nil
	}
	if err := mt.table.prepare(); err != nil {
		return false, err
	}
	unlockTarget, err := mt.table.lockTarget(ctx, target)
	if err != nil {
		return false, err
	}
	defer unlockTarget()
	r, unlockSource, err := mt.find(ctx, target)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unlockSource()
	if source != "" && source != r.SourceKey {
		return false, nil // mounted since somebody looked
	}
	return true, mt.unmountRecord(r)
}

// asSource returns the key of the layer whose directory path may be, which is no
// target, or tells that it has become one.
func (mt *mounter) asSource(ctx context.Context, path string, target key) (source key, mounted bool, err error) {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && (info.IsDir() || info.Mode().IsRegular()) {
		return target, false, nil // which is what sourceKey gives for it
	}
	if err != nil {
		return "", false, errors.Wrapf(err, "failed to resolve %s", path)
	}
	if _, err := os.Lstat(mt.table.dir); errors.Is(err, os.ErrNotExist) {
		return target, false, nil // nothing is mounted, wherever it leads
	}
	// A link is followed under the lock of its target: one that Mount makes leads
	// to a layer too, which other targets may show.
	if err := mt.table.prepare(); err != nil {
		return "", false, err
	}
	unlock, err := mt.table.lockTarget(ctx, target)
	if err != nil {
		return "", false, err
	}
	defer unlock()
	if mt.table.has(target) {
		return "", true, nil
	}
	source, err = sourceKey(path)
	return source, false, err
}

// unmountRecord undoes the mount that r records. What it could not undo is in
// the error, and then the record stays.
func (mt *mounter) unmountRecord(r record) error {
	if err := mt.table.whileBusy(r.hide); err != nil {
		return err
	}
	return mt.release(r)
}

// release closes the layer of a record when no other target shows it, puts the
// directory back that the link replaced, and forgets the record.
func (mt *mounter) release(r record) error {
	last, err := mt.isLast(r)
	if err != nil {
		return err
	}
	if last {
		if err := mt.table.setClosing(r); err != nil {
			return err
		}
		if err := mt.closeLayer(r.Source); err != nil {
			return err
		}
	}
	if err := mt.table.whileBusy(r.putBack); err != nil {
		return err
	}
	return mt.table.drop(r)
}

// isLast tells whether no other target shows r's layer. What a killed process
// left half done does not, nor what a reboot has left behind.
func (mt *mounter) isLast(r record) (bool, error) {
	others, err := mt.table.others(r)
	if err != nil {
		return false, err
	}
	for _, other := range others {
		if !other.isWhole() {
			continue
		}
		if r.Volume == "" || strings.EqualFold(other.Volume, r.Volume) {
			return false, nil
		}
		open, err := mt.isOpen(context.Background(), other)
		if open || err != nil {
			return false, err
		}
	}
	return true, nil
}

// closeUnknown closes a layer that other code may have opened, and tells whether
// it found that the layer was mounted meanwhile: then it does nothing.
func (mt *mounter) closeUnknown(ctx context.Context, path string, source key) (mounted bool, err error) {
	if err := checkSource(path); err != nil {
		return false, err
	}
	if err := mt.table.prepare(); err != nil {
		return false, err
	}
	unlock, err := mt.table.lockSource(ctx, source)
	if err != nil {
		return false, err
	}
	defer unlock()
	others, err := mt.table.others(record{SourceKey: source})
	if err != nil || len(others) > 0 {
		return len(others) > 0, err
	}
	return false, mt.closeLayer(path)
}
