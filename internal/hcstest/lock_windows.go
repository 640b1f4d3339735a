package hcstest

import (
	"os"

	"golang.org/x/sys/windows"
)

// What is locked is a byte far behind the end, as nobody else can read it.
const lockOffsetHigh = 1 << 30

// lock waits for the lock of the file. It belongs to the handle, so that two
// goroutines that each opened it exclude one another too.
func lock(file *os.File) error {
	return windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &windows.Overlapped{OffsetHigh: lockOffsetHigh})
}

func unlock(file *os.File) error {
	return windows.UnlockFileEx(windows.Handle(file.Fd()), 0, 1, 0, &windows.Overlapped{OffsetHigh: lockOffsetHigh})
}
