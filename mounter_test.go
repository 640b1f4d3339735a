//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcsmodel"
)

// openCalls are those that open layer 2, when it is closed: the first asks whether
// it is, the others are tried again.
var openCalls = []string{
	"GetLayerMountPath 2",
	"ActivateLayer 2",
	`PrepareLayer 2 [C:\layers\1 C:\layers\0]`,
	"GetLayerMountPath 2",
}

var closeCalls = []string{"UnprepareLayer 2", "DeactivateLayer 2"}

func TestMountOpensTheLayerInOrderAndLinksItsVolume(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.wantCalls(openCalls...)
	h.wantAt(h.target("a"), "link to "+h.record(h.target("a")).Volume+"/")
	if _, err := os.ReadDir(h.target("a")); err != nil {
		t.Errorf("the link does not lead to the volume: %v", err)
	}
}

func TestALayerAtSeveralTargetsIsOpenedOnceAndClosedWithItsLast(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, h.target("b"))
	h.mustMount(m, h.target("c"))
	h.wantCalls(calls(openCalls, []string{"GetLayerMountPath 2", "GetLayerMountPath 2"})...)
	h.wantAt(h.target("c"), describe(h.target("a")))

	h.model.ResetCalls()
	h.mustUnmount(h.target("a"))
	h.mustUnmount(h.target("c"))
	h.wantCalls()
	h.wantNoLeak()
	h.mustUnmount(h.target("b"))
	h.wantCalls(closeCalls...)
	h.wantClosed()
}

func TestALayerWithoutParentsShowsItsFilesFolder(t *testing.T) {
	h := newHost(t)
	m := h.base("0")
	h.mustMount(m, h.target("a"))
	h.wantAt(h.target("a"), "link to "+filepath.Join(m.Source, "Files"))
	h.mustUnmount(h.target("a"))
	h.wantClosed()
	h.wantAt(m.Source, `directory of ["Files" "Hives"]`)
}

