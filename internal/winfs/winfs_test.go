package winfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// wantError fails the test unless err is there, contains text, and matches the targets.
func wantError(t *testing.T, err error, text string, targets ...error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want one with %q", err, text)
	}
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("error %v does not match %v", err, target)
		}
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// isWine reports whether scripts/wine runs the tests.
func isWine() bool { return os.Getenv("HCS_SIM_DIR") != "" }

// needLinks skips the rest of a test where there are no links.
func needLinks(t *testing.T) {
	t.Helper()
	link := newTree(t).link(t.TempDir(), "link")
	if _, err := ReadLink(link); NotExist(err) && isWine() {
		t.Skip("CreateSymbolicLink reported success and made no link, as Wine up to 10 does")
	}
}

// needUnfollowedLinks is needLinks for tests of FILE_FLAG_OPEN_REPARSE_POINT.
func needUnfollowedLinks(t *testing.T) {
	t.Helper()
	if isWine() {
		t.Skip("Wine follows a link whatever the flags say")
	}
	needLinks(t)
}

// tree is a directory for tests.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) tree { return tree{t, t.TempDir()} }

func (tr tree) path(elements ...string) string {
	return filepath.Join(append([]string{tr.dir}, elements...)...)
}

func (tr tree) mkdir(name string) string {
	tr.t.Helper()
	must(tr.t, os.MkdirAll(tr.path(name), 0o777))
	return tr.path(name)
}

func (tr tree) write(name, text string) string {
	tr.t.Helper()
	must(tr.t, os.MkdirAll(filepath.Dir(tr.path(name)), 0o777), os.WriteFile(tr.path(name), []byte(text), 0o666))
	return tr.path(name)
}

// link makes a link, which is removed when the test ends: os.RemoveAll cannot under Wine.
func (tr tree) link(text, name string) string {
	tr.t.Helper()
	must(tr.t, Link(text, tr.path(name)))
	tr.t.Cleanup(func() {
		if err := RemoveLink(tr.path(name), text); err != nil {
			tr.t.Error(err)
		}
	})
	return tr.path(name)
}

// want fails the test unless these are the names in the directory.
func (tr tree) want(names ...string) {
	tr.t.Helper()
	entries, err := os.ReadDir(tr.dir)
	must(tr.t, err)
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if !slices.Equal(got, names) {
		tr.t.Errorf("the directory contains %q, want %q", got, names)
	}
}

