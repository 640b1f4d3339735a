package mount

import (
	"context"
	stderrors "errors"
	"os"
	"slices"
	"strings"

	"github.com/pkg/errors"
)

// tempMountLocation is where WithTempMount makes its directories, or "" for os.TempDir(). It is set by
// SetTempMountLocation.
var tempMountLocation string

// WithTempMount mounts the mounts at a new temporary directory, calls f with it, and unmounts and removes
// it again, also when f panics. A directory that cannot be unmounted is not removed, nor is anything in
// it.
//
// The error joins all that failed: mounting, f, unmounting and removing, each of which errors.Is can match.
// When ctx ends while it mounts, no call of HCS is retried. What is mounted is unmounted all the same.
func WithTempMount(ctx context.Context, mounts []Mount, f func(root string) error) error {
	return withMounter(func(mt *mounter) error { return withTempMount(ctx, mt, mounts, f) })
}

// WithReadonlyTempMount is WithTempMount with copies of the mounts, to each of which it adds "ro". With [UseBindFilter] f cannot write to what it is shown; through a link it can.
func WithReadonlyTempMount(ctx context.Context, mounts []Mount, f func(root string) error) error {
	return WithTempMount(ctx, readonlyMounts(mounts), f)
}

// readonlyMounts returns read-only copies of the mounts. As in containerd, the upper directory of an
// overlay mount, which no Windows layer is, becomes its topmost lower one.
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

// RemoveVolatileOption returns copies of the mounts without the option "volatile" or "fsync=volatile" of
// overlay mounts, which no Windows layer has.
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

func withTempMount(ctx context.Context, mt *mounter, mounts []Mount, f func(root string) error) (err error) {
	if err := ctx.Err(); err != nil {
		return errors.WithStack(err)
	}
	root, err := os.MkdirTemp(getTempLocation(), "containerd-mount")
	if err != nil {
		return errors.Wrap(err, "failed to make a temporary directory")
	}
	defer func() { err = stderrors.Join(err, removeTemp(mt, root)) }()
	if err := mountAll(ctx, mt, mounts, root); err != nil {
		return errors.WithMessagef(err, "failed to mount at %s", root)
	}
	defer func() {
		undo := unmountMounts(mt, mounts, root)
		err = stderrors.Join(err, errors.WithMessagef(undo, "failed to unmount %s", root))
	}()
	return errors.WithMessagef(f(root), "mount callback failed on %s", root)
}
