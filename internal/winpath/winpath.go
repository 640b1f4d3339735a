// Package winpath looks at Windows paths as text. It gives the same answers on every system and never
// looks at the disk.
package winpath

import (
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/pkg/errors"
)

// Max is the length of the longest path that Windows accepts, in UTF-16 units with the terminating NUL. The
// limit exists because a UNICODE_STRING counts its bytes in 16 bits.
const Max = 32767

// Check returns an error if path is not absolute, or if Windows would act on a different file than path names.
func Check(path string) error {
	if path != "" && !isAbs(path) {
		return errors.Errorf("path %q is not absolute", path)
	}
	return checkLiteral(path)
}

// CheckText returns an error if path is empty, too long, not valid Unicode, or contains a NUL.
func CheckText(path string) error {
	switch {
	case path == "":
		return errors.New("path is empty")
	case strings.IndexByte(path, 0) >= 0:
		return errors.Errorf("path %q contains a NUL", path)
	case !utf8.ValidString(path):
		return errors.Errorf("path %q is not valid Unicode", path)
	case len(path) >= Max && len(utf16.Encode([]rune(path))) >= Max:
		return errors.Errorf("path %.64q… is longer than Windows allows (%d)", path, Max)
	}
	return nil
}

// checkLiteral is Check for a path that may be relative.
func checkLiteral(path string) error {
	if err := CheckText(path); err != nil {
		return err
	}
	if filepath.Separator != '\\' && Volume(path) == "" {
		return nil // a path of this system, which takes names literally
	}
	for _, element := range Elements(path[len(Volume(path)):]) {
		if err := CheckElement(element); err != nil {
			return errors.WithMessagef(err, "path %q", path)
		}
	}
	return nil
}

// CheckElement returns an error if Windows does not take a name literally. Examples are a stream of a file (a:b),
// a wildcard, and a device, which exists in every directory (CON, nul.txt). Windows also drops dots and spaces at
// the end of a name.
func CheckElement(element string) error {
	if element == "." || element == ".." {
		return nil
	}
	if strings.IndexByte(element, ':') >= 0 {
		return errors.Errorf("element %q contains a colon", element)
	}
	if strings.ContainsAny(element, `<>"|?*`) {
		return errors.Errorf("element %q contains a wildcard or reserved character", element)
	}
	if last := element[len(element)-1]; last == '.' || last == ' ' {
		return errors.Errorf("element %q ends in a dot or a space, which Windows drops", element)
	}
	if isDevice(element) {
		return errors.Errorf("element %q is the name of a device", element)
	}
	return nil
}

// isDevice reports whether Windows reserves name in every directory, with or without an extension. Windows 11
// allows some of these names with an extension, but it is safe to reject them everywhere.
// https://learn.microsoft.com/windows/win32/fileio/naming-a-file
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

// CheckLayer is like Check, but for the directory of a layer: it also calls CheckID.
func CheckLayer(dir string) error {
	if err := Check(dir); err != nil {
		return err
	}
	return CheckID(dir)
}

// CheckID returns an error if path has no layer ID. HCS takes the last element of a path as the ID and the rest
// as the directory of all layers. If there is no ID, HCS would act on the directory of all layers. hcsshim
// derives the ID of a parent in the same way (internal/wclayer, LayerID).
func CheckID(path string) error {
	if IsRoot(path) {
		return errors.Errorf("%q is the root of a volume", path)
	}
	switch last := Last(path); last {
	case "", ".", "..":
		return errors.Errorf("last element of %q is %q", path, last)
	}
	return nil
}

// Abs returns path as a clean absolute path. It returns an error if Check rejects that path.
func Abs(path string) (string, error) {
	err := checkLiteral(path) // first: on Windows filepath.Abs drops dots and spaces at the end of a name
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", errors.WithStack(err)
	}
	return path, Check(path)
}

// IsAbs reports whether path is absolute on Windows.
func IsAbs(path string) bool {
	volume := Volume(path)
	// C:x is relative to the current directory of drive C
	return len(volume) > 2 || volume != "" && len(path) > 2 && isSeparator(path[2])
}

