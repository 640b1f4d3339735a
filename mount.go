// Package mount mounts and unmounts Windows container layers.
//
// A snapshotter describes a layer as a [Mount]: its Type is "windows-layer", its Source the directory of the
// layer, and an option lists the layer's parents. [Mount.Mount] opens the layer through the Host Compute
// Service (HCS) and shows it at a target: by a directory symlink, or by a binding if the program has called
// [UseBindFilter]. [Unmount] removes it from the target and closes it.
//
// # Layers and targets
//
// Opening a layer takes two calls. ActivateLayer attaches its scratch disk; PrepareLayer attaches the union
// filter over its parents. While a layer is open nobody else can open it, and its directory cannot be removed.
// A layer may be shown at several targets: it is opened for the first one and closed with the last one.
//
// # The mount table
//
// HCS does not know where a layer is shown, and a process may be killed at any time. The package therefore
// keeps a record on disk for each mount (see [SetTableDir]). Each step is recorded before it is taken, and
// Unmount, in any process, can undo a mount from each of its states:
//
//	opening  the record is made, and the layer may be open
//	linked   the volume of the layer is on record, and the target may show it
//	shown    Mount has returned nil
//	leaving  Unmount has begun: the target and the layer may be as before
//	closed   the layer is closed, and something is left to do at the target
//
// A failed Mount is undone in the same way. If that fails, the record stays, so that Unmount can be repeated.
// After a restart of Windows no layer is open. What was mounted before it is cleared away without a call of
// HCS: somebody else may have opened the layer since.
//
// # What an error of HCS means
//
// Hosts differ in the codes that HCS returns for the same condition. A code decides whether a call is tried
// again, and never whether a layer with a volume is open: that is decided by its volume. A layer without a
// volume leaves no other evidence, so there the code of UnprepareLayer also decides whether the layer was
// closed.
//
// # Concurrency
//
// All functions may be called from many goroutines and processes at once, if these use the same mount table.
// A Mount or Unmount waits for others of the same layer or target, and for no other. Within a process
// hcsshim prepares one layer at a time.
//
// # Other systems
//
// On systems other than Windows, functions that would touch a layer return [ErrNotImplementOnUnix].
//
// # Where to read on
//
// The steps of a mount and their undo are in engine.go; link.go and binding.go show an open layer at a target,
// and unmount.go finds what is to be unmounted. In which order a layer is opened is in internal/hcs/open.go,
// and when it counts as closed in internal/hcs/close.go. What is on disk is in internal/table/record.go.
package mount

import (
	"context"
	stderrors "errors"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/winpath"
)

var (
	// ErrNotImplementOnWindows is the error of an action that Windows does not
	// have. It matches errors.ErrUnsupported.
	ErrNotImplementOnWindows = errors.WithMessage(stderrors.ErrUnsupported, "not implemented under windows")

	// ErrNotImplementOnUnix is the error of an action that only Windows has,
	// such as mounting a layer. It matches errors.ErrUnsupported.
	ErrNotImplementOnUnix = errors.WithMessage(stderrors.ErrUnsupported, "not implemented under unix")
)

// Mount describes which layer to mount, and how.
type Mount struct {
	// Type is "windows-layer", or "bind" for a directory that is no layer. Mount rejects any other.
	Type string
	// Source is the directory of the layer, or the one to bind.
	Source string
	// Target is an optional sub-directory of the target, at which the layer is shown instead. It cannot
	// lead out of the target.
	Target string
	// Options lists the layer's parents, see ParentLayerPathsFlag, and may contain "ro". A mount of type "bind"
	// may have "ro", "rw" and "rbind".
	Options []string
}

// ReadOnly reports whether the mount has the option "ro". It is enforced if the bind filter shows the layer,
// and not if a link does (see [UseBindFilter]).
func (m *Mount) ReadOnly() bool { return slices.Contains(m.Options, "ro") }

