//go:build !windows

package table

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/seed-941ae793/mount/internal/winfs"
)

// openLocks opens the directory of the lock files. On Windows a single file takes its place.
func openLocks(path string) (*os.File, error) { return winfs.OpenPrivateDir(path) }

// lockFile locks the file of that name in the directory. The file is never removed: a lock on a removed file
// excludes nobody.
func lockFile(locks *os.File, name string) (unlock func(), err error) {
	file, err := winfs.OpenPrivate(filepath.Join(locks.Name(), name), os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil { // which Go lets Linux repeat after a signal
		_ = file.Close()
		return nil, &os.PathError{Op: "flock", Path: file.Name(), Err: err}
	}
	return func() { _ = file.Close() }, nil
}
