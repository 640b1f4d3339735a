//go:build !windows

package mount

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/pkg/errors"
)

func init() { lockByFile = flock }

// flock locks a file that it never removes: a lock on a file that has gone excludes
// nobody.
func flock(dir, name string) (unlock func(), err error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
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