// Mount opens the layer m.Source and shows it at target, or at the directory below target that m.Target names.
// If the layer is already shown at another target it is not opened again, and the parents in m.Options are
// ignored. For a layer without parents, Mount shows its Files directory.
//
// The target must be absent or an empty directory. A link takes the place of the directory, and Unmount puts
// an empty one back. With [UseBindFilter] the directory may contain files. Mount first clears away what a
// restart of Windows has left at the target, or a process that was killed while it mounted or unmounted. A
// completed mount stays live after its process has ended: unmount it first.
//
// The parent directory of the target must exist, and so must the directories on the way to m.Target, none of
// which may be a link. The parent directory must be owned by a user whom readers of the mount trust: anyone
// who can write there can replace the link. Through a link the layer can be written to, whatever m.Options say.
//
// A mount of type "bind" shows the directory m.Source at target, always through the bind filter, and does not call
// HCS. Unmount its target: its Source stands for nothing. Unmount what is bound from a layer before the layer.
//
// A relative target is relative to the working directory. Mount changes nothing if it rejects its arguments:
//   - Type is neither "windows-layer" nor "bind",
//   - GetParentPaths fails, or a mount of type "bind" has another option than those of [Mount],
//   - Source is relative, the root of a volume, or ends in an element that is empty, "." or "..",
//   - target is the root of a volume, or lies in the mount table,
//   - a path contains a NUL, or names something other than a plain directory to Windows,
//   - Windows has no bind filter, or a binding would hide files that are needed (see [UseBindFilter]).
//
// If the target is in use, Mount returns an error that matches os.ErrExist and does not call HCS. If other code
// has the layer open, Mount leaves it open, and the error matches windows.ERROR_SHARING_VIOLATION; for a layer
// without a volume it is the error of PrepareLayer. An error of HCS matches its Windows code and
// *hcsshim.HcsError. On other systems Mount returns [ErrNotImplementOnUnix].
//
// Mount retries transient failures, five attempts in all, 100 ms apart: codes that HCS returns under load, a
// volume that has not appeared yet, a file that another program holds open. If Mount fails, it undoes what it
// has done. What it cannot undo is part of the error and stays on record, so that Unmount can undo it.
func (m *Mount) Mount(target string) error { return m.mount(target) }

func (m *Mount) mount(target string) error {
	return withEngine(func(e *engine) error { return e.mount(context.Background(), m, target) })
}

// All mounts the mounts at target, in order; each may name a sub-directory of its own in Target. If one fails,
// those before it are unmounted again, the last first. The error joins those of [Mount.Mount] and [Unmount].
func All(mounts []Mount, target string) error {
	return withEngine(func(e *engine) error { return e.mountAll(context.Background(), mounts, target) })
}

func (e *engine) mountAll(ctx context.Context, mounts []Mount, target string) error {
	for i := range mounts {
		if err := e.mount(ctx, &mounts[i], target); err != nil {
			return withUndo(err, e.unmountMounts(mounts[:i], target))
		}
	}
	return nil
}

// Unmount unmounts what is at a path. If mount is a target, Unmount hides the layer there, and closes it if no
// other target shows it. If mount is the directory of a layer, Unmount does so at all of its targets. The flags
// are ignored.
//
// A target at which containerd 1.7 or 2.x has bound a layer is unmounted like one of this package. The stream
// containerd.io-source tells which layer that is.
//
// Unmount removes the link and puts back the directory that it replaced, or it removes the binding and the
// directory that Mount made for it. It closes the layer even if that failed. The record is removed once all has
// succeeded; otherwise the error says which step failed, and Unmount can be called again. What was mounted
// before a restart of Windows is cleared away without HCS: somebody else may have opened the layer since,
// or bound something to the target.
//
// If the directory of a layer is in no record, Unmount asks HCS to close the layer, since other code may have
// opened it. A directory counts as a layer's if it has a sandbox.vhdx, a layerchain.json, or Files and Hives; a
// link to it does not. For any other path Unmount changes nothing and returns nil, unless the path is malformed,
// as for Mount, or cannot be resolved. A target whose directory cannot be reached any more, because a link is gone
// or a drive has lost its medium, is known by the path that Mount was given.
//
// If the file of a mount in the mount table is damaged, Unmount of its target returns an error that names the
// file. Unmount of the layer's directory closes the layer, and leaves what is at that target. The damaged file of
// a mount of type "bind" is removed as it is reported.
//
// An error of HCS can be matched as for Mount. Closing the layer and removing a binding are retried after any
// error: five attempts in all, 100 ms apart. Unmount only removes links, bindings and directories that Mount
// made, and not what somebody has put in their place. For bindings that takes a list of them, which Windows
// Server 2019 does not have. On other systems Unmount returns [ErrNotImplementOnUnix].
func Unmount(mount string, flags int) error {
	return withEngine(func(e *engine) error {
		_, err := e.unmount(mount)
		return err
	})
}

