package hcs

import (
	"context"
	stderrors "errors"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/retry"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// Close unprepares and deactivates a layer that Open may have opened. It makes up to five attempts, whatever
// the error is. If Close returns nil, the layer is closed.
//
// If HCS refuses and there is no volume to look at, Close opens the layer and closes it once more. If the
// open succeeds, the layer was closed, and a layer that was just opened can be closed.
func (l Layers) Close(layer *Layer) error {
	err := l.CloseUnknown(layer)
	if err == nil || layer.Volume != "" || layer.Disk == NoDisk || l.Calls.ActivateLayer(layer.Dir) != nil {
		return err
	}
	_ = l.findVolume(context.Background(), layer) // if there is no volume, only the codes of HCS are left to go by
	return l.CloseUnknown(layer)
}

// CloseUnknown is Close for a layer that other code may have opened: it never opens it.
func (l Layers) CloseUnknown(layer *Layer) error {
	return l.Pause.Do(context.Background(), retry.Always, func() error { return l.tryClose(layer) })
}

func (l Layers) tryClose(layer *Layer) error {
	if IsVolume(layer.Volume) && !IsReachable(layer.Volume) {
		return nil // it is closed already; do not close it for other code that may have opened it since
	}
	if layer.Volume == "" {
		layer.Volume = l.VolumeOf(layer.Dir) // ask now: HCS may not name the volume after the close
	}
	unprepareErr := errors.Wrapf(l.Calls.UnprepareLayer(layer.Dir), "failed to unprepare layer %s", layer.Dir)
	deactivateErr := errors.Wrapf(l.Calls.DeactivateLayer(layer.Dir), "failed to deactivate layer %s", layer.Dir)
	if l.isClosed(layer, unprepareErr, deactivateErr) {
		return nil
	}
	if IsVolume(layer.Volume) {
		return stderrors.Join(unprepareErr, deactivateErr, errors.Errorf("layer %s is still open as %s", layer.Dir, layer.Volume))
	}
	return stderrors.Join(unprepareErr, deactivateErr)
}

// isClosed reports whether a layer is closed, given the errors that UnprepareLayer and DeactivateLayer returned.
//
//   - A layer with a volume is closed once the volume cannot be reached. If the volume can still be reached,
//     another layer may have got its GUID: then the layer is closed if HCS names another volume for it, or
//     none. If GetLayerMountPath fails, the two errors decide, as in the next case.
//   - A layer without a volume leaves no other evidence, so the two errors decide. The layer is closed if
//     DeactivateLayer succeeded, as it does for a layer that is not active, and UnprepareLayer succeeded or
//     returned a code that says that there is nothing to undo. For a layer without a disk the error of
//     DeactivateLayer does not count: the call has nothing to do, and may succeed while the filter is attached.
//   - A layer whose directory is gone is closed: the directory of an open layer cannot be removed.
func (l Layers) isClosed(layer *Layer, unprepareErr, deactivateErr error) bool {
	unprepared := unprepareErr == nil || winfs.IsAny(unprepareErr, notPrepared...)
	if !IsVolume(layer.Volume) {
		return unprepared && (deactivateErr == nil || layer.Disk == NoDisk) || !exists(layer.Dir)
	}
	if !IsReachable(layer.Volume) {
		return true
	}
	now, err := l.mountPath(layer.Dir)
	if err != nil {
		return unprepared && deactivateErr == nil
	}
	return !winpath.Equal(now, layer.Volume)
}
