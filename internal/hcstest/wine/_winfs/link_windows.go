package winfs

import (
	"os"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/hcstest/wine"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// In the build for Wine this file takes the place of internal/winfs/link_windows.go. Its functions do the same,
// with two exceptions: a link has no access list, and RemoveLink does not flush the removal.

// Link creates a symbolic link with that text at path.
func Link(text, path string) error {
	if err := wine.Symlink(text, path); err != nil {
		return &os.PathError{Op: "symlink", Path: path, Err: err}
	}
	return nil
}

// ReadLink returns the text of a link. The error matches ErrNotLink if the file at path is not a symbolic link, and
// os.ErrNotExist if there is no file.
func ReadLink(path string) (string, error) {
	text, err := wine.Readlink(path)
	if errors.Is(err, windows.ERROR_NOT_A_REPARSE_POINT) {
		err = ErrNotLink
	}
	if err != nil {
		err = &os.PathError{Op: "read link", Path: path, Err: err}
	}
	return text, err
}

// RemoveLink removes the link at path if its text is text, and otherwise does nothing.
func RemoveLink(path, text string) error {
	now, err := ReadLink(path)
	if errors.Is(err, ErrNotLink) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && winpath.Equal(now, text) {
		if err = wine.Unlink(path); err != nil {
			err = &os.PathError{Op: "remove link", Path: path, Err: err}
		}
	}
	return err
}

// RemoveDir removes the directory at path. It returns an error if the directory is not empty, or if path is a link or
// a file. RemoveDir looks for a link first, because Wine follows a link when it opens one, whatever the flags are.
func RemoveDir(path string) error {
	if _, err := ReadLink(path); !errors.Is(err, ErrNotLink) {
		if err == nil {
			err = &os.PathError{Op: "remove directory", Path: path, Err: windows.ERROR_DIRECTORY}
		}
		return err
	}
	const access = windows.DELETE | windows.FILE_READ_ATTRIBUTES
	return withFile("remove directory", path, access, 0, func(dir windows.Handle) error {
		if err := checkDirectory(dir); err != nil {
			return err
		}
		return removeOpen(dir)
	})
}
