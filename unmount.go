package mount

import (
	"cmp"
	stderrors "errors"
	"path/filepath"
	"slices"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// unmountAll unmounts path until nothing is left to unmount, and reports whether it was a target.
func (e *engine) unmountAll(path string) (wasTarget bool, err error) {
	for {
		again, err := e.unmount(path)
		if wasTarget = wasTarget || again; !again || err != nil {
			return wasTarget, err
		}
	}
}

// unmount unmounts what is at path, which is a target or the directory of a layer, and reports whether it was
// a target.
func (e *engine) unmount(path string) (wasTarget bool, err error) {
	if path == "" {
		return false, nil
	}
	path, err = winpath.Abs(path)
	if err != nil {
		return false, errors.WithMessage(err, "failed to unmount")
	}
	target, parent, resolveErr := winfs.ResolveParent(path) // as far as it can be resolved
	wasTarget, err = e.unmountTarget(table.KeyOf(target), nil)
	if err == nil {
		var wasForeign bool
		wasForeign, err = e.unmountForeign(target.Path, table.KeyOf(target))
		wasTarget = wasTarget || wasForeign
	}
	if wasTarget || err != nil {
		return wasTarget, err
	}
	if !parent.IsDir {
		if wasTarget, err := e.unmountLost(path); wasTarget || err != nil {
			return wasTarget, err
		}
	}
	dir, err := winfs.Resolve(path)
	if err = cmp.Or(resolveErr, err); err != nil {
		return false, errors.WithMessagef(err, "failed to unmount %s", path)
	}
	if !winpath.Equal(dir.Path, target.Path) {
		// The path is a link. What it leads to may be the Source of a layer. A layer that is in no record may
		// be what other code shows by the link.
		if names, err := e.table.Of(table.KeyOf(dir)); err != nil || len(names) == 0 {
			return false, err
		}
		// A concurrent Mount may be creating the link, for a layer that has other targets: wait for its lock
		// and look again.
		unlock, err := e.table.LockTarget(table.KeyOf(target))
		if err != nil {
			return false, err
		}
		wasTarget, err := e.unmountTarget(table.KeyOf(target), nil)
		unlock()
		if wasTarget || err != nil {
			return wasTarget, err
		}
		if dir, err = winfs.Resolve(path); err != nil {
			return false, errors.WithMessagef(err, "failed to unmount %s", path)
		}
	}
	return false, e.unmountLayer(path, dir)
}

// unmountTarget unmounts what is mounted at a target, and reports whether anything was. A mount for which check
// returns an error stays; check may be nil.
func (e *engine) unmountTarget(target table.Key, check func(r *table.Mount) error) (wasTarget bool, err error) {
	names, err := e.table.At(target)
	if err != nil {
		return false, err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, e.unmountOne(name, check))
	}
	return len(names) > 0, stderrors.Join(errs...)
}

// unmountForeign unmounts what containerd's own package has mounted at a target, and reports whether anything was. It
// may have done so after this package: what is on record for the target may be of an earlier start of Windows.
func (e *engine) unmountForeign(path string, key table.Key) (wasTarget bool, err error) {
	wasTarget, err = e.adopt(path, key)
	if wasTarget {
		_, unmountErr := e.unmountTarget(key, nil)
		err = stderrors.Join(err, unmountErr)
	}
	return wasTarget, err
}

// unmountLost unmounts what is mounted at path, if path does not tell where that is: a link on its way is gone. For
// example, a layer was shown by a link, a second one was mounted in it, and somebody has removed the link.
func (e *engine) unmountLost(path string) (wasTarget bool, err error) {
	target, parent, err := winfs.ResolveParent(path)
	lost, unread, err := e.search(err != nil || !parent.IsDir, func(p string) bool {
		return winpath.Equal(p, target.Path) || winpath.Equal(p, path)
	})
	errs := append(slices.DeleteFunc(unread, isDamaged), err)
	for _, r := range lost {
		errs = append(errs, e.unmountOne(r.Name, nil))
	}
	return len(lost) > 0, stderrors.Join(errs...)
}

// isDamaged reports whether an error is about a damaged file. Where its target lies is not known.
func isDamaged(err error) bool { return errors.Is(err, table.ErrDamaged) }

