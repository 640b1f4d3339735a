package hcstest

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockOffsetHigh is the upper half of the offset of the byte that lock locks. The byte is far beyond the end of the
// file, because no other handle can read a byte that is locked.
const lockOffsetHigh = 1 << 30

// lock waits for the lock of the file and takes it. The lock belongs to the handle, so two goroutines that have each
// opened the file exclude one another, too.
func lock(file *os.File) error {
	return windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &windows.Overlapped{OffsetHigh: lockOffsetHigh})
}

func unlock(file *os.File) error {
	return windows.UnlockFileEx(windows.Handle(file.Fd()), 0, 1, 0, &windows.Overlapped{OffsetHigh: lockOffsetHigh})
}
