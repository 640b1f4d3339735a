package mount

import (
	"context"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// destination returns what a link to the open layer leads to, and what is bound to a target.
func destination(r *table.Mount) string {
	if r.Type == bindType {
		return r.Volume
	}
	if len(r.Parents) == 0 && !hcs.IsVolume(r.Volume) {
		// A base layer has no filter: its mount path is its own directory, which also holds what
		// belongs to HCS. A client must see the files alone.
		return filepath.Join(r.Volume, "Files")
	}
	// A link to `\\?\Volume{GUID}` without the separator leads to the device and not to its root directory.
	return r.Volume + string(filepath.Separator)
}

// link puts a link to the layer in the place of the target. Its steps are retried one by one, so that the
// directory is not removed twice.
func (e *engine) link(r *table.Mount) error {
	text := destination(r)
	if r.Directory {
		if err := winfs.WhileBusy(e.pause, func() error { return winfs.RemoveDir(r.Resolved) }); err != nil {
			return errors.Wrapf(err, "failed to replace directory %s by a link", r.Target)
		}
	}
	if err := winfs.WhileBusy(e.pause, func() error { return winfs.Link(text, r.Resolved) }); err != nil {
		return errors.Wrapf(err, "failed to link layer %s", r.Source)
	}
	// Windows may have been told not to follow the link (fsutil behavior set SymlinkEvaluation,
	// moby 38220), and the volume may be late.
	err := e.pause.Do(noContext, isLate, func() error { return checkDirectory(r.Resolved) })
	return errors.Wrapf(err, "link to %s does not show layer %s", text, r.Source)
}

// isLate reports whether an error says that a volume is not there yet. The code is ERROR_NOT_READY.
func isLate(err error) bool { return winfs.NotExist(err) || errors.Is(err, syscall.Errno(21)) }

var noContext = context.Background()

// isLinked reports whether the link to the layer is at the target. Anything else there is somebody else's.
func isLinked(r *table.Mount) (bool, error) {
	text, err := winfs.ReadLink(r.Resolved)
	if winfs.NotExist(err) || errors.Is(err, winfs.ErrNotLink) {
		return false, nil
	}
	return err == nil && winpath.Equal(text, destination(r)), errors.Wrap(err, "failed to look at the target")
}

// unlink removes the link to the layer from the target, and puts back the directory that it replaced. It leaves
// alone what somebody has put in the place of the link.
func (e *engine) unlink(r *table.Mount) error {
	// The change is durable before the record is removed: no other Unmount would know the link.
	err := winfs.WhileBusy(e.pause, func() error { return winfs.RemoveLink(r.Resolved, destination(r)) })
	if err != nil {
		return errors.Wrapf(err, "failed to remove the link to layer %s", r.Source)
	}
	if !r.Directory {
		return nil
	}
	err = winfs.WhileBusy(e.pause, func() error { return os.Mkdir(r.Resolved, 0o755) })
	if errors.Is(err, os.ErrExist) || winfs.NotExist(err) { // the latter if the directory that it was in is gone
		return nil
	}
	return errors.Wrap(err, "failed to put the directory back")
}
