package winfs

import (
	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/hcstest/wine"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// In the build for Wine this file takes the place of internal/winfs/name_windows.go. Wine does not know that a
// directory of its prefix is a volume of the simulation: it returns the path of the directory, and FinalPath turns
// that into the path of the volume. Wine has no case-sensitive directories.

// finalName returns the name of a file that exists.
func finalName(path string) (name Name, err error) {
	err = withFile("resolve", path, windows.FILE_READ_ATTRIBUTES, 0, func(file windows.Handle) error {
		if name.IsDir, err = isDirectory(file); err != nil {
			return err
		}
		var buf [winpath.Max]uint16
		n, err := windows.GetFinalPathNameByHandle(file, &buf[0], uint32(len(buf)), 0)
		name.Path = wine.FinalPath(windows.UTF16ToString(buf[:n]))
		return err
	})
	return name, err
}
