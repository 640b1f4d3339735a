package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"
)

// newTempHost is a winHost whose temporary mounts are at tmp.
func newTempHost(t *testing.T) *winHost {
	h := newWinHost(t)
	h.must(SetTempMountLocation(h.path("tmp")))
	t.Cleanup(func() { tempMountLocation = "" })
	return h
}

// wantEmpty fails the test when anything is left at tmp.
func (h *winHost) wantEmpty() {
	h.t.Helper()
	if left, err := os.ReadDir(h.path("tmp")); err != nil || len(left) != 0 {
		h.t.Errorf("at tmp: %v, %v", left, err)
	}
}

func TestATemporaryMountIsShownAndTakenAwayThroughTheDLL(t *testing.T) {
	for name, with := range map[string]func(context.Context, []Mount, func(string) error) error{
		"WithTempMount":         WithTempMount,
		"WithReadonlyTempMount": WithReadonlyTempMount,
	} {
		t.Run(name, func(t *testing.T) {
			h := newTempHost(t)
			failed := stderrors.New("callback")
			err := with(context.Background(), []Mount{*h.scratch()}, func(root string) error {
				h.wantCalls(winOpen...)
				if info, err := Lookup(root); err != nil || info.Source != h.layer("2") {
					t.Errorf("at %s: %+v, %v", root, info, err)
				}
				return failed
			})
			wantError(t, err, "mount callback failed on "+h.path("tmp"), failed)
			h.wantCalls(winClose...)
			h.wantEmpty()
			h.wantNothing()
		})
	}
}

func TestATemporaryMountThatStaysOpenIsCleanedUpLater(t *testing.T) {
	h := newTempHost(t)
	h.faults("DeactivateLayer 0x20 10") // in two Unmounts
	err := WithTempMount(context.Background(), []Mount{*h.scratch()}, func(string) error { return nil })
	wantError(t, err, "failed to unmount "+h.path("tmp"), windows.ERROR_SHARING_VIOLATION)
	failed, err := CleanupTempMounts(0)
	if err != nil || len(failed) != 1 {
		t.Fatalf("%v, %v", failed, err)
	}
	wantError(t, failed[0], "failed to deactivate layer "+h.layer("2"), windows.ERROR_SHARING_VIOLATION)
	if failed, err := CleanupTempMounts(0); err != nil || len(failed) != 0 {
		t.Errorf("%v, %v", failed, err)
	}
	h.wantEmpty()
	h.wantNothing()
}

func TestSeveralMountsAreUnmountedTogetherThroughTheDLL(t *testing.T) {
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
			if info, err := Lookup(h.path(`target\b`)); err != nil || info.Source != h.layer("0") {
				t.Errorf("%+v, %v", info, err)
			}
			h.must(unmount(mounts, h.path("target")))
			h.wantNothing()
			h.must(os.Remove(h.path("target")))
		})
	}
}

func TestAllUndoesWhatItMountedThroughTheDLL(t *testing.T) {
	h := newWinHost(t)
	second := *h.scratch()
	second.Source = h.layer("none")
	second.Target = "sub"
	wantError(t, All([]Mount{*h.scratch(), second}, h.path("target")), "", os.ErrNotExist)
	h.wantNothing()
}

func TestTheLocationOfTemporaryMountsIsMade(t *testing.T) {
	t.Cleanup(func() { tempMountLocation = "" })
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := SetTempMountLocation(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() || getTempLocation() != dir {
		t.Errorf("%v, %v, %s", info, err, getTempLocation())
	}
	wantError(t, SetTempMountLocation("\x00"), "invalid location")
}
