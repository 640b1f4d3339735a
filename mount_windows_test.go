package mount

import (
	"context"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/Microsoft/hcsshim"
	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// The tests of this package that run on Windows call the exported functions, and so the real
// hcsshim. Under Wine (scripts/wine test) vmcompute.dll is the simulation, and links are made by
// calls of Linux. On Windows it is the real one, and a test that needs to see into the simulation
// is skipped. What the engine does in each state is tested on every system: see fixture_test.go.

const (
	simDir    = "HCS_SIM_DIR"
	childTask = "MOUNT_TEST_TASK"  // what the child process does
	childDir  = "MOUNT_TEST_DIR"   // of which host
	childM    = "MOUNT_TEST_MOUNT" // what it mounts, as JSON
)

func TestMain(m *testing.M) {
	task := os.Getenv(childTask)
	if task == "" {
		os.Exit(m.Run())
	}
	if err := runChild(&winHost{dir: os.Getenv(childDir)}, task); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runChild(h *winHost, task string) error {
	if err := SetTableDir(h.path("table")); err != nil {
		return err
	}
	if os.Getenv(simDir) != "" {
		pause = noPause
	}
	task, binds := strings.CutSuffix(task, " with bindings")
	UseBindFilter(binds)
	switch task, layer, _ := strings.Cut(task, " "); task {
	case "mount":
		return h.mountOf(layer).Mount(h.path("target"))
	case "mount-given":
		var m Mount
		if err := json.Unmarshal([]byte(os.Getenv(childM)), &m); err != nil {
			return err
		}
		fmt.Println() // now it begins
		return m.Mount(h.path("target"))
	case "mount-unsupported":
		return mountUnsupported(h.mountOf(layer), h.path("target"))
	case "unmount":
		return UnmountAll(h.path("target"), 0)
	}
	return fmt.Errorf("no task %q", task)
}

// child returns a process that is to do a task, and shows layers as this one does.
func (h *winHost) child(task string) *exec.Cmd {
	if bindsLayers.Load() {
		task += " with bindings"
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childTask+"="+task, childDir+"="+h.dir)
	return child
}

// noPause takes the place of a pause between attempts: the simulation counts calls,
// and not time.
func noPause(ctx context.Context) error { return ctx.Err() }

// winHost is a directory with layers, a mount table and targets, on a machine
// with a simulated HCS.
type winHost struct {
	t   *testing.T
	dir string
	*hcstest.Model
}

func newWinHost(t *testing.T) *winHost {
	h := newWinHostIn(t, t.TempDir(), hcstest.Likely)
	t.Cleanup(func() { // through a link os.RemoveAll would remove the layer: see removeLink
		infos, _ := List()
		for _, info := range infos {
			_ = winfs.RemoveLink(info.Mountpoint, info.Root)
		}
	})
	return h
}

// newWinHostIn makes the layers 0, 1 and 2: a base layer, one that was committed on
// it, and a writable one on both.
func newWinHostIn(t *testing.T, dir string, personality hcstest.Personality) *winHost {
	t.Helper()
	sim := os.Getenv(simDir)
	if sim == "" {
		t.Skip("needs the simulated vmcompute.dll: run scripts/wine test on Linux")
	}
	h := &winHost{t: t, dir: dir}
	h.must(hcstest.SetPersonality(sim, personality))
	model, err := hcstest.Open(sim)
	h.must(err)
	// The DLL counts down the faults; the test only looks.
	model.Before, model.After = nil, nil
	h.Model = model
	for _, layer := range []string{"0", "1"} {
		h.write(h.layer(layer + `\Files\hello.txt`))
		h.write(h.layer(layer + `\Hives\System_Base`))
	}
	if h.write(h.layer(`2\sandbox.vhdx`)); personality.CommittedKeepsScratch {
		h.write(h.layer(`1\sandbox.vhdx`))
	}
	h.faults()
	h.must(model.Reboot())
	model.ResetCalls()
	before := pause
	pause = noPause
	t.Cleanup(func() { pause = before })
	useTable(t, h.path("table"))
	return h
}

// useTable sets the mount table until the test ends. It is closed then: Windows removes no
// directory that is held.
func useTable(t *testing.T, dir string) {
	t.Helper()
	if err := SetTableDir(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { replaceTable("", nil) })
}

// replaceTable closes the mount table of this process. From then on the process uses the other one.
// If other is nil, it opens the one in dir when it needs it.
func replaceTable(dir string, other *table.Table) {
	mountTable.Lock()
	defer mountTable.Unlock()
	if mountTable.table != nil {
		mountTable.table.Close()
	}
	mountTable.dir, mountTable.table = dir, other
}

// restart starts the machine again, as far as this process can tell until the test
// ends.
func (h *winHost) restart() {
	h.t.Helper()
	h.must(h.Reboot())
	dir := h.path("table")
	replaceTable(dir, table.New(dir, "another", noPause))
	h.t.Cleanup(func() { replaceTable(dir, nil) })
}

func (h *winHost) path(elements ...string) string {
	return filepath.Join(append([]string{h.dir}, elements...)...)
}

func (h *winHost) layer(name string) string { return h.path("layers", name) }

// mountOf returns the mount of one of the layers.
func (h *winHost) mountOf(layer string) *Mount {
	m := &Mount{Type: layerType, Source: h.layer(layer)}
	var parents []string
	switch layer {
	case "0":
		return m
	case "1":
		parents = []string{h.layer("0")}
	default:
		parents = []string{h.layer("1"), h.layer("0")}
	}
	m.Options = []string{ParentLayerPathsFlag + listOf(parents)}
	return m
}

func (h *winHost) scratch() *Mount { return h.mountOf("2") }

// openElsewhere opens a layer as a container runtime does, which knows no table.
func (h *winHost) openElsewhere(m *Mount) {
	h.t.Helper()
	parents, err := m.GetParentPaths()
	h.must(err)
	h.must(vmcompute{}.ActivateLayer(m.Source))
	h.must(vmcompute{}.PrepareLayer(m.Source, parents))
	h.ResetCalls()
}

func (h *winHost) write(path string) {
	h.t.Helper()
	h.must(os.MkdirAll(filepath.Dir(path), 0o777))
	h.must(os.WriteFile(path, []byte("data"), 0o666))
}

func (h *winHost) mkdir(path string) {
	h.t.Helper()
	h.must(os.Mkdir(path, 0o777))
}

func (h *winHost) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *winHost) faults(lines ...string) {
	h.t.Helper()
	h.must(hcstest.SetFaults(os.Getenv(simDir), lines...))
}

// wantCalls fails the test unless exactly these calls have reached the DLLs since
// it was asked last. It ignores lists of bindings, unless one of them is wanted. The
// directory of the layers is left out.
func (h *winHost) wantCalls(want ...string) {
	h.t.Helper()
	isList := func(call string) bool { return strings.HasPrefix(call, string(hcstest.Bindings)) }
	calls := h.Calls()
	if !slices.ContainsFunc(want, isList) {
		calls = slices.DeleteFunc(calls, isList)
	}
	got := strings.ReplaceAll(strings.Join(calls, "\n"), h.path("layers")+`\`, "")
	if got != strings.Join(want, "\n") {
		h.t.Errorf("calls:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
	h.ResetCalls()
}

// wantNoChange fails the test when HCS or the bind filter was called for more than a list of bindings.
func (h *winHost) wantNoChange() {
	h.t.Helper()
	for _, call := range h.Calls() {
		if !strings.HasPrefix(call, string(hcstest.Bindings)) {
			h.t.Errorf("called %s", call)
		}
	}
	h.ResetCalls()
}

// wantOpen fails the test unless these layers are open and no others.
func (h *winHost) wantOpen(names ...string) {
	h.t.Helper()
	open := strings.ReplaceAll(strings.Join(h.OpenLayers(), " "), h.path("layers")+`\`, "")
	if open != strings.Join(names, " ") {
		h.t.Errorf("open layers: %q, want %q", open, names)
	}
}

func (h *winHost) wantEmptyTable() {
	h.t.Helper()
	if left := h.tableFiles(); len(left) != 0 {
		h.t.Errorf("left in the table: %q", left)
	}
}

// wantNothing fails the test when a layer is open or bound, or anything is in the table.
func (h *winHost) wantNothing() {
	h.t.Helper()
	h.wantOpen()
	h.wantBound()
	h.wantEmptyTable()
}

// tableFiles returns the files of all mounts.
func (h *winHost) tableFiles() []string {
	files, _ := filepath.Glob(h.path(`table\mounts\*`))
	return files
}

// wantDirectory fails the test unless there is an empty directory at path.
func (h *winHost) wantDirectory(path string) {
	h.t.Helper()
	if entries, err := os.ReadDir(path); err != nil || len(entries) != 0 {
		h.t.Errorf("at %s: %v, %v, want an empty directory", path, entries, err)
	}
}

// wantEntries fails the test unless exactly these are in a directory.
func (h *winHost) wantEntries(dir string, want ...string) {
	h.t.Helper()
	if got := h.entries(dir); !slices.Equal(got, want) {
		h.t.Errorf("in %s are %q, want %q", dir, got, want)
	}
}

// entries returns the names of what is in a directory.
func (h *winHost) entries(dir string) (names []string) {
	h.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		h.t.Error(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// wantFile fails the test unless the file has this text.
func (h *winHost) wantFile(path, want string) {
	h.t.Helper()
	if data, err := os.ReadFile(path); err != nil || string(data) != want {
		h.t.Errorf("%s has %q, %v, want %q", path, data, err, want)
	}
}

// wantAbsent fails the test if anything is at path, such as a link to a volume that is gone.
func (h *winHost) wantAbsent(path string) {
	h.t.Helper()
	if text, err := winfs.ReadLink(path); !stderrors.Is(err, os.ErrNotExist) {
		h.t.Errorf("%s is there: link to %q, %v", path, text, err)
	}
}

// removeLink removes a link, as somebody may do who knows no table. Wine does not tell a link from
// what it leads to: os.Remove would remove that.
func (h *winHost) removeLink(path string) {
	h.t.Helper()
	text, err := winfs.ReadLink(path)
	h.must(err)
	h.must(winfs.RemoveLink(path, text))
}

// needWindows skips a test of what Wine does not have.
func needWindows(t *testing.T, why string) {
	t.Helper()
	if os.Getenv(simDir) != "" {
		t.Skip("needs Windows: " + why)
	}
}

var (
	winOpen  = []string{"GetLayerMountPath 2", "ActivateLayer 2", "PrepareLayer 2 [1 0]", "GetLayerMountPath 2"}
	winClose = []string{"UnprepareLayer 2", "DeactivateLayer 2"}
	// winUndo closes a layer whose volume nobody has asked for yet.
	winUndo = calls([]string{"GetLayerMountPath 2"}, winClose)
)

func TestMount_AndUnmountCallHCSInOrder(t *testing.T) {
	for _, by := range []string{"target", "source"} {
		t.Run("unmount by "+by, func(t *testing.T) {
			h := newWinHost(t)
			h.must(h.scratch().Mount(h.path("target")))
			h.wantCalls(winOpen...)
			path := h.path("target")
			if by == "source" {
				path = h.layer("2")
			}
			h.must(Unmount(path, 0))
			h.wantCalls(winClose...)
			h.wantAbsent(h.path("target"))
			h.wantNothing()
		})
	}
}

func TestMount_ShowsALayerAndItsParentsThroughALink(t *testing.T) {
	h := newWinHost(t)
	target := h.path("target")
	h.write(h.layer(`0\Files\base.txt`))
	h.mkdir(target)
	h.must(h.scratch().Mount(target))
	info, err := Lookup(target)
	h.must(err)
	if !strings.HasPrefix(info.Root, `\\?\Volume{`) || !strings.HasSuffix(info.Root, `}\`) {
		t.Errorf("the link leads to %s", info.Root)
	}
	if text, err := winfs.ReadLink(target); err != nil || !winpath.Equal(text, info.Root) {
		t.Errorf("the link is %s, %v, want %s", text, err, info.Root)
	}
	h.wantFile(filepath.Join(target, "base.txt"), "data")
	h.must(os.WriteFile(filepath.Join(target, "new.txt"), []byte("new"), 0o666))
	h.wantFile(info.Root+"new.txt", "new")
	h.wantEntries(target, "base.txt", "hello.txt", "new.txt")
	h.wantAbsent(h.layer(`1\Files\new.txt`))

	h.must(Unmount(target, 0))
	h.wantDirectory(target)
	h.wantNothing()
	h.must(h.scratch().Mount(h.path("second")))
	h.wantFile(h.path(`second\new.txt`), "new")
	h.must(Unmount(h.path("second"), 0))
}

func TestMount_ShowsTheFilesOfABaseLayer(t *testing.T) {
	h := newWinHost(t)
	h.must(h.mountOf("0").Mount(h.path("target")))
	if info, err := Lookup(h.path("target")); err != nil || info.Root != h.layer(`0\Files`) {
		t.Errorf("the link leads to %s, %v", info.Root, err)
	}
	h.wantEntries(h.path("target"), "hello.txt")
	h.must(Unmount(h.path("target"), 0))
	h.wantAbsent(h.path("target"))
	h.wantFile(h.layer(`0\Files\hello.txt`), "data")
	h.wantNothing()
}

func TestMount_ReturnsTheCodeOfAnHRESULTAndIsUndone(t *testing.T) {
	ask := winOpen[:1]
	for _, test := range []struct {
		call  string
		code  syscall.Errno
		count int // of GetLayerMountPath one is before the layer is opened
		text  string
		want  []string
	}{
		{"ActivateLayer", windows.ERROR_GEN_FAILURE, 1, "failed to activate layer", calls(winOpen[:2], ask, ask, ask, ask, ask)}, // its volume may be late
		{"PrepareLayer", windows.ERROR_INVALID_PARAMETER, 1, "failed to prepare layer", calls(winOpen[:3], winUndo)},
		{"PrepareLayer", 0xC0370106, 1, "failed to prepare layer", calls(winOpen[:3], winUndo)},
		{"GetLayerMountPath", windows.ERROR_SHARING_VIOLATION, 2, "failed to get mount path of layer", calls(winOpen, winUndo)},
	} {
		t.Run(fmt.Sprintf("%s 0x%x", test.call, uint32(test.code)), func(t *testing.T) {
			h := newWinHost(t)
			h.mkdir(h.path("target"))
			h.faults(fmt.Sprintf("%s 0x%x %d", test.call, uint32(test.code), test.count))
			err := h.scratch().Mount(h.path("target"))
			wantError(t, err, test.text+" "+h.layer("2"), test.code)
			wantHcsError(t, err)
			h.wantCalls(test.want...)
			h.wantNothing()
			h.wantDirectory(h.path("target"))
		})
	}
}

func TestUnmount_ReturnsTheCodeOfAnHRESULTAndCanBeRepeated(t *testing.T) {
	h := newWinHost(t)
	h.mkdir(h.path("target"))
	h.must(h.scratch().Mount(h.path("target")))
	h.ResetCalls()
	h.faults("UnprepareLayer 0x1f 5", "DeactivateLayer 0x20 5")
	err := Unmount(h.path("target"), 0)
	wantError(t, err, "failed to unprepare layer "+h.layer("2"), windows.ERROR_GEN_FAILURE)
	wantError(t, err, "failed to deactivate layer "+h.layer("2"), windows.ERROR_SHARING_VIOLATION)
	wantHcsError(t, err)
	attempt := calls(winClose, winUndo[:1]) // the volume is there, and HCS still names it
	h.wantCalls(calls(attempt, attempt, attempt, attempt, attempt)...)
	h.wantOpen("2")
	h.must(Unmount(h.path("target"), 0))
	h.wantCalls(winClose...)
	h.wantNothing()
	h.wantDirectory(h.path("target"))
}

func wantHcsError(t *testing.T, err error) {
	t.Helper()
	var hcsErr *hcsshim.HcsError
	if !stderrors.As(err, &hcsErr) {
		t.Errorf("no *hcsshim.HcsError in %v", err)
	}
}

func TestWithCode_TakesThe32BitsOfAnHRESULT(t *testing.T) {
	err := withCode(&hcsshim.HcsError{Err: syscall.Errno(0xffffffff801f0015)}) // as a register may hold it
	wantError(t, err, "", hcstest.NotPrepared)
}

func TestMount_TriesAgainAfterATransientHRESULT(t *testing.T) {
	for _, test := range []struct {
		fault string
		again []string
	}{
		{"ActivateLayer 0x15 1", calls(winUndo, winOpen[1:])},
		{"ActivateLayer 0x48f 1", calls(winUndo, winOpen[1:])},
		{"ActivateLayer 0x20 1", winOpen[1:]}, // whoever may have it open keeps it
		{"PrepareLayer 0x15 1", calls(winOpen[2:3], winUndo, winOpen[1:])},
		{"PrepareLayer 0x48f 1", calls(winOpen[2:3], winUndo, winOpen[1:])},
		{"PrepareLayer 0x5b4 1", calls(winOpen[2:3], winUndo, winOpen[1:])},
	} {
		t.Run(test.fault, func(t *testing.T) {
			h := newWinHost(t)
			h.faults(test.fault)
			h.must(h.scratch().Mount(h.path("target")))
			h.wantCalls(calls(winOpen[:2], test.again)...)
		})
	}
}

func TestUnmount_ClosesALayerThatOtherCodeHasOpened(t *testing.T) {
	h := newWinHost(t)
	h.openElsewhere(h.scratch())
	h.must(Unmount(h.layer("2")+`\`, 0))
	h.wantCalls(winUndo...)
	h.must(UnmountAll(h.layer("2"), 0)) // not open any more
	h.wantNothing()
}

func TestUnmount_OfATargetThatIsSpelledInAnotherWay(t *testing.T) {
	h := newWinHost(t)
	for _, target := range []string{strings.ToUpper(h.path("target")), strings.ReplaceAll(h.dir, `\`, `/`) + `//.//target/`, `\\?\` + h.path("target")} {
		h.must(h.scratch().Mount(h.path("target")))
		if info, err := Lookup(target); err != nil || info.Mountpoint != h.path("target") {
			t.Errorf("Lookup(%s) = %+v, %v", target, info, err)
		}
		h.must(Unmount(target, 0))
		h.wantNothing()
	}
}

func TestUnmount_OfAPathOnAMissingDriveIsNil(t *testing.T) {
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
}

func TestUnmount_RemovesAStaleLinkWhoseVolumeIsGone(t *testing.T) {
	h := newWinHost(t)
	h.mkdir(h.path("target"))
	h.must(h.scratch().Mount(h.path("target")))
	h.restart()
	h.ResetCalls()
	if _, err := os.Stat(h.path("target")); !stderrors.Is(err, os.ErrNotExist) {
		t.Errorf("the link still leads somewhere: %v", err)
	}
	h.must(Unmount(h.path("target"), 0))
	h.wantCalls()
	h.wantDirectory(h.path("target"))
	h.wantNothing()
}

func TestUnmountRecursive_FindsALayerThatIsMountedInAnotherOne(t *testing.T) {
	for _, isGone := range []bool{false, true} {
		t.Run(fmt.Sprintf("the outer link is gone: %t", isGone), func(t *testing.T) {
			h := newWinHost(t)
			h.must(h.scratch().Mount(h.path("target")))
			h.must(h.mountOf("0").Mount(h.path(`target\inner`)))
			h.wantFile(h.path(`target\inner\hello.txt`), "data")
			if isGone {
				h.removeLink(h.path("target"))
			}
			h.must(UnmountRecursive(h.path("target"), 0))
			h.wantAbsent(h.path("target"))
			h.wantNothing()
		})
	}
}

func TestUnmountRecursive_OfADirectoryWithTwoTargets(t *testing.T) {
	for name, unmount := range map[string]func(mounts []Mount, target string) error{
		"UnmountMounts":    func(mounts []Mount, target string) error { return UnmountMounts(mounts, target, 0) },
		"UnmountRecursive": func(_ []Mount, target string) error { return UnmountRecursive(target, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newWinHost(t)
			h.mkdir(h.path("target"))
			first, second := *h.scratch(), *h.mountOf("0")
			first.Target, second.Target = "a", "b"
			mounts := []Mount{first, second}
			h.must(All(mounts, h.path("target")))
			h.wantEntries(h.path(`target\b`), "hello.txt")
			h.must(unmount(mounts, h.path("target")))
			h.wantNothing()
			h.wantDirectory(h.path("target"))
		})
	}
}

func TestAll_UnmountsWhatItHasMountedIfOneFails(t *testing.T) {
	h := newWinHost(t)
	second := *h.scratch()
	second.Source, second.Target = h.layer("none"), "sub"
	wantError(t, All([]Mount{*h.scratch(), second}, h.path("target")), "", os.ErrNotExist)
	h.wantAbsent(h.path("target"))
	h.wantNothing()
}

func TestList_HasWhatARestartHasLeftAndLookupHasNot(t *testing.T) {
	h := newWinHost(t)
	h.must(h.mountOf("0").Mount(h.path("target")))
	want := Info{Mountpoint: h.path("target"), Source: h.layer("0"), Root: h.layer(`0\Files`), FSType: layerType}
	if info, err := Lookup(h.path("target")); err != nil || info != want {
		t.Errorf("Lookup = %+v, %v, want %+v", info, err, want)
	}
	h.restart()
	_, err := Lookup(h.path("target"))
	wantError(t, err, "look up mount "+h.path("target"), os.ErrNotExist)
	if infos, err := List(); err != nil || len(infos) != 1 || infos[0] != want {
		t.Errorf("List = %+v, %v, want %+v", infos, err, want)
	}
	h.must(Unmount(h.path("target"), 0))
}

func TestMount_RefusesPathsThatWindowsReadsAsOthers(t *testing.T) {
	h := newWinHost(t)
	long := `\\?\` + h.dir + strings.Repeat(`\d`, (winpath.Max-len(h.dir))/2)
	for _, path := range []string{
		`\\.\C:`, `\\.\PhysicalDrive0`, `\\.\pipe\x`, `C:\`, `C:\CON`, `C:\layers\nul.txt`, `C:\layers\COM1`,
		h.layer("2") + `:stream`, h.layer("2") + `::$DATA`, h.layer("2") + `.`, h.layer("2") + ` `, h.path(`layers.\2`),
		h.layer("2") + `\.`, h.layer("2") + `\..`, h.layer("2") + `\`, h.layer("*"), h.layer("2") + "\x00", h.layer("2") + "\xff",
		long, long + `\d`,
	} {
		m := h.scratch()
		m.Source = path
		if err := m.Mount(h.path("target")); err == nil {
			t.Errorf("mounted %.80q", path)
		}
		if filepath.Clean(path) != path {
			continue // as a target it is made clean, which leaves a plain directory
		}
		if err := h.scratch().Mount(path); err == nil {
			t.Errorf("mounted at …%q", path[len(h.dir):])
		}
	}
	h.wantCalls()
	h.wantNothing()
}

func TestMount_RefusesATargetBelowAFile(t *testing.T) {
	h := newWinHost(t)
	h.write(h.path("file"))
	wantError(t, h.scratch().Mount(h.path(`file\a`)), "its parent is not a directory")
	h.wantCalls()
}

func TestUnmount_RefusesTheRootOfAVolume(t *testing.T) {
	h := newWinHost(t)
	root := filepath.VolumeName(h.dir) + `\`
	hives := root + "Hives"
	files := root + "Files"
	for _, dir := range []string{hives, files} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Skipf("cannot make the root look like a layer: %v", err)
		}
		defer os.Remove(dir)
	}
	wantError(t, Unmount(root, 0), "is the root of a volume")
	h.wantCalls()
}

// scripts/wine restart runs the test in two processes, and ends Wine's server in between. With that
// go the volatile keys of the registry.
func TestUnmount_AfterARestartOfTheSystem(t *testing.T) {
	phase := os.Getenv("MOUNT_TEST_RESTART")
	if phase == "" {
		t.Skip("needs a restart: run scripts/wine restart on Linux")
	}
	h := newWinHostIn(t, os.Getenv(childDir), hcstest.Likely)
	if phase == "before" {
		h.mkdir(h.path("directory"))
		h.mkdir(h.path("again"))
		h.must(h.scratch().Mount(h.path("directory")))
		h.must(h.scratch().Mount(h.path("absent")))
		h.must(h.mountOf("0").Mount(h.path("again")))
		h.wantOpen("0", "2")
		return
	}
	if infos, err := List(); err != nil || len(infos) != 3 {
		t.Errorf("on record are %v, %v", infos, err)
	}
	_, err := Lookup(h.path("directory"))
	wantError(t, err, "look up mount", os.ErrNotExist)
	h.openElsewhere(h.scratch()) // a container runtime has the layer now
	h.must(Unmount(h.path("directory"), 0))
	h.must(Unmount(h.path("absent"), 0))
	h.wantCalls()
	h.wantOpen("2")
	h.wantDirectory(h.path("directory"))
	h.wantAbsent(h.path("absent"))
	h.must(Unmount(h.layer("2"), 0)) // which is in no record: it closes what other code has opened
	h.ResetCalls()
	h.must(h.mountOf("0").Mount(h.path("again")))
	h.wantCalls("GetLayerMountPath 0", "ActivateLayer 0", "PrepareLayer 0 []", "GetLayerMountPath 0")
	h.must(Unmount(h.path("again"), 0))
	h.wantDirectory(h.path("again"))
	h.wantNothing()
}

// calls puts lists of calls together.
func calls(lists ...[]string) []string {
	var all []string
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}
