package mount

import (
	"os"
	"sync"

	"github.com/pkg/errors"
)

// tempLocationLock guards tempMountLocation, which is declared in temp.go because containerd has it
// there too: in a vendored tree containerd's own WithTempMount reads it.
var tempLocationLock sync.Mutex

// SetTempMountLocation sets the directory in which WithTempMount makes its directories, in place of
// os.TempDir(). It makes the directory where it is absent. CleanupTempMounts looks there for what killed
// processes have left.
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

// CleanupTempMounts unmounts every mount below the location of temporary mounts and removes the directory
// that was its target, which WithTempMount would have done if its process had not been killed. A directory
// that was not itself a target stays. Mounts of running processes are unmounted as well: call it when a runtime
// starts, with a location of its own. flags are not used.
//
// It returns an error for each mount that it could not unmount or remove, which is left to the next call,
// and for each damaged file in the mount table. When the table cannot be read, it returns that error as
// its second result.
func CleanupTempMounts(flags int) ([]error, error) {
	mt, err := newMounter()
	if err != nil {
		return nil, err
	}
	return cleanupTempMounts(mt)
}

func cleanupTempMounts(mt *mounter) ([]error, error) {
	targets, failed, err := mt.table.below(getTempLocation())
	if err != nil {
		return nil, err
	}
	for _, at := range targets {
		_, err := mt.unmountTarget(at.Key)
		if err == nil && at.Replaced {
			err = removeTemp(mt, at.Resolved)
		} else if err == nil && at.Bound != "" {
			err = removeBoundTemp(mt, &at)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed, nil
}

// removeTemp removes a temporary directory, which is empty once it is unmounted. It does not use
// os.RemoveAll, which would descend into a layer that could not be unmounted, nor os.Remove, which
// would remove a link. A directory that is still on record is left to CleanupTempMounts: removing
// it could remove what is bound to it.
func removeTemp(mt *mounter, root string) error {
	at, err := newTarget(root)
	if err != nil {
		return err
	}
	if _, err := mt.table.recordAt(at.Key); err == nil {
		return nil // Unmount has reported it
	} else if !errors.Is(err, os.ErrNotExist) {
		return errors.WithMessagef(err, "the temporary directory %s stays", root)
	}
	err = mt.table.pause.whileBusy(func() error { return removeDir(root) })
	if errors.Is(err, os.ErrNotExist) { // Unmount failed before it put the directory back
		return nil
	}
	return errors.Wrapf(err, "failed to remove the temporary directory %s", root)
}

// removeBoundTemp removes a temporary directory to which a layer was bound. One that holds files
// stays, and so does one to which another program has bound something since.
func removeBoundTemp(mt *mounter, at *target) error {
	if len(mt.boundTo(at)) > 0 {
		return nil
	}
	return mt.table.pause.whileBusy(func() error { return removeEmptyDir(at.Resolved) })
}
