package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"golang.org/x/sys/windows"
)

func TestATargetIsTheSameInAnyCaseAndByItsShortName(t *testing.T) {
	h := newWinHost(t)
	parent := h.path("A long name of a directory")
	h.mkdir(parent)
	for name, target := range map[string]string{
		"upper case": strings.ToUpper(filepath.Join(parent, "target")),
		"short name": filepath.Join(shortPath(t, parent), "target"),
		"separators": strings.ReplaceAll(parent, `\`, `/`) + `//.//target/`,
	} {
		t.Run(name, func(t *testing.T) {
			h.must(h.scratch().Mount(filepath.Join(parent, "target")))
			if _, err := Lookup(target); err != nil {
				t.Error(err)
			}
			h.must(Unmount(target, 0))
			h.wantNothing()
		})
	}
}

func TestALayerIsTheSameInAnyCaseAndByItsShortName(t *testing.T) {
	h := newWinHost(t)
	h.must(h.scratch().Mount(h.path("target")))
	upper := h.scratch()
	upper.Source = filepath.Join(shortPath(t, strings.ToUpper(h.path("layers"))), "2")
	h.must(upper.Mount(h.path("second")))
	h.wantCalls(winOpen...)
	h.must(Unmount(upper.Source, 0))
	h.wantNothing()
}

func TestATargetGivenByItsShortNameIsUnmountedByIt(t *testing.T) {
	h := newWinHost(t)
	target := h.path("a long name of a target")
	h.mkdir(target)
	short := shortPath(t, target)
	h.must(h.scratch().Mount(short))
	info, err := Lookup(target)
	h.must(err)
	if filepath.Base(info.Mountpoint) != filepath.Base(target) {
		t.Errorf("mounted at %s", info.Mountpoint)
	}
	h.must(Unmount(target, 0))
	h.wantNothing()
	h.wantDirectory(target)
}

func TestATargetWhoseLongNameWindowsReadsAsAnotherIsRefused(t *testing.T) {
	long := `\\?\` + filepath.Join(t.TempDir(), "a long name of a target ")
	if err := os.Mkdir(long, 0o777); err != nil {
		t.Fatal(err)
	}
	short := strings.TrimPrefix(shortPath(t, long), `\\?\`)
	needWindows(t, "Wine names it without the space")
	_, err := newTarget(short)
	wantError(t, err, "ends in a dot or a space")
}

func shortPath(t *testing.T, path string) string {
	t.Helper()
	pathPtr, err := windows.UTF16PtrFromString(path)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]uint16, windows.MAX_LONG_PATH)
	if _, err := windows.GetShortPathName(pathPtr, &buf[0], uint32(len(buf))); err != nil {
		t.Fatal(err)
	}
	short := windows.UTF16ToString(buf)
	if strings.EqualFold(short, path) {
		t.Skipf("the volume of %s keeps no 8.3 names", path)
	}
	return short
}

// newBaseHost returns a mounter over a model of HCS, and a layer without parents in a
// new directory, with which it works on Windows as well: the link does not lead to a
// volume.
func newBaseHost(t *testing.T) (mt *mounter, layer *Mount, dir string) {
	t.Helper()
	table := newTable(t)
	mt = &mounter{opener: opener{hcstest.New(""), table.pause}, table: table, boot: "boot 1"}
	dir = filepath.Dir(table.dir)
	layer = &Mount{Type: layerType, Source: filepath.Join(dir, "layer")}
	for _, err := range []error{os.MkdirAll(filepath.Join(layer.Source, "Files"), 0o777),
		os.WriteFile(filepath.Join(layer.Source, `Files\hello.txt`), nil, 0o666), os.Mkdir(filepath.Join(dir, "target"), 0o777)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return mt, layer, dir
}

func TestALinkTakesThePlaceOfADirectoryUntilUnmountOrARestart(t *testing.T) {
	needLinks(t)
	mt, layer, dir := newBaseHost(t)
	target, second := filepath.Join(dir, "target"), filepath.Join(dir, "second")
	for i := 0; i < 2; i++ { // the second time shows that the first left nothing
		for _, path := range []string{target, second} {
			if err := mt.mount(context.Background(), layer, path); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(path, "hello.txt")); err != nil {
				t.Errorf("the link does not show the layer: %v", err)
			}
		}
		wantError(t, mt.mount(context.Background(), layer, target), "it shows layer", os.ErrExist)
		if i == 1 {
			mt.boot = "boot 2"
		}
		for _, path := range []string{target, second} {
			if _, err := mt.unmount(path); err != nil {
				t.Error(err)
			}
		}
		if entries, err := os.ReadDir(target); err != nil || len(entries) != 0 || !isGone(second) {
			t.Errorf("at the targets: %v, %v, and something: %t", entries, err, !isGone(second))
		}
	}
}

func TestATargetIsReachedAlsoWhenItsDriveHasGone(t *testing.T) {
	needLinks(t)
	mt, layer, dir := newBaseHost(t)
	removeDrive := makeDrive(t, `Q:`, dir)
	err := mt.mount(context.Background(), layer, `Q:\target`)
	removeDrive()
	if err == nil {
		_, err = mt.unmount(layer.Source)
	}
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "target")); err != nil || len(entries) != 0 {
		t.Errorf("at the target: %v, %v", entries, err)
	}
}

func TestUnmountOfAPathOnADriveThatIsNotThereIsNil(t *testing.T) {
	h := newWinHost(t)
	h.must(h.scratch().Mount(h.path("target")))
	for _, path := range []string{`Q:\mnt\a`, `\\?\Volume{00000000-0000-0000-0000-000000000000}\a`} {
		if _, err := os.Stat(path); err == nil {
			t.Skipf("there is a drive %s", path)
		}
		h.must(Unmount(path, 0))
		h.must(UnmountAll(path, 0))
		h.must(UnmountRecursive(path, 0))
		_, err := Lookup(path)
		wantError(t, err, "look up mount", os.ErrNotExist)
		wantError(t, h.scratch().Mount(path), "failed to mount at", os.ErrNotExist)
	}
	h.wantOpen("2")
	h.must(Unmount(h.path("target"), 0))
	h.wantNothing()
}

// makeDrive makes a drive of a directory, as subst does, and returns what removes
// it.
func makeDrive(t *testing.T, drive, dir string) (remove func()) {
	t.Helper()
	if _, err := os.Stat(drive + `\`); err == nil {
		t.Skipf("there is a drive %s", drive)
	}
	drivePtr, driveErr := windows.UTF16PtrFromString(drive)
	dirPtr, err := windows.UTF16PtrFromString(dir)
	if err := stderrors.Join(driveErr, err, windows.DefineDosDevice(0, drivePtr, dirPtr)); err != nil {
		t.Fatal(err)
	}
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

func TestCaseIsThatOfWindowsWhichComparesUpperCaseLetters(t *testing.T) {
	for _, same := range [][2]string{{"AZ", "az"}, {"ÄΩЖ", "äωж"}} {
		if foldCase(same[0]) != foldCase(same[1]) {
			t.Errorf("%q and %q are not the same", same[0], same[1])
		}
	}
	for _, other := range [][2]string{{"\u212a", "k"}, {"\u212b", "å"}, {"İ", "i"}, {"ı", "I"}, {"ſ", "S"}, {"\U00010400", "\U00010428"}} {
		if foldCase(other[0]) == foldCase(other[1]) {
			t.Errorf("%q and %q are the same", other[0], other[1])
		}
	}
}

func TestPathsThatDifferInCaseAreOneWhereTheSystemTakesThemForOne(t *testing.T) {
	dir := t.TempDir()
	wantSame(t, filepath.Join(dir, "a"), filepath.Join(dir, "A"), true)
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o777); err != nil {
		t.Fatal(err)
	}
	wantSame(t, filepath.Join(dir, "a"), filepath.Join(dir, "A"), true)
	wantSame(t, filepath.Join(dir, `a\absent`), filepath.Join(dir, `A\Absent`), true)
}

func TestATargetAndALayerAreTheSameBeforeAndAfterTheirDirectoryIsMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Mixed Case")
	keys := func() [2]key {
		at, err := newTarget(path)
		_, layer, layerErr := resolveSource(path)
		if err := stderrors.Join(err, layerErr); err != nil {
			t.Fatal(err)
		}
		return [2]key{at.Key, layer}
	}
	absent := keys()
	if err := os.Mkdir(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if made := keys(); made != absent {
		t.Errorf("the keys were %v and are %v", absent, made)
	}
}

func TestWhereCaseIsToldApartPathsThatDifferInItAreTwo(t *testing.T) {
	dir := t.TempDir()
	handle, err := openExisting(dir, windows.FILE_WRITE_ATTRIBUTES, 0)
	if err != nil {
		t.Fatal(err)
	}
	sensitive := uint32(1) // FILE_CS_FLAG_CASE_SENSITIVE_DIR
	err = windows.SetFileInformationByHandle(handle, windows.FileCaseSensitiveInfo, (*byte)(unsafe.Pointer(&sensitive)), uint32(unsafe.Sizeof(sensitive)))
	if closeErr := windows.CloseHandle(handle); closeErr != nil {
		t.Error(closeErr)
	}
	if err != nil {
		t.Skipf("no directory can tell case apart here (fsutil file setCaseSensitiveInfo), as in Wine: %v", err)
	}
	wantSame(t, filepath.Join(dir, "a"), filepath.Join(dir, "A"), false) // both absent
	for _, name := range []string{"a", "A"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "sub"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	wantSame(t, filepath.Join(dir, "a"), filepath.Join(dir, "A"), false)
	wantSame(t, filepath.Join(dir, `a\sub`), filepath.Join(dir, `A\sub`), false)
	// One that is made in such a directory tells case apart as well on some builds.
	// Where it does not, its own is folded, and the case above it is kept.
	_, _, exact, err := finalPath(filepath.Join(dir, "a"), true)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, filepath.Join(dir, `a\absent`), filepath.Join(dir, `a\ABSENT`), !exact)
}

// wantSame fails the test unless two paths are one target and one layer, or two.
func wantSame(t *testing.T, a, b string, same bool) {
	t.Helper()
	targetA, errA := newTarget(a)
	targetB, errB := newTarget(b)
	_, layerA, layerErrA := resolveSource(a)
	_, layerB, layerErrB := resolveSource(b)
	if err := stderrors.Join(errA, errB, layerErrA, layerErrB); err != nil {
		t.Fatal(err)
	}
	if (targetA.Key == targetB.Key) != same {
		t.Errorf("%s and %s are one target: %t", a, b, !same)
	}
	if (layerA == layerB) != same {
		t.Errorf("%s and %s are one layer: %t", a, b, !same)
	}
}

func TestAPathIsNamedByItsDriveOrShareOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	if name := finalName(t, dir); !strings.HasPrefix(name, `\\?\`+dir[:2]) || filepath.Base(name) != filepath.Base(dir) {
		t.Errorf("%s is %s", dir, name)
	}
	_, err := nameOf(windows.InvalidHandle, dir)
	wantError(t, err, "the system has no name for "+dir)
	if stderrors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that cannot be named is taken for one that is not there: %v", err)
	}
	share := `\\localhost\` + dir[:1] + `$` + dir[2:]
	if _, err := os.Stat(share); err != nil {
		t.Skipf("the drive is not shared: %v", err)
	}
	if name := finalName(t, share); !strings.HasPrefix(name, `\\?\UNC\`) {
		t.Errorf("%s is %s", share, name)
	}
}

func finalName(t *testing.T, path string) string {
	t.Helper()
	name, _, _, err := finalPath(path, true)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestThePathOfAFileMayBeLong(t *testing.T) {
	dir := t.TempDir()
	for len(dir) < windows.MAX_PATH { // Wine 8 ends at twice that
		dir = filepath.Join(dir, strings.Repeat("x", 100))
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if !wineNames(t, dir) {
		t.Skip("GetFinalPathNameByHandle of this Wine names no path longer than MAX_PATH, however large the buffer")
	}
	if name := finalName(t, dir); !strings.HasSuffix(name, dir[2:]) {
		t.Errorf("got %s, want what ends in %s", name, dir[2:])
	}
}

// wineNames reports whether the system itself names a directory; Windows does.
func wineNames(t *testing.T, dir string) bool {
	t.Helper()
	if os.Getenv(simDir) == "" {
		return true
	}
	handle, err := openExisting(dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(handle)
	buf := make([]uint16, windows.MAX_LONG_PATH)
	_, err = windows.GetFinalPathNameByHandle(handle, &buf[0], uint32(len(buf)), 0)
	return err == nil && strings.HasSuffix(windows.UTF16ToString(buf), dir[2:])
}

func TestRemoveDirRemovesAnEmptyDirectoryOnly(t *testing.T) {
	dir := t.TempDir()
	empty, full, file := filepath.Join(dir, "empty"), filepath.Join(dir, "full"), filepath.Join(dir, "full", "file")
	for _, err := range []error{os.Mkdir(empty, 0o777), os.Mkdir(full, 0o777), os.WriteFile(file, nil, 0o666)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := removeDir(empty); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(empty); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	wantError(t, removeDir(file), "remove directory "+file, windows.ERROR_DIRECTORY)
	wantError(t, removeDir(empty), "open "+empty, os.ErrNotExist)
	t.Run("not empty", func(t *testing.T) {
		if wineForgetsRefusal(t, full) {
			t.Skip("this Wine refuses to delete a directory that is not empty only the first time that it is told to")
		}
		wantError(t, removeDir(full), "remove directory "+full, windows.ERROR_DIR_NOT_EMPTY)
	})
	needLinks(t)
	link := filepath.Join(dir, "link")
	if err := makeLink(full, link); err != nil {
		t.Fatal(err)
	}
	wantError(t, removeDir(link), "remove directory "+link, windows.ERROR_DIRECTORY)
}

// wineForgetsRefusal reports whether Wine itself reports success for a directory that it has
// just refused to delete, as Windows does not, and leaves it.
func wineForgetsRefusal(t *testing.T, dir string) bool {
	t.Helper()
	if os.Getenv(simDir) == "" {
		return false
	}
	handle, err := openExisting(dir, windows.DELETE, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(handle)
	del := byte(1)
	first := windows.SetFileInformationByHandle(handle, windows.FileDispositionInfo, &del, 1)
	second := windows.SetFileInformationByHandle(handle, windows.FileDispositionInfo, &del, 1)
	return first != nil && second == nil
}

func TestALinkToWhatIsNotThereIsADirectoryLink(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	const text = `\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}\`
	if err := makeLink(text, link); err != nil {
		t.Fatal(err)
	}
	needLinks(t)
	linkPtr, err := windows.UTF16PtrFromString(link)
	if err != nil {
		t.Fatal(err)
	}
	attributes, err := windows.GetFileAttributes(linkPtr)
	if err != nil || attributes&windows.FILE_ATTRIBUTE_DIRECTORY == 0 {
		t.Errorf("attributes 0x%x, %v", attributes, err)
	}
	if got, err := readLink(link); err != nil || !sameLink(got, text) {
		t.Errorf("the link is %s, %v", got, err)
	}
}

func TestALinkThatLeadsNowhereFailsAndIsReported(t *testing.T) {
	needLinks(t)
	link := filepath.Join(t.TempDir(), "link")
	r := record{Source: `C:\layers\2`, Volume: `\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}`, Parents: []string{`C:\layers\1`}}
	wantError(t, (&target{Path: link, Resolved: link}).link(&r, noPause), "does not show layer "+r.Source)
}

func TestEverybodyFollowsALinkAndOnlyAdministratorsTurnIt(t *testing.T) {
	needWindows(t, "Wine keeps no access list of a link")
	dir := t.TempDir()
	shown, link := filepath.Join(dir, "shown"), filepath.Join(dir, "link")
	for _, err := range []error{os.Mkdir(shown, 0o777), os.WriteFile(filepath.Join(shown, "file"), nil, 0o666), makeLink(shown+`\`, link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, want := linkAccessOf(t, link), "(A;;FA;;;SY)(A;;FA;;;BA)(A;;0x1200a9;;;WD)(A;;0x1200a9;;;AC)"; !strings.HasPrefix(got, "D:P") || !strings.HasSuffix(got, want) {
		t.Errorf("access to the link is %s, want a protected %s", got, want)
	}
	var followErr, readErr, turnErr error
	withoutAdministrators(t, func() {
		_, followErr = os.Stat(filepath.Join(link, "file"))
		_, readErr = readLink(link)
		var handle windows.Handle
		if handle, turnErr = openExisting(link, windows.FILE_WRITE_ATTRIBUTES, windows.FILE_FLAG_OPEN_REPARSE_POINT); turnErr == nil {
			_ = windows.CloseHandle(handle)
		}
	})
	if followErr != nil || readErr != nil {
		t.Errorf("following the link: %v, reading it: %v", followErr, readErr)
	}
	wantError(t, turnErr, link, windows.ERROR_ACCESS_DENIED)
}

// linkAccessOf returns the access list of a link, and not of what it leads to.
func linkAccessOf(t *testing.T, link string) string {
	t.Helper()
	handle, err := openExisting(link, windows.READ_CONTROL, windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(handle)
	sd, err := windows.GetSecurityInfo(handle, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	return sd.String()
}

// withoutAdministrators calls f as the user of this process, whom being in the group
// of administrators gives nothing meanwhile.
func withoutAdministrators(t *testing.T, f func()) {
	t.Helper()
	var token, restricted windows.Token
	if err := windows.OpenProcessToken(windows.CurrentProcess(), windows.TOKEN_DUPLICATE|windows.TOKEN_QUERY|windows.TOKEN_ASSIGN_PRIMARY, &token); err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	administrators, err := windows.CreateWellKnownSid(windows.WinBuiltinAdministratorsSid)
	if err != nil {
		t.Fatal(err)
	}
	disable := windows.SIDAndAttributes{Sid: administrators}
	const disableMaxPrivilege = 1
	advapi32 := windows.NewLazySystemDLL("advapi32.dll")
	if ok, _, err := advapi32.NewProc("CreateRestrictedToken").Call(uintptr(token), disableMaxPrivilege, 1, uintptr(unsafe.Pointer(&disable)),
		0, 0, 0, 0, uintptr(unsafe.Pointer(&restricted))); ok == 0 {
		t.Fatalf("CreateRestrictedToken: %v", err)
	}
	defer restricted.Close()
	runtime.LockOSThread() // whose user it is
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
