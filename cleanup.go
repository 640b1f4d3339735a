package mount

import (
	"os"
	"sync"

	"github.com/pkg/errors"
)

// tempLocationLock guards tempMountLocation. That is declared in temp.go, as it is in containerd,
// whose own WithTempMount reads it.
var tempLocationLock sync.Mutex

// SetTempMountLocation sets the directory in which WithTempMount makes its directories, in place of
// os.TempDir(), and makes it where it is absent. There CleanupTempMounts finds what others left.
func SetTempMountLocation(root string) error {
	return withMounter(func(*mounter) error { return setTempLocation(root) })
}

func setTempLocation(root string) error {
	root, err := absolute(root)
	if err != nil {
		return errors.WithMessage(err, "invalid location of temporary mounts")
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return errors.Wrap(err, "failed to set the location of temporary mounts")
	}
	tempLocationLock.Lock()
	defer tempLocationLock.Unlock()
	tempMountLocation = root
	return nil
}

func getTempLocation() string {
	tempLocationLock.Lock()
	defer tempLocationLock.Unlock()
	if tempMountLocation != "" {
		return tempMountLocation
	}
	return os.TempDir()
}

// CleanupTempMounts unmounts every mount below the location of temporary mounts and removes
// the directory that was its target, as WithTempMount would have done in a process that was
// killed. A directory stays in which nothing was mounted, or all in sub-directories.
//
// It returns an error for each mount that could not be unmounted or removed, which is left for
// the next call, and for each damaged file in the mount table, or one error when the table
// cannot be read. Mounts of processes that run are unmounted as well: call it when a runtime
// starts, with a location that is its own. flags are not used.
func CleanupTempMounts(flags int) ([]error, error) {
	mt, err := newMounter()
	if err != nil {
		return nil, err
	}
	return mt.cleanupTempMounts()
}

// removeTemp removes a directory that is empty once it is unmounted. RemoveAll would go on into a
// layer that could not be unmounted, and os.Remove would take a link. What is still on record is
// left to CleanupTempMounts: through a binding, its source might be removed.
func (mt *mounter) removeTemp(root string) error {
	at, err := newTarget(root)
	if err != nil {
		return err
	}
	if _, err := mt.recordAt(at.Key); !errors.Is(err, os.ErrNotExist) {
		return nil // Unmount has said why
	}
	err = mt.table.whileBusy(func() error { return removeDir(root) })
	if errors.Is(err, os.ErrNotExist) { // Unmount has failed before it put it back
		return nil
	}
	return errors.Wrapf(err, "failed to remove the temporary directory %s", root)
}

// removeBoundTemp removes a directory to which a layer was bound. It stays where it has held files
// before, or another program has bound something since.
func (mt *mounter) removeBoundTemp(at *target) error {
	if len(mt.boundAt(at)) > 0 {
		return nil
	}
	return mt.table.whileBusy(func() error { return removeEmptyDir(at.Resolved) })
}

func (mt *mounter) cleanupTempMounts() ([]error, error) {
	targets, failed, err := mt.below(getTempLocation())
	if err != nil {
		return nil, err
	}
	for _, at := range targets {
		_, err := mt.unmountTarget(at.Key)
		if err == nil && at.Replaced {
			err = mt.removeTemp(at.Resolved)
		} else if err == nil && at.Bound != "" {
			err = mt.removeBoundTemp(&at)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed, nil
}
