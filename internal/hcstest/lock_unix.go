//go:build !windows

package hcstest

import (
	"os"
	"syscall"
)

// lock waits for the lock of the file and takes it. The lock belongs to the open file, so two goroutines that have
// each opened the file exclude one another, too.
func lock(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			return err
		}
	}
}

func unlock(file *os.File) error { return syscall.Flock(int(file.Fd()), syscall.LOCK_UN) }
