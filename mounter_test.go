//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
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
	h.wantCalls(openCalls...)
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
			wantError(t, h.mount(m, h.mkdir(h.target("a"))), "the link to "+filepath.Join(m.Source, "Files")+" does not show layer "+m.Source)
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestAnEmptyMountPathIsTheDirectoryOfTheLayer(t *testing.T) {
	h := newHost(t)
	h.model.Personality.OpenPathEmpty = true
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

func TestAnAbsentParentOfTheTargetIsRefusedBeforeHCSIsCalled(t *testing.T) {
	h := newHost(t)
	wantError(t, h.mount(h.scratch("2"), h.target("no/a")), "failed to mount at", os.ErrNotExist)
	h.wantCalls()
}

func TestAfterARebootTheStaleLinkIsReplacedWithoutACallForItsLayer(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("3"), h.mkdir(h.target("a")))
	h.reboot()
	h.model.ResetCalls()
	h.mustMount(h.scratch("2"), h.target("a"))
	h.wantCalls(openCalls...)
	h.wantAt(h.target("a"), "link to "+h.link(h.scratch("2")))
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestAfterARebootASecondTargetOpensTheLayerAgainAndTheFirstIsCleanedUp(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.mkdir(h.target("a")))
	h.reboot()
	h.model.ResetCalls()
	h.mustMount(m, h.target("b"))
	h.wantCalls(openCalls...)
	h.wantAt(h.target("a"), "directory of []")
	h.mustUnmount(h.target("a"))
	h.wantOpen("2")
	h.mustUnmount(h.target("b"))
	h.wantClosed()
}

func TestOfTwoMountsAtATargetOneIsRefused(t *testing.T) {
	h := newHost(t)
	first, second := h.scratch("2"), h.scratch("3")
	done := make(chan error, 1)
	h.model.Before = func(call hcstest.Call, layer string) error {
		if call == hcstest.Prepare && layer == first.Source {
			go func() { done <- h.mount(second, h.target("a")) }()
			h.awaitWaiting(done, "t"+string(h.key(h.target("a"))))
			if len(done) != 0 {
				t.Error("the second does not wait for the first")
			}
		}
		return nil
	}
	h.mustMount(first, h.target("a"))
	wantError(t, <-done, "it shows layer "+first.Source, os.ErrExist)
	h.wantOpen("2")
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestALiveMountIsKeptWithoutAskingHCS(t *testing.T) {
	for name, layer := range map[string]func(*host) *Mount{
		"scratch":    scratch2,
		"base layer": base2,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mustMount(layer(h), h.target("a"))
			shown := describe(h.target("a"))
			h.model.ResetCalls()
			wantError(t, h.mount(h.scratch("3"), h.target("a")), "it shows layer", os.ErrExist)
			h.wantCalls()
			h.wantAt(h.target("a"), shown)
			h.wantOpen("2")
		})
	}
}

