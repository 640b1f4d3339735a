package mount

import (
	"cmp"
	"context"
	stderrors "errors"
	"fmt"
	"os"
	"slices"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/retry"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
)

// engine mounts and unmounts layers. It records each step before taking it and undoes steps in reverse order.
// Mount stops if it cannot write the record. Unmount continues, so that a full disk does not keep layers open.
type engine struct {
	layers hcs.Layers
	filter bindFilter
	table  *table.Table
	pause  retry.Pause
	binds  bool // whether layers are shown by bindings, and not by links
}

// mount mounts m at target, or at the directory below it that m.Target names.
func (e *engine) mount(ctx context.Context, m *Mount, target string) error {
	p, err := e.plan(m, target)
	if err != nil {
		return err
	}
	unlockTarget, err := e.table.LockTarget(p.TargetKey)
	if err != nil {
		return err
	}
	defer unlockTarget()
	_, err = e.unmountTarget(p.TargetKey, e.checkNotLive)
	if err == nil {
		err = e.inspectTarget(p)
	}
	if err != nil {
		return errors.WithMessagef(err, "failed to mount at %s", p.Target)
	}
	l, err := e.lockLayer(p.LayerKey)
	if err != nil {
		return err
	}
	defer l.unlock()
	if err := e.shareLayer(l, p); err != nil {
		return err
	}
	r, err := e.table.Create(p.LayerKey, p.TargetKey, p.Record)
	if err != nil {
		return err
	}
	l.mounts = append(l.mounts, r)
	if err = e.open(ctx, r); err == nil {
		err = e.show(r)
	}
	if err == nil {
		r.State = table.Shown
		err = r.Save(false)
	}
	if err != nil {
		closeErr, hideErr := e.leave(l, r)
		return withUndo(err, stderrors.Join(hideErr, closeErr))
	}
	return nil
}

// lockedLayer is a layer whose lock this process holds, and its records. Nobody else can change them meanwhile.
type lockedLayer struct {
	mounts     []*table.Mount
	damaged    map[table.Name]error // why a file cannot be read: nothing tells what its mount is like
	unknown    error                // one of these, if that mount is of this start of Windows: the layer may be open
	unlockFile func()
}

func (e *engine) lockLayer(key table.Key) (*lockedLayer, error) {
	unlock, err := e.table.LockLayer(key)
	if err != nil {
		return nil, err
	}
	l := &lockedLayer{damaged: map[table.Name]error{}, unlockFile: unlock}
	names, err := e.table.Of(key)
	for _, name := range names {
		r, loadErr := e.table.Load(name)
		switch {
		case loadErr == nil && r.Target == "" && r.Remove() == nil: // its process was killed before it recorded anything
		case loadErr == nil:
			l.mounts = append(l.mounts, r)
		case isDamaged(loadErr):
			l.damaged[name] = loadErr
			if !e.table.IsStale(name) {
				l.unknown = loadErr
			}
		case !errors.Is(loadErr, os.ErrNotExist):
			err = loadErr
		}
	}
	if err != nil {
		l.unlock()
		return nil, err
	}
	return l, nil
}

func (l *lockedLayer) unlock() {
	for _, r := range l.mounts {
		r.Release()
	}
	l.unlockFile()
}

// checkNotLive returns an error that matches os.ErrExist for a mount that is live. Others are what a killed process
// or a restart of Windows has left, or what other code has unmounted.
func (e *engine) checkNotLive(r *table.Mount) error {
	isLive, err := e.isLive(r)
	if isLive {
		err = errors.Wrapf(os.ErrExist, "it shows %s", nameOf(r))
	}
	return err
}

// isLive reports whether a target shows the layer of its record.
func (e *engine) isLive(r *table.Mount) (bool, error) {
	if r.State != table.Shown || e.table.IsStale(r.Name) {
		return false, nil
	}
	isThere, err := e.isShown(r)
	if err != nil || !isThere || r.Type == bindType {
		return isThere, err
	}
	return e.layers.IsOpen(layerOf(r))
}

