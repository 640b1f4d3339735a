package mount

import (
	"cmp"
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// tempLocation is where WithTempMount makes its directories, or "" for os.TempDir().
var tempLocation atomic.Value // a string

// SetTempMountLocation sets the directory in which [WithTempMount] makes its directories, in place of
// os.TempDir(). If it is absent it is made, and then only Administrators and SYSTEM can use it. The error
// matches os.ErrPermission if it belongs to anybody but Administrators, SYSTEM or the user of this process:
// whoever owns it can turn the links in it elsewhere. On other systems SetTempMountLocation returns
// [ErrNotImplementOnUnix].
func SetTempMountLocation(root string) error { return setTempLocation(root) }

func getTempLocation() string {
	dir, _ := tempLocation.Load().(string)
	return cmp.Or(dir, os.TempDir())
}

// WithTempMount mounts the mounts at a new temporary directory and calls f with it. It unmounts and removes the
// directory when f returns or panics. If unmounting fails, the directory and its contents stay, and
// [CleanupTempMounts] removes them later.
//
// The error joins all that failed: mounting, f, unmounting and removing. errors.Is can match each of them.
// If ctx ends while the mounts are mounted, no call of HCS is retried. What is mounted is unmounted all the
// same.
func WithTempMount(ctx context.Context, mounts []Mount, f func(root string) error) error {
	return withEngine(func(e *engine) error { return e.withTempMount(ctx, mounts, f) })
}

// WithReadonlyTempMount is [WithTempMount] with read-only copies of the mounts: each gets the option "ro". With
// [UseBindFilter] f cannot write to what it is shown; through a link it can.
func WithReadonlyTempMount(ctx context.Context, mounts []Mount, f func(root string) error) error {
	return WithTempMount(ctx, readonly(mounts), f)
}

func readonly(mounts []Mount) []Mount {
	copies := filterOptions(mounts, func(_ Mount, option string) bool { return option != "rw" && option != "ro" })
	for i := range copies {
		copies[i].Options = append(copies[i].Options, "ro")
	}
	return copies
}

// RemoveVolatileOption returns copies of the mounts without the option "volatile" or "fsync=volatile" of
// overlay mounts, which no Windows layer has.
func RemoveVolatileOption(mounts []Mount) []Mount {
	return filterOptions(mounts, func(m Mount, option string) bool {
		return m.Type != "overlay" || option != "volatile" && option != "fsync=volatile"
	})
}

// filterOptions copies the mounts with the options that keep wants.
func filterOptions(mounts []Mount, keep func(m Mount, option string) bool) []Mount {
	filtered := append([]Mount{}, mounts...)
	for i, m := range mounts {
		filtered[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(option string) bool { return !keep(m, option) })
	}
	return filtered
}

// CleanupTempMounts unmounts every mount below the location of temporary mounts, and removes the directories in it
// that were targets, as [WithTempMount] would have done if its process had not been killed. If bindings can be
// listed, it does so with the mounts of containerd's own package, too. Any other directory stays. Mounts of running
// processes are unmounted as well: call it when a runtime starts, with a location of its own (see
// [SetTempMountLocation]). The flags are ignored.
//
// It returns an error for each mount that it could not unmount or remove, which is left to the next call,
// and for each damaged file in the mount table. If the table cannot be read, that is its second result. On
// other systems that is [ErrNotImplementOnUnix].
func CleanupTempMounts(flags int) (failed []error, err error) {
	err = withEngine(func(e *engine) (err error) {
		failed, err = e.cleanupTempMounts()
		return err
	})
	return failed, err
}

func (e *engine) withTempMount(ctx context.Context, mounts []Mount, f func(root string) error) (err error) {
	if err := ctx.Err(); err != nil {
		return errors.WithStack(err)
	}
	root, err := os.MkdirTemp(getTempLocation(), "containerd-mount")
	if err != nil {
		return errors.Wrap(err, "failed to make a temporary directory")
	}
	defer func() { err = stderrors.Join(err, e.removeTemp(root)) }()
	if err := e.mountAll(ctx, mounts, root); err != nil {
		return errors.WithMessagef(err, "failed to mount at %s", root)
	}
	defer func() {
		var insideErr error
		if _, statErr := os.Stat(root); statErr != nil {
			// Somebody has removed a link. What is mounted behind it cannot be found by its path.
			insideErr = e.unmountRecursive(root)
		}
		undo := stderrors.Join(insideErr, e.unmountMounts(mounts, root))
		err = stderrors.Join(err, errors.WithMessagef(undo, "failed to unmount %s", root))
	}()
	return errors.WithMessagef(f(root), "mount callback failed on %s", root)
}

func (e *engine) cleanupTempMounts() ([]error, error) {
	location, _ := winfs.Resolve(getTempLocation()) // if it cannot be resolved, nothing is removed
	return e.unmountBelow(getTempLocation(), func(r *table.Mount) error {
		isOurs := r.Directory && winpath.Equal(filepath.Dir(r.Resolved), location.Path)
		if sources, _ := e.boundTo(r.Resolved); !isOurs || len(sources) > 0 {
			return nil
		}
		return e.removeTemp(r.Resolved)
	})
}

// removeTemp removes a temporary directory, which is empty once it is unmounted. It does not use
// os.RemoveAll, which would descend into a layer that could not be unmounted, nor os.Remove, which
// would remove a link. A directory that is still on record stays: removing it could remove what is bound
// to it.
func (e *engine) removeTemp(root string) error {
	names, err := e.namesAt(root)
	if len(names) > 0 {
		return nil // Unmount has reported it
	}
	if err == nil {
		err = winfs.WhileBusy(e.pause, func() error { return winfs.RemoveDir(root) })
	}
	if winfs.NotExist(err) { // Unmount failed before it put the directory back
		return nil
	}
	return errors.Wrapf(err, "temporary directory %s was not removed", root)
}
