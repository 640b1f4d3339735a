package mount

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/pkg/errors"
)

// link returns the text of the link that shows the record's layer.
func (r record) link() string {
	if r.Base {
		// A base layer is not filtered: its mount path is its own directory, in
		// which a client must not find what belongs to HCS.
		return filepath.Join(r.Volume, "Files")
	}
	// A link to `\\?\Volume{GUID}` without the separator leads to the device and
	// not to its root directory.
	separator := string(filepath.Separator)
	return strings.TrimSuffix(r.Volume, separator) + separator
}

// isShown tells whether the link of a record is at its target. Anything else
// there belongs to somebody else.
func (r record) isShown() (bool, error) {
	if r.Volume == "" {
		return false, nil
	}
	info, err := os.Lstat(r.Target)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, errors.Wrap(err, "failed to look at the target")
	}
	if info.Mode()&os.ModeSymlink == 0 {
		return false, nil
	}
	text, err := readLink(r.Target)
	if errors.Is(err, errNoSymlink) {
		return false, nil
	}
	return err == nil && sameLink(text, r.link()), errors.Wrap(err, "failed to look at the target")
}

// show puts the link of a record at its target. Each of its steps is tried again
// by itself: the directory must not be removed twice.
func (r record) show(whileBusy func(try func() error) error) error {
	if r.Base {
		info, err := os.Stat(r.link())
		if err != nil {
			return errors.Wrapf(err, "no Files folder in layer %s", r.Source)
		}
		if !info.IsDir() {
			return errors.Errorf("no Files folder in layer %s", r.Source)
		}
	}
	if r.Replaced {
		if err := whileBusy(func() error { return removeDir(r.Target) }); err != nil {
			return errors.Wrapf(err, "failed to replace directory %s by a link", r.Target)
		}
	}
	err := whileBusy(func() error { return makeLink(r.link(), r.Target) })
	return errors.Wrapf(err, "failed to link layer %s", r.Source)
}

// hide removes the link of a record.
func (r record) hide() error {
	shown, err := r.isShown()
	if !shown || err != nil {
		return err
	}
	return errors.Wrapf(os.Remove(r.Target), "failed to remove the link to layer %s", r.Source)
}

// putBack makes the directory again that the link has replaced. It leaves alone
// what stands in its place, and a parent directory that has gone.
func (r record) putBack() error {
	if !r.Replaced {
		return nil
	}
	err := os.Mkdir(r.Target, 0o755)
	if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Wrap(err, "failed to put the directory back")
}

// inspect tells whether a link can be put at target: where nothing is, or where
// an empty directory can be replaced.
func inspect(target string) (replaces bool, err error) {
	info, err := os.Lstat(target)
	if errors.Is(err, os.ErrNotExist) {
		parent, err := os.Stat(filepath.Dir(target))
		if err == nil && !parent.IsDir() { // for Windows nothing is below a file either
			err = errors.New("its parent is not a directory")
		}
		return false, errors.Wrapf(err, "failed to mount at %s", target)
	}
	if err != nil {
		return false, errors.Wrap(err, "failed to mount")
	}
	if !info.IsDir() {
		return false, errors.Wrapf(os.ErrExist, "failed to mount at %s: neither absent nor a directory", target)
	}
	dir, err := os.Open(target)
	if err != nil {
		return false, errors.Wrap(err, "failed to mount")
	}
	defer dir.Close()
	if _, err := dir.Readdirnames(1); err == nil {
		return false, errors.Wrapf(os.ErrExist, "failed to mount at %s: directory is not empty", target)
	} else if err != io.EOF {
		return false, errors.Wrap(err, "failed to mount")
	}
	return true, nil
}

// targetKey returns the key of a path that is or may become a link, which is
// therefore not followed.
func targetKey(path string) (key, error) {
	path, err := resolveTarget(path)
	return keyOf(foldCase(path)), err
}

// resolveTarget is canonical for such a path.
func resolveTarget(path string) (string, error) {
	dir, err := canonical(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, longName(path)), nil
}

// reachable returns the record with a Target that leads to it now.
func (r record) reachable() record {
	if now, err := targetKey(r.Target); err != nil || now != r.TargetKey {
		r.Target = r.Resolved
	}
	return r
}

// sourceKey returns the key of the directory of a layer. A link to the
// directory has the key of the directory.
func sourceKey(path string) (key, error) {
	path, err := canonical(path)
	return keyOf(foldCase(path)), err
}

// canonical returns the one way to write path that the file system has, as far
// as path exists: without links, and without 8.3 names.
func canonical(path string) (string, error) {
	final, err := finalPath(path)
	if err == nil {
		return final, nil
	}
	parent := filepath.Dir(path)
	if !errors.Is(err, os.ErrNotExist) || parent == path {
		return "", errors.Wrapf(err, "failed to resolve %s", path)
	}
	parent, err = canonical(parent)
	return filepath.Join(parent, filepath.Base(path)), err
}