// shareLayer looks for another target that shows the layer. If there is one, the layer is not opened again,
// and p gets what the record of that mount has: Volume is set. Otherwise it clears away what is left of the
// layer's other mounts, and closes the layer if it may be half open. A target that cannot be cleared stays on
// record. The other target may be one of containerd's: see addSince.
func (e *engine) shareLayer(l *lockedLayer, p *table.Mount) error {
	sinceErr := e.addSince(l, table.Name{})
	for _, r := range l.mounts {
		if r.State != table.Shown || e.table.IsStale(r.Name) {
			continue
		}
		isOpen, err := e.layers.IsOpen(layerOf(r))
		if err != nil {
			return err
		}
		if isOpen && !e.isClosedByOthers(r) { // of a layer without a volume the former tells nothing
			p.Dir, p.Parents, p.Disk, p.Volume = r.Dir, r.Parents, r.Disk, r.Volume
			return nil
		}
	}
	if err := cmp.Or(l.unknown, sinceErr); err != nil {
		return err
	}
	closeErr, _ := e.leave(l, l.mounts...)
	return closeErr
}

// open opens the layer, unless another mount has, or there is none. If that fails, and the layer is closed again or
// was never opened, nothing is left to undo.
func (e *engine) open(ctx context.Context, r *table.Mount) error {
	if r.Volume != "" {
		return nil
	}
	layer := layerOf(r)
	mayBeOpen, err := e.layers.Open(ctx, layer)
	if r.Volume = layer.Volume; !mayBeOpen {
		r.State, r.Volume = table.Closed, ""
	}
	return err
}

// show shows the open layer at the target.
func (e *engine) show(r *table.Mount) error {
	if r.Binding {
		return e.bind(r)
	}
	// A link outlives a power failure: that it is ours must be on the disk before it.
	r.State = table.Linked
	if err := r.Save(true); err != nil {
		r.State = table.Opening
		return err
	}
	return e.link(r)
}

// isShown reports whether the link or the binding that Mount made is at the target.
func (e *engine) isShown(r *table.Mount) (bool, error) {
	switch {
	case !r.Binding:
		return isLinked(r)
	case r.Unseen:
		return true, nil // as far as can be known
	}
	isThere, err := e.findsLayer(r)
	if winfs.NotExist(err) {
		isThere, err = hasName(r.Resolved)
	}
	return isThere, errors.Wrap(err, "failed to look at the target")
}

// mayBeShown is isShown for callers to which a target that cannot be looked at counts as one that shows the layer.
func (e *engine) mayBeShown(r *table.Mount) bool {
	isThere, err := e.isShown(r)
	return isThere || err != nil
}

// leave unmounts some mounts of a layer: it hides the layer at their targets, closes it unless another target
// shows it, and removes the records. What fails at a target is in hideErr, and does not keep the layer from
// being closed. If the layer may still be open, closeErr says why. In both cases the record stays, so that
// Unmount can be repeated.
func (e *engine) leave(l *lockedLayer, leaving ...*table.Mount) (closeErr, hideErr error) {
	others := slices.DeleteFunc(slices.Clone(l.mounts), func(r *table.Mount) bool { return slices.Contains(leaving, r) || !e.mayBeOpen(r) })
	isLast := l.unknown == nil && slices.ContainsFunc(leaving, e.mayBeOpen) && !slices.ContainsFunc(others, e.needsLayer)
	leaving = slices.Clone(leaving)
	if isLast { // the layer is to be closed
		leaving, others = append(leaving, others...), nil
	}
	slices.SortStableFunc(leaving, func(a, b *table.Mount) int { return len(b.Resolved) - len(a.Resolved) }) // the deepest first
	hideErrs := make([]error, len(leaving))
	isBound := slices.ContainsFunc(others, func(r *table.Mount) bool { return r.Binding })
	for i, r := range leaving {
		hideErrs[i] = e.hide(r)
		if r.Binding && !isBound {
			e.removeSource(r)
		}
	}
	if isLast {
		closeErr = e.close(leaving, hideErrs)
	}
	for i, r := range leaving {
		switch {
		case closeErr != nil && e.mayBeOpen(r):
			if hideErrs[i] == nil && r.State != table.Opening {
				r.State = table.Opening // the target is as it was
				closeErr = stderrors.Join(closeErr, r.Save(false))
			}
		case hideErrs[i] == nil:
			r.State, r.Volume = table.Closed, ""
			if err := r.Remove(); err != nil { // then the record says that the layer is closed
				hideErrs[i] = stderrors.Join(err, r.Save(false))
			}
		case isLast:
			r.State = table.Closed
			hideErrs[i] = stderrors.Join(hideErrs[i], r.Save(false))
		}
	}
	return closeErr, stderrors.Join(hideErrs...)
}

