package mount

import (
	"path/filepath"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/pkg/errors"
)

// maxPath is the longest path that Windows takes, in UTF-16 units, with its
// terminating NUL (UNICODE_STRING counts bytes in 16 bits).
const maxPath = 32767

// checkPath refuses a path that is not absolute, and one for which Windows would act on another file
// than the one that the caller named. It looks at the text alone.
func checkPath(path string) error {
	if err := checkText(path); err != nil {
		return err
	}
	if !isAbs(path) {
		return errors.Errorf("path %q is not absolute", path)
	}
	return checkElements(path)
}

func checkText(path string) error {
	switch {
	case path == "":
		return errors.New("path is empty")
	case strings.IndexByte(path, 0) >= 0:
		return errors.Errorf("path %q holds a NUL", path)
	case !utf8.ValidString(path):
		return errors.Errorf("path %q is not valid Unicode", path)
	case len(path) >= maxPath && len(utf16.Encode([]rune(path))) >= maxPath:
		return errors.Errorf("path %.64q… is longer than Windows allows (%d)", path, maxPath)
	}
	return nil
}

func checkElements(path string) error {
	if filepath.Separator != '\\' && windowsVolume(path) == "" {
		return nil // a path of this system, which reads names as they are
	}
	for _, element := range elements(path) {
		if err := checkElement(element); err != nil {
			return errors.WithMessagef(err, "path %q", path)
		}
	}
	return nil
}

// checkSource is checkPath for the directory of a layer.
func checkSource(source string) error {
	err := checkPath(source)
	if err == nil {
		err = checkID(source)
	}
	return errors.WithMessage(err, "invalid layer source")
}

// checkID refuses a path without a layer's ID. HCS takes the last element of a path as the ID and the rest
// as the directory of all layers. Without an ID it would act on that directory. hcsshim makes the ID of a
// parent in the same way (internal/wclayer, LayerID).
func checkID(path string) error {
	rest := path[len(windowsVolume(path)):]
	if rest == "" || len(rest) == 1 && isSeparator(rest[0]) {
		return errors.Errorf("%q is the root of a volume", path)
	}
	switch last := lastElement(rest); last {
	case "", ".", "..":
		return errors.Errorf("last element of %q is %q", path, last)
	}
	return nil
}

// checkElement refuses a name that Windows reads as something else: a stream of a file (a:b), a pattern
// of names, a device, which is in every directory (CON, nul.txt), or a name that ends in dots or spaces,
// which Windows drops.
func checkElement(element string) error {
	if element == "" || element == "." || element == ".." {
		return nil
	}
	if strings.IndexByte(element, ':') >= 0 {
		return errors.Errorf("element %q names a stream of a file", element)
	}
	if strings.ContainsAny(element, `<>"|?*`) {
		return errors.Errorf("element %q is a pattern", element)
	}
	if last := element[len(element)-1]; last == '.' || last == ' ' {
		return errors.Errorf("element %q ends in a dot or a space, which Windows drops", element)
	}
	if isDevice(element) {
		return errors.Errorf("element %q is the name of a device", element)
	}
	return nil
}

// isDevice reports whether name is one that Windows reserves in every directory, with or
// without an extension. https://learn.microsoft.com/windows/win32/fileio/naming-a-file
func isDevice(name string) bool {
	if dot := strings.IndexByte(name, '.'); dot >= 0 {
		name = name[:dot]
	}
	name = strings.ToUpper(strings.TrimRight(name, " "))
	switch name {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	port := strings.HasPrefix(name, "COM") || strings.HasPrefix(name, "LPT")
	return port && utf8.RuneCountInString(name) == 4 && strings.ContainsAny(name[3:], "0123456789¹²³")
}

// absolute returns path made absolute and clean.
func absolute(path string) (string, error) {
	// This comes first: on Windows filepath.Abs drops dots and spaces at the end of a name, and the
	// checks would not see them.
	err := checkText(path)
	if err == nil {
		err = checkElements(path)
	}
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", errors.WithStack(err)
	}
	return path, checkPath(path)
}

// isAbs reports whether path is absolute on Windows or, in tests elsewhere, on that system.
func isAbs(path string) bool {
	return isWindowsAbs(path) || filepath.Separator == '/' && strings.HasPrefix(path, "/")
}

// isWindowsAbs reports on every system whether path is absolute on Windows.
func isWindowsAbs(path string) bool {
	volume := windowsVolume(path)
	if len(volume) == 2 { // C:x is relative to the current directory of drive C
		return len(path) > 2 && isSeparator(path[2])
	}
	return volume != ""
}

// windowsVolume returns the part of path that names a volume: `C:`,
// `\\server\share`, or what follows `\\?\` up to a volume or share. The device
// namespace `\\.\` has none: it is not for files.
func windowsVolume(path string) string {
	if hasDrive(path) {
		return path[:2]
	}
	if len(path) < 3 || !isSeparator(path[0]) || !isSeparator(path[1]) {
		return ""
	}
	if path[2] == '.' && (len(path) == 3 || isSeparator(path[3])) {
		return ""
	}
	if path[2] != '?' || len(path) < 4 || !isSeparator(path[3]) {
		return path[:shareEnd(path, 2)]
	}
	if len(path) >= 8 && strings.EqualFold(path[4:7], "UNC") && isSeparator(path[7]) {
		return path[:shareEnd(path, 8)]
	}
	end := elementEnd(path, 4)
	if name := path[4:end]; name == "" || strings.IndexByte(name, ':') >= 0 && !(hasDrive(name) && len(name) == 2) {
		return ""
	}
	return path[:end]
}

// shareEnd returns where `server\share`, which begins at start, ends; 0 when
// one of the two is missing.
func shareEnd(path string, start int) int {
	server := elementEnd(path, start)
	if server == start || server == len(path) {
		return 0
	}
	share := elementEnd(path, server+1)
	if share == server+1 {
		return 0
	}
	return share
}

func elementEnd(path string, start int) int {
	for start < len(path) && !isSeparator(path[start]) {
		start++
	}
	return start
}

func hasDrive(path string) bool {
	return len(path) >= 2 && path[1] == ':' &&
		('a' <= path[0] && path[0] <= 'z' || 'A' <= path[0] && path[0] <= 'Z')
}

// elements returns what lies between the separators of path after its volume, and nothing for
// the root of the volume. A separator at the end makes a last element that is empty.
func elements(path string) []string {
	rest := path[len(windowsVolume(path)):]
	if rest == "" || len(rest) == 1 && isSeparator(rest[0]) {
		return nil
	}
	if isSeparator(rest[0]) {
		rest = rest[1:]
	}
	return strings.Split(strings.ReplaceAll(rest, `\`, `/`), "/")
}

// lastElement returns what follows the last separator.
func lastElement(path string) string {
	start := len(path)
	for start > 0 && !isSeparator(path[start-1]) {
		start--
	}
	return path[start:]
}

func isSeparator(c byte) bool { return c == '\\' || c == '/' }

// absoluteTarget returns the path of a target made absolute and clean.
func absoluteTarget(path string) (string, error) {
	path, err := absolute(path)
	if err == nil && len(elements(path)) == 0 {
		err = errors.Errorf("%q is the root of a volume", path)
	}
	return path, errors.WithMessage(err, "invalid mount target")
}

// isIn reports whether path is dir or below it.
func isIn(path, dir string) bool {
	path, dir = foldCase(path), foldCase(dir)
	return path == dir || isBelow(path, dir)
}

func isBelow(path, dir string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(dir, string(filepath.Separator))+string(filepath.Separator))
}