// isAbs reports whether path is absolute on Windows or on this system. Tests on other systems need the latter.
func isAbs(path string) bool {
	return IsAbs(path) || filepath.Separator == '/' && strings.HasPrefix(path, "/")
}

// Volume returns the part of path that names a volume: `C:`, `\\server\share`, or `\\?\` with the volume or
// share that follows it. It returns "" for the device namespace `\\.\`, which is not for files.
func Volume(path string) string {
	if hasDrive(path) {
		return path[:2]
	}
	if len(path) < 2 || !isSeparator(path[0]) || !isSeparator(path[1]) {
		return ""
	}
	server, end := elementAt(path, 2)
	share, end := elementAt(path, end+1)
	switch {
	case server == ".":
		return ""
	case server == "?" && strings.EqualFold(share, "UNC") && end < len(path):
		server, end = elementAt(path, end+1)
		share, end = elementAt(path, end+1)
	case server == "?" && strings.IndexByte(share, ':') >= 0 && !(hasDrive(share) && len(share) == 2):
		return ""
	}
	if server == "" || share == "" {
		return ""
	}
	return path[:end]
}

// elementAt returns the element of path that begins at start, and where it ends.
func elementAt(path string, start int) (element string, end int) {
	start = min(start, len(path))
	end = start
	for end < len(path) && !isSeparator(path[end]) {
		end++
	}
	return path[start:end], end
}

func hasDrive(path string) bool {
	return len(path) >= 2 && path[1] == ':' &&
		('a' <= path[0] && path[0] <= 'z' || 'A' <= path[0] && path[0] <= 'Z')
}

func isSeparator(c byte) bool { return c == '\\' || c == '/' }

// IsRoot reports whether path is the root of a volume.
func IsRoot(path string) bool {
	rest := path[len(Volume(path)):]
	return rest == "" || len(rest) == 1 && isSeparator(rest[0])
}

// Elements returns the names in a text without a volume.
func Elements(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\\' || r == '/' })
}

// Last returns the text after the last separator of path.
func Last(path string) string { return path[strings.LastIndexAny(path, `\/`)+1:] }

// Fold returns the same text for all paths that Windows considers equal. Windows converts UTF-16 units to upper
// case before it compares them. So the Kelvin sign is a letter of its own, and characters above U+FFFF have no
// case.
func Fold(path string) string {
	return strings.Map(func(r rune) rune {
		if lower := unicode.ToLower(r); r <= 0xffff && unicode.ToUpper(lower) == r {
			return lower
		}
		return r
	}, path)
}

// Verbatim returns path in the form in which Windows names an open file.
func Verbatim(path string) string {
	switch {
	case strings.HasPrefix(path, `\\?\`):
		return path
	case strings.HasPrefix(path, `\\`):
		return `\\?\UNC` + path[1:]
	default:
		return `\\?\` + path
	}
}

// Plain removes the prefix `\\?\` from a path on a drive, since most programs write such a path without it. If the
// path is too long for those programs, Plain returns it unchanged.
func Plain(path string) string {
	const maxPlain = 260 // MAX_PATH
	if bare, is := strings.CutPrefix(path, `\\?\`); is && len(bare) < maxPlain && hasDrive(bare) {
		return bare
	}
	return path
}

// Comparable returns the same text for all spellings of a path, if the path contains no links. The spellings
// include link texts as Windows stores them: it stores `C:\x` and `\\?\C:\x` as `\??\C:\x`, and `\\server\share`
// as `\??\UNC\server\share`.
func Comparable(path string) string {
	path = strings.TrimPrefix(strings.TrimPrefix(path, `\??\`), `\\?\`)
	if len(path) > 4 && strings.EqualFold(path[:4], `UNC\`) {
		path = `\\` + path[4:]
	}
	return Fold(strings.TrimRight(path, `\/`))
}

// Equal reports whether two paths name the same file. It assumes that neither path contains links.
func Equal(a, b string) bool { return Comparable(a) == Comparable(b) }

// Contains reports whether path is dir or lies below it. It assumes that neither path contains links.
func Contains(dir, path string) bool {
	dir, path = Comparable(dir), Comparable(path)
	return path == dir || strings.HasPrefix(path, dir+separator)
}

const separator = string(filepath.Separator)