func TestAVolumeThatTheSystemCannotLookAtIsTakenForThere(t *testing.T) {
	h := newHost(t)
	h.write(h.path("file"), "")
	for path, want := range map[string]bool{
		h.dir:                    true,
		h.path("none"):           false,
		h.path("file", "volume"): true,
	} {
		if got := isReachable(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestALayerThatIsOpenElsewhereIsLeftOpen(t *testing.T) {
	ask := openCalls[:1]
	asked := calls(ask, ask, ask, ask, ask)
	activate := openCalls[1:2]
	for _, test := range []struct {
		name  string
		layer func(h *host) *Mount
		open  func(h *host, m *Mount) error
		want  []string
		code  syscall.Errno
	}{
		{"active", scratch2, func(h *host, m *Mount) error { return h.model.ActivateLayer(m.Source) }, asked, errorSharingViolation},
		{"active, which HCS does not tell", scratch2, func(h *host, m *Mount) error {
			h.failNext(hcstest.MountPath, errorNotReady)
			return h.model.ActivateLayer(m.Source)
		}, calls(ask, activate, activate, activate, activate, activate), errorSharingViolation},
		{"prepared", scratch2, openElsewhere, asked, errorSharingViolation},
		{"read-only", base2, openElsewhere, calls(ask, activate, []string{"PrepareLayer 2 []"}, ask), errorInvalidParameter},
		{"read-only, with a scratch disk", committed2, openElsewhere, calls(ask, activate, openCalls[2:3], ask), errorInvalidParameter},
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
			if left := h.tableFiles(); len(left) != 0 {
				t.Errorf("left in the table: %q", left)
			}
		})
	}
}

func scratch2(h *host) *Mount { return h.scratch("2") }
func base2(h *host) *Mount    { return h.base("2") }

// committed2 makes layer 2 a read-only layer with parents, which has kept its scratch
// disk.
func committed2(h *host) *Mount {
	h.write(h.path("layers", "2", "Files", "hello.txt"), "hello")
	return h.scratch("2")
}

// openElsewhere opens a layer as other code does, without a record.
func openElsewhere(h *host, m *Mount) error {
	return stderrors.Join(h.model.ActivateLayer(m.Source), h.model.PrepareLayer(m.Source, []string{`C:\layers\1`}))
}

func TestATransientErrorIsTriedAgain(t *testing.T) {
	activate, prepare, ask := openCalls[1:2], openCalls[1:3], openCalls[:1]
	for _, test := range []struct {
		call  hcstest.Call
		code  syscall.Errno
		layer func(*host) *Mount
		open  []string // calls that open the layer
		fail  []string // calls of an attempt that fails
	}{
		{hcstest.Activate, errorNotReady, scratch2, openCalls[1:], calls(activate, ask, closeCalls)},
		{hcstest.Activate, errorDeviceNotConnected, scratch2, openCalls[1:], calls(activate, ask, closeCalls)},
		// Somebody else may have the layer open, so that nothing is undone.
		{hcstest.Activate, errorSharingViolation, scratch2, openCalls[1:], activate},
		{hcstest.Activate, errorNotReady, committed2, openCalls[1:], activate},
		{hcstest.Prepare, errorNotReady, scratch2, openCalls[1:], calls(prepare, ask, closeCalls)},
		{hcstest.Prepare, errorDeviceNotConnected, scratch2, openCalls[1:], calls(prepare, ask, closeCalls)},
		{hcstest.Prepare, errorTimeout, scratch2, openCalls[1:], calls(prepare, ask, closeCalls)},
		{hcstest.Prepare, errorTimeout, committed2, openCalls[1:], calls(prepare, ask, closeCalls)},
		// Only the question is asked again.
		{hcstest.MountPath, errorNotReady, scratch2, ask, ask},
		{hcstest.MountPath, errorDeviceNotConnected, scratch2, ask, ask},
	} {
		first := openCalls[:1]
		if test.call == hcstest.MountPath {
			first = openCalls[:3]
		}
		four := calls(test.fail, test.fail, test.fail, test.fail)
		name := fmt.Sprintf("%s 0x%x %d calls", test.call, uintptr(test.code), len(test.fail))
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.failOpening(test.call, test.code, test.code, test.code, test.code)
			h.mustMount(test.layer(h), h.target("a"))
			h.wantCalls(calls(first, four, test.open)...)
			if h.pauses != 4 {
				t.Errorf("%d pauses, want 4", h.pauses)
			}
		})
		t.Run(name+" five times in all", func(t *testing.T) {
			h := newHost(t)
			h.failOpening(test.call, test.code, test.code, test.code, test.code, test.code)
			wantError(t, h.mount(test.layer(h), h.target("a")), "layer "+h.path("layers", "2"), test.code)
			want := calls(first, four, test.fail)
			if test.call == hcstest.MountPath {
				want = calls(want, ask, closeCalls) // and asked once more for the volume that is to go
			}
			h.wantCalls(want...)
			if h.pauses != 4 {
				t.Errorf("%d pauses, want 4", h.pauses)
			}
			h.wantClosed()
		})
	}
}

