package hcs

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/winfs"
)

// Open activates and prepares a layer and fills in its Volume. It retries transient failures until ctx ends.
// If Open fails, it closes the layer again and reports whether its own calls may have left the layer open.
//
// If other code has the layer open, Open leaves it open. The error matches ErrSharingViolation if the layer has
// a volume.
func (l Layers) Open(ctx context.Context, layer *Layer) (mayBeOpen bool, err error) {
	// If other code has the layer open, ActivateLayer may succeed and PrepareLayer then fails. Undoing
	// ActivateLayer would close the layer for the other code, so look for a volume before any call. Look more
	// than once: a volume may linger after a close.
	var volume string
	l.Pause.Until(ctx, func() bool {
		volume = l.VolumeOf(layer.Dir)
		return volume == ""
	})
	if volume != "" {
		return false, errors.Wrapf(ErrSharingViolation, "open layer %s: it is open already, as %s", layer.Dir, volume)
	}
	tryAgain := false
	err = l.Pause.Do(ctx, func(error) bool { return tryAgain }, func() error {
		layer.Volume = ""
		tryAgain, mayBeOpen, err = l.tryOpen(ctx, layer)
		return err
	})
	return mayBeOpen, err
}

// tryOpen makes one attempt to open the layer. It also reports whether another attempt may succeed.
func (l Layers) tryOpen(ctx context.Context, layer *Layer) (tryAgain, mayBeOpen bool, err error) {
	if err = l.Calls.ActivateLayer(layer.Dir); err != nil {
		tryAgain = winfs.IsAny(err, transientActivate...)
		// ActivateLayer may have attached the disk all the same: hcsshim has seen ERROR_NOT_READY for volumes that
		// were late. On a sharing violation, other code has the layer open: leave it open.
		mayBeOpen = !errors.Is(err, ErrSharingViolation) &&
			(layer.Disk == OwnDisk && winfs.IsAny(err, transient...) || l.mayHaveVolume(layer))
		err = errors.Wrapf(err, "failed to activate layer %s", layer.Dir)
	} else if err = l.Calls.PrepareLayer(layer.Dir, layer.Parents); err != nil {
		tryAgain = winfs.IsAny(err, transientPrepare...)
		// If the layer has no disk and the failure is final, do not undo anything: ActivateLayer did nothing, and
		// PrepareLayer may have failed because other code has attached the filter.
		mayBeOpen = tryAgain || layer.Disk == OwnDisk || l.mayHaveVolume(layer)
		err = errors.Wrapf(err, "failed to prepare layer %s", layer.Dir)
	} else {
		mayBeOpen, err = true, l.findVolume(ctx, layer)
	}
	if err == nil || !mayBeOpen {
		return tryAgain, mayBeOpen, err
	}
	if closeErr := l.Close(layer); closeErr != nil {
		return false, true, fmt.Errorf("%w; undo: %w", err, closeErr)
	}
	return tryAgain, false, err
}

// mayHaveVolume reports whether a layer that was just activated may have a volume, where Open has seen none. It
// has one if HCS names it; mayHaveVolume waits for a volume that is late. If the layer has kept its disk, it may
// also have a volume if HCS names nothing at all, not even the directory of the layer.
func (l Layers) mayHaveVolume(layer *Layer) bool {
	if layer.Disk == NoDisk {
		return false
	}
	isNamed := false
	hasVolume := l.Pause.Until(context.Background(), func() bool {
		path, err := l.mountPath(layer.Dir)
		isNamed = isNamed || err == nil && path != ""
		return err == nil && IsVolume(path) && IsReachable(path)
	})
	return hasVolume || layer.Disk == KeptDisk && !isNamed
}

// findVolume fills in the Volume of an open layer. It waits if the volume is not there yet. It also waits if HCS
// names no volume, or the volume of an earlier activation: HCS may do so for a moment.
func (l Layers) findVolume(ctx context.Context, layer *Layer) error {
	var path string
	var refusal error // why HCS does not answer
	isLate := func(error) bool { return refusal == nil || winfs.IsAny(refusal, transientMountPath...) }
	err := l.Pause.Do(ctx, isLate, func() error {
		path, refusal = l.mountPath(layer.Dir)
		switch {
		case refusal != nil:
			return refusal
		case IsVolume(path) && !IsReachable(path):
			return errors.Wrapf(os.ErrNotExist, "failed to get mount path of layer %s: %s", layer.Dir, path)
		case !IsVolume(path) && layer.Disk == OwnDisk, path == "" && layer.Disk == KeptDisk:
			// The directory of a writable layer contains its disk and not its files, so it cannot stand in for
			// the volume. For a read-only layer that has kept its disk, the directory is the right answer.
			return errors.Errorf("failed to get mount path of layer %s: HCS names no volume, but %q", layer.Dir, path)
		}
		return nil
	})
	if err == nil {
		layer.Volume = cmp.Or(path, layer.Dir)
	}
	return err
}
