package mount

import (
	"context"
	stderrors "errors"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/pkg/errors"
)

// tempLocation is where WithTempMount makes its directories; "" is os.TempDir().
var tempLocation struct {
	sync.Mutex
	dir string
}

// SetTempMountLocation sets the directory in which WithTempMount makes its directories, in place of
// os.TempDir(), and makes it where it is absent. There CleanupTempMounts finds what others left.
func SetTempMountLocation(root string) error {
	return withMounter(func(*mounter) error { return setTempLocation(root) })
}

func setTempLocation(root string) error {
	root, err := absolute(root)
	if err != nil {
		return errors.WithMessage(err, "invalid location of temporary mounts")
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return errors.Wrap(err, "failed to set the location of temporary mounts")
	}
	tempLocation.Lock()
	defer tempLocation.Unlock()
	tempLocation.dir = root
	return nil
}

func getTempLocation() string {
	tempLocation.Lock()
	defer tempLocation.Unlock()
	if tempLocation.dir != "" {
		return tempLocation.dir
	}
	return os.TempDir()
}

// WithTempMount mounts the mounts at a new temporary directory, calls f with it,
// and unmounts and removes it again, also when f panics. A directory that cannot
// be unmounted is not removed, nor is anything in it.
//
// The error holds all that failed: mounting, f, unmounting and removing, each
// of which errors.Is can match. When ctx ends, no call of HCS is made again while
// mounting; what is mounted is always unmounted.
func WithTempMount(ctx context.Context, mounts []Mount, f func(root string) error) error {
	return withMounter(func(mt *mounter) error { return mt.withTempMount(ctx, mounts, f) })
}

// WithReadonlyTempMount is WithTempMount with the option "ro" on all mounts,
// which are copied. With [UseBindFilter] what f is shown cannot be written to; through a link it can.
func WithReadonlyTempMount(ctx context.Context, mounts []Mount, f func(root string) error) error {
	return WithTempMount(ctx, readonlyMounts(mounts), f)
}

// readonlyMounts returns the mounts as read-only ones. Those of overlayfs, which
// no Windows layer is, lose their upper directory, which becomes their topmost
// lower one: containerd's tests of this package, which a fork keeps, want it so.
func readonlyMounts(mounts []Mount) []Mount {
	readonly := filterOptions(mounts, func(m Mount, option string) bool {
		if m.Type == "overlay" {
			return !strings.HasPrefix(option, "upperdir=") && !strings.HasPrefix(option, "workdir=")
		}
		return option != "rw" && option != "ro"
	})
	for i, m := range mounts {
		if m.Type != "overlay" {
			readonly[i].Options = append(readonly[i].Options, "ro")
		}
		for _, option := range m.Options {
			if upper, is := strings.CutPrefix(option, "upperdir="); is && m.Type == "overlay" {
				raiseLower(readonly[i].Options, upper)
			}
		}
	}
	return readonly
}

func raiseLower(options []string, upper string) {
	for i, option := range options {
		if lower, is := strings.CutPrefix(option, "lowerdir="); is {
			options[i] = "lowerdir=" + upper + ":" + lower
		}
	}
}

// RemoveVolatileOption returns the mounts without the option "volatile" (or "fsync=volatile")
// of overlay mounts, which no Windows layer has. The mounts that it is given stay as they are.
func RemoveVolatileOption(mounts []Mount) []Mount {
	return filterOptions(mounts, func(m Mount, option string) bool {
		return m.Type != "overlay" || option != "volatile" && option != "fsync=volatile"
	})
}

// filterOptions copies the mounts with the options that keep wants.
func filterOptions(mounts []Mount, keep func(m Mount, option string) bool) []Mount {
	filtered := copyMounts(mounts)
	for i, m := range mounts {
		filtered[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(option string) bool { return !keep(m, option) })
	}
	return filtered
}

func copyMounts(mounts []Mount) []Mount { return append([]Mount{}, mounts...) }

// CleanupTempMounts unmounts every mount below the location of temporary mounts and removes
// the directory that was its target, as WithTempMount would have done in a process that was
// killed. A directory stays in which nothing was mounted, or all in sub-directories.
//
// It returns an error for each mount that could not be unmounted or removed, which is left for
// the next call, and for each damaged file in the mount table, or one error when the table
// cannot be read. Mounts of processes that run are unmounted as well: call it when a runtime
// starts, with a location that is its own. flags are not used.
func CleanupTempMounts(flags int) ([]error, error) {
	mt, err := newMounter()
	if err != nil {
		return nil, err
	}
	return mt.cleanupTempMounts()
}

func (mt *mounter) withTempMount(ctx context.Context, mounts []Mount, f func(root string) error) (err error) {
	if err := ctx.Err(); err != nil {
		return errors.WithStack(err)
	}
	root, err := os.MkdirTemp(getTempLocation(), "containerd-mount")
	if err != nil {
		return errors.Wrap(err, "failed to make a temporary directory")
	}
	defer func() { err = stderrors.Join(err, mt.removeTemp(root)) }()
	if err := mt.all(ctx, mounts, root); err != nil {
		return errors.WithMessagef(err, "failed to mount at %s", root)
	}
	defer func() {
		undo := mt.unmountMounts(mounts, root)
		err = stderrors.Join(err, errors.WithMessagef(undo, "failed to unmount %s", root))
	}()
	return errors.WithMessagef(f(root), "mount callback failed on %s", root)
}

// removeTemp removes a directory that is empty once it is unmounted. RemoveAll would go on into a
// layer that could not be unmounted, and os.Remove would take a link.
func (mt *mounter) removeTemp(root string) error {
	err := mt.table.whileBusy(func() error { return removeDir(root) })
	if errors.Is(err, os.ErrNotExist) { // Unmount has failed before it put it back
		return nil
	}
	return errors.Wrapf(err, "failed to remove the temporary directory %s", root)
}

func (mt *mounter) cleanupTempMounts() ([]error, error) {
	targets, failed, err := mt.below(getTempLocation())
	if err != nil {
		return nil, err
	}
	for _, at := range targets {
		_, err := mt.unmountTarget(at.Key)
		if err == nil && at.Replaced {
			err = mt.removeTemp(at.Resolved)
		} else if err == nil && at.Bound != "" {
			err = mt.table.whileBusy(func() error { return removeEmptyDir(at.Resolved) })
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed, nil
}
