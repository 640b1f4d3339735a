// Package winfs has the file calls that package os lacks. It reads and writes the text of a link, removes a file
// only if it is the one that the caller has looked at, creates files that only administrators can use, and finds
// the name that the file system has for a file.
//
// On other systems the files that end in _unix.go take the place of those that end in _windows.go, so that the
// packages that use winfs can be tested on every system.
package winfs

import (
	"context"
	"os"
	"slices"
	"syscall"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/retry"
)

// ErrUntrusted is returned, wrapped, for a file or directory whose owner is not trusted. The trusted owners are
// Administrators, SYSTEM and the user of this process.
var ErrUntrusted = errors.WithMessage(os.ErrPermission, "not trusted")

// ErrNotLink is returned, wrapped, by ReadLink if the file is not a symbolic link.
var ErrNotLink = errors.New("not a symbolic link")

// NotExist reports whether an error of a file call says that the file does not exist, or that its volume or
// share does not exist.
func NotExist(err error) bool {
	// ERROR_DEV_NOT_EXIST, ERROR_BAD_NET_NAME, ERROR_NO_SUCH_DEVICE, ERROR_DEVICE_NOT_CONNECTED and
	// ERROR_DEVICE_REMOVED
	return errors.Is(err, os.ErrNotExist) || IsAny(err, 55, 67, 433, 1167, 1617)
}

// IsAny reports whether err matches one of the codes.
func IsAny(err error, codes ...syscall.Errno) bool {
	return slices.ContainsFunc(codes, func(code syscall.Errno) bool { return errors.Is(err, code) })
}

// WhileBusy calls try, which opens, creates or removes a file. It retries while another program has the file
// open. No context can end the retries: the pauses take less than half a second in all.
func WhileBusy(pause retry.Pause, try func() error) error {
	return pause.Do(context.Background(), IsBusy, try)
}

// MakePrivateDir creates a directory that only Administrators and SYSTEM can use. If there is something at path
// already, MakePrivateDir does nothing and returns nil.
func MakePrivateDir(path string) error {
	if err := makePrivateDir(path); !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}