func TestClosingIsTriedAgainWhateverFails(t *testing.T) {
	for name, layer := range map[string]func(*host) *Mount{"scratch": scratch2, "base layer": base2, "committed": committed2} {
		for _, code := range []syscall.Errno{errorNotReady, errorSharingViolation, 0xaa, 5, errorGenFailure} {
			t.Run(fmt.Sprintf("%s 0x%x", name, uintptr(code)), func(t *testing.T) {
				h := newHost(t)
				h.mustMount(layer(h), h.target("a"))
				h.model.ResetCalls()
				failing := 2 * 4
				h.model.Before = func(call hcstest.Call, layer string) error {
					if failing--; failing < 0 {
						return nil
					}
					return &hcstest.Error{Call: call, Layer: layer, Code: code}
				}
				h.mustUnmount(h.target("a"))
				h.wantCalls(calls(closeCalls, closeCalls, closeCalls, closeCalls, closeCalls)...)
				h.wantClosed()
			})
		}
	}
}

func TestOtherErrorsAreFinal(t *testing.T) {
	for _, call := range []hcstest.Call{hcstest.Activate, hcstest.Prepare, hcstest.MountPath} {
		for _, code := range []syscall.Errno{errorGenFailure, errorInvalidParameter} {
			h := newHost(t)
			h.failOpening(call, code)
			wantError(t, h.mount(h.scratch("2"), h.target("a")), "layer "+h.path("layers", "2"), code)
			if n := strings.Count(strings.Join(h.model.Calls(), "\n"), string(hcstest.Activate)); n != 1 {
				t.Errorf("%s: %d attempts", call, n)
			}
			h.wantClosed()
		}
	}
}

func TestACancelledContextEndsTheTries(t *testing.T) {
	h := newHost(t)
	ctx := h.cancelledByAPause()
	h.failNext(hcstest.Prepare, errorNotReady)
	wantError(t, h.mounter.mount(ctx, h.scratch("2"), h.target("a")), "failed to prepare", errorNotReady, context.Canceled)
	h.wantClosed()
}

func TestACancelledContextEndsTheWaitForAVolumeThatIsLate(t *testing.T) {
	h := newHost(t)
	h.model.Personality.VolumeLate, h.model.Personality.ClosedPath = 2, hcstest.ClosedPathDirectory
	wantError(t, h.mounter.mount(h.cancelledByAPause(), h.scratch("2"), h.target("a")), "failed to get mount path", context.Canceled)
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestAVolumeThatIsLateIsWaitedFor(t *testing.T) {
	for _, closedPath := range []hcstest.ClosedPath{hcstest.ClosedPathNotReady, hcstest.ClosedPathDirectory, hcstest.ClosedPathEmpty} {
		h := newHost(t)
		h.model.Personality.VolumeLate, h.model.Personality.ClosedPath = 2, closedPath
		m := h.scratch("2")
		h.mustMount(m, h.target("a"))
		h.wantAt(h.target("a"), "link to "+h.link(m))
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	}
}

// staleNames is an HCS that goes on naming the volume of an earlier activation for some calls.
type staleNames struct {
	hcs
	volume string
	calls  int
}

func (s *staleNames) GetLayerMountPath(layer string) (string, error) {
	path, err := s.hcs.GetLayerMountPath(layer)
	if err == nil && isVolume(path) && s.calls > 0 {
		s.calls--
		return s.volume, nil
	}
	return path, err
}

// activatedEarlier returns a host with a layer that had another volume, and what makes HCS go on
// naming that for some calls.
func activatedEarlier(t *testing.T) (h *host, m *Mount, nameEarlier func(calls int)) {
	h = newHost(t)
	h.model.Personality.NewVolume = true
	m = h.scratch("2")
	var stale string
	h.inVolume(m, func(volume string) { stale = strings.TrimSuffix(volume, "/") })
	return h, m, func(calls int) { h.mounter.hcs = &staleNames{h.model, stale, calls} }
}

func TestTheVolumeOfAnEarlierActivationIsNotShown(t *testing.T) {
	h, m, nameEarlier := activatedEarlier(t)
	for calls := 0; calls <= 12; calls++ {
		nameEarlier(calls)
		if err := h.mount(m, h.target("a")); err != nil && calls >= 5 {
			wantError(t, err, "failed to get mount path of layer", os.ErrNotExist)
		} else if err != nil {
			t.Error(err)
		} else {
			h.wantAt(h.target("a"), "link to "+h.link(m))
			h.mustUnmount(h.target("a"))
		}
		h.wantClosed()
	}
}

func TestAStaleVolumeDoesNotProveThatTheUndoHasClosedTheLayer(t *testing.T) {
	h, m, nameEarlier := activatedEarlier(t)
	nameEarlier(2)
	refused := false
	h.model.Before = func(call hcstest.Call, _ string) error {
		switch {
		case call == hcstest.Prepare:
			return errorTimeout
		case call == hcstest.Deactivate && !refused:
			refused = true
			return errorNotReady
		}
		return nil
	}
	wantError(t, h.mount(m, h.target("a")), "failed to prepare layer", errorTimeout)
	h.wantClosed()
}

func TestACancelledContextEndsTheQuestionWhetherALayerIsOpenElsewhere(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	openedElsewhere(h, m)
	h.model.ResetCalls()
	wantError(t, h.mounter.mount(h.cancelledByAPause(), m, h.target("a")), "it is open already", errorSharingViolation)
	h.wantCalls(openCalls[:1]...)
}

// cancelledByAPause returns a context that is cancelled when something is to be tried
// again.
func (h *host) cancelledByAPause() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	h.t.Cleanup(cancel)
	h.setPause(func(ctx context.Context) error {
		cancel()
		return pause(ctx)
	})
	return ctx
}

