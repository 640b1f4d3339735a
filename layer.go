package mount

import (
	"context"
	stderrors "errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	// GetLayerMountPath returns the volume of a writable layer, mostly without a separator at
	// its end, or the directory of a read-only one. It may be empty: then it is the directory.
	GetLayerMountPath(layer string) (string, error)
	UnprepareLayer(layer string) error
	DeactivateLayer(layer string) error
}

// Codes that HCS reports. hcsshim cuts 0x8007xxxx down to the Windows code and passes
// other HRESULTs whole. What HCS answers differs from one build of Windows to another,
// and no list is known to be whole. So a code decides only whether a call is made again;
// a writable layer is open as long as its volume is there, which its disk brings.
const (
	errorFileNotFound, errorPathNotFound    = syscall.Errno(2), syscall.Errno(3)
	errorAccessDenied                       = syscall.Errno(5)
	errorNotReady, errorSharingViolation    = syscall.Errno(21), syscall.Errno(32)
	errorDevNotExist, errorInvalidParameter = syscall.Errno(55), syscall.Errno(87)
	errorDeviceNotConnected, errorNotFound  = syscall.Errno(1167), syscall.Errno(1168)
	errorTimeout, errorFilterNotFound       = syscall.Errno(1460), syscall.Errno(0x801f0015)
)

// The codes with which a call is made again. hcsshim's own runtime takes the first
// two for a volume that is not there yet (internal/layers/wcow_mount.go). Prepare
// times out on a machine under load (moby 27588). Activate reports a sharing
// violation for an instant after somebody has closed the layer (buildkit 5807).
var (
	transient         = []syscall.Errno{errorNotReady, errorDeviceNotConnected}
	transientPrepare  = append([]syscall.Errno{errorTimeout}, transient...)
	transientActivate = append([]syscall.Errno{errorSharingViolation}, transient...)
)

// notPrepared are the codes with which Unprepare and Deactivate say that there is
// nothing to undo (containerd pull request 5133, containerd issue 5326), or that the
// directory of the layer has gone. They count where nothing can be proven.
var notPrepared = []syscall.Errno{errorDevNotExist, errorFilterNotFound, errorInvalidParameter,
	errorNotFound, errorFileNotFound, errorPathNotFound}

// deviceGone are the codes of Windows, and not of HCS, for a device that is no more.
var deviceGone = []syscall.Errno{errorDevNotExist, 433, errorDeviceNotConnected, 1617}

// openLayer activates and prepares the layer of a record and fills in its volume. A
// failure leaves the layer as it was, unless the error is an errLeftOpen.
func (mt *mounter) openLayer(ctx context.Context, r *record) error {
	isAgain := func(err error) bool { return errors.Is(err, errAgain) && !errors.Is(err, errLeftOpen) }
	return mt.table.pause.retry(ctx, isAgain, func() (err error) {
		r.Volume = ""
		if err := mt.activate(r); err != nil {
			return err
		}
		if err := mt.prepare(r); err != nil {
			return err
		}
		if r.Volume, err = mt.mountPath(ctx, r); err != nil {
			r.Volume = ""
			return undone(err, mt.closeLayer(r, true))
		}
		return nil
	})
}

func (mt *mounter) activate(r *record) error {
	err := errors.Wrapf(mt.hcs.ActivateLayer(r.Source), "failed to activate layer %s", r.Source)
	switch {
	case isAny(err, transient...) && !r.ReadOnly:
		// The disk may be attached without its volume, which is how hcsshim
		// explains ERROR_NOT_READY.
		return undone(mark(err, errAgain), mt.closeLayer(r, false))
	case isAny(err, transientActivate...):
		// Somebody else may have the layer open, who must keep it.
		return mark(err, errAgain)
	case err != nil && !r.ReadOnly && mt.volumeOf(r.Source) != "":
		return undone(err, mt.closeLayer(r, false)) // it had none before
	}
	return err
}

func (mt *mounter) prepare(r *record) error {
	err := errors.Wrapf(mt.hcs.PrepareLayer(r.Source, r.Parents), "failed to prepare layer %s", r.Source)
	if isAny(err, transientPrepare...) {
		err = mark(err, errAgain)
	} else if err == nil || r.ReadOnly && mt.volumeOf(r.Source) == "" {
		// To activate a read-only layer did nothing, and where it cannot be prepared the filter
		// may be somebody else's.
		return err
	}
	return undone(err, mt.closeLayer(r, true))
}

// mountPath returns the path that shows an open layer. The volume of a writable layer
// may be late; should there be none, its directory is the path.
func (mt *mounter) mountPath(ctx context.Context, r *record) (path string, err error) {
	told := mt.until(ctx, func() bool {
		path, err = mt.hcs.GetLayerMountPath(r.Source)
		return err == nil && (isVolume(path) || r.ReadOnly) || err != nil && !isAny(err, transient...)
	})
	if !told && err == nil {
		err = ctx.Err()
	}
	if path == "" {
		path = r.Source
	}
	return strings.TrimRight(path, `\/`), errors.Wrapf(err, "failed to get mount path of layer %s", r.Source)
}

// openElsewhere returns the volume of a layer that other code has open, or "". One that
// is reported for an instant after a close does not count; a read-only layer has none.
func (mt *mounter) openElsewhere(ctx context.Context, source string) (volume string) {
	closed := mt.until(ctx, func() bool {
		volume = mt.volumeOf(source)
		return volume == "" || !isThere(volume)
	})
	if closed {
		return ""
	}
	return volume
}

// volumeOf returns the volume that HCS names for a layer, or "".
func (mt *mounter) volumeOf(source string) string {
	if path, err := mt.hcs.GetLayerMountPath(source); err == nil && isVolume(path) {
		return strings.TrimRight(path, `\/`)
	}
	return ""
}

