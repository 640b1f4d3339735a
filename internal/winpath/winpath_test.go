package winpath

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

const guid = `Volume{01234567-89ab-cdef-0123-456789abcdef}`

// wantError fails the test unless err is there and contains text.
func wantError(t *testing.T, path string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%.80q: error %v, want one with %q", path, err, text)
	}
}

// longest returns a path of n UTF-16 units, each of which is one letter.
func longest(n int, letter string) string {
	const start = `C:\`
	return start + strings.Repeat(letter, n-len(start))
}

func TestCheckLayer_AcceptsDirectoriesOfLayers(t *testing.T) {
	for _, path := range []string{
		`C:\layers\1`,
		`c:/layers/1`,
		`C:\1`,
		`C:\a\..\1`,
		`C:\layers\.\1`,
		`\\server\share\1`,
		`//server/share/1`,
		`\\?\C:\layers\1`,
		`\\?\UNC\server\share\1`,
		`\\?\unc\server\share\1`,
		`\\?\` + guid + `\1`,
		`C:\console\comics\lpt\com10\nullable\COM`,
		`C:\a b\.hidden\слой`,
		longest(Max-1, "d"),
		longest(Max-1, "с"),
	} {
		if err := CheckLayer(path); err != nil {
			t.Error(err)
		}
	}
}

func TestCheckLayer_RefusesMalformedPaths(t *testing.T) {
	for _, test := range []struct{ path, text string }{
		{``, "path is empty"},
		{"C:\\layers\\1\x00", "contains a NUL"},
		{"C:\\\xff", "is not valid Unicode"},
		{longest(Max, "d"), "is longer than Windows allows"},
		{longest(Max, "с"), "is longer than Windows allows"},
		{`layers\1`, "is not absolute"},
		{`\layers\1`, "is not absolute"},
		{`C:layers\1`, "is not absolute"},
		{`C:`, "is not absolute"},
		{`1:\layers\1`, "is not absolute"},
		{`\\server`, "is not absolute"},
		{`\\server\`, "is not absolute"},
		{`\\server\\1`, "is not absolute"},
		{`\\`, "is not absolute"},
		{`\\\share\1`, "is not absolute"},
		{`\\.\PhysicalDrive0`, "is not absolute"},
		{`\\.`, "is not absolute"},
		{`\\?\`, "is not absolute"},
		{`\\?\C:x\1`, "is not absolute"},
		{`\\?\UNC\server`, "is not absolute"},
		{`\??\C:\layers\1`, "is not absolute"},
		{`C:\`, "root of a volume"},
		{`C:/`, "root of a volume"},
		{`\\server\share`, "root of a volume"},
		{`\\server\share\`, "root of a volume"},
		{`\\?\C:`, "root of a volume"},
		{`\\?\C:\`, "root of a volume"},
		{`\\?\UNC\server\share\`, "root of a volume"},
		{`\\?\` + guid + `\`, "root of a volume"},
		{`C:\layers\`, `is ""`},
		{`C:\layers\1\`, `is ""`},
		{`C:\layers/1/`, `is ""`},
		{`C:\layers\.`, `is "."`},
		{`C:\layers\..`, `is ".."`},
		{`C:\layers\1:stream`, "contains a colon"},
		{`C:\layers:$DATA\1`, "contains a colon"},
		{`C:\layers\*`, "wildcard or reserved character"},
		{`C:\layers\a<b`, "wildcard or reserved character"},
		{`C:\layers\a"b`, "wildcard or reserved character"},
		{`C:\layers\a|b`, "wildcard or reserved character"},
		{`C:\layers\1.`, "dot or a space"},
		{`C:\layers \1`, "dot or a space"},
		{`C:\layers\...`, "dot or a space"},
		{`C:\layers\CON`, "name of a device"},
		{`C:\nul.txt\1`, "name of a device"},
		{`C:\layers\com1`, "name of a device"},
		{`C:\layers\LPT².log`, "name of a device"},
		{`C:\layers\aux .x`, "name of a device"},
		{`C:\layers\CONIN$`, "name of a device"},
	} {
		wantError(t, test.path, CheckLayer(test.path), test.text)
	}
}

