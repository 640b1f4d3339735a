package mount

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSourcesThatNameALayerAreAccepted(t *testing.T) {
	for _, source := range []string{
		`C:\layers\1`,
		`c:/layers/1`,
		`C:\1`,
		`C:\a\..\1`,
		`C:\layers\.\1`,
		`\\server\share\1`,
		`\\?\C:\layers\1`,
		`\\?\UNC\server\share\1`,
		`\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}\1`,
		`C:\console\comics\lpt\com10\nullable`,
		`C:\a b\.hidden\слой`,
		`C:\` + strings.Repeat(`d\`, 16380) + `1`,
	} {
		if err := checkSource(source); err != nil {
			t.Error(err)
		}
	}
}

func TestSourcesThatAreMalformedAreRefused(t *testing.T) {
	for _, test := range []struct{ source, text string }{
		{``, "path is empty"},
		{"C:\\layers\\1\x00", "holds a NUL"},
		{"C:\\\xff", "is not valid Unicode"},
		{`layers\1`, "is not absolute"},
		{`\layers\1`, "is not absolute"},
		{`C:layers\1`, "is not absolute"},
		{`C:`, "is not absolute"},
		{`\\server`, "is not absolute"},
		{`\\server\`, "is not absolute"},
		{`\\`, "is not absolute"},
		{`\\.\PhysicalDrive0`, "is not absolute"},
		{`\\.`, "is not absolute"},
		{`\\?\`, "is not absolute"},
		{`\\?\C:x\1`, "is not absolute"},
		{`\??\C:\layers\1`, "is not absolute"},
		{`C:\`, "root of a volume"},
		{`C:/`, "root of a volume"},
		{`\\server\share`, "root of a volume"},
		{`\\server\share\`, "root of a volume"},
		{`\\?\C:`, "root of a volume"},
		{`\\?\C:\`, "root of a volume"},
		{`\\?\UNC\server\share\`, "root of a volume"},
		{`\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}\`, "root of a volume"},
		{`C:\layers\`, `is ""`},
		{`C:\layers\1\`, `is ""`},
		{`C:\layers/1/`, `is ""`},
		{`C:\layers\.`, `is "."`},
		{`C:\layers\..`, `is ".."`},
		{`C:\layers\1:stream`, "stream of a file"},
		{`C:\layers:$DATA\1`, "stream of a file"},
		{`C:\layers\*`, "is a pattern"},
		{`C:\layers\1.`, "dot or a space"},
		{`C:\layers \1`, "dot or a space"},
		{`C:\layers\...`, "dot or a space"},
		{`C:\layers\CON`, "name of a device"},
		{`C:\nul.txt\1`, "name of a device"},
		{`C:\layers\com1`, "name of a device"},
		{`C:\layers\LPT².log`, "name of a device"},
		{`C:\layers\aux .x`, "name of a device"},
		{`C:\` + strings.Repeat(`d\`, 16382) + `1`, "longer than Windows allows"},
	} {
		wantError(t, checkSource(test.source), test.text)
	}
}

func TestAVolumeIsFoundAsFilepathFindsIt(t *testing.T) {
	if runtime.GOOS != "windows" {
		t.Skip("compares with path/filepath of Windows")
	}
	// But for `\\?\UNC\server\share`, of which it has `\\?\UNC` as the volume.
	for _, path := range []string{`C:\a`, `C:`, `C:a`, `\\s\h\a`, `\\s\h`, `\\?\C:\a`, `\\?\Volume{x}\a`, `a`, `\a`, `/a`, ``} {
		if got, want := windowsVolume(path), filepath.VolumeName(path); got != want {
			t.Errorf("%s: %q, path/filepath says %q", path, got, want)
		}
		if got, want := isWindowsAbs(path), filepath.IsAbs(path); got != want {
			t.Errorf("%s is absolute: %v, path/filepath says %v", path, got, want)
		}
	}
}

func FuzzSource(f *testing.F) {
	for _, source := range []string{`C:\layers\1`, `\\?\C:\layers\1`, `\\server\share\1`, `C:\`, `C:\layers\..`, `\\.\x`, `/layers/1`, `C:\a:b`} {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		if checkSource(source) != nil {
			return
		}
		if !utf8.ValidString(source) || strings.Contains(source, "\x00") {
			t.Fatalf("accepted %q", source)
		}
		all := strings.FieldsFunc(source, func(r rune) bool { return r == '/' || r == '\\' })
		last := all[len(all)-1]
		if !strings.HasSuffix(source, last) || last == "." || last == ".." {
			t.Fatalf("accepted %q, whose last element is not a name", source)
		}
		if !isAbs(source) {
			t.Fatalf("accepted %q, which is not absolute", source)
		}
		if volume := windowsVolume(source); volume != "" && strings.Contains(source[len(volume):], ":") {
			t.Fatalf("accepted %q, which names a stream", source)
		}
	})
}

func FuzzTarget(f *testing.F) {
	for _, target := range []string{"a", "a/b", "../a", `a\..\..\b`, "/", "a\x00", "C:x", "", "./.."} {
		f.Add(target, "")
		f.Add("mnt", target)
	}
	f.Fuzz(func(t *testing.T, target, sub string) {
		outer, err := (&Mount{}).mountpoint(target)
		if err != nil {
			return
		}
		inner, err := (&Mount{Target: sub}).mountpoint(target)
		if err != nil {
			return
		}
		if inner != outer && !strings.HasPrefix(inner, outer+string(filepath.Separator)) {
			t.Fatalf("sub-directory %q of %q is %q", sub, outer, inner)
		}
		if inner != filepath.Clean(inner) || !filepath.IsAbs(inner) {
			t.Fatalf("%q is not clean and absolute", inner)
		}
	})
}
