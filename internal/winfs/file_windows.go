package winfs

import (
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"
)

// removeOpen removes an open file. With POSIX semantics its name is free at once, even while a scanner has it
// open. Where Windows or the file system does not support them (before Windows 10 1607, or on FAT), the
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

// isDirectory reports whether an open file is a directory, and not a link to one.
func isDirectory(file windows.Handle) (bool, error) {
	var info struct{ attributes, reparseTag uint32 } // FILE_ATTRIBUTE_TAG_INFO
	err := windows.GetFileInformationByHandleEx(file, windows.FileAttributeTagInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	return info.attributes&(windows.FILE_ATTRIBUTE_DIRECTORY|windows.FILE_ATTRIBUTE_REPARSE_POINT) == windows.FILE_ATTRIBUTE_DIRECTORY, err
}

// checkDirectory returns ERROR_DIRECTORY for what is not a directory, or is a link to one.
func checkDirectory(file windows.Handle) error {
	isDir, err := isDirectory(file)
	if err == nil && !isDir {
		err = windows.ERROR_DIRECTORY
	}
	return err
}

var procNtQueryInformationFile = windows.NewLazySystemDLL("ntdll.dll").NewProc("NtQueryInformationFile")

// FileID returns what tells the file at path from all others on its volume. A link is not followed. The calls of
// Windows that return it ask for the serial number of the volume as well, which takes longer than all the rest.
func FileID(path string) (id string, err error) {
	err = withFile("identify", path, windows.FILE_READ_ATTRIBUTES, windows.FILE_FLAG_OPEN_REPARSE_POINT, func(file windows.Handle) error {
		const fileInternalInformation = 6
		var block windows.IO_STATUS_BLOCK
		var index uint64
		status, _, _ := procNtQueryInformationFile.Call(uintptr(file), uintptr(unsafe.Pointer(&block)), uintptr(unsafe.Pointer(&index)), unsafe.Sizeof(index), fileInternalInformation)
		if status != 0 {
			return windows.NTStatus(status).Errno()
		}
		id = strconv.FormatUint(index, 16)
		return nil
	})
	return id, err
}

// VolumeOf returns the serial number of the volume that the file at path is on. A link is not followed. The number
// is not unique: scratch disks are copies of one another.
func VolumeOf(path string) (serial uint64, err error) {
	err = withFile("identify", path, windows.FILE_READ_ATTRIBUTES, windows.FILE_FLAG_OPEN_REPARSE_POINT, func(file windows.Handle) error {
		var info windows.ByHandleFileInformation
		err := windows.GetFileInformationByHandle(file, &info)
		serial = uint64(info.VolumeSerialNumber)
		return err
	})
	return serial, err
}

// longName returns the name of the file at path instead of its 8.3 name base, or base if there is no file.
// The directory has that name: what is bound to path cannot change it.
func longName(path, base string) string {
	names, err := Match(filepath.Split(path))
	if err != nil || len(names) == 0 {
		return base
	}
	return names[0]
}

// Match returns the names in a directory that match a pattern, in which * stands for any text. NTFS compares
// the names, so that the others cost next to nothing.
func Match(dir, pattern string) ([]string, error) {
	var names []string
	err := withPath("list", filepath.Join(dir, pattern), func(path *uint16) error {
		var data windows.Win32finddata
		find, err := windows.FindFirstFile(path, &data)
		for err == nil {
			names = append(names, windows.UTF16ToString(data.FileName[:]))
			err = windows.FindNextFile(find, &data)
		}
		if find != windows.InvalidHandle {
			_ = windows.FindClose(find)
		}
		if errors.Is(err, windows.ERROR_NO_MORE_FILES) || errors.Is(err, windows.ERROR_FILE_NOT_FOUND) {
			return nil // the latter if no name matches
		}
		return err
	})
	return names, err
}

// IsBusy reports whether an error may come from another program, such as a scanner, that has a file open
// for a moment. A removed file keeps its name until its last handle is closed, and until then access to
// it is denied. So a caller without rights gets that error only after all attempts. The last code is that
// of an access list that has grown while it was read.
func IsBusy(err error) bool {
	return IsAny(err, windows.ERROR_SHARING_VIOLATION, windows.ERROR_ACCESS_DENIED, windows.ERROR_DELETE_PENDING, windows.ERROR_INSUFFICIENT_BUFFER)
}

const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE

func createFile(path string, access, share uint32, sa *windows.SecurityAttributes, disposition, flags uint32) (handle windows.Handle, err error) {
	err = withPath("open", path, func(p *uint16) (err error) {
		handle, err = windows.CreateFile(p, access, share, sa, disposition, flags, 0)
		return err
	})
	return handle, err
}

// withFile opens a file or directory that is there, lets others read, write and remove it meanwhile, and
// calls do with it.
func withFile(op, path string, access, flags uint32, do func(windows.Handle) error) error {
	handle, err := createFile(path, access, shareAll, nil, windows.OPEN_EXISTING, flags|windows.FILE_FLAG_BACKUP_SEMANTICS)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(handle)
	if err := do(handle); err != nil {
		return &os.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

// withPath calls do with a path as Windows takes it.
func withPath(op, path string, do func(*uint16) error) error {
	ptr, err := windows.UTF16PtrFromString(path)
	if err == nil {
		err = do(ptr)
	}
	if err != nil {
		err = &os.PathError{Op: op, Path: path, Err: err}
	}
	return err
}
