package mount

import (
	"context"
	stderrors "errors"
	"os"
	"strings"

	"github.com/pkg/errors"
)

// hcs is the part of the Host Compute Service that a mount needs. Every call is keyed by the
// directory of the layer.
type hcs interface {
	// ActivateLayer attaches the scratch disk of a writable layer and brings up its volume. It
	// does nothing for a read-only layer.
	ActivateLayer(layer string) error
	// PrepareLayer attaches the union filter over the parents.
	PrepareLayer(layer string, parents []string) error
	// GetLayerMountPath returns the volume of a writable layer, mostly without a separator at its
	// end, or the directory of a read-only one. An empty path stands for the directory.
	GetLayerMountPath(layer string) (string, error)
	// UnprepareLayer undoes PrepareLayer.
	UnprepareLayer(layer string) error
	// DeactivateLayer undoes ActivateLayer.
	DeactivateLayer(layer string) error
}

// opener opens and closes layers. HCS answers differently from host to host, so its answers never decide
// whether a layer with a volume is open: the layer is open while its volume can be reached.
type opener struct {
	hcs   hcs
	pause pauser
}

// openLayer activates and prepares the layer of a record and fills in its volume. After a failure the
// layer is closed, as far as HCS tells, unless other code has it open, or the error is an errLeftOpen.
func (o *opener) openLayer(ctx context.Context, r *record) error {
	isTransient := func(err error) bool { return errors.Is(err, errAgain) && !errors.Is(err, errLeftOpen) }
	doubtful := false // whether an attempt has failed after which the disk may still be attached
	err := o.pause.retry(ctx, isTransient, func() (err error) {
		r.Volume = ""
		if err := o.activate(r); err != nil {
			doubtful = doubtful || errors.Is(err, errDoubtful)
			return err
		}
		doubtful = false
		if err := o.prepare(r); err != nil {
			return err
		}
		if r.Volume, err = o.mountPath(ctx, r); err != nil {
			r.Volume = ""
			return o.closeAfter(err, r)
		}
		return nil
	})
	if err != nil && doubtful && !errors.Is(err, errLeftOpen) {
		return o.closeAfter(err, r)
	}
	return err
}

func (o *opener) activate(r *record) error {
	err := errors.Wrapf(o.hcs.ActivateLayer(r.Source), "failed to activate layer %s", r.Source)
	switch {
	case isAny(err, transient...) && !r.ReadOnly:
		// The disk may be attached although its volume is not up yet: hcsshim has seen
		// ERROR_NOT_READY for volumes that were late.
		err = mark(err, errAgain)
		closeErr := o.closeLayer(r)
		if errors.Is(closeErr, errDoubtful) {
			return mark(err, errDoubtful) // if the disk is not attached, the next attempt may succeed
		}
		return leftOpen(err, closeErr)
	case isAny(err, transientActivate...):
		// Somebody else may have the layer open, and must keep it.
		return mark(err, errAgain)
	case err != nil && !r.ReadOnly && o.pause.until(context.Background(), func() bool { return o.volumeOf(r.Source) != "" }):
		return o.closeAfter(err, r) // openElsewhere saw no volume, so this call has attached the disk
	}
	return err
}

func (o *opener) prepare(r *record) error {
	err := errors.Wrapf(o.hcs.PrepareLayer(r.Source, r.Parents), "failed to prepare layer %s", r.Source)
	if isAny(err, transientPrepare...) {
		err = mark(err, errAgain)
	} else if err == nil || r.ReadOnly && o.volumeOf(r.Source) == "" {
		// ActivateLayer did nothing for a read-only layer, and the filter that keeps it from being
		// prepared may be somebody else's. There is nothing to undo.
		return err
	}
	return o.closeAfter(err, r)
}

// mountPath returns the path that shows an open layer. The volume of a writable layer may be late, and HCS
// may name that of an earlier activation for an instant. When HCS names no volume, it is the path that HCS
// returned, or else the layer's directory. A volume that mountPath returns has been reached.
func (o *opener) mountPath(ctx context.Context, r *record) (path string, err error) {
	answered := o.pause.until(ctx, func() bool {
		if path, err = o.hcs.GetLayerMountPath(r.Source); err != nil {
			return !isAny(err, transient...)
		}
		path = strings.TrimRight(path, `\/`)
		if isVolume(path) && !isReachable(path) {
			err = errors.Wrap(os.ErrNotExist, path)
			return false
		}
		return isVolume(path) || r.ReadOnly
	})
	if !answered && err == nil {
		err = ctx.Err()
	}
	if path == "" {
		path = r.Source
	}
	return path, errors.Wrapf(err, "failed to get mount path of layer %s", r.Source)
}

