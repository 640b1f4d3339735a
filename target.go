package mount

import (
	"context"
	"os"
	"path/filepath"

	"github.com/pkg/errors"
)

// target is a path at which a layer is shown.
type target struct {
	// Path is as the caller gave it. Resolved is the same path without links and 8.3 names on
	// the way. Those may be gone or lead elsewhere by the time of Unmount, so everything is
	// done at Resolved.
	Path     string `json:"path"`
	Resolved string `json:"resolved"`
	Key      key    `json:"key"`
	// Bound is the start of the system in which the layer was bound to the target, and "" where
	// a link shows it. Windows forgets bindings when it shuts down. See also neverBound.
	Bound string `json:"bound,omitempty"`
	// Made is set when the target was absent, and Mount makes its directory for the binding. Unmount
	// removes the directory.
	Made bool `json:"made,omitempty"`
	// MadeID is the ID of that directory. Where another layer was bound above the target, the
	// directory is in that layer, and once that binding is gone, the path may lead to a directory
	// of a user. It is empty in the record of a process that was killed before the end of Mount,
	// and where the directory was missing at an Unmount, which may make it anew.
	MadeID string `json:"madeID,omitempty"`
	// ReadOnly is set when the bind filter refuses to write through the target.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Replaced is set when the target was an empty directory, whose place the link takes.
	Replaced bool `json:"replaced,omitempty"`
	// Linked is set when the link was there at the end of Mount. If it is missing later, somebody
	// has removed it, and Unmount does not put the directory back.
	Linked bool `json:"linked,omitempty"`
	// Restored is set when the target is as it was before Mount, or when there is nothing to
	// restore because somebody has removed the link.
	Restored bool `json:"restored,omitempty"`
	// Shown is set from the end of a Mount to the beginning of the Unmount. It is false in the
	// record of a process that was killed before or after that.
	Shown bool `json:"shown,omitempty"`
}

// inspect refuses a target that is in use: anything but a directory, which for a link must be empty.
// It fills in whether the link replaces a directory, or one has to be made for the binding.
func (at *target) inspect() error {
	at.Made, at.Replaced = false, false
	info, err := os.Lstat(at.Resolved)
	if errors.Is(err, os.ErrNotExist) {
		at.Made = at.Bound != ""
		parent, err := os.Stat(filepath.Dir(at.Resolved))
		if err == nil && !parent.IsDir() { // Windows reports what is below a file as absent, too
			err = errors.New("its parent is not a directory")
		}
		return errors.WithMessagef(err, "failed to mount at %s", at.Path)
	}
	if err == nil && !info.IsDir() {
		err = errors.WithMessage(os.ErrExist, "neither absent nor a directory")
	}
	if err == nil && at.Bound == "" {
		at.Replaced = true
		var entries []os.DirEntry
		if entries, err = os.ReadDir(at.Resolved); len(entries) > 0 {
			err = errors.WithMessage(os.ErrExist, "directory is not empty")
		}
	}
	return errors.WithMessagef(err, "failed to mount at %s", at.Path)
}

// isLinked reports whether the link to the layer is at the target. Anything else there belongs to
// somebody else.
func (at *target) isLinked(r *record) (bool, error) {
	info, err := os.Lstat(at.Resolved)
	if r.Volume == "" || errors.Is(err, os.ErrNotExist) || err == nil && info.Mode()&os.ModeSymlink == 0 {
		return false, nil
	}
	var text string
	if err == nil {
		text, err = readLink(at.Resolved)
	}
	if errors.Is(err, errNoSymlink) {
		return false, nil
	}
	return err == nil && sameLink(text, r.destination()), errors.Wrap(err, "failed to look at the target")
}

// removeMade removes the directory that Mount made for a binding. It leaves alone one that somebody has
// put in its place, as far as can be known, and one that is not empty any more.
func (at *target) removeMade() error {
	if at.MadeID != "" {
		id, err := fileID(at.Resolved)
		if errors.Is(err, os.ErrNotExist) || err == nil && id != at.MadeID {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return removeEmptyDir(at.Resolved)
}

// link puts the link to the layer at the target. Each of its steps is retried by itself: the
// directory must not be removed twice.
func (at *target) link(r *record, pause pauser) error {
	destination := r.destination()
	if at.Replaced {
		if err := pause.whileBusy(func() error { return removeDir(at.Resolved) }); err != nil {
			return errors.Wrapf(err, "failed to replace directory %s by a link", at.Path)
		}
	}
	if err := pause.whileBusy(func() error { return makeLink(destination, at.Resolved) }); err != nil {
		return errors.Wrapf(err, "failed to link layer %s", r.Source)
	}
	// Windows may have been told not to follow the link (fsutil behavior set SymlinkEvaluation,
	// moby 38220), and the volume may be late.
	isLate := func(err error) bool {
		return (isVolumeGone(err) || isAny(err, transient...)) && !isGone(at.Resolved)
	}
	err := pause.retry(context.Background(), isLate, func() error {
		info, err := os.Stat(at.Resolved)
		if err == nil && !info.IsDir() {
			err = errors.New("not a directory")
		}
		return err
	})
	if err != nil && !isGone(at.Resolved) { // a link that is gone was removed by somebody else
		return errors.Wrapf(err, "the link to %s does not show layer %s", destination, r.Source)
	}
	return nil
}

// unlink removes the link to the layer from the target, and puts the directory back that it had
// replaced. It leaves alone what somebody has put in the place of the link.
func (at *target) unlink(r *record) error {
	linked, err := at.isLinked(r)
	if err != nil {
		return err
	}
	if linked {
		// This is durable before the record is dropped: no other Unmount would know the link.
		if err := removeLink(at.Resolved, r.destination()); err != nil {
			return errors.Wrapf(err, "failed to remove the link to layer %s", r.Source)
		}
	}
	if !at.Replaced || at.Restored {
		return nil
	}
	err = os.Mkdir(at.Resolved, 0o755)
	if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) { // the latter when the directory that it was in is gone
		return nil
	}
	return errors.Wrap(err, "failed to put the directory back")
}

// isEmpty reports whether a directory is empty, or absent, or cannot be read.
func isEmpty(path string) bool {
	dir, err := os.Open(path)
	if err != nil {
		return true
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(1)
	return len(names) == 0
}

// removeEmptyDir removes a directory durably, and leaves alone what is not an empty directory any more.
func removeEmptyDir(path string) error {
	err := removeDirDurably(path)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if entries, readErr := os.ReadDir(path); readErr != nil || len(entries) > 0 {
		return nil
	}
	return err
}
