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

// openLocks opens the lock file. If an untrusted user owns the file, openLocks replaces it: that user could hold
// all locks for ever. No process that uses the table can hold a lock in the old file, since each of them
// replaces it first.
func openLocks(path string) (*os.File, error) {
	file, err := winfs.OpenPrivate(path, os.O_CREATE)
	if !errors.Is(err, winfs.ErrUntrusted) {
		return file, err
	}
	if removeErr := winfs.RemoveUntrusted(path); removeErr != nil {
		return nil, fmt.Errorf("%w; removing it: %w", err, removeErr)
	}
	return winfs.OpenPrivate(path, os.O_CREATE)
}

// lockFile locks one byte of the lock file. Each name has a byte of its own, so that one file serves all names.
// The byte may lie beyond the end of the file. Windows releases the locks of a process that ends.
func lockFile(locks *os.File, name string) (unlock func(), err error) {
	sum := sha256.Sum256([]byte(name))
	offset := binary.LittleEndian.Uint64(sum[:]) >> 1 // offsets in a file have 63 bits
	at := windows.Overlapped{Offset: uint32(offset), OffsetHigh: uint32(offset >> 32)}
	lock := func(file *os.File, flags uint32) error {
		err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|flags, 0, 1, 0, &at)
		return os.NewSyscallError("LockFileEx", err)
	}
	err = lock(locks, windows.LOCKFILE_FAIL_IMMEDIATELY)
	if !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		// Ignore an error of unlocking: Windows releases the lock when the process ends, at the latest.
		return func() { _ = windows.UnlockFileEx(windows.Handle(locks.Fd()), 0, 1, 0, &at) }, err
	}
	// Another process has the lock. Wait with a separate handle: while one goroutine waits, no other can lock
	// or unlock with the same handle.
	own, err := winfs.OpenPrivate(locks.Name(), 0)
	if err != nil {
		return nil, err
	}
	if err := lock(own, 0); err != nil {
		_ = own.Close()
		return nil, err
	}
	return func() {
		_ = windows.UnlockFileEx(windows.Handle(own.Fd()), 0, 1, 0, &at) // closing alone would unlock later
		_ = own.Close()
	}, nil
}
