package winfs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// securityOfFile returns the owner and the access list of a file.
func securityOfFile(t *testing.T, path string) string {
	t.Helper()
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	must(t, err)
	return sd.String()
}

// giveAway gives a file to another user of the Linux that Wine runs on. Wine shows the files of that user as
// those of another user of Windows.
func giveAway(t *testing.T, path string) {
	t.Helper()
	prefix := os.Getenv("WINEPREFIX")
	if prefix == "" || filepath.VolumeName(path) != "C:" {
		t.Skip("needs Wine: Windows lets nobody give a file away")
	}
	before := securityOfFile(t, path)
	unix := prefix + "/drive_c" + strings.ReplaceAll(path[2:], `\`, "/")
	out, err := exec.Command("start", "/wait", "/unix", "/bin/chown", "65534", unix).CombinedOutput()
	// start does not always wait, and that of Wine 10 reports a code where chown had none.
	for deadline := time.Now().Add(5 * time.Second); securityOfFile(t, path) == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Skipf("needs root, to give a file away: %v, %s", err, out)
		}
	}
}

func TestOpenPrivate_IsForAdministratorsAndSystemOnly(t *testing.T) {
	tr := newTree(t)
	must(t, MakePrivateDir(tr.path("made")))
	dir, dirErr := OpenPrivateDir(tr.path("opened"))
	file, fileErr := OpenPrivate(tr.path("opened", "file"), os.O_CREATE)
	must(t, dirErr, fileErr, file.Close(), dir.Close())
	needWindows(t, "Wine keeps no owner and no protected access list")
	for _, path := range []string{tr.path("made"), tr.path("opened"), tr.path("opened", "file")} {
		// What a directory passes on means nothing for a file.
		got, want := strings.ReplaceAll(securityOfFile(t, path), "OICI", ""), "O:BAD:P(A;;FA;;;SY)(A;;FA;;;BA)"
		if got != want {
			t.Errorf("access to %s is %s, want %s", path, got, want)
		}
	}
}

func TestOpenPrivateDir_ADirectoryOfAnAdministratorBecomesPrivate(t *testing.T) {
	tr := newTree(t)
	dir, err := OpenPrivateDir(tr.mkdir("dir"))
	must(t, err, dir.Close())
	needWindows(t, "Wine keeps no protected access list")
	if got, want := securityOfFile(t, tr.path("dir")), "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"; !strings.HasSuffix(got, want) {
		t.Errorf("access is %s, want %s", got, want)
	}
}

func TestOpenPrivateDir_NobodyRenamesItWhileItIsOpen(t *testing.T) {
	tr := newTree(t)
	dir, err := OpenPrivateDir(filepath.Join(tr.mkdir("above"), "dir"))
	must(t, err)
	path := dir.Name()
	wantError(t, os.Rename(path, path+"2"), "rename "+path, windows.ERROR_SHARING_VIOLATION)
	wantError(t, RemoveDir(path), path, windows.ERROR_SHARING_VIOLATION)
	if err := MoveUntrusted(path, path+"2"); !errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
		t.Errorf("MoveUntrusted: %v", err)
	}
	t.Run("nor the directory above", func(t *testing.T) {
		if err := os.Rename(tr.path("above"), tr.path("above2")); err == nil {
			must(t, os.Rename(tr.path("above2"), tr.path("above")))
			needWindows(t, "Wine lets a directory be renamed in which a file is open")
			t.Error("it was renamed")
		}
	})
	must(t, dir.Close())
	must(t, os.Rename(path, path+"2"))
}

func TestOpenPrivateDir_SaysWhatIsThere(t *testing.T) {
	tr := newTree(t)
	dir, err := OpenPrivateDir(tr.write("file", ""))
	if wantError(t, err, tr.path("file"), windows.ERROR_DIRECTORY); dir != nil {
		t.Error("a file is open")
	}
}

func TestErrUntrusted_OfWhatAnotherUserOwns(t *testing.T) {
	tr := newTree(t)
	tr.write("dir/file", "")
	giveAway(t, tr.path("dir"))
	giveAway(t, tr.path("dir", "file"))
	text := " belongs to "
	dir, err := OpenPrivateDir(tr.path("dir"))
	if wantError(t, err, tr.path("dir")+text, ErrUntrusted, os.ErrPermission); dir != nil {
		t.Error("the directory is open")
	}
	for _, flag := range []int{0, os.O_CREATE} {
		file, err := OpenPrivate(tr.path("dir", "file"), flag)
		if wantError(t, err, tr.path("dir", "file")+text, ErrUntrusted, os.ErrPermission); file != nil {
			t.Error("the file is open")
		}
	}
	wantError(t, CheckOwner(tr.path("dir")), "owner of "+tr.path("dir"), ErrUntrusted)
	tr.want("dir")
	must(t, MoveUntrusted(tr.path("dir"), tr.path("aside")))
	tr.want("aside")
	if _, err := os.Lstat(tr.path("aside", "file")); err != nil {
		t.Errorf("what was in it: %v", err)
	}
}

func TestCheckOwner_OnlyOfADirectory(t *testing.T) {
	tr := newTree(t)
	must(t, CheckOwner(tr.dir))
	for _, path := range []string{tr.write("file", ""), tr.path("none")} {
		wantError(t, CheckOwner(path), "owner of "+path, ErrUntrusted)
	}
	t.Run("not of what a link leads to", func(t *testing.T) {
		needUnfollowedLinks(t)
		wantError(t, CheckOwner(tr.link(tr.mkdir("dir"), "link")), "owner of "+tr.path("link"), ErrUntrusted)
	})
}

func TestMoveUntrusted_LeavesAloneWhatIsTrusted(t *testing.T) {
	tr := newTree(t)
	must(t, MoveUntrusted(tr.mkdir("dir"), tr.path("aside")))
	wantError(t, MoveUntrusted(tr.path("none"), tr.path("aside")), tr.path("none"), os.ErrNotExist)
	tr.want("dir")
}

func TestMoveUntrusted_WhereSomethingIs(t *testing.T) {
	tr := newTree(t)
	tr.write("aside/file", "")
	giveAway(t, tr.mkdir("dir"))
	if err := MoveUntrusted(tr.path("dir"), tr.path("aside")); err == nil {
		t.Error("it took the place of another directory")
	}
	wantError(t, MoveUntrusted(tr.path("dir"), "a\x00b"), "move aside "+tr.path("dir"))
	tr.want("aside", "dir")
}

// Another process replaces the directory of the untrusted user with its own again and again.
func TestMoveUntrusted_WhatItHasCheckedIsWhatItMoves(t *testing.T) {
	tr := newTree(t)
	tr.write("trusted/ours", "")
	tr.write("x/theirs", "")
	giveAway(t, tr.path("x"))
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Add(1)
	go func() {
		defer swapper.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if os.Rename(tr.path("x"), tr.path("theirs")) != nil {
				continue
			}
			for os.Rename(tr.path("trusted"), tr.path("x")) != nil { // never there for others to use
			}
			for os.Rename(tr.path("x"), tr.path("trusted")) != nil { // while MoveUntrusted has it open
			}
			for os.Rename(tr.path("theirs"), tr.path("x")) != nil {
			}
		}
	}()
	moved := 0
	for try := 0; try < 20_000 && moved < 20; try++ {
		err := MoveUntrusted(tr.path("x"), tr.path("aside"))
		if _, statErr := os.Lstat(tr.path("aside")); err != nil || statErr != nil {
			continue
		}
		moved++
		if _, err := os.Lstat(tr.path("aside", "theirs")); err != nil {
			t.Errorf("the directory that was moved is not that of the untrusted user: %v", err)
		}
		must(t, os.Rename(tr.path("aside"), tr.path("x")))
	}
	close(stop)
	swapper.Wait()
	t.Logf("moved %d times", moved)
}

func TestOpenPrivateDir_ATrustedOwnerWhoDeniesAccessIsTrusted(t *testing.T) {
	needWindows(t, "Wine keeps no protected access list")
	path := filepath.Join(t.TempDir(), "dir")
	sa := securityOf("O:BAD:P(A;OICI;FA;;;SY)")() // an operator may have set that
	must(t, withPath("mkdir", path, func(p *uint16) error { return windows.CreateDirectory(p, sa) }))
	_, err := OpenPrivateDir(path)
	if wantError(t, err, path, os.ErrPermission); errors.Is(err, ErrUntrusted) {
		t.Errorf("it is taken for that of an untrusted user: %v", err)
	}
}
