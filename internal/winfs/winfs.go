// Package winfs has the file calls that package os lacks: links by their text, removal of what was looked at
// and nothing else, files of one's own, and the names that files have.
//
// The files that end in _unix.go stand in for those that end in _windows.go, so that what is built on this
// package can be tested on every system.
package winfs

import (
	"os"
	"slices"
	"syscall"

	"github.com/pkg/errors"
)

// ErrUntrusted is returned, wrapped, for a file or directory whose owner is not trusted. Administrators,
// SYSTEM and the user of this process are.
var ErrUntrusted = errors.WithMessage(os.ErrPermission, "not trusted")

// ErrNotLink is returned, wrapped, by ReadLink for anything but a symbolic link.
var ErrNotLink = errors.New("not a symbolic link")

// NotExist reports whether an error of a file call says that the file is not there, or that the volume or
// share it is on is not.
func NotExist(err error) bool {
	// ERROR_DEV_NOT_EXIST, ERROR_BAD_NET_NAME, ERROR_NO_SUCH_DEVICE, ERROR_DEVICE_NOT_CONNECTED and
	// ERROR_DEVICE_REMOVED
	return errors.Is(err, os.ErrNotExist) || IsAny(err, 55, 67, 433, 1167, 1617)
}

// IsAny reports whether err matches one of the codes.
func IsAny(err error, codes ...syscall.Errno) bool {
	return slices.ContainsFunc(codes, func(code syscall.Errno) bool { return errors.Is(err, code) })
}
