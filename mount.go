// Package mount shows Windows container layers at a path and takes them away again.
//
// A snapshotter hands out a [Mount]: its Type is "windows-layer", its Source the directory of a layer,
// and an option lists the layer's parents. [Mount.Mount] opens the layer through the Host Compute
// Service (HCS) and shows it at a target: by a directory symlink, or by a binding when the program
// has called [UseBindFilter]. [Unmount] takes it away from the target and closes it.
//
// # Layers and targets
//
// A layer is open while HCS has its scratch disk attached (it is active) and the union filter over
// its parents (it is prepared). An open layer cannot be opened by others, and its directory cannot be
// removed. A layer may be shown at several targets: it is opened for the first one and closed with
// the last one.
//
// # The mount table
//
// HCS cannot tell where a layer is shown, and a process may die at any instant. So there is one
// record on disk for each open layer: what it is, and its targets (see [SetTableDir]). Every step goes on
// record before it is taken. A mount goes through these states, from any of which Unmount, in any
// process, brings it to an end:
//
//  1. Opening: the record is written, and the layer opened.
//  2. Linked: the volume of the layer is recorded, and the link or binding made.
//  3. Shown: the target is recorded as shown, and the mount is live.
//  4. Leaving: the target is recorded as leaving, and the link or binding removed.
//  5. Closing: with its last target the layer is closed, and its record dropped.
//
// A Mount that fails goes the same way back. What cannot be undone stays on record, so that Unmount
// can be repeated. After a restart of Windows no layer is open: a record of an earlier start is cleared
// away without a call of HCS, since somebody else may have opened the layer meanwhile.
//
// # What an error of HCS means
//
// HCS answers the same question differently from host to host. So its codes never decide whether a layer
// with a volume is open: it is closed when its volume is gone, whatever HCS has said. Codes decide
// whether a call is retried. Only for a layer without a volume, of which nothing else can be known, do
// they also decide whether UnprepareLayer has found nothing to undo.
//
// # Concurrency
//
// All functions may be called from many goroutines and processes at once, if these use the same mount
// table. A Mount or Unmount waits for others of the same layer or target, and for no other. Within a
// process hcsshim prepares one layer at a time.
//
// # Other systems
//
// On other systems than Windows the functions that would touch a layer return an error that matches
// [errors.ErrUnsupported].
//
// # Where to read on
//
// The steps are in mounter.go. The retry policy is in retry.go and layer_codes.go, the format of the mount
// table in table.go and table_record.go, the way a layer is shown in target.go (links) and binding.go.
package mount

import (
	"context"
	stderrors "errors"
	"os"
	"slices"

	"github.com/pkg/errors"
)

// Mount is what a snapshotter hands out: which layer to show, and how.
type Mount struct {
	// Type is "windows-layer"; any other is refused.
	Type string
	// Source is the directory of the layer.
	Source string
	// Target is an optional sub-directory of the target, at which the layer is
	// shown instead. It cannot lead out of the target.
	Target string
	// Options has the layer's parents, see ParentLayerPathsFlag, and possibly "ro", which
	// is enforced only when UseBindFilter is on.
	Options []string
}

// ReadOnly reports whether the mount has the option "ro". It is enforced when the layer is shown
// through the bind filter, and not when it is shown by a link (see [UseBindFilter]).
func (m *Mount) ReadOnly() bool { return slices.Contains(m.Options, "ro") }

// Mount opens the layer m.Source and shows it at target, or at the directory below target that
// m.Target names. A layer that is shown at another target already is not opened again: its parents are
// those of the first mount. Of a layer without parents the folder Files is shown.
//
// The target must be absent or an empty directory. A link takes the place of the directory, and
// Unmount puts one back; with [UseBindFilter] the directory may hold files. Mount first clears away what
// a restart of the system left at the target, or a process that was killed while it mounted or
// unmounted. A completed mount stays live after its process has died: unmount it first.
//
// The directory that the target is in must exist, and so must those on the way to m.Target, none of
// which may be a link. The directory that the target is in must belong to somebody whom the readers of
// the target trust: whoever may write there can put something else in the place of the link. Through a
// link the layer can be written to, whatever m.Options say.
//
// A relative target is taken from the working directory. Nothing is touched when m or target is
// refused, as when
//   - Type is not "windows-layer",
//   - GetParentPaths fails,
//   - Source is relative, the root of a volume, or ends in an element that is empty, "." or "..",
//   - target is the root of a volume,
//   - a path has a NUL, or names something other than a plain directory to Windows,
//   - there is no bind filter, or a binding would hide files that are needed, see [UseBindFilter].
//
// A target that is in use, or to which another program has bound something, is refused before HCS opens
// the layer, with an error that matches os.ErrExist. A layer that other code has open stays open when it
// has a volume, and the error matches windows.ERROR_SHARING_VIOLATION. For a layer without a volume the
// error is that of PrepareLayer. Errors of HCS can be matched as their Windows code and as
// *hcsshim.HcsError.
//
// Mount makes up to five attempts, 100 ms apart, to open the layer after a transient code of HCS, to show it
// while its volume is late, and to change a file that another program has open. When it fails, it undoes
// what it has done. What cannot be undone is in the error, too, and stays on record for Unmount.
func (m *Mount) Mount(target string) error {
	mountpoint, err := m.mountpoint(target)
	if err != nil {
		return err
	}
	return m.mount(mountpoint)
}

// All mounts the mounts at target, in order; each may name a sub-directory of its own in Target. When
// one fails, those before it are unmounted again, the last first. The error has all that failed, with
// the errors of [Mount.Mount] and [Unmount].
func All(mounts []Mount, target string) error {
	return withMounter(func(mt *mounter) error { return mountAll(context.Background(), mt, mounts, target) })
}

// UnmountMounts unmounts the mounts at target, the last first, as [UnmountAll] does. It goes on after a
// failure, and returns all errors. flags are not used.
func UnmountMounts(mounts []Mount, target string, flags int) error {
	return withMounter(func(mt *mounter) error { return unmountMounts(mt, mounts, target) })
}

func mountAll(ctx context.Context, mt *mounter, mounts []Mount, target string) error {
	for i := range mounts {
		if err := mountIn(ctx, mt, &mounts[i], target); err != nil {
			return withUndo(err, unmountMounts(mt, mounts[:i], target))
		}
	}
	return nil
}

// mountIn mounts m at target, or at the directory below it that m.Target names.
func mountIn(ctx context.Context, mt *mounter, m *Mount, target string) error {
	mountpoint, err := m.mountpoint(target)
	if err != nil {
		return err
	}
	return mt.mount(ctx, m, mountpoint)
}

func unmountMounts(mt *mounter, mounts []Mount, target string) error {
	var errs []error
	for i := len(mounts) - 1; i >= 0; i-- {
		mountpoint, err := mounts[i].mountpoint(target)
		if errors.Is(err, os.ErrNotExist) { // unmounted already, together with the mount that held it
			continue
		}
		if err == nil {
			err = mt.unmountAll(mountpoint)
		}
		errs = append(errs, err)
	}
	return stderrors.Join(errs...)
}
