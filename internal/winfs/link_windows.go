package winfs

import (
	stderrors "errors"
	"os"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// Link creates a directory symlink with that text at path. Only Administrators and SYSTEM can change the link.
// Link does not use os.Symlink, which would create a file symlink if the volume cannot be reached at that moment.
func Link(text, path string) error {
	err := withPath("symlink", path, func(path *uint16) error {
		return withPath("symlink", text, func(text *uint16) error {
			return windows.CreateSymbolicLink(path, text, windows.SYMBOLIC_LINK_FLAG_DIRECTORY)
		})
	})
	if err != nil {
		return err
	}
	if err = protectLink(path, text); err != nil {
		err = stderrors.Join(err, errors.WithMessage(RemoveLink(path, text), "undo"))
	}
	return err
}

// linkAccess lets everybody read a link, including programs in app containers, and lets only Administrators and
// SYSTEM change it. Without linkAccess the link would inherit its access, which may be wider: below
// %ProgramData% users may write the attributes of directories that others made, and that right is enough to
// redirect a link ([MS-FSA] 2.1.5.10.37).
//
// The access list does not decide who may follow the link: Windows checks the access list of a junction, but not
// that of a symbolic link (bugs.python.org/msg349970). If Windows did check it, everybody could still follow the
// link, because everybody may read it.
var linkAccess = securityOf("D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FRFX;;;" + everybody + ")(A;;FRFX;;;" + appContainers + ")")

const everybody, appContainers = "WD", "S-1-15-2-1"

func protectLink(path, text string) error {
	return withLink("protect link", path, text, windows.FILE_READ_ATTRIBUTES|windows.WRITE_DAC, 0, func(link windows.Handle) error {
		return setAccess(link, linkAccess())
	})
}

// ReadLink returns the text of a link as it is stored. The error matches ErrNotLink if the file at path is not a
// symbolic link, and os.ErrNotExist if there is no file.
//
// ReadLink does not use os.Readlink: its result depends on the go directive of the main module (GODEBUG
// winreadlinkvolume and winsymlink), and it fails if the volume is gone.
func ReadLink(path string) (text string, err error) {
	err = withFile("read link", path, windows.FILE_READ_ATTRIBUTES, windows.FILE_FLAG_OPEN_REPARSE_POINT, func(link windows.Handle) (err error) {
		text, err = textOf(link)
		return err
	})
	return text, err
}

// RemoveLink removes the link at path if its text is text, and otherwise does nothing. RemoveLink passes
// FILE_FLAG_WRITE_THROUGH, so NTFS flushes the change of the directory (documentation of CreateFile).
func RemoveLink(path, text string) error {
	return withLink("remove link", path, text, windows.DELETE|windows.FILE_READ_ATTRIBUTES, windows.FILE_FLAG_WRITE_THROUGH, removeOpen)
}

// RemoveDir removes the directory at path. It returns an error if the directory is not empty, or if path is a
// link or a file. RemoveDir does not call RemoveDirectory, which would also remove a link.
func RemoveDir(path string) error {
	const access = windows.DELETE | windows.FILE_READ_ATTRIBUTES
	return withFile("remove directory", path, access, windows.FILE_FLAG_OPEN_REPARSE_POINT, func(dir windows.Handle) error {
		if err := checkDirectory(dir); err != nil {
			return err
		}
		return removeOpen(dir)
	})
}

// withLink calls do with the open link at path if its text is text, and otherwise does nothing.
func withLink(op, path, text string, access, flags uint32, do func(link windows.Handle) error) error {
	err := withFile(op, path, access, flags|windows.FILE_FLAG_OPEN_REPARSE_POINT, func(link windows.Handle) error {
		now, err := textOf(link)
		if err != nil || !winpath.Equal(now, text) {
			return err
		}
		return do(link)
	})
	if errors.Is(err, ErrNotLink) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func textOf(link windows.Handle) (string, error) {
	data := make([]byte, windows.MAXIMUM_REPARSE_DATA_BUFFER_SIZE)
	var n uint32
	err := windows.DeviceIoControl(link, windows.FSCTL_GET_REPARSE_POINT, nil, 0, &data[0], uint32(len(data)), &n, nil)
	if errors.Is(err, windows.ERROR_NOT_A_REPARSE_POINT) {
		return "", ErrNotLink
	}
	if err != nil {
		return "", err
	}
	return decodeSymlink(data[:n])
}
