package winfs

import (
	"path/filepath"
	"strings"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// Name is the path that the file system has for a file. It contains no links, substituted drives or 8.3 names,
// and its letters have the case that the file system has stored.
type Name struct {
	Path string
	// CaseSensitive reports whether names in the directory of the file are case-sensitive (fsutil file
	// setCaseSensitiveInfo). If the file is itself a directory, CaseSensitive is about the names in it.
	CaseSensitive bool
	// IsDir reports whether the file is a directory that exists.
	IsDir bool
}

// Folded returns a text that is the same for all names of a file.
func (n Name) Folded() string {
	if n.CaseSensitive {
		return n.Path
	}
	return winpath.Fold(n.Path)
}

// Resolve returns the name of path. It follows links. If path does not exist, Resolve returns the name of the
// part that exists, followed by the rest of path as it is. If it cannot look at a file on the way, as on a drive
// without its medium, it returns an error, together with the name as far as it can tell.
func Resolve(path string) (Name, error) {
	name, err := finalName(path)
	if err == nil {
		return name, nil
	}
	if NotExist(err) {
		err = nil
	}
	parent := filepath.Dir(path)
	if parent == path { // path is a drive or share that is gone
		return Name{Path: winpath.Verbatim(path)}, errors.WithStack(err)
	}
	name, parentErr := Resolve(parent)
	if err == nil {
		err = parentErr
	}
	return Name{Path: filepath.Join(name.Path, filepath.Base(path)), CaseSensitive: name.CaseSensitive}, errors.WithStack(err)
}

// ResolveParent returns the name of path and the name of its parent directory. Its errors are those of Resolve.
// It follows links in the parent directory, but not in the last element. It does not open path itself: if a
// directory is bound to path, the open file would have another name.
func ResolveParent(path string) (name, parent Name, err error) {
	parent, err = Resolve(filepath.Dir(path))
	base := filepath.Base(path)
	if strings.Contains(base, "~") {
		base = longName(path, base)
	}
	name = Name{Path: filepath.Join(parent.Path, base), CaseSensitive: parent.CaseSensitive}
	if err == nil {
		err = winpath.CheckText(name.Path) // a record can hold only valid Unicode
	}
	return name, parent, err
}