// On other systems their own paths are absolute, too, and names are read as they are.
func TestCheckLayer_PathsOfThisSystem(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("is for tests on other systems")
	}
	for _, path := range []string{"/layers/1", "/layers/a:b", "/layers/con", "/layers/1."} {
		if err := CheckLayer(path); err != nil {
			t.Error(err)
		}
	}
	wantError(t, "/", CheckLayer("/"), "root of a volume")
}

func TestAbs_CleansAPathOrRefusesIt(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Abs(`a/../b/./c/`); err != nil || got != filepath.Join(here, "b", "c") {
		t.Errorf("%s, %v", got, err)
	}
	for path, text := range map[string]string{"": "path is empty", "a\x00b": "contains a NUL", `C:\mnt\a:b`: "contains a colon", `C:\a.`: "dot or a space", `\\?\C:\nul`: "name of a device"} {
		got, err := Abs(path)
		if wantError(t, path, err, text); got != "" {
			t.Errorf("%s: %q and an error", path, got)
		}
	}
}

func TestVolume_IsTheStartOfAFullPath(t *testing.T) {
	for path, want := range map[string]string{
		``:                              ``,
		`a`:                             ``,
		`\a`:                            ``,
		`\\`:                            ``,
		`\\server`:                      ``,
		`\\server\`:                     ``,
		`C:`:                            `C:`,
		`c:a`:                           `c:`,
		`C:\a`:                          `C:`,
		`ß:\a`:                          ``,
		`\\server\share`:                `\\server\share`,
		`\\server/share\a`:              `\\server/share`,
		`\\?\C:\a`:                      `\\?\C:`,
		`\\?\C:a\b`:                     ``,
		`\\?\` + guid + `\a`:            `\\?\` + guid,
		`\\?\UNC\server\share\a`:        `\\?\UNC\server\share`,
		`\\?\UNC\server`:                ``,
		`\\?\`:                          ``,
		`\\?a\b`:                        `\\?a\b`,
		`\\.\C:\a`:                      ``,
		`\\.`:                           ``,
		`\\.server\share\a`:             `\\.server\share`,
		`\\?\GLOBALROOT\Device\Mup\a`:   `\\?\GLOBALROOT`,
		`\\?\UNCserver\share`:           `\\?\UNCserver`,
		`/??/C:/a`:                      ``,
		`\\?\UNC\server\share`:          `\\?\UNC\server\share`,
		`//?/unc/server/share/a/b\c/d/`: `//?/unc/server/share`,
	} {
		if got := Volume(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestVolume_IsThatOfPathFilepath(t *testing.T) {
	if runtime.GOOS != "windows" {
		t.Skip("compares with path/filepath of Windows")
	}
	// There is one difference: for path/filepath the volume of `\\?\UNC\server\share` is `\\?\UNC`.
	for _, path := range []string{`C:\a`, `C:`, `C:a`, `\\s\h\a`, `\\s\h`, `\\?\C:\a`, `\\?\Volume{x}\a`, `a`, `\a`, `/a`, ``} {
		if got, want := Volume(path), filepath.VolumeName(path); got != want {
			t.Errorf("%s: %q, path/filepath has %q", path, got, want)
		}
		if got, want := IsAbs(path), filepath.IsAbs(path); got != want {
			t.Errorf("%s is absolute: %v, path/filepath has %v", path, got, want)
		}
	}
}

func TestIsRoot_OfARootAndNothingBelow(t *testing.T) {
	for path, want := range map[string]bool{
		``: true, `\`: true, `/`: true, `C:`: true, `C:\`: true, `C:/`: true, `\\s\h`: true, `\\s\h\`: true, `\\?\` + guid: true,
		`\\?\` + guid + `\`: true, `\\?\UNC\s\h\`: true,
		`C:\\`: false, `C:a`: false, `C:\a`: false, `a`: false, `\\s\h\a`: false, `\\s`: false, `\\?\` + guid + `\a`: false,
	} {
		if got := IsRoot(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestElements_AreTheNames(t *testing.T) {
	for text, want := range map[string][]string{
		``:        {},
		`\`:       {},
		`a`:       {"a"},
		`\a/b\`:   {"a", "b"},
		`a\.\..`:  {"a", ".", ".."},
		`a\\b/:`:  {"a", "b", ":"},
		`слой\1 `: {"слой", "1 "},
		`C:\a`:    {"C:", "a"},
	} {
		if got := Elements(text); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestLast_IsTheLastElement(t *testing.T) {
	for path, want := range map[string]string{``: ``, `a`: `a`, `C:\a`: `a`, `C:\a/b`: `b`, `a/b\c`: `c`, `C:\a\`: ``, `/`: ``} {
		if got := Last(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// A mount has hundreds of parents, and each of them is checked.
func TestCheckID_DoesNotAllocate(t *testing.T) {
	path := `\\?\` + guid + `\` + strings.Repeat(`layers\`, 20) + "1"
	if n := testing.AllocsPerRun(100, func() {
		if CheckID(path) != nil || IsRoot(path) || Last(path) != "1" || Volume(path) == "" || !IsAbs(path) {
			t.Fatal("not the path of a layer")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFold_IsThatOfWindows(t *testing.T) {
	for _, same := range [][2]string{{"AZ", "az"}, {"ÄΩЖ", "äωж"}} {
		if Fold(same[0]) != Fold(same[1]) {
			t.Errorf("%q and %q are not the same", same[0], same[1])
		}
	}
	for _, other := range [][2]string{{"\u212a", "k"}, {"\u212b", "å"}, {"İ", "i"}, {"ı", "I"}, {"ſ", "S"}, {"\U00010400", "\U00010428"}, {"a", "b"}} {
		if Fold(other[0]) == Fold(other[1]) {
			t.Errorf("%q and %q are the same", other[0], other[1])
		}
	}
}

// The text of a link as it was made, as Windows stores it, and as it names an open file, are the same.
func TestEqual_KnowsEveryTextOfALink(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{`\??\Volume{a}\`, `\\?\Volume{A}\`, true},
		{`\??\Volume{a}`, `\\?\Volume{a}\`, true},
		{`\??\C:\layers\0\Files`, `C:\layers\0\Files`, true},
		{`\??\C:\layers\0\Files`, `\\?\c:\Layers\0\files`, true},
		{`\??\UNC\server\share\0\Files`, `\\server\share\0\Files`, true},
		{`\??\UNC\server\share\0`, `\\?\unc\server\share\0`, true},
		{`\\?\Q:\`, `Q:`, true},
		{`\??\Volume{a}\`, `\\?\Volume{b}\`, false},
		{`C:\layers\0\Files`, `C:\layers\0`, false},
		{`\??\UNC\`, `\\`, false},
		{``, `\\?\Volume{a}\`, false},
	} {
		if got := Equal(test.a, test.b); got != test.want {
			t.Errorf("%s and %s: %v", test.a, test.b, got)
		}
	}
}

func TestContains_ADirectoryAndWhatIsBelow(t *testing.T) {
	windows := func(path string) string { // a path of this system
		return strings.ReplaceAll(path, `\`, separator)
	}
	for _, test := range []struct {
		dir, path string
		want      bool
	}{
		{`C:\mnt`, `C:\mnt`, true},
		{`C:\mnt`, `\\?\c:\MNT\a`, true},
		{`C:\mnt\`, `C:\mnt\a\b`, true},
		{`C:\`, `C:\a`, true},
		{`C:`, `C:\a`, true},
		{`\\?\` + guid, `\\?\` + guid + `\a`, true},
		{`\\?\` + guid + `\`, `\\?\` + guid + `\a`, true},
		{`C:\mnt`, `C:\mnt2`, false},
		{`C:\mnt\a`, `C:\mnt`, false},
		{`C:\mnt`, `D:\mnt\a`, false},
		{`C:\mnt`, ``, false},
	} {
		if got := Contains(windows(test.dir), windows(test.path)); got != test.want && (runtime.GOOS == "windows" || !strings.HasPrefix(test.path, `\\`)) {
			t.Errorf("%s in %s: %v", test.path, test.dir, got)
		}
	}
	if !Contains(separator, windows(`\a`)) || Contains(windows(`\a`), separator) {
		t.Error("the root directory is not above the others")
	}
}

func TestVerbatim_AddsThePrefix(t *testing.T) {
	for path, want := range map[string]string{
		`Q:\`:                `\\?\Q:\`,
		`\\server\share\`:    `\\?\UNC\server\share\`,
		`\\?\Volume{a}\`:     `\\?\Volume{a}\`,
		`\\?\UNC\srv\share\`: `\\?\UNC\srv\share\`,
	} {
		if got := Verbatim(path); got != want || !Equal(got, path) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestPlain_RemovesThePrefixIfItMay(t *testing.T) {
	long := `\\?\C:\` + strings.Repeat("d", 256)
	for path, want := range map[string]string{
		`\\?\C:\layers\1`:        `C:\layers\1`,
		`C:\layers\1`:            `C:\layers\1`,
		`\\?\` + guid + `\1`:     `\\?\` + guid + `\1`,
		`\\?\UNC\server\share\1`: `\\?\UNC\server\share\1`,
		long:                     long[4:],
		long + "d":               long + "d",
		"/layers/1":              "/layers/1",
	} {
		if got := Plain(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

var fuzzSeeds = []string{`C:\layers\1`, `\\?\C:\layers\1`, `\\server\share\1`, `\\?\UNC\s\h\1`, `C:\`, `C:\layers\..`, `\\.\x`, `/layers/1`, `C:\a:b`,
	`\\?\` + guid + `\a`, "a", "a/b", "../a", `a\..\..\b`, "/", "a\x00", "C:x", "", "./..", `\??\C:\a`, `C:\a. `}

func FuzzCheckLayer(f *testing.F) {
	for _, path := range fuzzSeeds {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if CheckLayer(path) != nil {
			return
		}
		if !utf8.ValidString(path) || strings.Contains(path, "\x00") || len(utf16.Encode([]rune(path))) >= Max {
			t.Fatalf("accepted %q", path)
		}
		all := strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' })
		last := all[len(all)-1]
		if !strings.HasSuffix(path, last) || last == "." || last == ".." || Last(path) != last {
			t.Fatalf("accepted %q, whose last element is no name", path)
		}
		if !isAbs(path) {
			t.Fatalf("accepted %q, which is not absolute", path)
		}
		if volume := Volume(path); volume != "" && strings.Contains(path[len(volume):], ":") {
			t.Fatalf("accepted %q, which names a stream", path)
		}
	})
}

func FuzzAbs(f *testing.F) {
	for _, path := range fuzzSeeds {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		abs, err := Abs(path)
		if err != nil {
			return
		}
		if abs != filepath.Clean(abs) || !filepath.IsAbs(abs) {
			t.Fatalf("%q is %q, which is not clean and absolute", path, abs)
		}
		if again, err := Abs(abs); err != nil || again != abs {
			t.Fatalf("%q is %q, which is %q, %v", path, abs, again, err)
		}
	})
}

// FuzzText checks what must hold for any text, because the text of a link may be anything.
func FuzzText(f *testing.F) {
	for _, path := range fuzzSeeds {
		f.Add(path, `\\?\`+path)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if !strings.HasPrefix(a, Volume(a)) {
			t.Fatalf("volume %q of %q", Volume(a), a)
		}
		if !Equal(a, a) || !Contains(a, a) || Equal(a, b) != Equal(b, a) {
			t.Fatalf("%q and %q", a, b)
		}
		if Equal(a, b) && !(Contains(a, b) && Contains(b, a)) {
			t.Fatalf("%q and %q are equal, and neither contains the other", a, b)
		}
		if plain := Plain(a); !Equal(plain, a) {
			t.Fatalf("%q is plain %q", a, plain)
		}
	})
}
