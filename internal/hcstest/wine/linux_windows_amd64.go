// Package wine does for Windows programs under Wine what Wine itself does not: it calls Linux. The
// simulation shows bindings with it, and the build for Wine makes symbolic links: see the directory
// _winfs, whose files take the place of those of internal/winfs (scripts/wine, make_overlay).
package wine

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Linux makes a system call of Linux, as a program can under Wine too, which runs it as it is. If the
// call fails the result is a Linux error code, negative.
//
//go:uintptrescapes
func Linux(call, a, b, c, d, e uintptr) int

var getUnixFileName = windows.NewLazySystemDLL("kernel32.dll").NewProc("wine_get_unix_file_name")

// UnixPath returns the Unix path of a file, of which the last element may be absent. It ends with a
// NUL and is never freed.
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
		if err == badDevType { // a volume that is gone
			err = windows.ERROR_PATH_NOT_FOUND
		}
		return nil, err
	}
	return *(**byte)(unsafe.Pointer(&unix)), nil // Wine's memory, which does not move
}

// What Wine has below its prefix for each drive, such as c:, and the simulation for each volume, such
// as volume{01234567-89ab-cdef-0123-456789abcdef}.
const devices = "/dosdevices/"

// unixText returns the Unix path that a link with that text leads to. What it leads to need not be there.
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

// windowsText is the reverse of unixText. The text is as Windows stores it.
func windowsText(path string) string {
	text := "Z:" + path
	if _, device, is := strings.Cut(path, devices); is {
		text = device
	} else if !strings.HasPrefix(path, "/") {
		return strings.ReplaceAll(path, "/", `\`) // a relative link, which is none of ours
	}
	return `\??\` + strings.ReplaceAll(text, "/", `\`)
}

// cutVolume returns a path on a volume from the volume's name on, such as `Volume{…}\dir`.
func cutVolume(path string) (string, bool) {
	const verbatim, volume = len(`\\?\`), "volume{"
	if len(path) < verbatim+len(volume) || path[0] != '\\' || path[2] != '?' {
		return "", false
	}
	path = path[verbatim:]
	return path, strings.EqualFold(path[:len(volume)], volume)
}

// FinalPath returns the path that Windows has for an open file, of one that Wine has: to Wine a volume of
// the simulation is a directory of its prefix.
func FinalPath(path string) string {
	const volumes = `\dosdevices\volume{`
	_, rest, is := strings.Cut(path, volumes)
	if !is {
		return path
	}
	guid, rest, _ := strings.Cut(rest, `\`)
	return `\\?\Volume{` + guid + `\` + rest
}
