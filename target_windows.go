package mount

import (
	stderrors "errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"unicode"
	"unsafe"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"
)

// makeLink makes a directory link. os.Symlink would make a file link when the volume is out of reach at
// this instant.
func makeLink(text, path string) error {
	err := withPaths("symlink", path, text, func(path, text *uint16) error {
		return windows.CreateSymbolicLink(path, text, windows.SYMBOLIC_LINK_FLAG_DIRECTORY)
	})
	if err != nil {
		return err
	}
	if err = protectLink(path, text); err == nil || errors.Is(err, os.ErrNotExist) { // somebody has removed it
		return nil
	}
	return withUndo(err, removeLink(path, text))
}

// linkAccess lets everybody read a link, programs in app containers included, and only Administrators
// and SYSTEM change it. The access that a link would inherit may be wider: below %ProgramData% users
// may write the attributes of directories that others made, which is all it takes to redirect a link
// ([MS-FSA] 2.1.5.10.37). The access list does not decide who may follow the link: Windows
// checks that of a junction, and not that of a symbolic link (bugs.python.org/msg349970). If it did
// check, reading is allowed.
var linkAccess = sync.OnceValues(func() (*windows.SecurityAttributes, error) {
	const everybody, appContainers = "WD", "S-1-15-2-1"
	return securityOf("D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FRFX;;;" + everybody + ")(A;;FRFX;;;" + appContainers + ")")
})

func protectLink(path, text string) error {
	sa, err := linkAccess()
	if err != nil {
		return err
	}
	return withFile("protect", path, windows.FILE_READ_ATTRIBUTES|windows.WRITE_DAC, windows.FILE_FLAG_OPEN_REPARSE_POINT, func(link windows.Handle) error {
		if now, err := textOf(link); err != nil || !sameLink(now, text) {
			return err // an error, or nil when somebody has put something else there
		}
		return setAccess(link, sa)
	})
}

// readLink returns the text of a link as it is stored. What os.Readlink returns depends on the go
// directive of the main module (GODEBUG winreadlinkvolume and winsymlink), and it fails when the volume
// is gone.
func readLink(path string) (text string, err error) {
	err = withFile("read link", path, windows.FILE_READ_ATTRIBUTES, windows.FILE_FLAG_OPEN_REPARSE_POINT, func(link windows.Handle) (err error) {
		text, err = textOf(link)
		return err
	})
	return text, err
}

func textOf(link windows.Handle) (string, error) {
	data := make([]byte, windows.MAXIMUM_REPARSE_DATA_BUFFER_SIZE)
	var n uint32
	if err := windows.DeviceIoControl(link, windows.FSCTL_GET_REPARSE_POINT, nil, 0, &data[0], uint32(len(data)), &n, nil); err != nil {
		return "", err
	}
	return decodeSymlink(data[:n])
}

// removeLink removes a link with that text, and leaves alone anything else that has come in its place.
// Because of FILE_FLAG_WRITE_THROUGH NTFS also flushes the change of the directory (CreateFile).
func removeLink(path, text string) error {
	const flags = windows.FILE_FLAG_OPEN_REPARSE_POINT | windows.FILE_FLAG_WRITE_THROUGH
	return withFile("remove link", path, windows.DELETE|windows.FILE_READ_ATTRIBUTES, flags, func(link windows.Handle) error {
		if now, err := textOf(link); err != nil || !sameLink(now, text) {
			return err
		}
		return removeOpen(link)
	})
}

// removeDir removes an empty directory, and leaves alone anything else that has come in its place:
// RemoveDirectory would remove a link as well.
func removeDir(path string) error { return removeDirWith(path, 0) }

// removeDirDurably does what removeDir does, and flushes the change as removeLink does.
func removeDirDurably(path string) error { return removeDirWith(path, windows.FILE_FLAG_WRITE_THROUGH) }

func removeDirWith(path string, flags uint32) error {
	flags |= windows.FILE_FLAG_OPEN_REPARSE_POINT
	return withFile("remove directory", path, windows.DELETE|windows.FILE_READ_ATTRIBUTES, flags, func(dir windows.Handle) error {
		if err := checkDirectory(dir); err != nil {
			return err
		}
		return removeOpen(dir)
	})
}

// removeOpen removes an open file. With POSIX semantics its name is free at once, even while a scanner has it
// open. Where the system or the file system does not support them (before Windows 10 1607, or on FAT), the
// name is free once everybody has closed the file.
func removeOpen(file windows.Handle) error {
	flags := uint32(windows.FILE_DISPOSITION_DELETE | windows.FILE_DISPOSITION_POSIX_SEMANTICS)
	err := windows.SetFileInformationByHandle(file, windows.FileDispositionInfoEx, (*byte)(unsafe.Pointer(&flags)), uint32(unsafe.Sizeof(flags)))
	if err != nil {
		del := byte(1)
		err = windows.SetFileInformationByHandle(file, windows.FileDispositionInfo, &del, 1)
	}
	return err
}

