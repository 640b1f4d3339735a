package winfs

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// needWindows skips the rest of a test of what Wine does not have.
func needWindows(t *testing.T, why string) {
	t.Helper()
	if isWine() {
		t.Skip("needs Windows: " + why)
	}
}

// open opens a file or directory that is there until the test ends, or until it is closed.
func open(t *testing.T, path string, access, share, flags uint32) (closeNow func()) {
	t.Helper()
	handle, err := createFile(path, access, share, nil, windows.OPEN_EXISTING, flags|windows.FILE_FLAG_BACKUP_SEMANTICS)
	must(t, err)
	isOpen := true
	closeNow = func() {
		if isOpen {
			isOpen = false
			must(t, windows.CloseHandle(handle))
		}
	}
	t.Cleanup(closeNow)
	return closeNow
}

// scan opens a file as a scanner does, and shares it with others only in these ways.
func scan(t *testing.T, path string, share uint32) (closeNow func()) {
	t.Helper()
	return open(t, path, windows.GENERIC_READ, share, 0)
}

// readable is how a scanner shares a file if others may use it, but not remove it.
const readable = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE

// forgetsRefusal reports whether Wine itself reports success for a directory that it has just refused to
// delete, and leaves it. Windows does not.
func forgetsRefusal(t *testing.T, dir string) bool {
	t.Helper()
	handle, err := createFile(dir, windows.DELETE, shareAll, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
	must(t, err)
	defer windows.CloseHandle(handle)
	del := byte(1)
	first := windows.SetFileInformationByHandle(handle, windows.FileDispositionInfo, &del, 1)
	second := windows.SetFileInformationByHandle(handle, windows.FileDispositionInfo, &del, 1)
	return first != nil && second == nil
}

// shortPath returns the 8.3 name of a file or directory that is there.
func shortPath(t *testing.T, path string) string {
	t.Helper()
	pathPtr, err := windows.UTF16PtrFromString(path)
	must(t, err)
	buf := make([]uint16, windows.MAX_LONG_PATH)
	_, err = windows.GetShortPathName(pathPtr, &buf[0], uint32(len(buf)))
	must(t, err)
	short := windows.UTF16ToString(buf)
	if strings.EqualFold(short, path) {
		t.Skipf("the volume of %s keeps no 8.3 names", path)
	}
	return short
}

// wantSame fails the test unless two paths lead to one file, or, if same is false, to two. It resolves them in
// both ways: with the last element followed and not followed.
func wantSame(t *testing.T, a, b string, same bool) {
	t.Helper()
	if nameA, nameB := resolve(t, a), resolve(t, b); (nameA.Folded() == nameB.Folded()) != same {
		t.Errorf("%s is %+v, %s is %+v", a, nameA, b, nameB)
	}
	nameA, _, errA := ResolveParent(a)
	nameB, _, errB := ResolveParent(b)
	if must(t, errA, errB); (nameA.Folded() == nameB.Folded()) != same {
		t.Errorf("not followed, %s is %+v, %s is %+v", a, nameA, b, nameB)
	}
}

func TestResolve_InAnyCaseAndByAShortName(t *testing.T) {
	tr := newTree(t)
	wantSame(t, tr.path("absent"), tr.path("ABSENT"), true)
	dir := tr.mkdir("A long name of a directory")
	wantSame(t, dir, strings.ToUpper(dir), true)
	wantSame(t, filepath.Join(dir, "absent"), filepath.Join(strings.ToLower(dir), "Absent"), true)
	wantSame(t, dir, strings.ReplaceAll(dir, `\`, `/`)+`//.//`, true)
	if name := resolve(t, strings.ToUpper(dir)); filepath.Base(name.Path) != filepath.Base(dir) {
		t.Errorf("the name is %s, in another case than that of the directory", name.Path)
	}
	short := shortPath(t, dir)
	wantSame(t, dir, short, true)
	wantSame(t, filepath.Join(dir, "absent"), filepath.Join(short, "absent"), true)
}

func TestResolve_SameBeforeAndAfterADirectoryIsMade(t *testing.T) {
	tr := newTree(t)
	before := resolve(t, tr.path("Mixed Case"))
	after := resolve(t, tr.mkdir("Mixed Case"))
	if before.Folded() != after.Folded() {
		t.Errorf("the name was %s and is %s", before.Path, after.Path)
	}
}

func TestResolve_WhereCaseMatters(t *testing.T) {
	tr := newTree(t)
	handle, err := createFile(tr.dir, windows.FILE_WRITE_ATTRIBUTES, shareAll, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
	must(t, err)
	sensitive := uint32(1) // FILE_CS_FLAG_CASE_SENSITIVE_DIR
	err = windows.SetFileInformationByHandle(handle, windows.FileCaseSensitiveInfo, (*byte)(unsafe.Pointer(&sensitive)), uint32(unsafe.Sizeof(sensitive)))
	must(t, windows.CloseHandle(handle))
	if err != nil {
		t.Skipf("no directory can be made case-sensitive here (fsutil file setCaseSensitiveInfo), as in Wine: %v", err)
	}
	wantSame(t, tr.path("a"), tr.path("A"), false) // both absent
	tr.mkdir("a/sub")
	tr.mkdir("A/sub")
	wantSame(t, tr.path("a"), tr.path("A"), false)
	wantSame(t, tr.path("a", "sub"), tr.path("A", "sub"), false)
	// On some builds a directory in a case-sensitive one is case-sensitive, too.
	wantSame(t, tr.path("a", "absent"), tr.path("a", "ABSENT"), !resolve(t, tr.path("a")).CaseSensitive)
}

func TestResolve_ADriveThatIsNotThere(t *testing.T) {
	for path, want := range map[string]string{
		`Q:\mnt\a`: `\\?\Q:\mnt\a`,
		`Q:\`:      `\\?\Q:\`,
		`\\?\Volume{00000000-0000-0000-0000-000000000000}\a`: `\\?\Volume{00000000-0000-0000-0000-000000000000}\a`,
	} {
		if _, err := os.Stat(path); err == nil {
			t.Skipf("there is a drive %s", path)
		}
		if name := resolve(t, path); name.Path != want || name.IsDir {
			t.Errorf("%s is %+v, want %s", path, name, want)
		}
	}
}

func TestResolve_ADriveMadeOfADirectoryIsThatDirectory(t *testing.T) {
	tr := newTree(t)
	removeDrive := makeDrive(t, `Q:`, tr.dir)
	defer removeDrive()
	wantSame(t, `Q:\absent`, tr.path("absent"), true)
	tr.mkdir("dir")
	wantSame(t, `Q:\dir`, tr.path("dir"), true)
}

// makeDrive makes a drive of a directory, as subst does, and returns what removes it.
func makeDrive(t *testing.T, drive, dir string) (remove func()) {
	t.Helper()
	if _, err := os.Stat(drive + `\`); err == nil {
		t.Skipf("there is a drive %s", drive)
	}
	drivePtr, driveErr := windows.UTF16PtrFromString(drive)
	dirPtr, dirErr := windows.UTF16PtrFromString(dir)
	must(t, driveErr, dirErr, windows.DefineDosDevice(0, drivePtr, dirPtr))
	remove = func() {
		if err := windows.DefineDosDevice(windows.DDD_REMOVE_DEFINITION, drivePtr, nil); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(drive + `\`); err != nil {
		remove()
		t.Skipf("no drive can be made of a directory, as in Wine: %v", err)
	}
	return remove
}

func TestResolve_NamesADriveOrAShare(t *testing.T) {
	dir := t.TempDir()
	if name := resolve(t, dir); !strings.HasPrefix(name.Path, `\\?\`+dir[:2]) {
		t.Errorf("%s is %s", dir, name.Path)
	}
	share := `\\localhost\` + dir[:1] + `$` + dir[2:]
	if _, err := os.Stat(share); err != nil {
		t.Skipf("the drive is not shared: %v", err)
	}
	if name := resolve(t, share); !strings.HasPrefix(name.Path, `\\?\UNC\`) {
		t.Errorf("%s is %s", share, name.Path)
	}
}

func TestResolve_AVolume(t *testing.T) {
	dir := t.TempDir()
	drive, err := windows.UTF16PtrFromString(dir[:3])
	must(t, err)
	buf := make([]uint16, 64)
	if err := windows.GetVolumeNameForVolumeMountPoint(drive, &buf[0], uint32(len(buf))); err != nil {
		t.Skipf("%s has no GUID: %v", dir[:3], err)
	}
	path := windows.UTF16ToString(buf) + dir[3:]
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no file can be opened by the GUID of its volume, as in Wine: %v", err)
	}
	wantSame(t, dir, path, true)
}

func TestResolve_ALongPath(t *testing.T) {
	dir := t.TempDir()
	for len(dir) < windows.MAX_PATH { // Wine 8 ends at twice that
		dir = filepath.Join(dir, strings.Repeat("x", 100))
	}
	must(t, os.MkdirAll(dir, 0o777))
	if isWine() {
		var n uint32
		buf := make([]uint16, windows.MAX_LONG_PATH)
		err := withFile("name", dir, 0, 0, func(file windows.Handle) (err error) {
			n, err = windows.GetFinalPathNameByHandle(file, &buf[0], uint32(len(buf)), 0)
			return err
		})
		if err != nil || !strings.HasSuffix(windows.UTF16ToString(buf[:n]), dir[2:]) {
			t.Skip("GetFinalPathNameByHandle of this Wine names no path longer than MAX_PATH, however large the buffer")
		}
	}
	if name := resolve(t, dir); !strings.HasSuffix(name.Path, dir[2:]) {
		t.Errorf("got %s, want what ends in %s", name.Path, dir[2:])
	}
}

func TestResolveParent_ByAShortName(t *testing.T) {
	tr := newTree(t)
	short := shortPath(t, tr.mkdir("a long name of a target"))
	for path, want := range map[string]string{short: "a long name of a target", tr.path("absent~1"): "absent~1"} {
		if name, _, err := ResolveParent(path); err != nil || filepath.Base(name.Path) != want {
			t.Errorf("%s is %s, %v", path, name.Path, err)
		}
	}
}

func TestWithPath_RefusesANUL(t *testing.T) {
	const path = "C:\\a\x00b"
	_, readErr := ReadLink(path)
	_, idErr := FileID(path)
	_, nameErr := Resolve(path)
	_, matchErr := Match(`C:\`, "a\x00b")
	for what, err := range map[string]error{"Link": Link(`C:\`, path), "the text of Link": Link(path, `C:\none`), "RemoveLink": RemoveLink(path, ""),
		"RemoveDir": RemoveDir(path), "MakePrivateDir": MakePrivateDir(path), "ReadLink": readErr, "FileID": idErr, "Resolve": nameErr, "Match": matchErr} {
		if !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if longName(path, "b") != "b" {
		t.Error("longName")
	}
}

func TestMatch_InAnyCase(t *testing.T) {
	tr := newTree(t)
	tr.write("b1-ABC-t1", "")
	if names, err := Match(tr.dir, "*-abc-*"); err != nil || len(names) != 1 || names[0] != "b1-ABC-t1" {
		t.Errorf("%q, %v", names, err)
	}
}

func TestRemoveDir_SaysWhy(t *testing.T) {
	tr := newTree(t)
	wantError(t, RemoveDir(tr.write("full/file", "")), "", windows.ERROR_DIRECTORY)
	if !isWine() || !forgetsRefusal(t, tr.path("full")) {
		wantError(t, RemoveDir(tr.path("full")), "", windows.ERROR_DIR_NOT_EMPTY)
	}
	t.Run("of a link", func(t *testing.T) {
		needLinks(t)
		wantError(t, RemoveDir(tr.link(tr.mkdir("empty"), "link")), "", windows.ERROR_DIRECTORY)
	})
}

func TestLink_IsADirectoryLinkAlsoToWhatIsNotThere(t *testing.T) {
	needLinks(t)
	const text = `\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}\`
	link := newTree(t).link(text, "link")
	if got, err := ReadLink(link); err != nil || !winpath.Equal(got, text) {
		t.Errorf("the link is %s, %v", got, err)
	}
	needWindows(t, "the links of the build for Wine are those of Linux")
	linkPtr, err := windows.UTF16PtrFromString(link)
	must(t, err)
	attributes, err := windows.GetFileAttributes(linkPtr)
	if err != nil || attributes&windows.FILE_ATTRIBUTE_DIRECTORY == 0 {
		t.Errorf("attributes 0x%x, %v", attributes, err)
	}
}

func TestLink_EverybodyFollowsItAndOnlyAdministratorsChangeIt(t *testing.T) {
	needWindows(t, "Wine keeps no access list of a link")
	tr := newTree(t)
	tr.write("shown/file", "")
	link := tr.link(tr.path("shown")+`\`, "link")
	const everybody, appContainers = "WD", "S-1-15-2-1"
	if got := accessOf(t, link, windows.FILE_FLAG_OPEN_REPARSE_POINT); !strings.HasPrefix(got, "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;") || !strings.Contains(got, everybody) || !(strings.Contains(got, "AC") || strings.Contains(got, appContainers)) {
		t.Errorf("access to the link is %s", got)
	}
	var followErr, readErr, changeErr error
	withoutAdministrators(t, func() {
		_, followErr = os.Stat(filepath.Join(link, "file"))
		_, readErr = ReadLink(link)
		handle, err := createFile(link, windows.FILE_WRITE_ATTRIBUTES, shareAll, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT)
		if changeErr = err; err == nil {
			_ = windows.CloseHandle(handle)
		}
	})
	if followErr != nil || readErr != nil {
		t.Errorf("following the link: %v, reading it: %v", followErr, readErr)
	}
	wantError(t, changeErr, link, windows.ERROR_ACCESS_DENIED)
}

// accessOf returns the access list of a file.
func accessOf(t *testing.T, path string, flags uint32) string {
	t.Helper()
	handle, err := createFile(path, windows.READ_CONTROL, shareAll, nil, windows.OPEN_EXISTING, flags|windows.FILE_FLAG_BACKUP_SEMANTICS)
	must(t, err)
	defer windows.CloseHandle(handle)
	sd, err := windows.GetSecurityInfo(handle, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	must(t, err)
	return sd.String()
}

// withoutAdministrators calls f as the user of this process, but without the rights of an administrator.
func withoutAdministrators(t *testing.T, f func()) {
	t.Helper()
	var token, restricted windows.Token
	must(t, windows.OpenProcessToken(windows.CurrentProcess(), windows.TOKEN_DUPLICATE|windows.TOKEN_QUERY|windows.TOKEN_ASSIGN_PRIMARY, &token))
	defer token.Close()
	administrators, err := windows.CreateWellKnownSid(windows.WinBuiltinAdministratorsSid)
	must(t, err)
	disable := windows.SIDAndAttributes{Sid: administrators}
	const disableMaxPrivilege = 1
	advapi32 := windows.NewLazySystemDLL("advapi32.dll")
	if ok, _, err := advapi32.NewProc("CreateRestrictedToken").Call(uintptr(token), disableMaxPrivilege, 1, uintptr(unsafe.Pointer(&disable)),
		0, 0, 0, 0, uintptr(unsafe.Pointer(&restricted))); ok == 0 {
		t.Fatalf("CreateRestrictedToken: %v", err)
	}
	defer restricted.Close()
	runtime.LockOSThread() // which becomes that user
	defer runtime.UnlockOSThread()
	if ok, _, err := advapi32.NewProc("ImpersonateLoggedOnUser").Call(uintptr(restricted)); ok == 0 {
		t.Fatalf("ImpersonateLoggedOnUser: %v", err)
	}
	defer func() {
		if err := windows.RevertToSelf(); err != nil {
			panic(err)
		}
	}()
	f()
}

func TestIsBusy_KnowsTheCodes(t *testing.T) {
	for err, want := range map[error]bool{
		&os.PathError{Err: windows.ERROR_SHARING_VIOLATION}: true,
		windows.ERROR_ACCESS_DENIED:                         true,
		windows.ERROR_DELETE_PENDING:                        true,
		windows.ERROR_INSUFFICIENT_BUFFER:                   true,
		windows.ERROR_DIR_NOT_EMPTY:                         false,
		os.ErrNotExist:                                      false,
		nil:                                                 false,
	} {
		if got := IsBusy(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

func TestIsBusy_WhatAScannerHasOpen(t *testing.T) {
	for _, test := range []struct {
		name  string
		make  func(tr tree, path string)
		share uint32
		do    func(path string) error
	}{
		{"remove a directory", mkdir, readable, RemoveDir},
		{"look at a file", write, 0, closing(func(path string) (*os.File, error) { return OpenPrivate(path, 0) })},
		{"make a file that is there", write, readable, closing(func(path string) (*os.File, error) { return OpenPrivate(path, os.O_CREATE) })},
		{"open a directory", mkdir, 0, closing(OpenPrivateDir)},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := newTree(t)
			path := tr.path("x")
			test.make(tr, path)
			closeScanner := scan(t, path, test.share)
			if err := test.do(path); !IsBusy(err) {
				t.Errorf("while it is open: %v", err)
			}
			closeScanner()
			must(t, test.do(path))
		})
	}
}

func mkdir(tr tree, path string) { tr.mkdir(filepath.Base(path)) }
func write(tr tree, path string) { tr.write(filepath.Base(path), "") }

func closing(open func(path string) (*os.File, error)) func(path string) error {
	return func(path string) error {
		file, err := open(path)
		if err != nil {
			return err
		}
		return file.Close()
	}
}

func TestRemoveOpen_FreesTheNameWhileAScannerReads(t *testing.T) {
	needWindows(t, "Wine has no POSIX semantics of deletion")
	tr := newTree(t)
	file, err := OpenPrivate(tr.path("file"), os.O_CREATE)
	must(t, err)
	scan(t, tr.path("file"), shareAll)
	must(t, RemoveOpen(file))
	tr.want()
}
