package mount

import (
	stderrors "errors"
	"os"
	"path/filepath"

	"github.com/pkg/errors"
)

// newTarget returns the target at a path. A link at the end of the path is not followed.
func newTarget(path string) (target, error) {
	name := filepath.Base(path)
	final, folded, _, err := finalPath(path, false)
	if err == nil && !sameLink(final, path) {
		// The directory that it is in is reached through a link, or has an 8.3 name. Or the bind
		// filter has given away the path of what is bound here.
		var parent string
		if parent, _, _, err = canonical(filepath.Dir(path)); err == nil && !sameLink(filepath.Dir(final), parent) {
			err = os.ErrNotExist
		}
	}
	if err == nil {
		name = filepath.Base(final) // an 8.3 name ends here, so that Unmount finds the link
	}
	if err != nil || folded == final { // it is absent, or case may matter
		var exact bool
		if final, folded, exact, err = canonical(filepath.Dir(path)); err != nil {
			return target{}, err
		}
		final, folded = filepath.Join(final, name), joinFolded(folded, name, exact)
	}
	at := target{Path: filepath.Join(filepath.Dir(path), name), Resolved: final, Key: keyOf(folded)}
	return at, stderrors.Join(checkPath(at.Path), checkText(at.Resolved)) // a record cannot hold what is not Unicode
}

// resolveSource returns the directory of a layer without links, substituted drives and 8.3 names, and its
// key.
// A link to the directory has the key of the directory.
func resolveSource(path string) (resolved string, layer key, err error) {
	resolved, folded, _, err := canonical(path)
	return resolved, keyOf(folded), err
}

// canonical returns the path that the file system has for path, without links and 8.3 names, as far
// as it exists. Folded is the same for all paths that differ in case only, where the system takes
// them for one. Exact reports whether names in the directory differ by case.
func canonical(path string) (resolved, folded string, exact bool, err error) {
	resolved, folded, exact, err = finalPath(path, true)
	if err == nil {
		return resolved, folded, exact, nil
	}
	if !isVolumeGone(err) {
		return "", "", false, errors.Wrapf(err, "failed to resolve %s", path)
	}
	parent, name := filepath.Dir(path), filepath.Base(path)
	if parent == path { // a drive or share that has gone
		resolved = verbatimPath(path)
		return resolved, foldCase(resolved), false, nil
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
