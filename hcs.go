package mount

import (
	"context"
	stderrors "errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pkg/errors"
)

// hcs is the part of the Host Compute Service that a mount needs. Every call is
// keyed by the directory of the layer.
type hcs interface {
	// ActivateLayer attaches the scratch disk of a writable layer and brings up
	// its volume. It does nothing for a read-only layer.
	ActivateLayer(layer string) error
	// PrepareLayer attaches the union filter over the parents.
	PrepareLayer(layer string, parents []string) error
	// GetLayerMountPath returns the volume of a writable layer, without a
	// separator at its end, or the directory of a read-only one. It may be empty.
	GetLayerMountPath(layer string) (string, error)
	UnprepareLayer(layer string) error
	DeactivateLayer(layer string) error
}

// Codes that HCS reports. hcsshim cuts 0x8007xxxx down to the Windows code and
// passes other HRESULTs whole.
const (
	errorFileNotFound       = syscall.Errno(2)
	errorPathNotFound       = syscall.Errno(3)
	errorNotReady           = syscall.Errno(21)
	errorSharingViolation   = syscall.Errno(32)
	errorDevNotExist        = syscall.Errno(55)
	errorInvalidParameter   = syscall.Errno(87)
	errorDeviceNotConnected = syscall.Errno(1167)
	errorNotFound           = syscall.Errno(1168)
	errorFilterNotFound     = syscall.Errno(0x801f0015) // ERROR_FLT_INSTANCE_NOT_FOUND
)

// scratchDisk is in the directory of a writable layer, and of no other.
const scratchDisk = "sandbox.vhdx"

// openLayer activates and prepares a layer and returns its mount path. A
// failure leaves the layer as it was, unless the error is a leftOpen.
func (mt *mounter) openLayer(ctx context.Context, l layer) (path string, err error) {
	// ActivateLayer may let a layer pass that other code has open, and PrepareLayer
	// then refuses it. To undo the one would close the layer for the other. Only a
	// layer that is active has a volume; whatever else this answers, they decide.
	if path, err := mt.mountPath(l.source); err == nil && isVolume(path) {
		return "", errors.Wrapf(errorSharingViolation, "failed to open layer %s: it is open already, as %s", l.source, path)
	}
	err = mt.retry(ctx, func() error {
		path, err = mt.tryOpen(l)
		return err
	})
	return path, err
}

func (mt *mounter) tryOpen(l layer) (path string, err error) {
	if err := mt.hcs.ActivateLayer(l.source); err != nil {
		err = errors.Wrapf(err, "failed to activate layer %s", l.source)
		if isTransient(err) {
			// The disk may be attached without its volume, which is how hcsshim
			// explains ERROR_NOT_READY (internal/layers/wcow_mount.go).
			return "", undone(err, mt.deactivate(l.source))
		}
		// Any other refusal may mean that somebody else has the layer open, who
		// must keep it.
		return "", err
	}
	if err := mt.hcs.PrepareLayer(l.source, l.parents); err != nil {
		err = errors.Wrapf(err, "failed to prepare layer %s", l.source)
		if isAny(err, errorInvalidParameter) && isReadOnly(l.source) {
			// Somebody else has it prepared, perhaps; to activate it did nothing.
			return "", err
		}
		return "", undone(err, mt.deactivate(l.source))
	}
	path, err = mt.mountPath(l.source)
	if err != nil {
		return "", undone(err, mt.closeLayer(l.source))
	}
	return path, nil
}

// mountPath returns the path that shows a layer which is open. HCS may leave it
// empty where it is the layer's directory.
func (mt *mounter) mountPath(source string) (string, error) {
	path, err := mt.hcs.GetLayerMountPath(source)
	if path == "" {
		path = source
	}
	return path, errors.Wrapf(err, "failed to get mount path of layer %s", source)
}

// isVolume tells whether a mount path is a volume, `\\?\Volume{GUID}`, and not the
// directory of the layer.
func isVolume(path string) bool {
	return strings.HasPrefix(lastElement(path), "Volume{")
}

// isReadOnly tells whether a layer has no scratch disk.
func isReadOnly(source string) bool {
	_, err := os.Lstat(filepath.Join(source, scratchDisk))
	return errors.Is(err, os.ErrNotExist)
}

// closeLayer unprepares and deactivates a layer. It is an error only when the
// layer is still open; one that HCS does not know (after a reboot) is closed.
func (mt *mounter) closeLayer(source string) error {
	return mt.retry(context.Background(), func() error {
		unprepareErr := errors.Wrapf(mt.hcs.UnprepareLayer(source), "failed to unprepare layer %s", source)
		if isNotOpen(unprepareErr) {
			unprepareErr = nil
		}
		if err := mt.tryDeactivate(source); err != nil {
			return stderrors.Join(unprepareErr, err)
		}
		// The filter sits on the volume, which has gone with the disk.
		return nil
	})
}

func (mt *mounter) deactivate(source string) error {
	return mt.retry(context.Background(), func() error { return mt.tryDeactivate(source) })
}

func (mt *mounter) tryDeactivate(source string) error {
	err := mt.hcs.DeactivateLayer(source)
	if isNotOpen(err) {
		return nil
	}
	return errors.Wrapf(err, "failed to deactivate layer %s", source)
}

// retry runs try, which calls HCS, and runs it again while it may succeed a
// moment later.
func (mt *mounter) retry(ctx context.Context, try func() error) error {
	return mt.table.pause.retry(ctx, isTransient, try)
}

// isTransient tells whether a call may succeed a moment later. A layer that an
// undo could not close is not tried again: it would be found open.
func isTransient(err error) bool {
	var open *leftOpen
	return !errors.As(err, &open) && isAny(err, errorNotReady, errorDeviceNotConnected)
}

// isNotOpen tells whether HCS refused to close a layer because it is not open.
// Unpreparing gives ERROR_DEV_NOT_EXIST for a layer that is not active and
// ERROR_FLT_INSTANCE_NOT_FOUND for one that is not prepared (containerd pull
// requests 5133 and 5328). Assumption: the others say so too, or that the layer's
// directory has gone.
func isNotOpen(err error) bool {
	return isAny(err, errorDevNotExist, errorFilterNotFound,
		errorFileNotFound, errorPathNotFound, errorNotFound)
}

func isAny(err error, codes ...syscall.Errno) bool {
	for _, code := range codes {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// isLayer tells whether path is the directory of a layer: it holds a scratch
// disk, the chain of its parents, or files.
func isLayer(path string) bool {
	if info, err := os.Lstat(path); err != nil || !info.IsDir() {
		return false
	}
	for _, name := range []string{scratchDisk, "layerchain.json", "Files"} {
		if _, err := os.Lstat(filepath.Join(path, name)); err == nil {
			return true
		}
	}
	return false
}

// leftOpen is a failure whose undo failed too, so that the layer is open.
type leftOpen struct{ error }

func (e *leftOpen) Unwrap() error { return e.error }

// undone is withUndo for a step whose undo closes the layer.
func undone(err, undo error) error {
	if undo == nil {
		return err
	}
	return &leftOpen{withUndo(err, undo)}
}

// withUndo adds to err what failed while it was undone.
func withUndo(err, undo error) error {
	if undo == nil {
		return err
	}
	return fmt.Errorf("%w; undo: %w", err, undo)
}