func TestALayerWithoutParentsAndWithoutFilesIsRefusedAndClosed(t *testing.T) {
	for _, file := range []string{"Files as a file", "nothing"} {
		t.Run(file, func(t *testing.T) {
			h := newHost(t)
			m := h.base("0")
			if err := os.RemoveAll(filepath.Join(m.Source, "Files")); err != nil {
				t.Fatal(err)
			}
			if file != "nothing" {
				h.write(filepath.Join(m.Source, "Files"), "")
			}
			wantError(t, h.mount(m, h.mkdir(h.target("a"))), "no Files folder in layer "+m.Source)
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestAnEmptyMountPathIsTheDirectoryOfTheLayer(t *testing.T) {
	h := newHost(t)
	h.model.EmptyMountPath = true
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.wantAt(h.target("a"), "link to "+m.Source+"/")
	h.mustMount(m, h.target("b"))
	h.mustUnmount(m.Source)
	h.wantClosed()
}

func TestAnEmptyDirectoryIsReplacedAndPutBack(t *testing.T) {
	h := newHost(t)
	target, err := os.MkdirTemp(h.path("mnt"), "a")
	if err != nil {
		t.Fatal(err)
	}
	h.mustMount(h.scratch("2"), target)
	if !strings.HasPrefix(describe(target), "link to ") {
		t.Errorf("at the target: %s", describe(target))
	}
	h.mustUnmount(target)
	h.wantAt(target, "directory of []")
	if err := os.Remove(target); err != nil {
		t.Error(err)
	}
}

func TestATargetInUseIsRefusedAndUntouched(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(h *host, target string)
	}{
		{"a directory that is not empty", func(h *host, target string) { h.write(filepath.Join(target, "data"), "mine") }},
		{"a file", func(h *host, target string) { h.write(target, "mine") }},
		{"a foreign link", func(h *host, target string) { symlink(h.t, h.path("mnt"), target) }},
		{"a dangling foreign link", func(h *host, target string) { symlink(h.t, h.path("gone"), target) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			test.make(h, h.target("a"))
			before := describe(h.target("a"))
			wantError(t, h.mount(h.scratch("2"), h.target("a")), "failed to mount at "+h.target("a"), os.ErrExist)
			h.wantAt(h.target("a"), before)
			h.wantCalls()
			h.wantClosed()
		})
	}
}

func symlink(t testing.TB, text, path string) {
	t.Helper()
	if err := os.Symlink(text, path); err != nil {
		t.Fatal(err)
	}
}

func TestALiveMountIsRefusedAndUntouched(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	before := describe(h.target("a"))
	for _, m := range []*Mount{h.scratch("2"), h.scratch("3"), h.base("0")} {
		wantError(t, h.mount(m, h.target("a")), "it shows layer "+h.path("layers", "2"), os.ErrExist)
	}
	h.wantAt(h.target("a"), before)
	h.wantOpen("2")
}

func TestALiveMountIsLeftAloneWhenHCSCannotTell(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	before := describe(h.target("a"))
	h.failNext(hcsmodel.MountPath, errorGenFailure, errorGenFailure)
	wantError(t, h.mount(h.scratch("2"), h.target("a")), "failed to get mount path", errorGenFailure)
	wantError(t, h.mount(h.scratch("2"), h.target("b")), "failed to get mount path", errorGenFailure)
	h.wantAt(h.target("a"), before)
	h.wantAt(h.target("b"), "nothing")
}

func TestAnAbsentParentOfTheTargetIsRefusedBeforeHCSIsCalled(t *testing.T) {
	h := newHost(t)
	wantError(t, h.mount(h.scratch("2"), h.target("no/a")), "failed to mount at", os.ErrNotExist)
	h.wantCalls()
}

func TestAfterARebootTheStaleLinkIsReplaced(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
	h.reboot()
	h.mustMount(h.scratch("3"), h.target("a"))
	if source := h.record(h.target("a")).Source; source != h.path("layers", "3") {
		t.Errorf("the target shows %s", source)
	}
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func (h *host) reboot() {
	h.t.Helper()
	if err := h.model.Reboot(); err != nil {
		h.t.Fatal(err)
	}
}

func TestAfterARebootASecondTargetOpensTheLayerAgain(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.reboot()
	h.model.ResetCalls()
	h.mustMount(m, h.target("b"))
	volume := openCalls[:1]
	h.wantCalls(calls(volume, volume, volume, volume, volume, openCalls)...) // asked five times
	h.mustUnmount(h.target("a"))
	h.wantOpen("2")
	h.mustUnmount(h.target("b"))
	h.wantClosed()
}

func TestALiveMountIsKeptWhileHCSCannotTellThatItIsOpen(t *testing.T) {
	for name, layer := range map[string]func(*host) *Mount{
		"scratch":    scratch2,
		"base layer": base2,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			h.mustMount(m, h.target("a"))
			shown := describe(h.target("a"))
			for _, code := range []syscall.Errno{errorNotReady, errorDeviceNotConnected} {
				h.failNext(hcsmodel.MountPath, code, code, code, code, code)
				wantError(t, h.mount(h.scratch("3"), h.target("a")), "it shows layer", os.ErrExist)
			}
			h.wantAt(h.target("a"), shown)
			h.wantOpen("2")
		})
	}
}

func TestAStaleLinkIsReplacedWhateverCodeTellsThatItsLayerIsClosed(t *testing.T) {
	for _, code := range []syscall.Errno{errorFileNotFound, errorPathNotFound, errorNotReady, errorDevNotExist,
		errorInvalidParameter, errorDeviceNotConnected, errorNotFound, errorFilterNotFound} {
		h := newHost(t)
		h.mustMount(h.scratch("2"), h.target("a"))
		h.reboot()
		h.model.Before = func(call hcsmodel.Call, layer string) error {
			if call != hcsmodel.MountPath || layer != h.path("layers", "2") {
				return nil
			}
			return &hcsmodel.Error{Call: call, Layer: layer, Code: code}
		}
		if err := h.mount(h.scratch("3"), h.target("a")); err != nil {
			t.Errorf("code %d: %v", code, err)
		}
	}
}

func TestNothingIsTouchedWhileNobodyCanTellWhetherALayerIsOpen(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	r := h.record(h.target("a"))
	r.Volume = h.path("file", "volume") // what cannot be reached, and has not gone
	h.write(h.path("file"), "")
	if err := stderrors.Join(h.table.update(r), os.Remove(r.Target), os.Symlink(r.link(), r.Target)); err != nil {
		t.Fatal(err)
	}
	h.failNext(hcsmodel.MountPath, errorNotReady, errorNotReady, errorNotReady, errorNotReady, errorNotReady)
	wantError(t, h.mount(h.scratch("3"), h.target("a")), "failed to get mount path of layer "+m.Source, errorNotReady)
	h.wantAt(h.target("a"), "link to "+r.link())
	h.wantOpen("2")
}

func TestALayerThatIsOpenElsewhereIsLeftOpen(t *testing.T) {
	for _, test := range []struct {
		name  string
		layer func(h *host) *Mount
		open  func(h *host, m *Mount) error
		want  []string
		code  syscall.Errno
	}{
		{"active", scratch2, func(h *host, m *Mount) error { return h.model.ActivateLayer(m.Source) }, openCalls[:1], errorSharingViolation},
		{"active, which HCS does not tell", scratch2, func(h *host, m *Mount) error {
			h.failNext(hcsmodel.MountPath, errorNotReady)
			return h.model.ActivateLayer(m.Source)
		}, openCalls[:2], errorSharingViolation},
		{"prepared", scratch2, openElsewhere, openCalls[:1], errorSharingViolation},
		{"read-only", base2, openElsewhere, []string{"GetLayerMountPath 2", "ActivateLayer 2", "PrepareLayer 2 []"}, errorInvalidParameter},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			m := test.layer(h)
			if err := test.open(h, m); err != nil {
				t.Fatal(err)
			}
			h.model.ResetCalls()
			wantError(t, h.mount(m, h.target("a")), "layer "+m.Source, test.code)
			h.wantCalls(test.want...)
			h.wantOpen("2")
			if len(h.records()) != 0 {
				t.Error("a record is left")
			}
		})
	}
}

