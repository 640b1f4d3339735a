package mount

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestMountpoint_IsTheTargetOrASubDirectoryOfIt(t *testing.T) {
	target := filepath.Join(t.TempDir(), "a")
	for sub, want := range map[string]string{
		"":              target,
		"x":             filepath.Join(target, "x"),
		"x/y":           filepath.Join(target, "x", "y"),
		`x\y`:           filepath.Join(target, "x", "y"),
		`/x\\y/`:        filepath.Join(target, "x", "y"),
		"x..y":          filepath.Join(target, "x..y"),
		".hidden":       filepath.Join(target, ".hidden"),
		"x/.hidden/y z": filepath.Join(target, "x", ".hidden", "y z"),
	} {
		got, err := (&Mount{Target: sub}).mountpoint(target)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", sub, got, err, want)
		}
	}
}

// A sub-directory is in a layer, and Windows reads its name. So what Windows would read as something else is
// refused on all systems.
func TestMountpoint_RefusesASubDirectoryThatLeadsElsewhere(t *testing.T) {
	for _, sub := range []string{".", "..", "../b", "x/../../b", `x\..\..\b`, "x/.", "C:", `C:\b`, "x:stream", "NUL", "x/com1.txt",
		"x ", "x.", "x*", "x\x00", "x\xff", strings.Repeat("x/", 32767)} {
		got, err := (&Mount{Target: sub}).mountpoint(filepath.Join(t.TempDir(), "a"))
		if err == nil {
			t.Errorf("%.20q: %q", sub, got)
			continue
		}
		wantError(t, err, "invalid mount target")
	}
}

func FuzzMountpoint(f *testing.F) {
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