// openElsewhere returns the volume of a layer that other code has open, or "". A volume that stays for an
// instant after a close does not count. For a read-only layer, which has no volume, it returns "".
func (o *opener) openElsewhere(ctx context.Context, source string) (volume string) {
	o.pause.until(ctx, func() bool {
		volume = o.volumeOf(source)
		return volume == ""
	})
	return volume
}

// volumeOf returns the volume that HCS names for a layer, or "". One that cannot be reached does not count:
// HCS may still name that of an earlier activation.
func (o *opener) volumeOf(source string) string {
	path, err := o.hcs.GetLayerMountPath(source)
	path = strings.TrimRight(path, `\/`)
	if err == nil && isVolume(path) && isReachable(path) {
		return path
	}
	return ""
}

// mayBeOpen reports whether nothing proves that the layer of a record is closed. A volume that is
// out of reach for an instant proves nothing, and for a record without a volume there is no proof.
func (o *opener) mayBeOpen(r *record) bool {
	return !isVolume(r.Volume) || o.pause.until(context.Background(), func() bool { return isReachable(r.Volume) })
}

// closeForCertain closes the layer of a record that this package may have opened, as in a Mount that was
// killed. It resolves the doubt that closeLayer may leave by opening the layer once more: only a closed
// layer can be opened, and of one that is open HCS has no reason to say that it cannot be closed.
func (o *opener) closeForCertain(r *record) error {
	err := o.closeLayer(r)
	if err == nil || isVolume(r.Volume) || o.hcs.ActivateLayer(r.Source) != nil {
		return err
	}
	if r.ReadOnly && o.hcs.PrepareLayer(r.Source, r.Parents) != nil {
		return err
	}
	if volume, err := o.mountPath(context.Background(), r); err == nil {
		r.Volume = volume
	}
	return o.closeLayer(r)
}

// closeAfter closes the layer whose opening has failed with err, and returns err. Where the layer is or
// may be open then, the error is an errLeftOpen that says why.
func (o *opener) closeAfter(err error, r *record) error { return leftOpen(err, o.closeForCertain(r)) }

// leftOpen returns err, or an errLeftOpen where closing the layer has failed with closeErr.
func leftOpen(err, closeErr error) error {
	if closeErr == nil {
		return err
	}
	return mark(withUndo(err, closeErr), errLeftOpen)
}

// closeLayer unprepares and deactivates the layer of a record. A nil error means that the layer is
// closed. HCS may refuse to close a layer that is closed already, and when the layer has no volume, nothing
// else tells that it is: then the error is an errDoubtful.
func (o *opener) closeLayer(r *record) (err error) {
	o.pause.until(context.Background(), func() bool {
		err = o.tryClose(r)
		return err == nil
	})
	return err
}

func (o *opener) tryClose(r *record) error {
	if r.Volume == "" {
		r.Volume = o.volumeOf(r.Source) // after the close HCS may no longer name it
	} else if isVolume(r.Volume) && !isReachable(r.Volume) {
		// Other code has closed the layer. If it has also opened it again, it must keep it.
		if now := o.volumeOf(r.Source); now != "" && !strings.EqualFold(now, r.Volume) {
			return nil
		}
	}
	unprepareErr := errors.Wrapf(o.hcs.UnprepareLayer(r.Source), "failed to unprepare layer %s", r.Source)
	deactivateErr := errors.Wrapf(o.hcs.DeactivateLayer(r.Source), "failed to deactivate layer %s", r.Source)
	unprepared := unprepareErr == nil || isAny(unprepareErr, notPrepared...)
	switch {
	case isVolume(r.Volume):
		if !isReachable(r.Volume) {
			return nil
		}
		return stderrors.Join(unprepareErr, deactivateErr, errors.Errorf("layer %s is still open as %s", r.Source, r.Volume))
	case unprepared && (deactivateErr == nil || r.ReadOnly):
		// DeactivateLayer has nothing to do for a read-only layer and may succeed while the filter
		// is attached. So for such a layer UnprepareLayer alone counts.
		return nil
	case isGone(r.Source) && (r.Resolved == "" || isGone(r.Resolved)):
		return nil // a layer that is open cannot be removed
	}
	return mark(stderrors.Join(unprepareErr, deactivateErr), errDoubtful)
}
