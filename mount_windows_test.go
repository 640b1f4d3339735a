package mount

import (
	"context"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/Microsoft/hcsshim"
	"github.com/seed-941ae793/mount/internal/hcsmodel"
	"golang.org/x/sys/windows"
)

// The tests here call the exported functions and so the real hcsshim. Under
// Wine (scripts/wine test) vmcompute.dll is the simulation. On Windows it is the
// real one, and a test that needs to see into the simulation is skipped.

const (
	simDir     = "HCS_SIM_DIR"
	childMount = "MOUNT_TEST_CHILD" // what the child process does: "mount" or "unmount"
	childDir   = "MOUNT_TEST_DIR"
)

func TestMain(m *testing.M) {
	if task := os.Getenv(childMount); task != "" {
		os.Exit(runChild(task, os.Getenv(childDir)))
	}
	os.Exit(m.Run())
}

func runChild(task, dir string) int {
	h := &winHost{dir: dir}
	err := SetTableDir(h.path("table"))
	if err == nil && task == "mount" {
		err = h.scratch("2").Mount(h.path("target"))
	} else if err == nil {
		err = UnmountAll(h.path("target"), 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// winHost is a directory with layers, a mount table and targets, on a machine
// with a simulated HCS.
type winHost struct {
	t   *testing.T
	dir string
	*hcsmodel.Model
}

// newWinHost makes the layers 0, 1 and 2: a base layer, one on it, and a
// writable one on both.
func newWinHost(t *testing.T) *winHost {
	dir := os.Getenv(simDir)
	if dir == "" {
		t.Skip("needs the simulated vmcompute.dll: run scripts/wine test on Linux")
	}
	model, err := hcsmodel.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	// The DLL counts down the faults; the test only looks.
	model.Before, model.After = nil, nil
	h := &winHost{t: t, dir: t.TempDir(), Model: model}
	for _, file := range []string{`layers\0\Files\hello.txt`, `layers\1\Files\new.txt`, `layers\2\sandbox.vhdx`} {
		h.write(h.path(file))
	}
	h.faults()
	h.must(SetTableDir(h.path("table")))
	h.must(model.Reboot())
	model.ResetCalls()
	return h
}

func (h *winHost) path(elements ...string) string {
	return filepath.Join(append([]string{h.dir}, elements...)...)
}

func (h *winHost) layer(name string) string { return h.path("layers", name) }

func (h *winHost) scratch(name string) *Mount {
	return &Mount{Type: "windows-layer", Source: h.layer(name),
		Options: []string{ParentLayerPathsFlag + listOf([]string{h.layer("1"), h.layer("0")})}}
}

func (h *winHost) write(path string) {
	h.t.Helper()
	h.must(os.MkdirAll(filepath.Dir(path), 0o777))
	h.must(os.WriteFile(path, []byte("data"), 0o666))
}

func (h *winHost) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *winHost) faults(lines ...string) {
	h.t.Helper()
	h.must(hcsmodel.SetFaults(os.Getenv(simDir), lines...))
}

// wantCalls fails the test unless exactly these calls have reached the DLL since
// it was asked last. The directory of the layers is left out.
func (h *winHost) wantCalls(want ...string) {
	h.t.Helper()
	got := strings.ReplaceAll(strings.Join(h.Calls(), "\n"), h.path("layers")+`\`, "")
	if got != strings.Join(want, "\n") {
		h.t.Errorf("calls:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
	h.ResetCalls()
}

// wantNothing fails the test when a layer is open or the table holds a record.
func (h *winHost) wantNothing() {
	h.t.Helper()
	if open := h.OpenLayers(); len(open) != 0 {
		h.t.Errorf("open layers: %q", open)
	}
	for _, pattern := range []string{`table\mounts\*`, `table\layers\*`} {
		if left, _ := filepath.Glob(h.path(pattern)); len(left) != 0 {
			h.t.Errorf("left in the table: %q", left)
		}
	}
}

// needLinks skips the rest of a test where there are no symbolic links.
func needLinks(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := makeLink(dir, link); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(link); os.IsNotExist(err) {
		t.Skip("CreateSymbolicLink reported success and made no link, as Wine up to 10 does")
	}
}

var (
	winOpen  = []string{"GetLayerMountPath 2", "ActivateLayer 2", "PrepareLayer 2 [1 0]", "GetLayerMountPath 2"}
	winClose = []string{"UnprepareLayer 2", "DeactivateLayer 2"}
)

func TestTheDLLGetsTheCallsOfMountAndUnmountInOrder(t *testing.T) {
	for _, by := range []string{"target", "source"} {
		t.Run("unmount by "+by, func(t *testing.T) {
			h := newWinHost(t)
			h.must(h.scratch("2").Mount(h.path("target")))
			h.wantCalls(winOpen...)
			path := h.path("target")
			if by == "source" {
				path = h.layer("2")
			}
			h.must(Unmount(path, 0))
			h.wantCalls(winClose...)
			h.wantNothing()
		})
	}
}

func TestTheLinkLeadsToTheRootOfTheVolume(t *testing.T) {
	h := newWinHost(t)
	h.must(h.scratch("2").Mount(h.path("target")))
	info, err := Lookup(h.path("target"))
	h.must(err)
	if !strings.HasPrefix(info.Root, `\\?\Volume{`) || !strings.HasSuffix(info.Root, `}\`) {
		t.Errorf("the link leads to %s", info.Root)
	}
	h.must(os.WriteFile(info.Root+"new.txt", nil, 0o666))
	needLinks(t)
	if text, err := readLink(h.path("target")); err != nil || !sameLink(text, info.Root) {
		t.Errorf("the link is %s, %v, want %s", text, err, info.Root)
	}
	entries, err := os.ReadDir(h.path("target"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "new.txt" {
		t.Errorf("through the link: %v, %v", entries, err)
	}
}

func TestABaseLayerShowsItsFiles(t *testing.T) {
	h := newWinHost(t)
	m := &Mount{Type: "windows-layer", Source: h.layer("0")}
	h.must(m.Mount(h.path("target")))
	info, err := Lookup(h.path("target"))
	h.must(err)
	if info.Root != h.layer(`0\Files`) {
		t.Errorf("the link leads to %s", info.Root)
	}
	h.must(Unmount(h.path("target"), 0))
	h.wantNothing()
}

func TestAnHRESULTIsReturnedAsItsCodeAndTheMountIsUndone(t *testing.T) {
	for _, test := range []struct {
		call string
		code syscall.Errno
		text string
		want []string
	}{
		{"ActivateLayer", windows.ERROR_SHARING_VIOLATION, "failed to activate layer", winOpen[:2]},
		{"PrepareLayer", windows.ERROR_INVALID_PARAMETER, "failed to prepare layer", calls(winOpen[:3], winClose[1:])},
		{"PrepareLayer", 0xC0370106, "failed to prepare layer", calls(winOpen[:3], winClose[1:])},
		{"GetLayerMountPath", windows.ERROR_SHARING_VIOLATION, "failed to get mount path of layer", calls(winOpen, winClose)},
	} {
		t.Run(fmt.Sprintf("%s 0x%x", test.call, uint32(test.code)), func(t *testing.T) {
			h := newWinHost(t)
			h.must(os.Mkdir(h.path("target"), 0o777))
			h.faults(fmt.Sprintf("%s 0x%x 2", test.call, uint32(test.code))) // 2: GetLayerMountPath also comes before the others
			err := h.scratch("2").Mount(h.path("target"))
			wantError(t, err, test.text+" "+h.layer("2"), test.code)
			wantHcsError(t, err)
			h.wantCalls(test.want...)
			h.wantNothing()
			h.must(os.Remove(h.path("target")))
		})
	}
}

func TestAnHRESULTOfUnmountIsReturnedAndUnmountCanBeRepeated(t *testing.T) {
	h := newWinHost(t)
	h.must(os.Mkdir(h.path("target"), 0o777))
	h.must(h.scratch("2").Mount(h.path("target")))
	h.ResetCalls()
	h.faults("UnprepareLayer 0x1f 1", "DeactivateLayer 0x20 1")
	err := Unmount(h.path("target"), 0)
	wantError(t, err, "failed to unprepare layer "+h.layer("2"), windows.ERROR_GEN_FAILURE)
	wantError(t, err, "failed to deactivate layer "+h.layer("2"), windows.ERROR_SHARING_VIOLATION)
	wantHcsError(t, err)
	h.wantCalls(winClose...)
	h.must(Unmount(h.path("target"), 0))
	h.wantCalls(winClose...)
	h.wantNothing()
	h.must(os.Remove(h.path("target")))
}

func wantHcsError(t *testing.T, err error) {
	t.Helper()
	var hcsErr *hcsshim.HcsError
	if !stderrors.As(err, &hcsErr) {
		t.Errorf("no *hcsshim.HcsError in %v", err)
	}
}

func TestTransientHRESULTsAreTriedAgain(t *testing.T) {
	h := newWinHost(t)
	h.faults("ActivateLayer 0x15 1", "PrepareLayer 0x48f 1")
	h.must(h.scratch("2").Mount(h.path("target")))
	h.wantCalls(calls(winOpen[:2], winClose[1:], winOpen[1:3], winClose[1:], winOpen[1:])...)
}

func TestALayerAtTwoTargetsIsOpenedOnceThroughTheDLL(t *testing.T) {
	h := newWinHost(t)
	h.must(h.scratch("2").Mount(h.path("target")))
	h.must(h.scratch("2").Mount(h.path("second")))
	h.wantCalls(calls(winOpen, winOpen[:1])...)
	h.must(Unmount(h.path("target"), 0))
	h.wantCalls()
	h.must(Unmount(h.path("second"), 0))
	h.wantCalls(winClose...)
	h.wantNothing()
}

func TestAnUnknownLayerIsClosedThroughTheDLL(t *testing.T) {
	h := newWinHost(t)
	id := hcsshim.DriverInfo{HomeDir: h.path("layers")}
	h.must(hcsshim.ActivateLayer(id, "2"))
	h.must(hcsshim.PrepareLayer(id, "2", []string{h.layer("0")}))
	h.ResetCalls()
	h.must(Unmount(h.layer("2")+`\`, 0))
	h.wantCalls(winClose...)
	h.must(UnmountAll(h.layer("2"), 0)) // not open any more
	h.wantNothing()
}

func TestAProcessKilledInAnyCallIsCleanedUpAfter(t *testing.T) {
	for _, task := range []string{"mount", "unmount"} {
		steps := winOpen
		if task == "unmount" {
			steps = winClose
		}
		for at, call := range steps {
			for _, when := range []string{"kill-before", "kill-after"} {
				name := strings.Fields(call)[0]
				plan := []string{name + " " + when + " 1"}
				if at > 0 && name == "GetLayerMountPath" { // not the one before, which asks whether the layer is open
					plan = append([]string{name + " 0x15 1"}, plan...)
				}
				t.Run(fmt.Sprintf("%d %s %s", at, name, when), func(t *testing.T) {
					h := newWinHost(t)
					h.must(os.Mkdir(h.path("target"), 0o777))
					if task == "unmount" {
						h.must(h.scratch("2").Mount(h.path("target")))
					}
					h.faults(plan...)
					child := exec.Command(os.Args[0])
					child.Env = append(os.Environ(), childMount+"="+task, childDir+"="+h.dir)
					if out, err := child.CombinedOutput(); err == nil || len(out) != 0 {
						t.Fatalf("the child was not killed: %v, %s", err, out)
					}
					h.must(UnmountAll(h.path("target"), 0))
					h.wantNothing()
					h.must(os.Remove(h.path("target")))
				})
			}
		}
	}
}

func TestATargetIsTheSameInAnyCaseAndByItsShortName(t *testing.T) {
	h := newWinHost(t)
	parent := h.path("A long name of a directory")
	h.must(os.Mkdir(parent, 0o777))
	for name, target := range map[string]string{
		"upper case": strings.ToUpper(filepath.Join(parent, "target")),
		"short name": filepath.Join(shortPath(t, parent), "target"),
		"separators": strings.ReplaceAll(parent, `\`, `/`) + `//.//target/`,
	} {
		t.Run(name, func(t *testing.T) {
			h.must(h.scratch("2").Mount(filepath.Join(parent, "target")))
			if _, err := Lookup(target); err != nil {
				t.Error(err)
			}
			h.must(Unmount(target, 0))
			h.wantNothing()
		})
	}
}

func TestATargetWhoseLongNameWindowsReadsAsAnotherIsRefused(t *testing.T) {
	h := newWinHost(t)
	long := `\\?\` + h.path("a long name of a target ")
	h.must(os.Mkdir(long, 0o777))
	short := strings.TrimPrefix(shortPath(t, long), `\\?\`)
	wantError(t, h.scratch("2").Mount(short), "ends in a dot or a space")
	h.wantCalls()
	h.wantNothing()
}

func TestATargetIsReachedAlsoWhenItsDriveHasGone(t *testing.T) {
	h := newWinHost(t)
	h.must(os.Mkdir(h.path("target"), 0o777))
	removeDrive := makeDrive(t, `Q:`, h.dir)
	err := h.scratch("2").Mount(`Q:\target`)
	removeDrive()
	h.must(err)
	h.must(Unmount(h.layer("2"), 0))
	h.wantNothing()
	h.must(os.Remove(h.path("target")))
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

func TestATargetBelowAFileIsRefusedBeforeHCSIsCalled(t *testing.T) {
	h := newWinHost(t)
	h.must(os.WriteFile(h.path("file"), nil, 0o666))
	wantError(t, h.scratch("2").Mount(h.path(`file\a`)), "its parent is not a directory")
	h.wantCalls()
}

func TestALayerIsTheSameInAnyCaseAndByItsShortName(t *testing.T) {
	h := newWinHost(t)
	h.must(h.scratch("2").Mount(h.path("target")))
	upper := h.scratch("2")
	upper.Source = filepath.Join(shortPath(t, strings.ToUpper(h.path("layers"))), "2")
	h.must(upper.Mount(h.path("second")))
	h.wantCalls(calls(winOpen, winOpen[:1])...)
	h.must(Unmount(upper.Source, 0))
	h.wantNothing()
}

func TestTheTableIsMadeForAdministratorsAndSystemOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "table")
	if err := (table{dir, pause}).makeDir(dir); err != nil {
		t.Fatal(err)
	}
	if err := (table{dir, pause}).makeDir(dir); err != nil {
		t.Errorf("it is not trusted when it is there: %v", err)
	}
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	got := sd.String()
	if os.Getenv(simDir) != "" {
		t.Skipf("Wine keeps no owner and no protected DACL; it has made of them %s", got)
	}
	if want := "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"; got != want {
		t.Errorf("security of the table is %s, want %s", got, want)
	}
}

func TestAnAdministratorsDirectoryBecomesPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "table")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := (table{dir, pause}).makeDir(dir); err != nil {
		t.Fatal(err)
	}
	if os.Getenv(simDir) != "" {
		t.Skip("Wine keeps no protected DACL")
	}
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := sd.String(), "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"; got != want {
		t.Errorf("security of the table is %s, want %s", got, want)
	}
}

func TestATableOrRecordOfAnotherOwnerIsNotBelieved(t *testing.T) {
	h := newWinHost(t)
	h.must(h.scratch("2").Mount(h.path("target")))
	records, err := filepath.Glob(h.path(`table\mounts\*.json`))
	if err != nil || len(records) != 1 {
		t.Fatalf("records %q, %v", records, err)
	}
	const text = "cannot be trusted"
	for _, path := range []string{records[0], h.path(`table\mounts`), h.path("table")} {
		h.ResetCalls()
		giveAway(t, path, "65534")
		wantError(t, Unmount(h.path("target"), 0), text, os.ErrPermission)
		wantError(t, h.scratch("2").Mount(h.path("target")), text, os.ErrPermission)
		_, err := Lookup(h.path("target"))
		wantError(t, err, text, os.ErrPermission)
		h.wantCalls()
		giveAway(t, path, "0")
	}
	h.must(Unmount(h.path("target"), 0))
	h.wantNothing()
}

// giveAway gives a file to another user of the Linux that Wine runs on, as whose
// files Wine shows those of that user.
func giveAway(t *testing.T, path, uid string) {
	t.Helper()
	prefix := os.Getenv("WINEPREFIX")
	if prefix == "" || filepath.VolumeName(path) != "C:" {
		t.Skip("needs Wine: Windows lets nobody give a file away but to himself")
	}
	unix := prefix + "/drive_c" + strings.ReplaceAll(path[2:], `\`, "/")
	out, err := exec.Command("start", "/wait", "/unix", "/bin/chown", uid, unix).CombinedOutput()
	if err != nil {
		t.Skipf("needs root, to give a file away: %v, %s", err, out)
	}
	for isTrusted(t, path) != (uid == "0") { // start does not always wait
		runtime.Gosched()
	}
}

func isTrusted(t *testing.T, path string) bool {
	t.Helper()
	handle, err := openExisting(path, windows.READ_CONTROL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(handle)
	sd, err := windows.GetSecurityInfo(handle, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		t.Fatal(err)
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	return owner.Equals(user.User.Sid)
}

func TestPathsThatWindowsReadsAsSomethingElseReachNoCall(t *testing.T) {
	h := newWinHost(t)
	long := `\\?\` + h.dir + strings.Repeat(`\d`, (maxPath-len(h.dir))/2)
	for _, path := range []string{
		`\\.\C:`, `\\.\PhysicalDrive0`, `\\.\pipe\x`, `C:\`, `C:\CON`, `C:\layers\nul.txt`, `C:\layers\COM1`,
		h.layer("2") + `:stream`, h.layer("2") + `::$DATA`, h.layer("2") + `.`, h.layer("2") + ` `, h.path(`layers.\2`),
		h.layer("2") + `\.`, h.layer("2") + `\..`, h.layer("2") + `\`, h.layer("*"), h.layer("2") + "\x00", h.layer("2") + "\xff",
		long, long + `\d`,
	} {
		m := h.scratch("2")
		m.Source = path
		if err := m.Mount(h.path("target")); err == nil {
			t.Errorf("mounted %.80q", path)
		}
		if filepath.Clean(path) != path {
			continue // as a target it is made clean, which leaves a plain directory
		}
		if err := h.scratch("2").Mount(path); err == nil {
			t.Errorf("mounted at …%q", path[len(h.dir):])
		}
	}
	h.wantCalls()
	h.wantNothing()
}

// realLayer makes a writable layer on one of Docker's, in the real HCS.
func realLayer(t *testing.T) *Mount {
	if os.Getenv(simDir) != "" {
		t.Skip("the HCS here is the simulation")
	}
	chains, err := filepath.Glob(filepath.Join(os.Getenv("ProgramData"), `docker\windowsfilter\*\layerchain.json`))
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range chains {
		layer := filepath.Dir(chain)
		if _, err := os.Stat(filepath.Join(layer, "Files")); err != nil {
			continue // a container's
		}
		data, err := os.ReadFile(chain)
		if err != nil {
			t.Fatal(err)
		}
		var parents []string
		if err := json.Unmarshal(data, &parents); err != nil {
			t.Fatal(err)
		}
		parents = append([]string{layer}, parents...)
		home, id := hcsshim.DriverInfo{HomeDir: t.TempDir()}, "scratch"
		if err := hcsshim.CreateScratchLayer(home, id, "", parents); err != nil {
			t.Skipf("the Containers feature is not there, or not for this user: %v", err)
		}
		t.Cleanup(func() {
			if err := hcsshim.DestroyLayer(home, id); err != nil {
				t.Error(err)
			}
		})
		return &Mount{Type: "windows-layer", Source: filepath.Join(home.HomeDir, id),
			Options: []string{ParentLayerPathsFlag + listOf(parents)}}
	}
	t.Skip("needs a layer of Docker's: docker pull mcr.microsoft.com/windows/nanoserver")
	return nil
}

func TestTheRealHCSShowsALayerAndTakesItAway(t *testing.T) {
	m := realLayer(t)
	if err := SetTableDir(filepath.Join(t.TempDir(), "table")); err != nil {
		t.Fatal(err)
	}
	target, second := filepath.Join(t.TempDir(), "target"), filepath.Join(t.TempDir(), "second")
	if err := os.Mkdir(target, 0o777); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 2; i++ { // the second time shows that the first left nothing
		for _, path := range []string{target, second} {
			if err := m.Mount(path); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(path, "Windows", "System32")); err != nil {
				t.Errorf("the layer does not show its parents: %v", err)
			}
		}
		wantError(t, m.Mount(target), "it shows layer", os.ErrExist)
		if err := Unmount(target, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadDir(second); err != nil {
			t.Errorf("the layer was closed with the first of its targets: %v", err)
		}
		if err := Unmount(m.Source, 0); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(target); err != nil || len(entries) != 0 {
			t.Errorf("at the target: %v, %v", entries, err)
		}
		if _, err := os.Lstat(second); !os.IsNotExist(err) {
			t.Errorf("at the second target: %v", err)
		}
	}
	if err := Unmount(m.Source, 0); err != nil {
		t.Errorf("unmounting a layer that is closed: %v", err)
	}
}

func TestTheRealHCSKeepsALayerThatOtherCodeOpened(t *testing.T) {
	for _, prepared := range []bool{false, true} {
		t.Run(fmt.Sprintf("prepared %t", prepared), func(t *testing.T) {
			m := realLayer(t)
			if err := SetTableDir(filepath.Join(t.TempDir(), "table")); err != nil {
				t.Fatal(err)
			}
			home, id := splitLayer(m.Source)
			if err := hcsshim.ActivateLayer(home, id); err != nil {
				t.Fatal(err)
			}
			if prepared {
				parents, err := m.GetParentPaths()
				if err == nil {
					err = hcsshim.PrepareLayer(home, id, parents)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			wantError(t, m.Mount(filepath.Join(t.TempDir(), "target")), "it is open already", windows.ERROR_SHARING_VIOLATION)
			volume, err := hcsshim.GetLayerMountPath(home, id)
			if err != nil {
				t.Errorf("the layer was closed: %v", err)
			}
			if _, err := os.Stat(filepath.Join(volume+`\`, "Windows", "System32")); prepared && err != nil {
				t.Errorf("the layer does not show its parents any more: %v", err)
			}
			if err := Unmount(m.Source, 0); err != nil {
				t.Errorf("closing the layer: %v", err)
			}
		})
	}
}

func TestTheDefaultTableIsInProgramData(t *testing.T) {
	tableDir.dir = ""
	mt, err := newMounter()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(os.Getenv("ProgramData"), "windows-layer-mounts"); !strings.EqualFold(mt.table.dir, want) {
		t.Errorf("the table is %s, want %s", mt.table.dir, want)
	}
}

func TestSetTableDirRefusesAPathThatIsNotAbsoluteOrARoot(t *testing.T) {
	for _, dir := range []string{"", "table", `\table`, `C:table`} {
		wantError(t, SetTableDir(dir), "mount table: path")
	}
	for _, root := range []string{`C:\`, `C:/`, `\\server\share`, `\\?\C:\`} {
		wantError(t, SetTableDir(root), "is the root of a volume")
	}
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
	wantError(t, removeDir(full), "remove directory "+full, windows.ERROR_DIR_NOT_EMPTY)
	wantError(t, removeDir(file), "remove directory "+file, windows.ERROR_DIRECTORY)
	wantError(t, removeDir(empty), "open "+empty, os.ErrNotExist)
	needLinks(t)
	link := filepath.Join(dir, "link")
	if err := makeLink(full, link); err != nil {
		t.Fatal(err)
	}
	wantError(t, removeDir(link), "remove directory "+link, windows.ERROR_DIRECTORY)
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

func TestATargetGivenByItsShortNameIsUnmountedByIt(t *testing.T) {
	h := newWinHost(t)
	target := h.path("a long name of a target")
	h.must(os.Mkdir(target, 0o777))
	short := shortPath(t, target)
	h.must(h.scratch("2").Mount(short))
	info, err := Lookup(target)
	h.must(err)
	if filepath.Base(info.Mountpoint) != filepath.Base(target) {
		t.Errorf("mounted at %s", info.Mountpoint)
	}
	h.must(Unmount(target, 0))
	h.wantNothing()
	h.must(os.Remove(target))
}

func TestWhatAScannerHasOpenIsTriedAgain(t *testing.T) {
	const readable = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE // and not to be removed
	for _, test := range []struct {
		name  string
		open  func(mt *mounter, r record) string
		share uint32
		do    func(mt *mounter, r record) error
	}{
		{"read a record", recordFile, 0, func(mt *mounter, r record) error { _, err := mt.table.read(r.TargetKey); return err }},
		{"replace a record", recordFile, 0, func(mt *mounter, r record) error { return mt.table.update(r) }},
		{"drop a record", recordFile, 0, dropRecord},
		{"drop a mark", markFile, 0, dropRecord},
		{"mark for closing", markFile, 0, func(mt *mounter, r record) error { return mt.table.setClosing(r) }},
		{"list where a layer is shown", func(mt *mounter, r record) string { return mt.table.layerPath(r.SourceKey) }, 0,
			func(mt *mounter, r record) error { _, err := mt.table.targets(r.SourceKey); return err }},
		{"lock", func(mt *mounter, _ record) string { return filepath.Join(mt.table.dir, "lock") }, 0, func(mt *mounter, r record) error {
			unlock, err := mt.table.lockTarget(context.Background(), r.TargetKey)
			if err == nil {
				unlock()
			}
			return err
		}},
		{"look into the target", targetDir, 0, mountScratch},
		{"replace the target", targetDir, readable, mountScratch},
		{"remove a temporary directory", targetDir, readable, func(mt *mounter, r record) error { return mt.removeTemp(r.Target) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			var scanner windows.Handle
			pauses := 0
			mt := &mounter{hcs: hcsmodel.New(""), table: newTable(t)}
			mt.table.pause = func(context.Context) error {
				pauses++
				return windows.CloseHandle(scanner)
			}
			dir := filepath.Dir(mt.table.dir)
			r := record{Target: filepath.Join(dir, "target"), Source: filepath.Join(dir, "layer"), Volume: `\\?\Volume{1}`}
			r.Resolved, r.TargetKey, r.SourceKey = r.Target, keyOf("target"), keyOf("layer")
			unlock, lockErr := lockFile(mt.table.dir, "x") // so that the file is there
			for _, err := range []error{lockErr, mt.table.add(r), os.Mkdir(r.Target, 0o777), os.Mkdir(r.Source, 0o777),
				os.WriteFile(filepath.Join(r.Source, "sandbox.vhdx"), nil, 0o666)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			unlock()
			path, err := windows.UTF16PtrFromString(test.open(mt, r))
			if err == nil {
				scanner, err = windows.CreateFile(path, windows.GENERIC_READ, test.share, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := test.do(mt, r); err != nil {
				t.Error(err)
			}
			if pauses != 1 {
				t.Errorf("%d pauses while it was open, want 1", pauses)
			}
		})
	}
}

func recordFile(mt *mounter, r record) string { return mt.table.recordPath(r.TargetKey) }
func markFile(mt *mounter, r record) string   { return mt.table.markPath(r) }
func targetDir(_ *mounter, r record) string   { return r.Target }
func dropRecord(mt *mounter, r record) error  { return mt.table.drop(r) }
func mountScratch(mt *mounter, r record) error {
	return mt.mount(context.Background(), &Mount{Type: layerType, Source: r.Source, Options: []string{ParentLayerPathsFlag + `["C:\\layers\\0"]`}}, r.Target)
}

func TestTheCodeOfAnHRESULTHas32Bits(t *testing.T) {
	err := withCode(&hcsshim.HcsError{Err: syscall.Errno(0xffffffff801f0015)}) // as a register may hold it
	wantError(t, err, "", errorFilterNotFound)
}

func TestThePathOfAFileMayBeLong(t *testing.T) {
	dir := t.TempDir()
	for len(dir) < windows.MAX_PATH { // Wine 8 ends at twice that
		dir = filepath.Join(dir, strings.Repeat("x", 100))
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	final, err := finalPath(dir)
	if tail := dir[2:]; err != nil || !strings.HasSuffix(final, tail) {
		t.Errorf("got %s, %v, want what ends in %s", final, err, tail)
	}
}

func TestARootIsNoLayer(t *testing.T) {
	h := newWinHost(t)
	root := filepath.VolumeName(h.dir) + `\`
	files := root + "Files"
	if err := os.Mkdir(files, 0o777); err != nil {
		t.Skipf("cannot make the root look like a layer: %v", err)
	}
	wantError(t, Unmount(root, 0), "is the root of a volume")
	h.wantCalls()
	h.must(os.Remove(files))
}
