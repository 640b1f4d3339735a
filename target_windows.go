package mount

import (
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unsafe"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"
)

// makeLink makes a link that is a directory link whatever its destination is at
// this instant. os.Symlink would look, and make a file link when the volume is
// out of reach.
func makeLink(text, path string) error {
	textPtr, err := windows.UTF16PtrFromString(text)
	if err != nil {
		return &os.LinkError{Op: "symlink", Old: text, New: path, Err: err}
	}
	pathPtr, err := windows.UTF16PtrFromString(path)
	if err == nil {
		err = windows.CreateSymbolicLink(pathPtr, textPtr, windows.SYMBOLIC_LINK_FLAG_DIRECTORY)
	}
	if err != nil {
		return &os.LinkError{Op: "symlink", Old: text, New: path, Err: err}
	}
	return nil
}

// readLink returns the text of a link as it is stored. os.Readlink gives it in
// a form that depends on the go directive of the main module (GODEBUG
// winreadlinkvolume and winsymlink), or fails where the volume has gone.
func readLink(path string) (string, error) {
	handle, err := openExisting(path, windows.FILE_READ_ATTRIBUTES, windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return "", err
	}
	defer windows.CloseHandle(handle)
	data := make([]byte, windows.MAXIMUM_REPARSE_DATA_BUFFER_SIZE)
	var n uint32
	if err := windows.DeviceIoControl(handle, windows.FSCTL_GET_REPARSE_POINT, nil, 0, &data[0], uint32(len(data)), &n, nil); err != nil {
		return "", &os.PathError{Op: "get reparse point", Path: path, Err: err}
	}
	return decodeSymlink(data[:n])
}

// removeDir removes an empty directory, and nothing else that may have come in
// its place: RemoveDirectory would take a link as well.
func removeDir(path string) error {
	handle, err := openExisting(path, windows.DELETE|windows.FILE_READ_ATTRIBUTES, windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(handle)
	if err := checkDirectory(handle); err != nil {
		return &os.PathError{Op: "remove directory", Path: path, Err: err}
	}
	// With POSIX semantics the name is free at once, even while a scanner has the
	// directory open. Windows Server 2016 does not have them.
	flags := uint32(windows.FILE_DISPOSITION_DELETE | windows.FILE_DISPOSITION_POSIX_SEMANTICS)
	err = windows.SetFileInformationByHandle(handle, windows.FileDispositionInfoEx, (*byte)(unsafe.Pointer(&flags)), uint32(unsafe.Sizeof(flags)))
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) || errors.Is(err, windows.ERROR_NOT_SUPPORTED) || errors.Is(err, windows.ERROR_CALL_NOT_IMPLEMENTED) || errors.Is(err, windows.ERROR_INVALID_FUNCTION) {
		del := byte(1)
		err = windows.SetFileInformationByHandle(handle, windows.FileDispositionInfo, &del, 1)
	}
	if err != nil {
		return &os.PathError{Op: "remove directory", Path: path, Err: err}
	}
	return nil
}

// checkDirectory refuses what is no directory, or a link to one, with
// ERROR_DIRECTORY.
func checkDirectory(handle windows.Handle) error {
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(handle, &info); err != nil {
		return err
	}
	if info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY == 0 || info.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 {
		return windows.ERROR_DIRECTORY
	}
	return nil
}

// finalPath returns the path of a file that exists by the GUID of its volume,
// with links followed, in its own case and without 8.3 names.
func finalPath(path string) (string, error) {
	handle, err := openExisting(path, 0, 0)
	if err != nil {
		return "", err
	}
	defer windows.CloseHandle(handle)
	const volumeNameDOS, volumeNameGUID = 0, 1
	final, err := finalPathByHandle(handle, volumeNameGUID)
	if err != nil { // the path is on a share, which has no GUID
		final, err = finalPathByHandle(handle, volumeNameDOS)
	}
	if err != nil {
		return "", &os.PathError{Op: "get final path", Path: path, Err: err}
	}
	return final, nil
}

func finalPathByHandle(handle windows.Handle, flags uint32) (string, error) {
	buf := make([]uint16, windows.MAX_PATH)
	for {
		n, err := windows.GetFinalPathNameByHandle(handle, &buf[0], uint32(len(buf)), flags)
		if err != nil {
			return "", err
		}
		if n <= uint32(len(buf)) {
			return windows.UTF16ToString(buf[:n]), nil
		}
		buf = make([]uint16, n)
	}
}

// longName returns the last element of path as the directory has it, where path
// may end in an 8.3 name. A link is not followed.
func longName(path string) string {
	pathPtr, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return filepath.Base(path)
	}
	var data windows.Win32finddata
	handle, err := windows.FindFirstFile(pathPtr, &data)
	if err != nil {
		return filepath.Base(path)
	}
	defer windows.FindClose(handle)
	return windows.UTF16ToString(data.FileName[:])
}

// isBusy tells whether something else has a file open, such as a scanner, and
// keeps it from being opened, renamed or removed for an instant. A removed file
// keeps its name until its last handle is closed, and access to it is denied
// until then; that of a caller without rights is denied a little later for it.
func isBusy(err error) bool {
	return isAny(err, windows.ERROR_SHARING_VIOLATION, windows.ERROR_ACCESS_DENIED, windows.ERROR_DELETE_PENDING)
}

func sameLink(a, b string) bool { return sameWindowsLink(a, b) }

// foldCase returns what is equal for paths that differ in case. Windows compares
// units of UTF-16 in upper case: the Kelvin sign, whose lower case is k, is a letter
// of its own, and above U+FFFF there is no case.
func foldCase(path string) string {
	return strings.Map(func(r rune) rune {
		if lower := unicode.ToLower(r); r <= 0xffff && unicode.ToUpper(lower) == r {
			return lower
		}
		return r
	}, path)
}

// openExisting opens a file or directory and lets everybody else go on with it.
func openExisting(path string, access, flags uint32) (windows.Handle, error) {
	pathPtr, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	handle, err := windows.CreateFile(pathPtr, access,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		nil, windows.OPEN_EXISTING, flags|windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return handle, nil
}
