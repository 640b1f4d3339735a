package mount

import (
	"context"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/Microsoft/hcsshim"
	"github.com/seed-941ae793/mount/internal/hcstest"
	"golang.org/x/sys/windows"
)

// The tests here call the exported functions and so the real hcsshim. Under
// Wine (scripts/wine test) vmcompute.dll is the simulation. On Windows it is the
// real one, and a test that needs to see into the simulation is skipped.

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
		mountTable.pause = noPause
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
	case "boot":
		id, err := bootID()
		fmt.Print(id)
		return err
	case "lock":
		return lockInChild()
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

func newWinHost(t *testing.T) *winHost { return newWinHostIn(t, t.TempDir(), hcstest.Likely) }

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
	useTable(t, h.path("table"))
	mountTable.pause = noPause
	return h
}

// useTable sets the table until the test ends. It is closed then: nobody can remove
// it while it is held.
func useTable(t *testing.T, dir string) {
	t.Helper()
	if err := SetTableDir(dir); err != nil {
		t.Fatal(err)
	}
	used := mountTable.table
	t.Cleanup(func() {
		if used.held != nil {
			used.held.close()
		}
		mountTable.table = nil
	})
}

// restart starts the machine again, as far as this process can tell until the test
// ends.
func (h *winHost) restart() {
	h.t.Helper()
	h.must(h.Reboot())
	boot.id = "another start"
	h.t.Cleanup(func() { boot.id = "" })
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

// tableFiles returns the records and the index.
func (h *winHost) tableFiles() []string {
	records, _ := filepath.Glob(h.path(`table\layers\*`))
	index, _ := filepath.Glob(h.path(`table\targets\*`))
	return append(records, index...)
}

// recordFile returns the file of the only layer on record.
func (h *winHost) recordFile() string {
	h.t.Helper()
	records, err := filepath.Glob(h.path(`table\layers\*`))
	if err != nil || len(records) != 1 {
		h.t.Fatalf("records %q, %v", records, err)
	}
	return records[0]
}

// wantDirectory fails the test unless there is an empty directory at path.
func (h *winHost) wantDirectory(path string) {
	h.t.Helper()
	if entries, err := os.ReadDir(path); err != nil || len(entries) != 0 {
		h.t.Errorf("at %s: %v, %v, want an empty directory", path, entries, err)
	}
}

// linksExist reports whether there are symbolic links.
var linksExist = sync.OnceValues(func() (bool, error) {
	dir, err := os.MkdirTemp("", "links")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	link := filepath.Join(dir, "link")
	err = makeLink(dir, link)
	return !isGone(link), err
})

// hasLinks is linksExist where Wine may have none. Windows has them.
func hasLinks(t *testing.T) bool {
	t.Helper()
	links, err := linksExist()
	if err != nil {
		t.Fatal(err)
	}
	if !links && os.Getenv(simDir) == "" {
		t.Fatal("CreateSymbolicLink reported success and made no link")
	}
	return links
}

// needLinks skips the rest of a test where there are none.
func needLinks(t *testing.T) {
	t.Helper()
	if !hasLinks(t) {
		t.Skip("CreateSymbolicLink reported success and made no link, as Wine up to 10 does")
	}
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

func TestTheDLLGetsTheCallsOfMountAndUnmountInOrder(t *testing.T) {
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
			h.wantNothing()
		})
	}
}

func TestTheLinkLeadsToTheRootOfTheVolume(t *testing.T) {
	h := newWinHost(t)
	h.must(h.scratch().Mount(h.path("target")))
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
	h.must(h.mountOf("0").Mount(h.path("target")))
	info, err := Lookup(h.path("target"))
	h.must(err)
	if info.Root != h.layer(`0\Files`) {
		t.Errorf("the link leads to %s", info.Root)
	}
	h.must(Unmount(h.path("target"), 0))
	h.wantNothing()
}

