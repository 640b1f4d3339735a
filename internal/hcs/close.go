package hcs

import (
	"context"
	stderrors "errors"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// Close unprepares and deactivates a layer that Open may have opened. It makes five attempts, whatever fails.
// A nil error means that the layer is closed.
//
// If HCS refuses and there is no volume to look at, Close opens the layer and closes it once more. That the
// open succeeds shows that the layer was closed, and one that was just opened can be closed.
func (l Layers) Close(layer *Layer) error {
	err := l.CloseUnknown(layer)
	if err == nil || layer.Volume != "" || layer.Disk == NoDisk || l.Calls.ActivateLayer(layer.Dir) != nil {
		return err
	}
	_ = l.findVolume(context.Background(), layer) // without a volume, what HCS says has to do
	return l.CloseUnknown(layer)
}

// CloseUnknown is Close for a layer that other code may have opened: it never opens it.
func (l Layers) CloseUnknown(layer *Layer) (err error) {
	l.Pause.Until(context.Background(), func() bool {
		err = l.tryClose(layer)
		return err == nil
	})
	return err
}

func (l Layers) tryClose(layer *Layer) error {
	if IsVolume(layer.Volume) && !IsReachable(layer.Volume) {
		return nil // it is closed already, and other code may have opened it again
	}
	if layer.Volume == "" {
		layer.Volume = l.VolumeOf(layer.Dir) // after the close HCS may no longer name it
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

// isClosed reports whether a layer is closed after UnprepareLayer and DeactivateLayer have returned these
// errors.
//
//   - A layer with a volume is closed once the volume cannot be reached. If it can, another layer may have got
//     its GUID: then HCS names another volume for this layer, or none.
//   - A layer without a volume leaves no evidence, so here alone the answers count. DeactivateLayer succeeds for
//     a layer that is not active. UnprepareLayer succeeds, or says that there is nothing to undo. For a
//     layer without a disk DeactivateLayer has nothing to do: it may succeed while the filter is attached.
//   - A layer whose directory is gone is closed: the directory of an open layer cannot be removed.
func (l Layers) isClosed(layer *Layer, unprepareErr, deactivateErr error) bool {
	unprepared := unprepareErr == nil || winfs.IsAny(unprepareErr, notPrepared...)
	if IsVolume(layer.Volume) {
		if !IsReachable(layer.Volume) {
			return true
		}
		now, err := l.mountPath(layer.Dir)
		if err == nil {
			return !winpath.Equal(now, layer.Volume)
		}
		return unprepared && deactivateErr == nil
	}
	if unprepared && (deactivateErr == nil || layer.Disk == NoDisk) {
		return true
	}
	return !exists(layer.Dir)
}