// UnmountAll calls [Unmount] until nothing is left to unmount, and returns its error. It returns nil for "" and
// for a path that does not exist and is in no record. The flags are ignored. On other systems UnmountAll returns
// [ErrNotImplementOnUnix].
func UnmountAll(mount string, flags int) error {
	return withEngine(func(e *engine) error {
		_, err := e.unmountAll(mount)
		return err
	})
}

// UnmountMounts unmounts the mounts at target, the last first, as [UnmountAll] does. It continues after a
// failure, and returns all errors. The flags are ignored. On other systems UnmountMounts returns
// [ErrNotImplementOnUnix].
func UnmountMounts(mounts []Mount, target string, flags int) error {
	return withEngine(func(e *engine) error { return e.unmountMounts(mounts, target) })
}

// UnmountRecursive unmounts every mount whose target lies below mount, the deepest first, and then does what
// [UnmountAll] does for mount itself. It returns nil for "". The flags are ignored. If bindings can be listed, it
// also unmounts what containerd 1.7 or 2.x has bound below mount.
//
// It reads the whole mount table. It continues after a failure and returns all errors, which are those of
// [Unmount]. It does not report damaged files in the table, except that of mount itself: whether their targets
// lie below mount is not known. [List] and [CleanupTempMounts] report all of them. On other systems
// UnmountRecursive returns [ErrNotImplementOnUnix].
func UnmountRecursive(mount string, flags int) error {
	return withEngine(func(e *engine) error { return e.unmountRecursive(mount) })
}

// bindsLayers is whether this process shows layers by bindings, see UseBindFilter.
var bindsLayers atomic.Bool

// UseBindFilter sets how this process shows layers from now on: by the bind filter of Windows, or by links,
// which is the default. A mount that exists stays as it is, and any process can unmount it. On other systems it
// has no effect.
//
// With the bind filter the target is a directory, which programs can walk, and "ro" is enforced. The directory may
// contain files, which are out of sight until Unmount. If it is absent, Mount makes it, and Unmount removes it.
// Until Unmount the target has the stream containerd.io-source with the source of the layer, which moby reads,
// unless the layer is read-only and may not be written to. Mount rejects a target that would hide files of the
// layer, its parents or the mount table, and one in which a layer is mounted.
//
// If bindfltapi.dll is missing (before Windows Server 2019), Mount returns an error that matches
// errors.ErrUnsupported. If the filter is denied, as in a HostProcess container, the error matches
// windows.ERROR_ACCESS_DENIED. Mount never makes a link instead.
func UseBindFilter(on bool) { bindsLayers.Store(on) }

// SetTableDir sets the directory of the mount table, in place of %ProgramData%\windows-layer-mounts. Every
// process that shares layers must set the same one before it mounts: a process does not see what is on record
// in another table. The last directory of the path is made when the table is first needed. SetTableDir
// returns an error for a path that is relative, malformed or the root of a volume, and for a directory
// that contains anything but a mount table. On other systems it returns [ErrNotImplementOnUnix].
//
// Only Administrators and SYSTEM keep access to the directory, unless its access list is protected already. A
// directory that belongs to anybody else but the user of this process is not trusted: it is renamed, with
// ".untrusted-" and a number at the end, and a new one is made. If the files in it belong to somebody who is
// not trusted, the file of locks is replaced, and any other makes the table unusable.
func SetTableDir(dir string) error {
	if err := winpath.Check(dir); err != nil {
		return errors.WithMessage(err, "mount table")
	}
	if winpath.IsRoot(dir) {
		return errors.Errorf("mount table: %q is the root of a volume", dir)
	}
	return setTableDir(filepath.Clean(dir))
}
