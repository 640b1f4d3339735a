package wine

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// System calls of Linux.
const (
	unlink   = 87
	symlink  = 88
	readlink = 89
)

// Symlink creates a symbolic link with that text at path. The text must be an absolute Windows path. All programs
// under Wine follow the link. Symlink does not call CreateSymbolicLinkW, which reports success and creates nothing up
// to Wine 10.
func Symlink(text, path string) error {
	unix, err := unixText(text)
	if err != nil {
		return err
	}
	textPtr, err := windows.BytePtrFromString(unix)
	if err != nil {
		return err
	}
	pathPtr, err := UnixPath(path)
	if err != nil {
		return err
	}
	return codeOf(Linux(symlink, uintptr(unsafe.Pointer(textPtr)), uintptr(unsafe.Pointer(pathPtr)), 0, 0, 0))
}

// Readlink returns the text of the link at path, even if the file that it leads to is gone. If the file at path is
// not a link, the error is ERROR_NOT_A_REPARSE_POINT.
func Readlink(path string) (string, error) {
	pathPtr, err := UnixPath(path)
	if err != nil {
		return "", err
	}
	var text [4096]byte
	n := Linux(readlink, uintptr(unsafe.Pointer(pathPtr)), uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)), 0, 0)
	if n < 0 {
		return "", codeOf(n)
	}
	return windowsText(string(text[:n])), nil
}

// Unlink removes the link at path. It does not remove a directory.
func Unlink(path string) error {
	pathPtr, err := UnixPath(path)
	if err != nil {
		return err
	}
	return codeOf(Linux(unlink, uintptr(unsafe.Pointer(pathPtr)), 0, 0, 0, 0))
}

// codeOf returns the Windows code for the result of a system call, or nil if the call has succeeded.
func codeOf(result int) error {
	if result >= 0 {
		return nil
	}
	code, is := map[int]windows.Errno{
		1:  windows.ERROR_ACCESS_DENIED,       // EPERM
		2:  windows.ERROR_FILE_NOT_FOUND,      // ENOENT
		13: windows.ERROR_ACCESS_DENIED,       // EACCES
		17: windows.ERROR_ALREADY_EXISTS,      // EEXIST
		20: windows.ERROR_PATH_NOT_FOUND,      // ENOTDIR
		21: windows.ERROR_ACCESS_DENIED,       // EISDIR
		22: windows.ERROR_NOT_A_REPARSE_POINT, // EINVAL
		28: windows.ERROR_DISK_FULL,           // ENOSPC
		30: windows.ERROR_WRITE_PROTECT,       // EROFS
	}[-result]
	if !is {
		return fmt.Errorf("Linux error %d", -result)
	}
	return code
}