// checkDirectory refuses what is no directory, or a link to one, with ERROR_DIRECTORY.
func checkDirectory(handle windows.Handle) error {
	var info struct{ attributes, reparseTag uint32 } // FILE_ATTRIBUTE_TAG_INFO
	err := windows.GetFileInformationByHandleEx(handle, windows.FileAttributeTagInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	if err == nil && info.attributes&(windows.FILE_ATTRIBUTE_DIRECTORY|windows.FILE_ATTRIBUTE_REPARSE_POINT) != windows.FILE_ATTRIBUTE_DIRECTORY {
		err = windows.ERROR_DIRECTORY
	}
	return err
}

// fileID returns what tells a file from others on its volume, and with the serial number of the volume also
// from those on most others: scratch disks are copies of one another. A link is not followed.
func fileID(path string) (id string, err error) {
	err = withFile("identify", path, windows.FILE_READ_ATTRIBUTES, windows.FILE_FLAG_OPEN_REPARSE_POINT, func(file windows.Handle) error {
		var info windows.ByHandleFileInformation
		err := windows.GetFileInformationByHandle(file, &info)
		id = fmt.Sprintf("%08x-%08x%08x", info.VolumeSerialNumber, info.FileIndexHigh, info.FileIndexLow)
		return err
	})
	return id, err
}

// finalPath returns the path of a file that exists, in its own case and without 8.3 names and links. A
// link at its end stays unless follow is set. Folded is the same for all paths that differ in case only,
// unless names in a directory on the way differ by case (fsutil file setCaseSensitiveInfo). Exact
// reports whether path is a directory in which names that differ only in case are different files.
func finalPath(path string, follow bool) (final, folded string, exact bool, err error) {
	var flags uint32
	if !follow {
		flags = windows.FILE_FLAG_OPEN_REPARSE_POINT
	}
	var info uint32 // FILE_CASE_SENSITIVE_INFO
	known := false  // Windows Server 2019 and later, on NTFS
	err = withFile("resolve", path, windows.FILE_READ_ATTRIBUTES, flags, func(file windows.Handle) (err error) {
		final, err = nameOf(file, path)
		known = nil == windows.GetFileInformationByHandleEx(file, windows.FileCaseSensitiveInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
		return err
	})
	folded = foldCase(final)
	if err != nil || !known || folded == final {
		return final, folded, false, err
	}
	// Unless case matters, the folded path leads to the same file.
	var same string
	foldedErr := withFile("resolve", folded, windows.FILE_READ_ATTRIBUTES, flags, func(file windows.Handle) (err error) {
		same, err = nameOf(file, folded)
		return err
	})
	if foldedErr != nil || same != final {
		folded = final
	}
	return final, folded, info&1 != 0, nil
}

// nameOf returns the path of an open file: by its drive or share, or else the GUID of its volume, or else
// its device. Its error does not match os.ErrNotExist, since the file is there.
func nameOf(file windows.Handle, path string) (string, error) {
	const volumeNameDOS, volumeNameGUID, volumeNameNT = 0, 1, 2
	buf := make([]uint16, maxPath)
	var err error
	for form, prefix := range []string{volumeNameDOS: "", volumeNameGUID: "", volumeNameNT: `\\?\GLOBALROOT`} {
		var n uint32
		n, err = windows.GetFinalPathNameByHandle(file, &buf[0], uint32(len(buf)), uint32(form))
		if err == nil && n < maxPath {
			return prefix + windows.UTF16ToString(buf), nil
		}
	}
	return "", errors.Errorf("the system has no name for %s: %v", path, err)
}

// isBusy reports whether an error may come from another program, such as a scanner, that has a file open
// for a moment. A removed file keeps its name until its last handle is closed, and until then access to
// it is denied. So a caller without rights gets that error only after all attempts. The last code is that
// of an access list that has grown while it was read.
func isBusy(err error) bool {
	return isAny(err, windows.ERROR_SHARING_VIOLATION, windows.ERROR_ACCESS_DENIED, windows.ERROR_DELETE_PENDING,
		windows.ERROR_INSUFFICIENT_BUFFER)
}

func sameLink(a, b string) bool { return sameWindowsLink(a, b) }

// foldCase returns the same text for paths that Windows takes for equal. It compares units of UTF-16 in
// upper case: the Kelvin sign is a letter of its own, and above U+FFFF there is no case.
func foldCase(path string) string {
	return strings.Map(func(r rune) rune {
		if lower := unicode.ToLower(r); r <= 0xffff && unicode.ToUpper(lower) == r {
			return lower
		}
		return r
	}, path)
}

const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE

// openExisting opens a file or directory that is there, and lets others read, write and remove it.
func openExisting(path string, access, flags uint32) (windows.Handle, error) {
	return createFile(path, access, shareAll, nil, windows.OPEN_EXISTING, flags|windows.FILE_FLAG_BACKUP_SEMANTICS)
}

func createFile(path string, access, share uint32, sa *windows.SecurityAttributes, disposition, flags uint32) (handle windows.Handle, err error) {
	err = withPath("open", path, func(p *uint16) (err error) {
		handle, err = windows.CreateFile(p, access, share, sa, disposition, flags, 0)
		return err
	})
	return handle, err
}

// withFile opens a file or directory that is there, and calls do with it.
func withFile(op, path string, access, flags uint32, do func(windows.Handle) error) error {
	handle, err := openExisting(path, access, flags)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(handle)
	if err := do(handle); err != nil {
		return &os.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

// withPath calls do with a path as Windows takes it. withPaths does so with a path and another text.
func withPath(op, path string, do func(*uint16) error) error {
	return withPaths(op, path, "", func(path, _ *uint16) error { return do(path) })
}

func withPaths(op, path, other string, do func(path, other *uint16) error) error {
	pathPtr, err := windows.UTF16PtrFromString(path)
	otherPtr, otherErr := windows.UTF16PtrFromString(other)
	if err = stderrors.Join(err, otherErr); err == nil {
		err = do(pathPtr, otherPtr)
	}
	if err != nil {
		err = &os.PathError{Op: op, Path: path, Err: err}
	}
	return err
}
