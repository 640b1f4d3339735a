package winfs

import (
	"path/filepath"
	"strings"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// Name is the path that the file system has for a file: without links, substituted drives and 8.3 names, and
// in the case of the file.
type Name struct {
	Path string
	// CaseSensitive reports whether names in the directory of the file differ by case (fsutil file
	// setCaseSensitiveInfo). If the file is a directory it is what holds for the names in it.
	CaseSensitive bool
	// IsDir reports whether the file is a directory that exists.
	IsDir bool
}

// Folded returns the same text for all names of the same file.
func (n Name) Folded() string {
	if n.CaseSensitive {
		return n.Path
	}
	return winpath.Fold(n.Path)
}

// Resolve returns the name of path, as far as it exists; the rest is as path has it. Links are followed. If a file
// on the way cannot be looked at, as on a drive without its medium, Resolve returns an error and the name as far as
// it can tell.
func Resolve(path string) (Name, error) {
	name, err := finalName(path)
	if err == nil {
		return name, nil
	}
	if NotExist(err) {
		err = nil
	}
	parent := filepath.Dir(path)
	if parent == path { // a drive or share that has gone
		return Name{Path: winpath.Verbatim(path)}, errors.WithStack(err)
	}
	name, parentErr := Resolve(parent)
	if err == nil {
		err = parentErr
	}
	return Name{Path: filepath.Join(name.Path, filepath.Base(path)), CaseSensitive: name.CaseSensitive}, errors.WithStack(err)
}

// ResolveParent returns the name of path if its last element is not followed, and the name of the directory
// that path is in, with the errors of Resolve. It looks at the directory alone: what is bound to path has
// another name.
func ResolveParent(path string) (name, parent Name, err error) {
	parent, err = Resolve(filepath.Dir(path))
	base := filepath.Base(path)
	if strings.Contains(base, "~") {
		base = longName(path, base)
	}
	name = Name{Path: filepath.Join(parent.Path, base), CaseSensitive: parent.CaseSensitive}
	if err == nil {
		err = winpath.CheckText(name.Path) // a record cannot hold what is not Unicode
	}
	return name, parent, err
}
