package winfs

import (
	"unsafe"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// finalName returns the name of a file that exists.
func finalName(path string) (name Name, err error) {
	err = withFile("resolve", path, windows.FILE_READ_ATTRIBUTES, 0, func(file windows.Handle) error {
		var info uint32 // FILE_CASE_SENSITIVE_INFO; only Windows Server 2019 and later have it, on NTFS
		if windows.GetFileInformationByHandleEx(file, windows.FileCaseSensitiveInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info))) == nil {
			name.CaseSensitive = info&1 != 0
		}
		if name.IsDir, err = isDirectory(file); err == nil {
			name.Path, err = pathOf(file)
		}
		return err
	})
	return name, err
}

// pathOf returns the path of an open file. The path begins with a drive or share, if there is one; otherwise
// with the GUID of the volume, and if there is none either, with the device. The error of pathOf does not match
// os.ErrNotExist, since the file exists.
func pathOf(file windows.Handle) (string, error) {
	const volumeNameDOS, volumeNameGUID, volumeNameNT = 0, 1, 2
	var buf [winpath.Max]uint16
	var err error
	for form, prefix := range []string{volumeNameDOS: "", volumeNameGUID: "", volumeNameNT: `\\?\GLOBALROOT`} {
		var n uint32
		n, err = windows.GetFinalPathNameByHandle(file, &buf[0], uint32(len(buf)), uint32(form))
		if err == nil && n < uint32(len(buf)) {
			return prefix + windows.UTF16ToString(buf[:]), nil
		}
	}
	return "", errors.Errorf("Windows has no path for the file: %v", err)
}