func (e *engine) unmountOne(name table.Name, check func(r *table.Mount) error) error {
	l, err := e.lockLayer(name.LayerKey)
	if err != nil {
		return err
	}
	defer l.unlock()
	sinceErr := e.addSince(l, name) // an error does not keep the layer open
	for _, r := range l.mounts {
		if r.Name != name {
			continue
		}
		if check != nil {
			if err := cmp.Or(check(r), sinceErr); err != nil {
				return err
			}
		}
		closeErr, hideErr := e.leave(l, r)
		return stderrors.Join(sinceErr, hideErr, closeErr)
	}
	err = l.damaged[name] // or nil, if it was unmounted meanwhile
	if err != nil && check == nil && name.LayerKey == name.TargetKey.OfNoLayer() {
		err = stderrors.Join(err, e.table.Discard(name)) // no layer has a directory by which it could be unmounted
	}
	return err
}

// unmountLayer unmounts the layer in dir, which the caller calls path, from all its targets, and closes it.
// Other code may have opened a layer that is in no record: HCS is asked to close it, too.
func (e *engine) unmountLayer(path string, dir winfs.Name) error {
	key := table.KeyOf(dir)
	names, err := e.table.Of(key)
	if err != nil {
		return err
	}
	isLayer := dir.IsDir && hcs.IsLayer(path)
	if len(names) == 0 && !isLayer {
		return nil
	}
	// If the layer were closed under a binding of containerd's, nobody could list bindings any more.
	errs := e.adoptEach(filepath.Dir(dir.Path), func(_ string, layer table.Key) bool { return layer == key })
	l, err := e.lockLayer(key)
	if err != nil {
		return err
	}
	defer l.unlock()
	closeErr, hideErr := e.leave(l, l.mounts...)
	errs = append(errs, hideErr, closeErr)
	isOurs := l.unknown != nil
	if isOurs || len(l.mounts)+len(l.damaged) == 0 && !slices.ContainsFunc(names, e.table.IsStale) {
		closeErr = e.closeUnknown(path, dir, isOurs)
		errs = append(errs, closeErr)
	}
	for name := range l.damaged { // whose targets are not known
		if closeErr == nil || e.table.IsStale(name) {
			errs = append(errs, e.table.Discard(name))
		}
	}
	return stderrors.Join(errs...)
}

// closeUnknown closes a layer that may be open, though no record tells how it was opened. IsOurs is set if this
// package has opened it; otherwise nothing says that it has ever been open, and that HCS refuses to close it is no
// error.
func (e *engine) closeUnknown(path string, dir winfs.Name, isOurs bool) error {
	layer := &hcs.Layer{Dir: layerDir(path, dir)}
	if err := winpath.CheckLayer(layer.Dir); err != nil {
		return errors.WithMessage(err, "invalid layer source")
	}
	layer.Disk = hcs.DiskOf(layer.Dir)
	if isOurs {
		return e.layers.Close(layer)
	}
	if err := e.layers.CloseUnknown(layer); err != nil && hcs.IsVolume(layer.Volume) {
		return err
	}
	return nil
}

// unmountBelow unmounts what is mounted below dir, the deepest first, and calls then with each mount that is gone. It
// returns an error for each that fails, and for each file of the table that cannot be read.
func (e *engine) unmountBelow(dir string, then func(r *table.Mount) error) (failed []error, err error) {
	if name, err := winfs.Resolve(dir); err == nil { // or nothing can be bound there
		failed = e.adoptEach(name.Path, func(target string, _ table.Key) bool { return isBelow(target, name.Path) })
	}
	mounts, unread, err := e.below(dir)
	if err != nil {
		return failed, err
	}
	failed = append(failed, unread...)
	for _, r := range mounts {
		err := e.unmountOne(r.Name, nil)
		if err == nil {
			_, err = e.unmountForeign(r.Resolved, r.TargetKey)
		}
		if err == nil {
			err = then(r)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed, nil
}

func (e *engine) unmountRecursive(path string) error {
	if path == "" {
		return nil
	}
	failed, err := e.unmountBelow(path, func(*table.Mount) error { return nil })
	failed = slices.DeleteFunc(failed, isDamaged)
	_, targetErr := e.unmountAll(path)
	return stderrors.Join(append(failed, err, targetErr)...)
}

// unmountMounts unmounts the mounts at target, the last first. It goes on after a failure.
func (e *engine) unmountMounts(mounts []Mount, target string) error {
	var errs []error
	for _, m := range slices.Backward(mounts) {
		path, err := m.mountpoint(target)
		if err == nil {
			var wasTarget bool
			if wasTarget, err = e.unmountAll(path); !wasTarget && err == nil && m.Target != "" {
				_, err = e.unmountLost(path)
			}
		}
		errs = append(errs, err)
	}
	return stderrors.Join(errs...)
}
