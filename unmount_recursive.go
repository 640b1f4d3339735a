package mount

import (
	stderrors "errors"
	"slices"

	"github.com/pkg/errors"
)

// UnmountRecursive unmounts every mount whose target is mount or below it, the deepest first, and
// then does what [UnmountAll] does for mount itself. It returns nil for "". flags are not used.
//
// It reads the whole mount table, and waits for no Mount or Unmount of other layers. It goes on
// after a failure and returns all errors, which are those of [Unmount]. Of the damaged files in the
// table it reports only that of mount itself: the targets in another one are not known, and may be
// below mount and stay mounted. Unmount of such a target reports the file; CleanupTempMounts and
// List report all of them.
func UnmountRecursive(mount string, flags int) error {
	return withMounter(func(mt *mounter) error { return unmountRecursive(mt, mount) })
}

func unmountRecursive(mt *mounter, path string) error {
	if path == "" {
		return nil
	}
	targets, unread, err := mt.table.below(path)
	if err != nil {
		return err
	}
	errs := slices.DeleteFunc(unread, func(err error) bool { return errors.Is(err, errDamaged) })
	for _, at := range targets {
		_, err := mt.unmountTarget(at.Key)
		errs = append(errs, err)
	}
	return stderrors.Join(append(errs, mt.unmountAll(path))...)
}
