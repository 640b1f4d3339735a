// Package mount shows Windows container layers at a path and takes them away
// again.
//
// A snapshotter hands out a [Mount]: Type "windows-layer", the layer's
// directory as Source and its parents as a JSON list in an option. Mounting it
// opens the layer through the Host Compute Service (HCS) and makes a directory
// symlink to it at the target; unmounting removes the link and closes the
// layer. HCS cannot tell which layer a link shows, so a small record of every
// mount is kept on disk (the mount table, see [SetTableDir]). It is written
// before HCS is called: whenever a process dies, [Unmount] in another one finds
// the record and cleans up.
//
// Mount is all or nothing, Unmount can be repeated, and both are safe to call
// from many goroutines and processes at once. Windows does the work on Windows
// only; elsewhere the functions that would touch a layer report
// [errors.ErrUnsupported].
package mount

import (
	"context"
	stderrors "errors"

	"github.com/pkg/errors"
)

var (
	// ErrNotImplementOnWindows is the error of an action that Windows does not
	// have. It matches errors.ErrUnsupported.
	ErrNotImplementOnWindows = errors.WithMessage(stderrors.ErrUnsupported, "not implemented under windows")

	// ErrNotImplementOnUnix is the error of an action that only Windows has,
	// such as mounting a layer. It matches errors.ErrUnsupported.
	ErrNotImplementOnUnix = errors.WithMessage(stderrors.ErrUnsupported, "not implemented under unix")
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
	// Options holds ParentLayerPathsFlag with the layer's parents, and possibly
	// "ro", which protects nothing: see the README.
	Options []string
}

// ReadOnly tells whether the mount has the option "ro", which Mount does not
// enforce.
func (m *Mount) ReadOnly() bool {
	for _, option := range m.Options {
		if option == "ro" {
			return true
		}
	}
	return false
}

// All mounts the mounts at target, in order; each may name a sub-directory of
// its own in Target. When one fails, those mounted before it are unmounted
// again, last first, and the error holds what failed, in mounting and in
// unmounting alike. Its errors are those of [Mount.Mount] and [Unmount].
func All(mounts []Mount, target string) error {
	mt, err := newMounter()
	if err != nil {
		return err
	}
	return mt.all(context.Background(), mounts, target)
}

// UnmountMounts unmounts the mounts at target, last first, as [UnmountAll] does.
// It goes on after a failure, and returns all errors. flags are not used.
func UnmountMounts(mounts []Mount, target string, flags int) error {
	mt, err := newMounter()
	if err != nil {
		return err
	}
	return mt.unmountMounts(context.Background(), mounts, target)
}
