package winfs

import (
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"
)

// removeOpen removes an open file. With POSIX semantics the name of the file is free at once, even while a
// scanner has the file open. If Windows or the file system does not support them (before Windows 10 1607, or on
// FAT), the name is free once everybody has closed the file.
func removeOpen(file windows.Handle) error {
	flags := uint32(windows.FILE_DISPOSITION_DELETE | windows.FILE_DISPOSITION_POSIX_SEMANTICS)
	err := windows.SetFileInformationByHandle(file, windows.FileDispositionInfoEx, (*byte)(unsafe.Pointer(&flags)), uint32(unsafe.Sizeof(flags)))
	if err != nil {
		del := byte(1)
		err = windows.SetFileInformationByHandle(file, windows.FileDispositionInfo, &del, 1)
	}
	return err
}

// isDirectory reports whether an open file is a directory, and not a link to one. It does not ask for
// FileAttributeTagInfo, which fails on FAT (os/types_windows.go of Go 1.22).
func isDirectory(file windows.Handle) (bool, error) {
	var info struct { // FILE_BASIC_INFO
		times      [4]int64
		attributes uint32
		_          uint32 // Go does not align an int64 to 8 bytes on 386
	}
	err := windows.GetFileInformationByHandleEx(file, windows.FileBasicInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	return info.attributes&(windows.FILE_ATTRIBUTE_DIRECTORY|windows.FILE_ATTRIBUTE_REPARSE_POINT) == windows.FILE_ATTRIBUTE_DIRECTORY, err
}

// RemoveFile removes the file at path, or a stream of a file. If os.Remove cannot remove a stream, it goes on with
// the directory that the stream belongs to, and clears its read-only attribute.
func RemoveFile(path string) error {
	return withFile("remove", path, windows.DELETE, windows.FILE_FLAG_OPEN_REPARSE_POINT, removeOpen)
}

// checkDirectory returns ERROR_DIRECTORY if the open file is not a directory, or if it is a link to one.
func checkDirectory(file windows.Handle) error {
	isDir, err := isDirectory(file)
	if err == nil && !isDir {
		err = windows.ERROR_DIRECTORY
	}
	return err
}

var procNtQueryInformationFile = windows.NewLazySystemDLL("ntdll.dll").NewProc("NtQueryInformationFile")

// FileID returns an ID of the file at path that is unique on its volume. It does not follow a link. It calls
// NtQueryInformationFile because the Windows calls that return the ID also query the serial number of the
// volume, which takes longer than all the rest.
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

// VolumeOf returns the serial number of the volume that the file at path is on. It does not follow a link. The
// number is not unique: scratch disks are copies of one another.
func VolumeOf(path string) (serial uint64, err error) {
	err = withFile("identify", path, windows.FILE_READ_ATTRIBUTES, windows.FILE_FLAG_OPEN_REPARSE_POINT, func(file windows.Handle) error {
		var info windows.ByHandleFileInformation
		err := windows.GetFileInformationByHandle(file, &info)
		serial = uint64(info.VolumeSerialNumber)
		return err
	})
	return serial, err
}

// longName returns the long name of the file at path. The argument base is the last element of path, which may be
// an 8.3 name. If there is no such file, longName returns base. longName reads the name from the directory, so
// that a binding at path does not change it.
func longName(path, base string) string {
	names, err := Match(filepath.Split(path))
	if err != nil || len(names) == 0 {
		return base
	}
	return names[0]
}

// Match returns the names in a directory that match a pattern. In the pattern, * stands for any text. NTFS
// compares the names, so names that do not match cost next to nothing.
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
			return nil // ERROR_FILE_NOT_FOUND means that no name matches
		}
		return err
	})
	return names, err
}

// IsBusy reports whether an error may be due to another program, such as a scanner, that has the file open for a
// moment. A removed file keeps its name until its last handle is closed, and until then Windows denies access
// to it. For this reason ERROR_ACCESS_DENIED counts as busy, and a caller without rights gets that error only
// after all attempts. ERROR_INSUFFICIENT_BUFFER is returned if an access list has grown while it was read.
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

// withFile opens an existing file or directory and calls do with it. Meanwhile others can read, write and remove
// the file.
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

// withPath calls do with path as a UTF-16 string, which Windows expects.
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