func TestAnHRESULTIsReturnedAsItsCodeAndTheMountIsUndone(t *testing.T) {
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

func TestAnHRESULTOfUnmountIsReturnedAndUnmountCanBeRepeated(t *testing.T) {
	h := newWinHost(t)
	h.mkdir(h.path("target"))
	h.must(h.scratch().Mount(h.path("target")))
	h.ResetCalls()
	h.faults("UnprepareLayer 0x1f 5", "DeactivateLayer 0x20 5")
	err := Unmount(h.path("target"), 0)
	wantError(t, err, "failed to unprepare layer "+h.layer("2"), windows.ERROR_GEN_FAILURE)
	wantError(t, err, "failed to deactivate layer "+h.layer("2"), windows.ERROR_SHARING_VIOLATION)
	wantHcsError(t, err)
	h.wantCalls(calls(winClose, winClose, winClose, winClose, winClose)...)
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

func TestTheCodeOfAnHRESULTHas32Bits(t *testing.T) {
	err := withCode(&hcsshim.HcsError{Err: syscall.Errno(0xffffffff801f0015)}) // as a register may hold it
	wantError(t, err, "", errorFilterNotFound)
}

func TestTransientHRESULTsAreTriedAgain(t *testing.T) {
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

func TestALayerAtTwoTargetsIsOpenedOnceThroughTheDLL(t *testing.T) {
	h := newWinHost(t)
	h.must(h.scratch().Mount(h.path("target")))
	h.must(h.scratch().Mount(h.path("second")))
	h.wantCalls(winOpen...)
	h.must(Unmount(h.path("target"), 0))
	h.wantCalls()
	h.must(Unmount(h.path("second"), 0))
	h.wantCalls(winClose...)
	h.wantNothing()
}

func TestAnUnknownLayerIsClosedThroughTheDLL(t *testing.T) {
	h := newWinHost(t)
	h.openElsewhere(h.scratch())
	h.must(Unmount(h.layer("2")+`\`, 0))
	h.wantCalls(winUndo...)
	h.must(UnmountAll(h.layer("2"), 0)) // not open any more
	h.wantNothing()
}

func TestListAndLookupTellWhatIsMounted(t *testing.T) {
	h := newWinHost(t)
	wantList := func(targets ...string) {
		t.Helper()
		infos, err := List()
		h.must(err)
		got := map[string]Info{}
		for _, info := range infos {
			got[filepath.Base(info.Mountpoint)] = info
		}
		if len(infos) != len(targets) {
			t.Errorf("%d mounts are listed, want %d: %v", len(infos), len(targets), infos)
		}
		for _, target := range targets {
			info, err := Lookup(h.path(target))
			if err != nil || got[target] != info {
				t.Errorf("%s is listed as %+v, and looked up as %+v, %v", target, got[target], info, err)
			}
		}
	}
	wantList()
	for target, layer := range map[string]string{"base": "0", "a": "2", "b": "2"} {
		h.must(h.mountOf(layer).Mount(h.path(target)))
		info, err := Lookup(h.path(target))
		if err != nil || info.Mountpoint != h.path(target) || info.Source != h.layer(layer) || info.FSType != layerType {
			t.Errorf("looked up %+v, %v", info, err)
		}
	}
	wantList("base", "a", "b")
	h.must(Unmount(h.layer("2"), 0))
	wantList("base")
	_, err := Lookup(h.path("a"))
	wantError(t, err, "look up mount "+h.path("a"), os.ErrNotExist)
	h.restart()
	_, err = Lookup(h.path("base"))
	wantError(t, err, "look up mount "+h.path("base"), os.ErrNotExist)
	if infos, err := List(); err != nil || len(infos) != 1 || infos[0].Source != h.layer("0") {
		t.Errorf("what a restart has left is listed as %+v, %v", infos, err)
	}
}

func TestALayerWhoseFileIsTornIsClosedByItsSourceAndNamedByItsTarget(t *testing.T) {
	for _, layer := range []string{"0", "2"} {
		t.Run("layer "+layer, func(t *testing.T) {
			h := newWinHost(t)
			h.must(h.mountOf(layer).Mount(h.path("target")))
			file := h.recordFile()
			h.must(os.WriteFile(file, []byte("1.0 01234567 {}\n"), 0o666))
			h.ResetCalls()
			wantError(t, Unmount(h.path("target"), 0), "damaged file "+file, errDamaged)
			wantError(t, h.mountOf(layer).Mount(h.path("second")), "damaged file "+file, errDamaged)
			_, err := Lookup(h.path("target"))
			wantError(t, err, "damaged file "+file, errDamaged)
			_, err = List()
			wantError(t, err, "damaged file "+file, errDamaged)
			h.wantCalls()
			h.wantOpen(layer)
			h.must(Unmount(h.layer(layer), 0))
			h.must(Unmount(h.path("target"), 0))
			h.wantNothing()
		})
	}
}

func TestADirectoryWithAFolderFilesIsNoLayer(t *testing.T) {
	h := newWinHost(t)
	h.write(h.path(`data\Files\mine.txt`))
	h.must(UnmountAll(h.path("data"), 0))
	h.wantCalls()
	if _, err := os.Stat(h.path(`data\Files\mine.txt`)); err != nil {
		t.Error(err)
	}
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

func TestATargetBelowAFileIsRefusedBeforeHCSIsCalled(t *testing.T) {
	h := newWinHost(t)
	h.write(h.path("file"))
	wantError(t, h.scratch().Mount(h.path(`file\a`)), "its parent is not a directory")
	h.wantCalls()
}

func TestARootIsNoLayer(t *testing.T) {
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