func scratch2(h *host) *Mount { return h.scratch("2") }
func base2(h *host) *Mount    { return h.base("2") }

// openElsewhere opens a layer as other code does, without a record.
func openElsewhere(h *host, m *Mount) error {
	return stderrors.Join(h.model.ActivateLayer(m.Source), h.model.PrepareLayer(m.Source, []string{`C:\layers\1`}))
}

func TestATransientErrorIsTriedAgain(t *testing.T) {
	for _, test := range []struct {
		call hcsmodel.Call
		want [][]string // calls of a failed attempt
	}{
		{hcsmodel.Activate, [][]string{openCalls[1:2], closeCalls[1:]}},
		{hcsmodel.Prepare, [][]string{openCalls[1:3], closeCalls[1:]}},
		{hcsmodel.MountPath, [][]string{openCalls[1:], closeCalls}},
	} {
		t.Run(string(test.call), func(t *testing.T) {
			h := newHost(t)
			h.failOpening(test.call, errorNotReady, errorDeviceNotConnected, errorNotReady, errorNotReady)
			h.mustMount(h.scratch("2"), h.target("a"))
			failed := calls(test.want...)
			h.wantCalls(calls(openCalls[:1], failed, failed, failed, failed, openCalls[1:])...)
			if h.pauses != 4 {
				t.Errorf("%d pauses, want 4", h.pauses)
			}
		})
		t.Run(string(test.call)+" five times in all", func(t *testing.T) {
			h := newHost(t)
			h.failOpening(test.call, errorNotReady, errorNotReady, errorNotReady, errorNotReady, errorDeviceNotConnected)
			wantError(t, h.mount(h.scratch("2"), h.target("a")), "layer "+h.path("layers", "2"), errorDeviceNotConnected)
			failed := calls(test.want...)
			h.wantCalls(calls(openCalls[:1], failed, failed, failed, failed, failed)...)
			if h.pauses != 4 {
				t.Errorf("%d pauses, want 4", h.pauses)
			}
			h.wantClosed()
		})
	}
	for _, call := range []hcsmodel.Call{hcsmodel.Unprepare, hcsmodel.Deactivate} {
		t.Run(string(call), func(t *testing.T) {
			h := newHost(t)
			h.mustMount(h.scratch("2"), h.target("a"))
			h.failNext(call, errorNotReady, errorDeviceNotConnected)
			h.mustUnmount(h.target("a"))
			h.wantClosed()
		})
	}
}

