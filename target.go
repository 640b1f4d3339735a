package mount

import (
	"context"
	"os"
	"path/filepath"

	"github.com/pkg/errors"
)

// newTarget returns the target at a path, which is not followed where it is a link.
func newTarget(path string) (target, error) {
	name := filepath.Base(path)
	final, folded, _, err := finalPath(path, false)
	if err == nil && !sameLink(final, path) {
		// Its directory is reached through a link, or has an 8.3 name. Or, should the bind
		// filter not hide it, final is the path of what is bound there.
		var parent string
		if parent, _, _, err = canonical(filepath.Dir(path)); err == nil && !sameLink(filepath.Dir(final), parent) {
			err = os.ErrNotExist
		}
	}
	if err == nil {
		name = filepath.Base(final) // in place of an 8.3 name, so that Unmount finds the link
	}
	if err != nil || folded == final { // it is absent, or case may make a difference
		var exact bool
		if final, folded, exact, err = canonical(filepath.Dir(path)); err != nil {
			return target{}, err
		}
		final, folded = filepath.Join(final, name), joinFolded(folded, name, exact)
	}
	at := target{Path: filepath.Join(filepath.Dir(path), name), Resolved: final, Key: keyOf(folded)}
	return at, checkPath(at.Path)
}

// resolveSource returns the directory of a layer without links, drives and 8.3 names,
// and its key. A link to the directory has the key of the directory.
func resolveSource(path string) (resolved string, layer key, err error) {
	resolved, folded, _, err := canonical(path)
	return resolved, keyOf(folded), err
}

// canonical returns the one way to write path that the file system has, as far as path exists:
// without links, and without 8.3 names. Folded is the same for all paths that differ in case only,
// where the system takes them for one. What is in the directory keeps its case when exact is set.
func canonical(path string) (resolved, folded string, exact bool, err error) {
	resolved, folded, exact, err = finalPath(path, true)
	if err == nil {
		return resolved, folded, exact, nil
	}
	parent, name := filepath.Dir(path), filepath.Base(path)
	if !errors.Is(err, os.ErrNotExist) || parent == path {
		return "", "", false, errors.Wrapf(err, "failed to resolve %s", path)
	}
	resolved, folded, exact, err = canonical(parent)
	return filepath.Join(resolved, name), joinFolded(folded, name, exact), exact, err
}

func joinFolded(folded, name string, exact bool) string {
	if !exact {
		name = foldCase(name)
	}
	return filepath.Join(folded, name)
}

// inspect fills in whether there is a directory at a target, which a link replaces and a binding
// keeps. It refuses anything else, and for a link a directory that is not empty.
func (at *target) inspect() error {
	at.Made, at.Replaced = false, false
	info, err := os.Lstat(at.Resolved)
	if errors.Is(err, os.ErrNotExist) {
		at.Made = at.Bound != ""
		parent, err := os.Stat(filepath.Dir(at.Resolved))
		if err == nil && !parent.IsDir() { // for Windows nothing is below a file either
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

// destination returns what a link to the layer leads to, and what is bound of it.
func (r *record) destination() string {
	if len(r.Parents) == 0 && !isVolume(r.Volume) {
		// A base layer is not filtered: its mount path is its own directory, in
		// which a client must not find what belongs to HCS.
		return filepath.Join(r.Volume, "Files")
	}
	// A link to `\\?\Volume{GUID}` without the separator leads to the device and
	// not to its root directory.
	return r.Volume + string(filepath.Separator)
}

// isLinked reports whether the link to the layer is at a target. Anything else there
// belongs to somebody else.
func (r *record) isLinked(at *target) (bool, error) {
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

// link puts the link to the layer at a target. Each of its steps is tried again by
// itself: the directory must not be removed twice.
func (r *record) link(at *target, pause pauser) error {
	whileBusy := func(try func() error) error { return pause.retry(context.Background(), isBusy, try) }
	destination := r.destination()
	if at.Replaced {
		if err := whileBusy(func() error { return removeDir(at.Resolved) }); err != nil {
			return errors.Wrapf(err, "failed to replace directory %s by a link", at.Path)
		}
	}
	if err := whileBusy(func() error { return makeLink(destination, at.Resolved) }); err != nil {
		return errors.Wrapf(err, "failed to link layer %s", r.Source)
	}
	// A link can be made and not be followed: the system may be told not to (fsutil
	// behavior set SymlinkEvaluation, moby 38220). And the volume may be late.
	isLate := func(err error) bool { return errors.Is(err, os.ErrNotExist) && !isGone(at.Resolved) }
	err := pause.retry(context.Background(), isLate, func() error {
		info, err := os.Stat(at.Resolved)
		if err == nil && !info.IsDir() {
			err = errors.New("not a directory")
		}
		return err
	})
	if err != nil && !isGone(at.Resolved) { // where it has gone somebody else took it away
		return errors.Wrapf(err, "the link to %s does not show layer %s", destination, r.Source)
	}
	return nil
}

// unlink removes the link to the layer from a target, and puts the directory back that
// it had replaced. It leaves alone what somebody has put in the place of the link.
func (r *record) unlink(at *target) error {
	linked, err := r.isLinked(at)
	if err != nil {
		return err
	}
	if linked {
		// On the disk, too, before the record goes: no other Unmount would know the link.
		if err := removeLink(at.Resolved, r.destination()); err != nil {
			return errors.Wrapf(err, "failed to remove the link to layer %s", r.Source)
		}
	}
	if !at.Replaced || at.Restored {
		return nil
	}
	err = os.Mkdir(at.Resolved, 0o755)
	if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) { // the latter: what it was in has gone
		return nil
	}
	return errors.Wrap(err, "failed to put the directory back")
}

// isEmpty reports whether nothing is in a directory, or there is none.
func isEmpty(path string) bool {
	dir, err := os.Open(path)
	if err != nil {
		return true
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(1)
	return len(names) == 0
}

// removeEmptyDir removes a directory durably, and leaves alone anything that is no empty
// directory any more.
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
