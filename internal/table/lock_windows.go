package table

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/winfs"
)

// openLocks opens the file of locks. One of an untrusted user, who could hold all locks for ever, is replaced.
// Nobody uses it: every process that uses the table replaces it first.
func openLocks(path string) (*os.File, error) {
	file, err := winfs.OpenPrivate(path, os.O_CREATE)
	if !errors.Is(err, winfs.ErrUntrusted) {
		return file, err
	}
	if removeErr := os.Remove(path); removeErr != nil {
		return nil, fmt.Errorf("%w; removing it: %w", err, removeErr)
	}
	return winfs.OpenPrivate(path, os.O_CREATE|os.O_EXCL)
}

// lockFile locks one byte of the file of locks, which may lie beyond the end of the file. Each name has a byte
// of its own, so that one file serves all of them. Windows drops the lock of a process that dies.
func lockFile(locks *os.File, name string) (unlock func(), err error) {
	sum := sha256.Sum256([]byte(name))
	offset := binary.LittleEndian.Uint64(sum[:]) >> 1 // a file has 63 bits of them
	at := windows.Overlapped{Offset: uint32(offset), OffsetHigh: uint32(offset >> 32)}
	lock := func(file *os.File, flags uint32) error {
		err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|flags, 0, 1, 0, &at)
		return os.NewSyscallError("LockFileEx", err)
	}
	err = lock(locks, windows.LOCKFILE_FAIL_IMMEDIATELY)
	if !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		// An error of unlocking is of no use: the lock ends with the process at the latest.
		return func() { _ = windows.UnlockFileEx(windows.Handle(locks.Fd()), 0, 1, 0, &at) }, err
	}
	// Another process has the lock. Waiting takes a handle of its own: while one goroutine waits, no
	// other can lock or unlock by the same handle.
	own, err := winfs.OpenPrivate(locks.Name(), 0)
	if err != nil {
		return nil, err
	}
	if err := lock(own, 0); err != nil {
		_ = own.Close()
		return nil, err
	}
	return func() {
		_ = windows.UnlockFileEx(windows.Handle(own.Fd()), 0, 1, 0, &at) // closing alone unlocks later
		_ = own.Close()
	}, nil
}
