// Package mount shows Windows container layers at a path and takes them away again.
//
// A snapshotter hands out a [Mount]: Type "windows-layer", the layer's directory as Source and its
// parents as a JSON list in an option. Mounting it opens the layer through the Host Compute Service
// (HCS) and makes a directory symlink to it at the target, or binds it to the target (see
// [UseBindFilter]); unmounting removes the link or the binding and closes the layer. HCS cannot
// tell where a layer is shown, so a record of every open layer is kept on disk (the mount table,
// see [SetTableDir]). It is written before HCS is called: whenever a process dies, [Unmount] in
// another one finds the record and cleans up.
//
// Mount is all or nothing, Unmount can be repeated, and both are safe to call from many goroutines
// and processes at once. Anywhere but on Windows the functions that would touch a layer report
// [errors.ErrUnsupported].
package mount

import (
	"context"
	stderrors "errors"
	"os"
	"slices"

	"github.com/pkg/errors"
)

// Mount is what a snapshotter hands out: where a layer lies and how to show it.
type Mount struct {
	// Type is "windows-layer"; any other is refused.
	Type string
	// Source is the directory of the layer.
	Source string
	// Target is an optional sub-directory of the target, in which the layer is
	// shown instead. It cannot lead out of the target.
	Target string
	// Options holds ParentLayerPathsFlag with the layer's parents, and possibly "ro",
	// which protects nothing unless UseBindFilter is on.
	Options []string
}

// ReadOnly reports whether the mount has the option "ro". Mount enforces it with the bind filter,
// and not with a link (see [UseBindFilter]).
func (m *Mount) ReadOnly() bool { return slices.Contains(m.Options, "ro") }

// Mount opens the layer m.Source and shows it at target, or at the directory below target
// that m.Target names. A layer may be shown at several targets: it is opened once, with the
// parents of the first. Of a layer without parents its Files folder is shown.
//
// The target must be absent, an empty directory (the link takes its place until Unmount puts
// a directory back; with [UseBindFilter] it may hold files) or what a restart of the system, or
// a process that was killed while it mounted or unmounted, left there. A mount that is whole is
// live, also when its process has died: Unmount it first. The directory that the target is in
// must exist, and so must those on the way to m.Target, none of which may be a link. Whoever may
// write there can put something else in the place of the link: it must belong to whom the
// target's readers trust. Through a link the layer can be written to, whatever m.Options say.
//
// Nothing is touched when m or target is malformed: a Type other than "windows-layer",
// parents that GetParentPaths refuses, a Source that is relative, the root of a volume or
// ends in an element that is empty, "." or "..", a target that is the root of a volume, or a
// path that has a NUL or names something that is not a plain directory to Windows; nor where a
// binding cannot be made, see [UseBindFilter]. A relative target is taken from the working
// directory. A target in use, or at which another program has bound something, gives an error
// that matches os.ErrExist, and a layer that other code has open one that matches
// windows.ERROR_SHARING_VIOLATION (or, without a scratch disk, what PrepareLayer says). What HCS
// says can be matched as its Windows code, or as a *hcsshim.HcsError.
//
// What may pass in a moment is tried five times in all, 100 ms apart: some codes of HCS, and
// what something else keeps from being done by having a file open. Any failure is undone. What
// could not be undone is in the error too, and on record, so that Unmount can try again.
func (m *Mount) Mount(target string) error {
	mountpoint, err := m.mountpoint(target)
	if err != nil {
		return err
	}
	return m.mount(mountpoint)
}

// All mounts the mounts at target, in order; each may name a sub-directory of its own in
// Target. When one fails, those mounted before it are unmounted again, last first. The error
// holds all that failed, and its errors are those of [Mount.Mount] and [Unmount].
func All(mounts []Mount, target string) error {
	return withMounter(func(mt *mounter) error { return mountAll(context.Background(), mt, mounts, target) })
}

// UnmountMounts unmounts the mounts at target, last first, as [UnmountAll] does.
// It goes on after a failure, and returns all errors. flags are not used.
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
		if errors.Is(err, os.ErrNotExist) { // the mount above it, which it was in, is unmounted already
			continue
		}
		if err == nil {
			err = mt.unmountAll(mountpoint)
		}
		errs = append(errs, err)
	}
	return stderrors.Join(errs...)
}