func TestThePauseEndsByItself(t *testing.T) {
	if err := pause(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestAFailedUndoIsInTheErrorAndKeepsTheRecord(t *testing.T) {
	for _, test := range []struct {
		name  string
		codes map[hcstest.Call]error
		texts []string
	}{
		{"Activate passes, Deactivate fails", map[hcstest.Call]error{
			hcstest.Prepare: errorInvalidParameter, hcstest.Deactivate: errorSharingViolation,
		}, []string{"failed to prepare layer", "undo: failed to unprepare layer", "failed to deactivate layer", "is still open as"}},
		{"a transient failure cannot be undone", map[hcstest.Call]error{
			hcstest.Prepare: errorNotReady, hcstest.Deactivate: errorSharingViolation,
		}, []string{"failed to prepare layer", "undo: failed to unprepare layer", "failed to deactivate layer"}},
		{"no mount path, Unprepare and Deactivate fail", map[hcstest.Call]error{
			hcstest.MountPath: errorInvalidParameter, hcstest.Unprepare: errorGenFailure, hcstest.Deactivate: errorSharingViolation,
		}, []string{"failed to get mount path of layer", "failed to unprepare layer", "failed to deactivate layer"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			h.model.Before = func(call hcstest.Call, _ string) error { return test.codes[call] }
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
	h.wantCalls(openCalls...)
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
		"unmount from above": func(h *host) error { return h.unmountRecursive(h.path("mnt")) },
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
	if err := h.unmountRecursive(h.path("other")); err != nil {
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

func TestATargetThatIsReachedByANameThatIsNotUnicodeIsRefused(t *testing.T) {
	h := newHost(t)
	symlink(t, h.mkdir(h.path("\xff")), h.path("link"))
	wantError(t, h.mount(h.scratch("2"), h.path("link", "a")), "is not valid Unicode")
	h.wantCalls()
	h.wantAt(h.path("\xff"), "directory of []")
}

func TestRelativeTargetsAreTakenFromTheWorkingDirectory(t *testing.T) {
	h := newHost(t)
	before, err := os.Getwd()
	if err == nil {
		err = os.Chdir(h.path("mnt"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chdir(before) })
	h.mustMount(h.scratch("2"), "a")
	h.wantAt(h.target("a"), "link to "+h.record(h.target("a")).destination())
	h.mustUnmount("./a/")
	h.wantClosed()
}

func TestErrorsMatchTheirWindowsCodeThroughAllWrapping(t *testing.T) {
	h := newHost(t)
	h.failNext(hcstest.Activate, errorGenFailure)
	err := h.mount(h.scratch("2"), h.target("a"))
	var hcsErr *hcstest.Error
	if !stderrors.As(err, &hcsErr) || hcsErr.Code != errorGenFailure || !stderrors.Is(err, errorGenFailure) {
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
	if err := h.unmountMounts([]Mount{outer, inner}, h.target("a")); err != nil {
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
			h.model.Before = func(call hcstest.Call, _ string) error {
				if call == hcstest.Prepare {
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

// wantOnlyAsked fails the test when HCS got any call but those that ask for a volume.
func (h *host) wantOnlyAsked() {
	h.t.Helper()
	for _, call := range h.model.Calls() {
		if !strings.HasPrefix(call, string(hcstest.MountPath)) {
			h.t.Errorf("HCS was called: %s", call)
		}
	}
}

func TestARecordThatCannotBeWrittenLeavesNoLayerOpen(t *testing.T) {
	layer := func(h *host) string { return h.table.layerPath(keyOf(h.path("layers", "2"))) }
	target := func(h *host) string { return h.table.indexPath(keyOf(h.target("a"))) }
	for name, inTheWay := range map[string]func(h *host) string{
		"layer": func(h *host) string { return layer(h) + unfinishedSuffix },
		"index": target,
		"table": func(h *host) string { return h.path("table", "other") },
	} {
		t.Run(name+" before HCS is called", func(t *testing.T) {
			h := newHost(t)
			path := inTheWay(h)
			h.write(filepath.Join(path, "in the way"), "")
			wantError(t, h.mount(h.scratch("2"), h.mkdir(h.target("a"))), "mount table")
			h.wantOnlyAsked()
			h.wantAt(h.target("a"), "directory of []")
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			h.wantClosed()
		})
	}
	t.Run("index while it waits for the layer", func(t *testing.T) {
		h := newHost(t)
		m := h.scratch("2")
		if err := h.table.hold(); err != nil {
			t.Fatal(err)
		}
		unlock := mustLock(t, h.table.lockLayer, keyOf(m.Source))
		mounted := make(chan error, 1)
		go func() { mounted <- h.mount(m, h.target("a")) }()
		h.awaitWaiting(mounted, "l"+string(keyOf(m.Source)))
		h.mkdir(target(h))
		unlock()
		wantError(t, <-mounted, "mount table", syscall.EISDIR)
		h.wantOnlyAsked()
		h.wantClosed()
	})
	t.Run("once the layer is open", func(t *testing.T) {
		h := newHost(t)
		m := h.scratch("2")
		m.Options = []string{ParentLayerPathsFlag + listOf(manyParents(1000))} // longer than maxSize
		inTheWay := layer(h) + unfinishedSuffix
		h.model.Before = func(call hcstest.Call, _ string) error {
			if call == hcstest.Prepare {
				h.write(filepath.Join(inTheWay, "in the way"), "")
			}
			return nil
		}
		wantError(t, h.mount(m, h.mkdir(h.target("a"))), "failed to record layer "+m.Source)
		h.wantAt(h.target("a"), "directory of []")
		h.wantOpen()
		if err := os.RemoveAll(inTheWay); err != nil {
			t.Fatal(err)
		}
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "directory of []")
		h.wantClosed()
	})
	t.Run("of a layer that is open at another target", func(t *testing.T) {
		h := newHost(t)
		m := h.scratch("2")
		m.Options = []string{ParentLayerPathsFlag + listOf(manyParents(1000))}
		h.mustMount(m, h.target("b"))
		inTheWay := layer(h) + unfinishedSuffix
		h.write(filepath.Join(inTheWay, "in the way"), "")
		wantError(t, h.mount(m, h.mkdir(h.target("a"))), "failed to record layer "+m.Source)
		h.wantAt(h.target("a"), "directory of []")
		h.wantAt(target(h), "nothing")
		h.wantOpen("2")
		if err := os.RemoveAll(inTheWay); err != nil {
			t.Fatal(err)
		}
		h.mustUnmount(h.target("b"))
		h.wantClosed()
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
	_, err := h.lookup(inLong)
	wantError(t, err, "failed to resolve "+long)
	wantError(t, h.unmountRecursive(inLong), "failed to resolve "+long)
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
	_, err := h.lookup(h.target("a"))
	wantError(t, err, "mount table")
	h.wantCalls()
}

func TestALiveMountSurvivesAVolumeThatIsOutOfReachForAnInstant(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	before := describe(h.target("a"))
	volume := h.record(h.target("a")).Volume
	pauses := 0
	h.setPause(func(context.Context) error {
		if pauses++; pauses == 4 {
			return os.Rename(volume+" aside", volume)
		}
		return nil
	})
	for _, do := range []func() error{
		func() error {
			if err := h.mount(h.scratch("3"), h.target("a")); !stderrors.Is(err, os.ErrExist) {
				return fmt.Errorf("not refused: %w", err)
			}
			return nil
		},
		func() error { return h.mount(h.scratch("2"), h.target("b")) },
	} {
		pauses = 0
		if err := stderrors.Join(os.Rename(volume, volume+" aside"), do()); err != nil {
			t.Error(err)
		}
	}
	h.wantAt(h.target("a"), before)
	h.wantAt(h.target("b"), before)
}

func TestAWindowsPathIsCheckedOnEverySystem(t *testing.T) {
	wantError(t, newHost(t).unmount(`C:\mnt\a:b`), "names a stream of a file")
}

func TestAnUndoThatFailsForAnInstantIsTriedAgain(t *testing.T) {
	h := newHost(t)
	h.model.Before = func(call hcstest.Call, layer string) error {
		switch {
		case call == hcstest.Prepare:
			return &hcstest.Error{Call: call, Layer: layer, Code: errorGenFailure}
		case call == hcstest.Deactivate && h.pauses == 0:
			return &hcstest.Error{Call: call, Layer: layer, Code: errorNotReady}
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

func TestAVolumeThatIsReportedForAnInstantAfterACloseDoesNotCount(t *testing.T) {
	t.Run("of other code", func(t *testing.T) {
		h := newHost(t)
		h.model.Personality.VolumeLingers = 3
		m := h.scratch("2")
		openedElsewhere(h, m)
		if err := h.model.DeactivateLayer(m.Source); err != nil {
			t.Fatal(err)
		}
		h.mustMount(m, h.target("a"))
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	})
	t.Run("of this package", func(t *testing.T) {
		h := newHost(t)
		h.model.Personality.VolumeLingers = 3
		m := h.scratch("2")
		for range 3 {
			h.mustMount(m, h.target("a"))
			h.mustUnmount(h.target("a"))
			h.wantClosed()
		}
	})
	t.Run("and one that stays is left open", func(t *testing.T) {
		h := newHost(t)
		h.model.Personality.VolumeLingers = 3
		m := h.scratch("2")
		openedElsewhere(h, m)
		wantError(t, h.mount(m, h.target("a")), "it is open already", errorSharingViolation)
		h.wantOpen("2")
	})
}

func TestALayerIsReadOnlyWhenItHoldsFilesOrNoScratchDisk(t *testing.T) {
	for _, test := range []struct {
		name  string
		layer func(h *host) *Mount
		want  bool
	}{
		{"scratch", scratch2, false},
		{"base layer", base2, true},
		{"committed, with its scratch disk", committed2, true},
		{"without a scratch disk", func(h *host) *Mount { h.mkdir(h.path("layers", "2")); return h.scratchMount("2") }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			m := test.layer(h)
			h.mustMount(m, h.target("a"))
			if r := h.record(h.target("a")); r.ReadOnly != test.want {
				t.Errorf("read-only: %v, want %v", r.ReadOnly, test.want)
			}
			h.mustUnmount(h.target("a"))
			h.wantClosed()
		})
	}
}

func TestACommittedLayerShowsItsDirectory(t *testing.T) {
	h := newHost(t)
	m := committed2(h)
	h.mustMount(m, h.target("a"))
	h.wantAt(h.target("a"), "link to "+m.Source+"/")
}

func TestALayerIsClosedAsWhatItWasOpenedAs(t *testing.T) {
	hide := func(h *host, m *Mount, name string) (putBack func()) {
		path := filepath.Join(m.Source, name)
		if err := os.Rename(path, h.path("aside")); err != nil {
			h.t.Fatal(err)
		}
		return func() {
			if err := os.Rename(h.path("aside"), path); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	t.Run("a scratch disk that is missing at Unmount", func(t *testing.T) {
		h := newHost(t)
		m := h.scratch("2")
		h.mustMount(m, h.mkdir(h.target("a")))
		putBack := hide(h, m, "sandbox.vhdx") // the model does not close it without
		wantError(t, h.unmount(h.target("a")), "is still open as")
		h.wantNoLeak()
		putBack()
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "directory of []")
		h.wantClosed()
	})
	t.Run("a scratch disk that is missing in an undo", func(t *testing.T) {
		h := newHost(t)
		m := h.scratch("2")
		h.model.Before = func(call hcstest.Call, layer string) error {
			if call != hcstest.Prepare {
				return nil
			}
			hide(h, m, "sandbox.vhdx")
			return &hcstest.Error{Call: call, Layer: layer, Code: errorGenFailure}
		}
		wantError(t, h.mount(m, h.target("a")), "failed to prepare layer", errorGenFailure)
		h.wantCalls(calls(openCalls[:3], openCalls[:1], closeCalls)...)
	})
	t.Run("a scratch disk that is missing when the link cannot be made", func(t *testing.T) {
		h := newHost(t)
		m := h.scratch("2")
		var putBack func()
		h.model.After = func(call hcstest.Call, _ string) error {
			if call == hcstest.MountPath {
				h.model.After = nil
				putBack = hide(h, m, "sandbox.vhdx")
				h.write(h.target("a"), "in the way")
			}
			return nil
		}
		err := h.mount(m, h.target("a"))
		wantError(t, err, "failed to link layer")
		wantError(t, err, "is still open as")
		putBack()
		h.wantOpen("2")
		h.wantNoLeak()
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "file: in the way")
		h.wantClosed()
	})
	t.Run("a committed layer without its scratch disk", func(t *testing.T) {
		h := newHost(t)
		m := committed2(h)
		h.mustMount(m, h.target("a"))
		hide(h, m, "sandbox.vhdx")
		h.failEvery(errorSharingViolation, hcstest.Unprepare)
		wantError(t, h.unmount(h.target("a")), "failed to unprepare layer", errorSharingViolation)
		h.wantNoLeak()
		h.model.Before = nil
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	})
}

func TestALinkThatIsNotFollowedFailsTheMountWhichIsUndone(t *testing.T) {
	h := newHost(t)
	m, _ := h.vanishOnceOpen()
	wantError(t, h.mount(m, h.mkdir(h.target("a"))), "does not show layer "+m.Source, os.ErrNotExist)
	if h.pauses != 4 {
		t.Errorf("%d pauses, want 4", h.pauses)
	}
	h.wantCalls(calls(openCalls[:2], []string{"PrepareLayer 2 []"}, openCalls[3:], closeCalls)...)
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

// vanishOnceOpen returns the mount of a layer whose files are taken away once it is open,
// and what puts them back.
func (h *host) vanishOnceOpen() (m *Mount, putBack func()) {
	m = h.base("2")
	files, aside := filepath.Join(m.Source, "Files"), h.path("aside")
	h.model.After = func(call hcstest.Call, _ string) error {
		if call != hcstest.Prepare {
			return nil
		}
		return os.Rename(files, aside)
	}
	return m, func() {
		if err := os.Rename(aside, files); err != nil {
			h.t.Fatal(err)
		}
	}
}

func TestALinkWhoseDestinationIsLateIsTriedAgain(t *testing.T) {
	h := newHost(t)
	m, putBack := h.vanishOnceOpen()
	h.setPause(func(context.Context) error {
		if h.pauses++; h.pauses == 4 {
			putBack()
		}
		return nil
	})
	h.mustMount(m, h.target("a"))
	h.wantAt(h.target("a"), "link to "+filepath.Join(m.Source, "Files"))
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestALinkThatSomebodyRemovesAtOnceDoesNotFailTheMount(t *testing.T) {
	h := newHost(t)
	m, putBack := h.vanishOnceOpen()
	h.setPause(func(context.Context) error {
		if h.pauses++; h.pauses == 1 {
			putBack()
			return os.Remove(h.target("a"))
		}
		return nil
	})
	h.mustMount(m, h.target("a"))
	h.wantOpen("2")
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestAMountPathIsAVolumeByItsLastElement(t *testing.T) {
	const guid = "{01234567-89ab-cdef-0123-456789abcdef}"
	for path, want := range map[string]bool{
		`\\?\Volume` + guid:            true,
		`\\?\Volume` + guid + `\`:      true,
		`\\?\volume` + guid + `\`:      true,
		`\\?\VOLUME` + guid:            true,
		`/volumes/Volume` + guid + `/`: true,
		`C:\Volume{x}y`:                false,
		`C:\Volume{x`:                  false,
		`C:\aVolume{x}`:                false,
		`C:\Volume{x}\Files`:           false,
		`C:\layers\2`:                  false,
		``:                             false,
	} {
		if got := isVolume(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestOnlyErrNotExistIsTakenForAbsence(t *testing.T) {
	h := newHost(t)
	h.write(h.path("file"), "")
	symlink(t, h.path("loop"), h.path("loop"))
	for path, code := range map[string]syscall.Errno{h.path("file", "x", "y"): syscall.ENOTDIR, h.path(strings.Repeat("x", 300)): syscall.ENAMETOOLONG} {
		resolved, _, _, err := canonical(path)
		wantError(t, err, "failed to resolve "+path, code)
		if resolved != "" {
			t.Errorf("%s is half resolved: %s", path, resolved)
		}
	}
	resolved, _, _, err := canonical(h.path("loop", "x"))
	wantError(t, err, "failed to resolve "+h.path("loop", "x"))
	if resolved != "" {
		t.Errorf("a loop is half resolved: %s", resolved)
	}
	if resolved, _, _, err := canonical(h.path("none", "x")); err != nil || resolved != h.path("none", "x") {
		t.Errorf("%s, %v", resolved, err)
	}
}

func TestALinkLeadsToTheRootOfAVolumeOrToTheFilesOfALayerWithoutParents(t *testing.T) {
	for _, test := range []struct {
		r    record
		want string
	}{
		{record{Volume: "/volumes/Volume{x}"}, "/volumes/Volume{x}/"},
		{record{Volume: "/volumes/Volume{x}", Parents: []string{`C:\1`}}, "/volumes/Volume{x}/"},
		{record{Volume: "/layers/2", Parents: []string{`C:\1`}}, "/layers/2/"},
		{record{Volume: "/layers/2"}, "/layers/2/Files"},
	} {
		if got := test.r.destination(); got != test.want {
			t.Errorf("%+v: %s, want %s", test.r, got, test.want)
		}
	}
}

func TestAnActivationThatFailsThoughItAttachedTheDiskIsUndone(t *testing.T) {
	for _, late := range []int{0, 2} { // calls, until HCS names the volume
		h := newHost(t)
		h.model.Personality.VolumeLate = late
		h.model.After = failing(errorGenFailure, hcstest.Activate)
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // which ends no undo
		wantError(t, mountIn(ctx, h.mounter, h.scratch("2"), h.target("a")), "failed to activate layer", errorGenFailure)
		h.wantClosed()
	}
}

func TestAnActivationWhoseUndoIsDoubtfulIsOnRecord(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	attached := false
	h.model.Before = func(hcstest.Call, string) error {
		if attached {
			return errorNotReady
		}
		return nil
	}
	h.model.After = func(call hcstest.Call, _ string) error {
		if call == hcstest.Activate {
			attached = true
			return errorNotReady
		}
		return nil
	}
	err := h.mount(m, h.target("a"))
	wantError(t, err, "failed to activate layer", errorNotReady)
	wantError(t, err, "undo: failed to unprepare layer")
	h.wantNoLeak()
	h.model.Before, h.model.After = nil, nil
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestAnActivationWhoseUndoIsDoubtfulIsTriedAgain(t *testing.T) {
	h := newHost(t)
	h.model.Personality, _ = hcstest.Named("closed-0x15")
	h.failNext(hcstest.Activate, errorNotReady)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.wantOpen("2")
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}
