// Package wine lets Windows programs under Wine make system calls of Linux, for what Wine itself cannot do. The
// simulation uses it to show bindings. The build for Wine uses it to make symbolic links: the files in the directory
// _winfs take the place of those in internal/winfs (see make_overlay in scripts/wine).
package wine

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Linux makes a system call of Linux. A program under Wine can do that, because Wine runs its machine code unchanged.
// If the call fails, the result is the negative of a Linux error code.
//
//go:uintptrescapes
func Linux(call, a, b, c, d, e uintptr) int

var getUnixFileName = windows.NewLazySystemDLL("kernel32.dll").NewProc("wine_get_unix_file_name")

// UnixPath returns the Unix path of a file. The file need not exist, but its directory must. The path ends with a NUL
// and is never freed.
func UnixPath(path string) (*byte, error) {
	if err := getUnixFileName.Find(); err != nil {
		return nil, fmt.Errorf("not under Wine: %w", err)
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	unix, _, err := getUnixFileName.Call(uintptr(unsafe.Pointer(name)))
	if unix == 0 {
		const badDevType = windows.Errno(66)
		if err == badDevType { // the volume is gone
			err = windows.ERROR_PATH_NOT_FOUND
		}
		return nil, err
	}
	return *(**byte)(unsafe.Pointer(&unix)), nil // Wine has allocated it, so it does not move
}

// devices is the directory of a Wine prefix in which Wine has an entry for each drive, such as c:, and the simulation
// has one for each volume, such as volume{01234567-89ab-cdef-0123-456789abcdef}.
const devices = "/dosdevices/"

// unixText returns the Unix path that a link with that text leads to. The file at that path need not exist.
func unixText(text string) (string, error) {
	volume, isVolume := cutVolume(text)
	if !isVolume {
		path, err := UnixPath(text)
		return windows.BytePtrToString(path), err
	}
	drive, err := UnixPath(`C:\`)
	if err != nil {
		return "", err
	}
	prefix, _, _ := strings.Cut(windows.BytePtrToString(drive), devices)
	guid, rest, _ := strings.Cut(volume, `\`)
	return prefix + devices + strings.ToLower(guid) + "/" + strings.ReplaceAll(rest, `\`, "/"), nil
}

// windowsText is the reverse of unixText. It returns the text in the form in which Windows stores it.
func windowsText(path string) string {
	text := "Z:" + path
	if _, device, is := strings.Cut(path, devices); is {
		text = device
	} else if !strings.HasPrefix(path, "/") {
		return strings.ReplaceAll(path, "/", `\`) // a relative link, which this package does not make
	}
	return `\??\` + strings.ReplaceAll(text, "/", `\`)
}

// cutVolume returns the part of path that begins with the name of a volume, such as `Volume{…}\dir`. It also reports
// whether path is on a volume.
func cutVolume(path string) (string, bool) {
	const verbatim, volume = len(`\\?\`), "volume{"
	if len(path) < verbatim+len(volume) || path[0] != '\\' || path[2] != '?' {
		return "", false
	}
	path = path[verbatim:]
	return path, strings.EqualFold(path[:len(volume)], volume)
}

// FinalPath converts the path that Wine returns for an open file to the path that Windows would return. They differ
// for a file on a volume of the simulation: to Wine the volume is a directory of its prefix.
func FinalPath(path string) string {
	const volumes = `\dosdevices\volume{`
	_, rest, is := strings.Cut(path, volumes)
	if !is {
		return path
	}
	guid, rest, _ := strings.Cut(rest, `\`)
	return `\\?\Volume{` + guid + `\` + rest
}
