package winfs

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// resolve returns the name of a path, which must have one.
func resolve(t *testing.T, path string) Name {
	t.Helper()
	name, err := Resolve(path)
	must(t, err)
	return name
}

func TestResolve_ReturnsACleanAbsoluteName(t *testing.T) {
	tr := newTree(t)
	tr.write("dir/file", "")
	root := resolve(t, tr.dir)
	if !root.IsDir || !winpath.Equal(filepath.Base(root.Path), filepath.Base(tr.dir)) || !filepath.IsAbs(root.Path) {
		t.Errorf("%s is %+v", tr.dir, root)
	}
	for _, test := range []struct {
		path, want string
		isDir      bool
	}{
		{"dir", "dir", true},
		{"dir/", "dir", true},
		{"dir/../dir/./file", "dir/file", false},
		{"none", "none", false},
		{"dir/none/None", "dir/none/None", false},
	} {
		name := resolve(t, tr.dir+string(filepath.Separator)+filepath.FromSlash(test.path))
		if want := filepath.Join(root.Path, test.want); name.Path != want || name.IsDir != test.isDir || name.CaseSensitive != root.CaseSensitive {
			t.Errorf("%s is %+v, want %s", test.path, name, want)
		}
	}
	top := filepath.VolumeName(tr.dir) + string(filepath.Separator)
	if name := resolve(t, top); !name.IsDir || !winpath.Equal(name.Path, top) {
		t.Errorf("%s is %+v", top, name)
	}
}

func TestResolve_FollowsLinks(t *testing.T) {
	needLinks(t)
	tr := newTree(t)
	tr.mkdir("dir/sub")
	tr.link(tr.path("dir"), "link")
	tr.link(tr.path("link", "sub"), "second")
	tr.link(tr.path("none"), "dangling")
	for path, want := range map[string]string{
		"link":          "dir",
		"link/sub":      "dir/sub",
		"link/none":     "dir/none",
		"second":        "dir/sub",
		"dangling":      "dangling", // it may be made to lead somewhere
		"dangling/none": "dangling/none",
	} {
		name := resolve(t, tr.path(path))
		if want := filepath.Join(resolve(t, tr.dir).Path, want); name.Path != want {
			t.Errorf("%s is %s, want %s", path, name.Path, want)
		}
	}
	tr.link(tr.path("loop"), "loop")
	for _, path := range []string{"loop", "loop/x"} {
		want := filepath.Join(resolve(t, tr.dir).Path, path)
		if name, err := Resolve(tr.path(path)); err == nil || name.Path != want || name.IsDir {
			t.Errorf("a loop is %+v, %v, want %s", name, err, want)
		}
	}
}

func TestResolve_ReturnsANameAlsoWithAnError(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows reports a path through a file, or a name that is too long, as not found")
	}
	tr := newTree(t)
	tr.write("file", "")
	for _, path := range []string{tr.path("file", "x"), tr.path("file", "x", "y"), tr.path(strings.Repeat("x", 300)), tr.path(strings.Repeat("x", 300), "y")} {
		if name, err := Resolve(path); err == nil || name.Path != path || name.IsDir {
			t.Errorf("%s is %+v, %v", path, name, err)
		}
		if name, parent, err := ResolveParent(filepath.Join(path, "z")); err == nil || name.Path != filepath.Join(path, "z") || parent.IsDir {
			t.Errorf("%s is in %+v, %v", name.Path, parent, err)
		}
	}
}

func TestResolveParent_ReturnsANameAndItsDirectory(t *testing.T) {
	tr := newTree(t)
	tr.mkdir("dir")
	root := resolve(t, tr.dir)
	for _, path := range []string{"dir", "none", "dir/none", "none/none", "dir/a~1"} {
		name, parent, err := ResolveParent(tr.path(path))
		if err != nil || name.Path != filepath.Join(root.Path, path) || parent.Path != filepath.Dir(name.Path) || name.CaseSensitive != parent.CaseSensitive {
			t.Errorf("%s is %+v in %+v, %v", path, name, parent, err)
		}
		if want := !strings.HasPrefix(path, "none/"); parent.IsDir != want {
			t.Errorf("the directory of %s is there: %v", path, parent.IsDir)
		}
	}
}

func TestResolveParent_DoesNotFollowTheLastElement(t *testing.T) {
	needLinks(t)
	tr := newTree(t)
	tr.link(tr.mkdir("dir"), "link")
	tr.link(tr.path("dir"), "dir/link")
	for path, want := range map[string]string{"link": "link", "link/link": "dir/link", "link/none": "dir/none"} {
		name, _, err := ResolveParent(tr.path(path))
		if want := filepath.Join(resolve(t, tr.dir).Path, want); err != nil || name.Path != want {
			t.Errorf("%s is %s, %v, want %s", path, name.Path, err, want)
		}
	}
}

func TestResolveParent_RefusesWhatIsNotUnicode(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has such names")
	}
	tr := newTree(t)
	tr.link(tr.mkdir("\xff"), "link")
	for _, path := range []string{tr.path("\xff"), tr.path("link", "a")} {
		_, _, err := ResolveParent(path)
		wantError(t, err, "is not valid Unicode")
	}
}

func TestName_Folded(t *testing.T) {
	a, b := Name{Path: `\\?\C:\Mixed`}, Name{Path: `\\?\c:\mixed`}
	if a.Folded() != b.Folded() {
		t.Error("names that differ in case are two")
	}
	if a.CaseSensitive, b.CaseSensitive = true, true; a.Folded() == b.Folded() {
		t.Error("names that differ in case are one in a directory where case matters")
	}
}

func TestResolve_WithoutAccess(t *testing.T) {
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("needs an ordinary user of Unix")
	}
	tr := newTree(t)
	tr.mkdir("dir/sub")
	must(t, os.Chmod(tr.path("dir"), 0))
	defer os.Chmod(tr.path("dir"), 0o777)
	_, err := Resolve(tr.path("dir", "sub"))
	wantError(t, err, "sub", os.ErrPermission)
}