// isVolume reports whether a mount path is a volume, `\\?\Volume{GUID}`, and not the
// directory of the layer.
func isVolume(path string) bool {
	name := strings.ToLower(lastElement(strings.TrimRight(path, `\/`)))
	return strings.HasPrefix(name, "volume{") && strings.HasSuffix(name, "}")
}

// isThere reports whether the volume of a layer can be reached, as long as its disk is attached.
func isThere(volume string) bool {
	// The separator leads to the root directory of the volume, and not to the device.
	_, err := os.Stat(volume + string(filepath.Separator))
	return !errors.Is(err, os.ErrNotExist) && !isAny(err, deviceGone...)
}

// isOpen reports whether the layer of a record is open, as far as can be told. A
// volume that is out of reach for an instant does not count as gone.
func (mt *mounter) isOpen(r *record) bool {
	return r.Boot == mt.boot && mt.until(context.Background(), func() bool {
		return !isVolume(r.Volume) || isThere(r.Volume) // without a volume nobody knows better
	})
}

// until asks for something that may come in a moment, and reports whether it has.
func (mt *mounter) until(ctx context.Context, condition func() bool) bool {
	return nil == mt.table.pause.retry(ctx, func(error) bool { return true }, func() error {
		if condition() {
			return nil
		}
		return errAgain
	})
}

// closeLayer unprepares and deactivates the layer of a record. It is an error unless the layer is
// closed then.
//
// A layer is known when this package has opened it, perhaps: its Mount may have been killed before
// it called HCS. Where HCS refuses to close what is closed, nothing tells that it is. Then it is
// opened, which succeeds only with a layer that is closed, and what is open for certain closes
// without a doubt. A layer that is not known is taken for closed then.
func (mt *mounter) closeLayer(r *record, known bool) error {
	err := mt.closeInTime(r)
	if errors.Is(err, errDoubtful) && !known {
		return nil
	}
	if err == nil || isVolume(r.Volume) || mt.hcs.ActivateLayer(r.Source) != nil {
		return err
	}
	if r.ReadOnly && mt.hcs.PrepareLayer(r.Source, r.Parents) != nil {
		return err
	}
	if volume, err := mt.mountPath(context.Background(), r); err == nil {
		r.Volume = volume
	}
	return mt.closeInTime(r)
}

func (mt *mounter) closeInTime(r *record) (err error) {
	mt.until(context.Background(), func() bool {
		err = mt.tryClose(r)
		return err == nil
	})
	return err
}

func (mt *mounter) tryClose(r *record) error {
	if r.Volume == "" {
		r.Volume = mt.volumeOf(r.Source) // while it is open
	}
	unprepareErr := errors.Wrapf(mt.hcs.UnprepareLayer(r.Source), "failed to unprepare layer %s", r.Source)
	deactivateErr := errors.Wrapf(mt.hcs.DeactivateLayer(r.Source), "failed to deactivate layer %s", r.Source)
	unprepared := unprepareErr == nil || isAny(unprepareErr, notPrepared...)
	switch {
	case isVolume(r.Volume):
		if !isThere(r.Volume) {
			return nil
		}
		return stderrors.Join(unprepareErr, deactivateErr, errors.Errorf("layer %s is still open as %s", r.Source, r.Volume))
	case unprepared && (deactivateErr == nil || r.ReadOnly):
		// Deactivate has nothing to do for a read-only layer. It may report success
		// while the filter is attached, so nothing but Unprepare counts.
		return nil
	case isGone(r.Source) && (r.Resolved == "" || isGone(r.Resolved)):
		return nil // what is in use cannot be removed
	}
	return mark(stderrors.Join(unprepareErr, deactivateErr), errDoubtful)
}

// isReadOnly reports whether HCS has no disk to attach for a layer. A layer that was
// committed holds its files in a folder, and may have kept its scratch disk. This is
// asked before a layer is opened: what is missing later may have gone meanwhile.
func isReadOnly(source string) bool {
	return !isGone(filepath.Join(source, "Files")) || isGone(filepath.Join(source, "sandbox.vhdx"))
}

func isGone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist)
}

// isDirectory reports whether path is a directory, and no link to one.
func isDirectory(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// isLayer reports whether path is the directory of a layer: it holds a scratch disk,
// the chain of its parents, or both files and registry hives.
func isLayer(path string) bool {
	if !isDirectory(path) {
		return false
	}
	holds := func(name string) bool { return !isGone(filepath.Join(path, name)) }
	return holds("sandbox.vhdx") || holds("layerchain.json") || holds("Files") && holds("Hives")
}

func isAny(err error, codes ...syscall.Errno) bool {
	return slices.ContainsFunc(codes, func(code syscall.Errno) bool { return errors.Is(err, code) })
}

// What an error means for a layer, for errors.Is. They have no text of their own.
var (
	errAgain    = errors.New("") // what was done is undone, and the call may pass in a moment
	errLeftOpen = errors.New("") // the undo failed too, and the layer is open
	errDoubtful = errors.New("") // nothing says that the layer is open, which HCS has refused to close
)

func mark(err, meaning error) error { return fmt.Errorf("%w%w", err, meaning) }

// undone returns the error of a call that was undone by closing the layer.
func undone(err, undo error) error {
	if undo == nil {
		return err
	}
	return mark(withUndo(err, undo), errLeftOpen)
}

// withUndo adds to err what failed while it was undone.
func withUndo(err, undo error) error {
	if undo == nil {
		return err
	}
	return fmt.Errorf("%w; undo: %w", err, undo)
}