func TestNotExist_AlsoOfADeviceThatHasGone(t *testing.T) {
	for _, code := range []syscall.Errno{55, 67, 433, 1167, 1617} {
		if err := fmt.Errorf("wrapped: %w", &os.PathError{Op: "open", Path: "x", Err: code}); !NotExist(err) {
			t.Errorf("%d: a device or share that has gone is there", code)
		}
	}
	_, absent := os.Lstat(filepath.Join(t.TempDir(), "none", "none"))
	for err, want := range map[error]bool{absent: true, os.ErrNotExist: true, nil: false, os.ErrPermission: false, ErrNotLink: false,
		syscall.Errno(21): false, syscall.Errno(32): false} {
		if got := NotExist(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

func TestErrUntrusted_IsAMatterOfPermission(t *testing.T) {
	wantError(t, ErrUntrusted, "not trusted", os.ErrPermission)
}

func TestLink_ShowsADirectory(t *testing.T) {
	needLinks(t)
	tr := newTree(t)
	tr.write("dir/file", "data")
	link := tr.link(tr.path("dir")+string(filepath.Separator), "link")
	if data, err := os.ReadFile(filepath.Join(link, "file")); err != nil || string(data) != "data" {
		t.Errorf("through the link: %q, %v", data, err)
	}
	if text, err := ReadLink(link); err != nil || !winpath.Equal(text, tr.path("dir")+string(filepath.Separator)) {
		t.Errorf("the link is %q, %v", text, err)
	}
	must(t, os.RemoveAll(tr.path("dir")))
	if text, err := ReadLink(link); err != nil || !winpath.Equal(text, tr.path("dir")+string(filepath.Separator)) {
		t.Errorf("a link that leads nowhere is %q, %v", text, err)
	}
}

func TestLink_LeavesAloneWhatIsThere(t *testing.T) {
	needLinks(t)
	tr := newTree(t)
	wantError(t, Link(tr.dir, tr.write("file", "data")), tr.path("file"), os.ErrExist)
	wantError(t, Link(tr.dir, tr.mkdir("dir")), tr.path("dir"), os.ErrExist)
	wantError(t, Link(tr.dir, tr.link(tr.path("none"), "link")), tr.path("link"), os.ErrExist)
	if text, err := ReadLink(tr.path("link")); err != nil || !winpath.Equal(text, tr.path("none")) {
		t.Errorf("the link is %q, %v", text, err)
	}
	wantError(t, Link(tr.dir, tr.path("none", "link")), "link", os.ErrNotExist)
}

func TestReadLink_OnlyOfALink(t *testing.T) {
	tr := newTree(t)
	for _, path := range []string{tr.write("file", ""), tr.mkdir("dir")} {
		_, err := ReadLink(path)
		wantError(t, err, path, ErrNotLink)
	}
	_, err := ReadLink(tr.path("none"))
	wantError(t, err, tr.path("none"), os.ErrNotExist)
}

func TestRemoveLink_OnlyALinkWithThatText(t *testing.T) {
	needLinks(t)
	tr := newTree(t)
	text := tr.mkdir("dir") + string(filepath.Separator)
	tr.write("dir/file", "")
	other := tr.mkdir("other")
	for _, path := range []string{tr.link(text, "ours"), tr.link(other, "theirs"), tr.write("file", ""), other, tr.path("none"), tr.path("none", "none")} {
		if err := RemoveLink(path, text); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	tr.want("dir", "file", "other", "theirs")
	if _, err := os.Lstat(tr.path("dir", "file")); err != nil {
		t.Errorf("what the link showed: %v", err)
	}
}

func TestRemoveDir_OnlyAnEmptyDirectory(t *testing.T) {
	tr := newTree(t)
	empty, file := tr.mkdir("empty"), tr.write("full/file", "")
	must(t, RemoveDir(empty))
	wantError(t, RemoveDir(empty), empty, os.ErrNotExist)
	wantError(t, RemoveDir(file), "remove directory "+file)
	t.Run("not one that is full", func(t *testing.T) {
		if isWine() && forgetsRefusal(t, tr.path("full")) {
			t.Skip("this Wine refuses only once to delete a directory that is not empty")
		}
		wantError(t, RemoveDir(tr.path("full")), "remove directory "+tr.path("full"))
	})
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("the file: %v", err)
	}
	tr.want("full")
	t.Run("not a link to one", func(t *testing.T) {
		needLinks(t)
		link := tr.link(tr.mkdir("empty"), "link")
		wantError(t, RemoveDir(link), "remove directory "+link)
		tr.want("empty", "full", "link")
	})
}

func TestFileID_StaysWithAFileThatIsRenamed(t *testing.T) {
	tr := newTree(t)
	id := func(path string) string {
		t.Helper()
		id, err := FileID(path)
		must(t, err)
		return id
	}
	a, b, file := id(tr.mkdir("a")), id(tr.mkdir("b")), id(tr.write("file", ""))
	if a == b || a == file || b == file {
		t.Errorf("the IDs of three files: %s, %s, %s", a, b, file)
	}
	must(t, os.Rename(tr.path("a"), tr.path("c")))
	if c := id(tr.path("c")); c != a {
		t.Errorf("a directory with another name has the ID %s, and had %s", c, a)
	}
	_, err := FileID(tr.path("a"))
	wantError(t, err, tr.path("a"), os.ErrNotExist)
	_, err = VolumeOf(tr.path("a"))
	wantError(t, err, tr.path("a"), os.ErrNotExist)
	volume, err := VolumeOf(tr.path("b"))
	must(t, err)
	if parent, err := VolumeOf(tr.path()); err != nil || parent != volume {
		t.Errorf("a directory is on volume %x, and what is in it on %x: %v", parent, volume, err)
	}
	t.Run("of a link", func(t *testing.T) {
		needUnfollowedLinks(t)
		if link := id(tr.link(tr.path("b"), "link")); link == b {
			t.Error("it is that of what the link leads to")
		}
	})
}

func TestMatch_ReturnsTheNamesThatMatch(t *testing.T) {
	tr := newTree(t)
	for _, name := range []string{"b1-l1-t1", "b1-l1-t2", "b2-l2-t1", "b2-l11-t3"} {
		tr.write(name, "")
	}
	for pattern, want := range map[string][]string{
		"*-t1":     {"b1-l1-t1", "b2-l2-t1"},
		"*-l1-*":   {"b1-l1-t1", "b1-l1-t2"},
		"b1-l1-t1": {"b1-l1-t1"},
		"*-l3-*":   nil,
		"none":     nil,
	} {
		got, err := Match(tr.dir, pattern)
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", pattern, got, err, want)
		}
	}
	if names, err := Match(tr.path("none"), "*"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in an absent directory: %q, %v", names, err)
	}
	for i := range 300 {
		tr.write(fmt.Sprintf("many%d", i), "")
	}
	if names, err := Match(tr.dir, "many*"); err != nil || len(names) != 300 {
		t.Errorf("%d names of 300, %v", len(names), err)
	}
}

func TestMakePrivateDir_LeavesWhatIsThere(t *testing.T) {
	tr := newTree(t)
	must(t, MakePrivateDir(tr.path("dir")), MakePrivateDir(tr.path("dir")), MakePrivateDir(tr.write("file", "")))
	tr.want("dir", "file")
	if info, err := os.Stat(tr.path("dir")); err != nil || !info.IsDir() || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("made: %v, %v", info, err)
	}
	wantError(t, MakePrivateDir(tr.path("none", "dir")), tr.path("none", "dir"), os.ErrNotExist)
	must(t, CheckOwner(tr.path("dir")))
}

func TestOpenPrivateDir_MakesADirectoryOrOpensIt(t *testing.T) {
	tr := newTree(t)
	for _, path := range []string{tr.path("made"), tr.mkdir("there")} {
		dir, err := OpenPrivateDir(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if dir.Name() != path {
			t.Errorf("%s is open as %s", path, dir.Name())
		}
		must(t, dir.Close())
	}
	for _, path := range []string{tr.write("file", ""), tr.path("none", "dir")} {
		dir, err := OpenPrivateDir(path)
		if wantError(t, err, path); dir != nil {
			t.Errorf("%s is open, and there is an error", path)
		}
	}
	tr.want("file", "made", "there")
	t.Run("not a link", func(t *testing.T) {
		needUnfollowedLinks(t)
		_, err := OpenPrivateDir(tr.link(tr.path("there"), "link"))
		wantError(t, err, tr.path("link"))
	})
}

func TestOpenPrivate_OpensAFileAndFollowsNoLink(t *testing.T) {
	tr := newTree(t)
	open := func(flag int) error {
		file, err := OpenPrivate(tr.path("file"), flag)
		if err != nil {
			return err
		}
		_, err = file.WriteString("+")
		return errors.Join(err, file.Close())
	}
	wantError(t, open(0), tr.path("file"), os.ErrNotExist)
	tr.want()
	must(t, open(os.O_CREATE|os.O_EXCL))
	wantError(t, open(os.O_CREATE|os.O_EXCL), tr.path("file"), os.ErrExist)
	must(t, os.WriteFile(tr.path("file"), []byte("data"), 0o666), open(os.O_CREATE), open(0))
	if data, err := os.ReadFile(tr.path("file")); err != nil || string(data) != "+ata" {
		t.Errorf("the file contains %q, %v", data, err)
	}
	t.Run("not through a link", func(t *testing.T) {
		needUnfollowedLinks(t)
		if file, err := OpenPrivate(tr.link(tr.path("elsewhere"), "link"), os.O_CREATE); err == nil {
			file.Close()
			t.Error("it was followed")
		}
		tr.want("file", "link")
	})
}

func TestRemoveOpen_FreesTheNameAtOnce(t *testing.T) {
	tr := newTree(t)
	for i := range 2 { // the name is free at once
		file, err := OpenPrivate(tr.path("file"), os.O_CREATE|os.O_EXCL)
		must(t, err)
		if err := RemoveOpen(file); err != nil {
			t.Errorf("time %d: %v", i, err)
		}
		tr.want()
		if err := file.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("time %d: the file is not closed: %v", i, err)
		}
	}
}
