//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package mount

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/pkg/errors"
)

// checkPrivateDir makes sure that a directory of the table can be believed.
func checkPrivateDir(path string) error {
	info, err := os.Lstat(path)
	if err == nil && !info.IsDir() {
		err = errors.Errorf("%s is not a directory", path)
	}
	return err
}

func createPrivateDir(path string) error { return os.Mkdir(path, 0o700) }

func createPrivate(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func openPrivate(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
}

// lockFile locks a file of that name in dir, which is never removed: a lock on a
// file that has gone excludes nobody.
func lockFile(dir, name string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if err != syscall.EINTR {
			file.Close()
			return nil, &os.PathError{Op: "flock", Path: file.Name(), Err: err}
		}
	}
}
