package mount

import (
	stderrors "errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pkg/errors"
)

// UnmountRecursive unmounts every mount whose target is mount or below it, the deepest first,
// and then what UnmountAll would. It is nil for "", and flags are not used.
//
// It reads the whole mount table, and waits for no Mount or Unmount of other layers.
// It goes on after a failure and returns all errors, which are those of [Unmount]. Of
// damaged files in the table it reports only that of mount itself: nobody can tell the
// targets in another, which may be below mount and stay mounted. Unmount of such a
// target reports it, and CleanupTempMounts and List all.
func UnmountRecursive(mount string, flags int) error {
	return withMounter(func(mt *mounter) error { return mt.unmountRecursive(mount) })
}

func (mt *mounter) unmountRecursive(path string) error {
	if path == "" {
		return nil
	}
	mounts, unread, err := mt.below(path)
	if err != nil {
		return err
	}
	errs := slices.DeleteFunc(unread, func(err error) bool { return errors.Is(err, errDamaged) })
	for _, at := range mounts {
		_, err := mt.unmountTarget(at.Key)
		errs = append(errs, err)
	}
	return stderrors.Join(append(errs, mt.unmountAll(path))...)
}

// below returns the targets on record below dir, the deepest first, and an error for
// each file of the table that cannot be read as a record.
func (mt *mounter) below(dir string) (targets []target, unread []error, err error) {
	dir, err = absolute(dir)
	if err != nil {
		return nil, nil, errors.WithMessage(err, "failed to look for mounts")
	}
	if there, err := mt.table.isThere(); !there || err != nil {
		return nil, nil, err
	}
	resolved, folded, _, err := canonical(dir)
	if err != nil {
		return nil, nil, err
	}
	unread, err = mt.table.each(func(r record) {
		for _, at := range r.Targets {
			below := isBelow(at.Resolved, resolved) || folded != resolved && isBelow(foldCase(at.Resolved), folded)
			if !below && isBelow(foldCase(at.Path), foldCase(dir)) { // in the volume of a layer that is shown there
				now, err := newTarget(at.Path)
				below = err == nil && now.Key == at.Key
			}
			if below {
				targets = append(targets, at)
			}
		}
	})
	slices.SortFunc(targets, func(a, b target) int { return len(b.Path) - len(a.Path) })
	return targets, unread, err
}

// isIn reports whether path is dir or below it.
func isIn(path, dir string) bool {
	path, dir = foldCase(path), foldCase(dir)
	return path == dir || isBelow(path, dir)
}

func isBelow(path, dir string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(dir, string(filepath.Separator))+string(filepath.Separator))
}