func TestOtherErrorsAreFinal(t *testing.T) {
	for _, call := range []hcsmodel.Call{hcsmodel.Activate, hcsmodel.Prepare, hcsmodel.MountPath} {
		for _, code := range []syscall.Errno{errorSharingViolation, errorInvalidParameter} {
			h := newHost(t)
			h.failOpening(call, code)
			wantError(t, h.mount(h.scratch("2"), h.target("a")), "layer "+h.path("layers", "2"), code)
			if h.pauses != 0 {
				t.Errorf("%s: %d pauses", call, h.pauses)
			}
			h.wantClosed()
		}
	}
}

func TestACancelledContextEndsTheTries(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithCancel(context.Background())
	h.table.pause = func(ctx context.Context) error {
		cancel()
		return pause(ctx)
	}
	h.failNext(hcsmodel.Prepare, errorNotReady)
	wantError(t, h.mounter.mount(ctx, h.scratch("2"), h.target("a")), "failed to prepare", errorNotReady, context.Canceled)
	h.wantClosed()
	wantError(t, h.mounter.mount(ctx, h.scratch("2"), h.target("a")), "", context.Canceled)
}

func TestThePauseEndsByItself(t *testing.T) {
	if err := pause(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestAFailedUndoIsInTheErrorAndKeepsTheRecord(t *testing.T) {
	for _, test := range []struct {
		name  string
		codes map[hcsmodel.Call]error
		texts []string
	}{
		{"Activate passes, Deactivate fails", map[hcsmodel.Call]error{
			hcsmodel.Prepare: errorInvalidParameter, hcsmodel.Deactivate: errorSharingViolation,
		}, []string{"failed to prepare layer", "undo: failed to deactivate layer"}},
		{"a transient failure cannot be undone", map[hcsmodel.Call]error{
			hcsmodel.Prepare: errorNotReady, hcsmodel.Deactivate: errorSharingViolation,
		}, []string{"failed to prepare layer", "undo: failed to deactivate layer"}},
		{"no mount path, Unprepare and Deactivate fail", map[hcsmodel.Call]error{
			hcsmodel.MountPath: errorInvalidParameter, hcsmodel.Unprepare: errorGenFailure, hcsmodel.Deactivate: errorSharingViolation,
		}, []string{"failed to get mount path of layer", "failed to unprepare layer", "failed to deactivate layer"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			h.model.Before = func(call hcsmodel.Call, _ string) error { return test.codes[call] }
			err := h.mount(m, h.mkdir(h.target("a")))
			for _, text := range test.texts {
				wantError(t, err, text)
			}
			for _, code := range test.codes {
				wantError(t, err, "", code)
			}
			h.wantNoLeak()
			h.wantAt(h.target("a"), "directory of []")
			if len(h.records()) != 1 {
				t.Error("no record is left")
			}
			h.model.Before = nil
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestWhatIsMalformedIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	h := newHost(t)
	good := *h.scratch("2")
	for _, test := range []struct {
		name, text string
		change     func(m *Mount, target *string)
	}{
		{"type", "invalid windows mount type: 'bind'", func(m *Mount, _ *string) { m.Type = "bind" }},
		{"no source", "path is empty", func(m *Mount, _ *string) { m.Source = "" }},
		{"relative source", "is not absolute", func(m *Mount, _ *string) { m.Source = "layers/2" }},
		{"separator at the end of the source", "last element of", func(m *Mount, _ *string) { m.Source += "/" }},
		{"parents", "failed to unmarshal parent layer paths from mount", func(m *Mount, _ *string) { m.Options = []string{ParentLayerPathsFlag + "{"} }},
		{"no target", "path is empty", func(_ *Mount, target *string) { *target = "" }},
		{"NUL in the target", "holds a NUL", func(_ *Mount, target *string) { *target += "\x00" }},
		{"root as target", "root of a volume", func(_ *Mount, target *string) { *target = "/" }},
		{"target out of the target", `has the element ".."`, func(m *Mount, _ *string) { m.Target = "../b" }},
		{"NUL in the sub-directory", "holds a NUL", func(m *Mount, _ *string) { m.Target = "b\x00" }},
		{"sub-directory that is not Unicode", "is not valid Unicode", func(m *Mount, _ *string) { m.Target = "b\xff" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, target := good, h.target("a")
			test.change(&m, &target)
			wantError(t, h.mount(&m, target), test.text)
			h.wantCalls()
			h.wantAt(h.path("table"), "nothing")
			h.wantAt(h.path("mnt"), "directory of []")
		})
	}
}

func TestTargetIsASubDirectoryWhichCannotEscape(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	volume := h.record(h.target("a")).Volume
	sub := h.base("0")

	h.mkdir(filepath.Join(volume, "x"))
	sub.Target = `/x\sub`
	h.mustMount(sub, h.target("a"))
	h.wantAt(filepath.Join(volume, "x", "sub"), "link to "+filepath.Join(sub.Source, "Files"))
	h.mustUnmount(h.target("a/x/sub"))
	h.wantAt(filepath.Join(volume, "x"), "directory of []")

	symlink(t, h.path("mnt"), filepath.Join(volume, "out"))
	sub.Target = "out/sub"
	wantError(t, h.mount(sub, h.target("a")), "which is no directory")
	sub.Target = "none/sub"
	wantError(t, h.mount(sub, h.target("a")), `sub-directory "none/sub"`, os.ErrNotExist)
	sub.Target = "a:b"
	wantError(t, h.mount(sub, h.target("a")), "stream")
	h.wantAt(h.path("mnt"), `directory of ["a"]`)
}

func TestASourceThroughALinkIsTheLayerItLeadsTo(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	symlink(t, h.path("layers"), h.path("other"))
	h.mustMount(m, h.target("a"))
	h.mustMount(&Mount{Type: m.Type, Source: h.path("other", "2"), Options: m.Options}, h.target("b"))
	h.wantCalls(calls(openCalls, []string{"GetLayerMountPath 2"})...)
	h.mustUnmount(h.path("other", "2"))
	h.wantClosed()
}

func TestATargetThroughALinkIsTheSameTarget(t *testing.T) {
	h := newHost(t)
	symlink(t, h.path("mnt"), h.path("other"))
	h.mustMount(h.scratch("2"), h.path("other", "a"))
	wantError(t, h.mount(h.scratch("3"), h.target("a")), "it shows layer", os.ErrExist)
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestATargetIsReachedAlsoWhenTheLinkByWhichItWasMountedHasGone(t *testing.T) {
	for name, do := range map[string]func(h *host) error{
		"unmount":            func(h *host) error { return h.unmount(h.target("a")) },
		"unmount by source":  func(h *host) error { return h.unmount(h.path("layers", "2")) },
		"unmount from above": func(h *host) error { return h.unmountRecursive(context.Background(), h.path("mnt")) },
		"mount, after a reboot": func(h *host) error {
			h.reboot()
			if err := h.mount(h.scratch("3"), h.target("a")); err != nil {
				return err
			}
			return h.unmount(h.target("a"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := throughLink(t)
			if err := do(h); err != nil {
				t.Error(err)
			}
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestALinkThatLeadsElsewhereNowLeadsToNoTarget(t *testing.T) {
	h := throughLink(t)
	shown := describe(h.target("a"))
	symlink(t, h.mkdir(h.path("elsewhere")), h.path("other"))
	if err := h.unmountRecursive(context.Background(), h.path("other")); err != nil {
		t.Error(err)
	}
	h.wantAt(h.target("a"), shown)
	h.wantOpen("2")
	h.mustUnmount(h.path("layers", "2"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantAt(h.path("elsewhere"), "directory of []")
	h.wantClosed()
}

// throughLink mounts layer 2 at the empty directory a, by a link to the directory
// above it which it then removes.
func throughLink(t *testing.T) *host {
	h := newHost(t)
	symlink(t, h.path("mnt"), h.path("other"))
	h.mkdir(h.target("a"))
	h.mustMount(h.scratch("2"), h.path("other", "a"))
	if err := os.Remove(h.path("other")); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestRelativeTargetsAreTakenFromTheWorkingDirectory(t *testing.T) {
	h := newHost(t)
	t.Chdir(h.path("mnt"))
	h.mustMount(h.scratch("2"), "a")
	h.wantAt(h.target("a"), "link to "+h.record(h.target("a")).link())
	h.mustUnmount("./a/")
	h.wantClosed()
}

func TestLookupTellsTheLayerShownAtATarget(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	info, err := h.lookup(context.Background(), h.target("a"))
	if err != nil {
		t.Fatal(err)
	}
	want := Info{Mountpoint: h.target("a"), Source: m.Source, Root: h.record(h.target("a")).link(), FSType: "windows-layer"}
	if info != want {
		t.Errorf("Lookup = %+v, want %+v", info, want)
	}
}

func TestLookupWaitsForAMountThatIsBeingMade(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	found := make(chan error, 1)
	h.model.After = func(call hcsmodel.Call, _ string) error {
		if call != hcsmodel.MountPath {
			return nil
		}
		go func() {
			_, err := h.lookup(context.Background(), h.target("a"))
			found <- err
		}()
		target, err := targetKey(h.target("a"))
		h.awaitWaiting("t"+string(target), found)
		return err
	}
	h.mustMount(m, h.target("a"))
	if err := <-found; err != nil {
		t.Errorf("did not wait: %v", err)
	}
}

func TestLookupOfWhatIsNoMountMatchesErrNotExist(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	for _, dir := range []string{h.target("b"), m.Source, h.target("a/b"), h.target("no/no")} {
		_, err := h.lookup(context.Background(), dir)
		wantError(t, err, "look up mount "+dir, os.ErrNotExist)
	}
	h.mustUnmount(h.target("a"))
	_, err := h.lookup(context.Background(), h.target("a"))
	wantError(t, err, "look up mount", os.ErrNotExist)
	_, err = h.lookup(context.Background(), "\x00")
	wantError(t, err, "NUL")
}

func TestErrorsMatchTheirWindowsCodeThroughAllWrapping(t *testing.T) {
	h := newHost(t)
	h.failNext(hcsmodel.Activate, errorSharingViolation)
	err := h.mount(h.scratch("2"), h.target("a"))
	var hcsErr *hcsmodel.Error
	if !stderrors.As(err, &hcsErr) || hcsErr.Code != errorSharingViolation {
		t.Errorf("error %v", err)
	}
}

func TestAllMountsInOrderAndUnmountMountsInReverse(t *testing.T) {
	h := newHost(t)
	outer, inner := *h.scratch("2"), *h.base("0")
	inner.Target = "sub"
	if err := h.all(context.Background(), []Mount{outer, inner}, h.target("a")); err != nil {
		t.Fatal(err)
	}
	h.wantAt(h.target("a/sub"), "link to "+filepath.Join(inner.Source, "Files"))
	h.model.ResetCalls()
	if err := h.unmountMounts(context.Background(), []Mount{outer, inner}, h.target("a")); err != nil {
		t.Fatal(err)
	}
	h.wantCalls("UnprepareLayer 0", "DeactivateLayer 0", "UnprepareLayer 2", "DeactivateLayer 2")
	h.wantClosed()
}

func TestAllUnmountsWhatItMountedWhenOneFails(t *testing.T) {
	h := newHost(t)
	bad := *h.scratch("3")
	bad.Target = "sub"
	bad.Type = "bind"
	wantError(t, h.all(context.Background(), []Mount{*h.scratch("2"), bad}, h.target("a")), "invalid windows mount type: 'bind'")
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestWhatAUserPutAtTheTargetMeanwhileIsLeftAloneAndTheMountUndone(t *testing.T) {
	for _, test := range []struct {
		name, text string
		directory  bool
		make       func(h *host)
	}{
		{"a file in the directory", "failed to replace directory", true, func(h *host) { h.write(h.target("a/data"), "mine") }},
		{"a file at the target", "failed to link layer", false, func(h *host) { h.write(h.target("a"), "mine") }},
		{"a link in the place of the directory", "failed to replace directory", true, func(h *host) {
			if err := os.Remove(h.target("a")); err != nil {
				h.t.Fatal(err)
			}
			symlink(h.t, h.path("layers"), h.target("a"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			if test.directory {
				h.mkdir(h.target("a"))
			}
			var put string
			h.model.Before = func(call hcsmodel.Call, _ string) error {
				if call == hcsmodel.Prepare {
					test.make(h)
					put = describe(h.target("a"))
				}
				return nil
			}
			wantError(t, h.mount(h.scratch("2"), h.target("a")), test.text)
			h.wantAt(h.target("a"), put)
			h.wantClosed()
		})
	}
}

func TestARecordThatCannotBeWrittenLeavesNoLayerOpen(t *testing.T) {
	t.Run("before HCS is called", func(t *testing.T) {
		h := newHost(t)
		h.mkdir(h.path("table"))
		h.write(h.path("table", "mounts"), "in the way")
		wantError(t, h.mount(h.scratch("2"), h.target("a")), "mount table")
		h.wantCalls()
	})
	t.Run("after the layer is opened", func(t *testing.T) {
		h := newHost(t)
		h.model.Before = func(call hcsmodel.Call, _ string) error {
			if call == hcsmodel.MountPath {
				h.write(filepath.Join(h.table.pendingPath(h.record(h.target("a")).TargetKey), "in the way"), "")
			}
			return nil
		}
		wantError(t, h.mount(h.scratch("2"), h.mkdir(h.target("a"))), "failed to record "+h.target("a"))
		h.wantAt(h.target("a"), "directory of []")
		h.model.Before = nil
		h.wantNoLeak()
		h.wantOpen()
	})
}

func TestAPathThatCannotBeResolvedIsAnError(t *testing.T) {
	h := newHost(t)
	long := h.target(strings.Repeat("x", 300))
	inLong := filepath.Join(long, "a")
	m := h.scratch("2")
	wantError(t, h.mount(m, inLong), "failed to resolve "+long)
	wantError(t, h.unmount(inLong), "failed to resolve "+long)
	wantError(t, h.mount(&Mount{Type: m.Type, Source: long}, h.target("a")), "failed to resolve "+long)
	_, err := h.lookup(context.Background(), inLong)
	wantError(t, err, "failed to resolve "+long)
	wantError(t, h.mount(m, long), "failed to mount")
	h.wantCalls()
}

func TestATableThatIsNoDirectoryIsAnError(t *testing.T) {
	h := newHost(t)
	h.write(h.path("table"), "in the way")
	m := h.scratch("2")
	wantError(t, h.mount(m, h.target("a")), "mount table")
	wantError(t, h.unmount(h.target("a")), "mount table")
	wantError(t, h.unmount(m.Source), "mount table")
	_, err := h.lookup(context.Background(), h.target("a"))
	wantError(t, err, "mount table")
	h.wantCalls()
}

func TestATableThatIsSwappedForALinkIsNotFollowed(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	if err := os.Rename(h.path("table"), h.path("elsewhere")); err != nil {
		t.Fatal(err)
	}
	symlink(t, h.path("elsewhere"), h.path("table"))
	const text = "is not a directory"
	wantError(t, h.unmount(h.target("a")), text)
	wantError(t, h.unmount(m.Source), text)
	wantError(t, h.mount(m, h.target("b")), text)
	_, err := h.lookup(context.Background(), h.target("a"))
	wantError(t, err, text)
	wantError(t, h.unmount(h.scratch("3").Source), text)
	h.wantOpen("2")
}

func TestACancelledContextEndsTheWaitForALayerOrTarget(t *testing.T) {
	for name, do := range map[string]func(ctx context.Context, h *host, m *Mount) error{
		"mount": func(ctx context.Context, h *host, m *Mount) error { return h.mounter.mount(ctx, m, h.target("b")) },
		"unmount": func(ctx context.Context, h *host, _ *Mount) error {
			_, err := h.mounter.unmount(ctx, h.target("a"))
			return err
		},
		"lookup": func(ctx context.Context, h *host, _ *Mount) error { _, err := h.lookup(ctx, h.target("a")); return err },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			h.mustMount(m, h.target("a"))
			r := h.record(h.target("a"))
			kind, lock, k := "s", h.table.lockSource, r.SourceKey
			if name == "lookup" {
				kind, lock, k = "t", h.table.lockTarget, r.TargetKey
			}
			unlock := mustLock(t, lock, k)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- do(ctx, h, m) }()
			awaitQueue(h.table, kind+string(k), 2)
			cancel()
			wantError(t, <-done, "", context.Canceled)
			unlock()
			h.mustUnmount(h.target("a"))
			h.wantClosed()
		})
	}
}

func TestACancelledContextEndsTheQuestionWhetherALayerIsOpen(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	shown := describe(h.target("a"))
	ctx, cancel := context.WithCancel(context.Background())
	h.table.pause = func(ctx context.Context) error {
		cancel()
		return pause(ctx)
	}
	h.failNext(hcsmodel.MountPath, errorNotReady)
	wantError(t, h.mounter.mount(ctx, h.scratch("3"), h.target("a")), "failed to get mount path", errorNotReady, context.Canceled)
	h.wantAt(h.target("a"), shown)
	h.wantOpen("2")
}

func TestALiveMountSurvivesAVolumeThatIsOutOfReachForAnInstant(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	before := describe(h.target("a"))
	h.failNext(hcsmodel.MountPath, errorNotReady, errorDeviceNotConnected)
	wantError(t, h.mount(h.scratch("3"), h.target("a")), "it shows layer", os.ErrExist)
	h.failNext(hcsmodel.MountPath, errorNotReady)
	h.mustMount(h.scratch("2"), h.target("b"))
	h.wantAt(h.target("a"), before)
	h.wantAt(h.target("b"), before)
}

func TestAWindowsPathIsCheckedOnEverySystem(t *testing.T) {
	wantError(t, newHost(t).unmount(`C:\mnt\a:b`), "names a stream of a file")
}

func TestAnUndoThatFailsForAnInstantIsTriedAgain(t *testing.T) {
	h := newHost(t)
	h.model.Before = func(call hcsmodel.Call, layer string) error {
		switch {
		case call == hcsmodel.Prepare:
			return &hcsmodel.Error{Call: call, Layer: layer, Code: errorGenFailure}
		case call == hcsmodel.Deactivate && h.pauses == 0:
			return &hcsmodel.Error{Call: call, Layer: layer, Code: errorNotReady}
		}
		return nil
	}
	wantError(t, h.mount(h.scratch("2"), h.target("a")), "failed to prepare", errorGenFailure)
	h.wantClosed()
}

func TestHCSGetsTheSourceInItsShortestForm(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	m.Source = h.path("layers") + "//../layers/./2"
	h.mustMount(m, h.target("a"))
	h.wantCalls(openCalls...)
}