// needsLayer reports whether a mount keeps its layer open. Only a mount that is Shown does: in any other state its
// process was killed, or its Unmount failed, since we hold the lock. A binding that is gone does not either. For
// example, containerd's own package has unmounted it.
func (e *engine) needsLayer(r *table.Mount) bool {
	return r.State == table.Shown && (!r.Binding || e.mayBeShown(r))
}

// mayBeOpen reports whether the layer of a mount may be open because of that mount. A mount of type bind has no
// layer.
func (e *engine) mayBeOpen(r *table.Mount) bool {
	return r.State != table.Closed && !e.table.IsStale(r.Name) && r.Type != bindType
}

// hide takes the layer away from a target, and restores what was there. First it records that it is about to. If
// it cannot because the disk is full, it hides the layer all the same. The cost: if this process is then killed, the
// directory that a link replaced may not come back.
func (e *engine) hide(r *table.Mount) (err error) {
	var saveErr error
	if r.State == table.Shown || r.State == table.Linked {
		if r.State == table.Shown && r.Directory && !r.Binding {
			isThere, err := isLinked(r)
			r.Directory = isThere || err != nil // if somebody has removed the link, nothing is put back
		}
		r.State = table.Leaving
		saveErr = r.Save(false)
	}
	switch {
	case r.Volume == "": // nothing has been done there, or all is undone
	case r.State == table.Opening:
		err = e.removeMade(r)
	case r.Binding:
		err = e.unbind(r)
	default:
		err = e.unlink(r)
	}
	if err != nil {
		err = stderrors.Join(err, saveErr)
	}
	return err
}

// close closes the layer of some mounts that have been hidden.
func (e *engine) close(left []*table.Mount, hideErrs []error) error {
	var layer *hcs.Layer
	for i, r := range left {
		if e.mayBeOpen(r) && (layer == nil || layer.Volume == "" || e.isNewer(r, layer.Volume)) {
			layer = layerOf(r)
		}
		// The bind filter refuses to remove a binding below which another one lies.
		if hideErrs[i] == nil || !r.Binding {
			continue
		}
		inside, _, err := e.below(r.Resolved)
		if i := slices.IndexFunc(inside, e.mayBeOpen); err == nil && i >= 0 {
			return errors.Errorf("layer %s stays open: layers are mounted in it, such as at %s", r.Source, inside[i].Target)
		}
	}
	return e.layers.Close(layer)
}

// isNewer reports whether a mount has the volume that its layer has now, and not another one. For example, this
// package has bound the layer, and containerd's has closed it, opened it again, and bound it elsewhere.
func (e *engine) isNewer(r *table.Mount, volume string) bool {
	if r.Volume == volume {
		return false
	}
	return !hcs.IsReachable(volume) || r.Volume != "" && e.layers.VolumeOf(r.Dir) == r.Volume
}

func layerOf(r *table.Mount) *hcs.Layer {
	return &hcs.Layer{Dir: r.Dir, Parents: r.Parents, Disk: hcs.Disk(r.Disk), Volume: r.Volume}
}

// withUndo adds to err the error of its undo, if there is one.
func withUndo(err, undo error) error {
	if undo == nil {
		return err
	}
	return fmt.Errorf("%w; undo: %w", err, undo)
}
