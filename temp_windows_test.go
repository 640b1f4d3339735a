package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// setTempDir sets the location of temporary mounts until the test ends.
func setTempDir(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		tempLocation.Store("")
	})
	if err := SetTempMountLocation(dir); err != nil {
		t.Fatal(err)
	}
}

func TestWithTempMount_ShowsALayerAndTakesItAway(t *testing.T) {
	for name, with := range map[string]func(context.Context, []Mount, func(string) error) error{
		"WithTempMount":         WithTempMount,
		"WithReadonlyTempMount": WithReadonlyTempMount,
	} {
		t.Run(name, func(t *testing.T) {
			h := newWinHost(t)
			setTempDir(t, h.path("tmp"))
			failed := stderrors.New("callback")
			err := with(context.Background(), []Mount{*h.scratch()}, func(root string) error {
				h.wantCalls(winOpen...)
				h.wantFile(filepath.Join(root, "hello.txt"), "data")
				return failed
			})
			wantError(t, err, "mount callback failed on "+h.path("tmp"), failed)
			h.wantCalls(winClose...)
			h.wantDirectory(h.path("tmp"))
			h.wantNothing()
		})
	}
}

func TestWithTempMount_UnmountsWhatItsCallbackHasMountedInTheLayer(t *testing.T) {
	h := newWinHost(t)
	setTempDir(t, h.path("tmp"))
	h.must(WithTempMount(context.Background(), []Mount{*h.scratch()}, func(root string) error {
		h.must(h.mountOf("0").Mount(filepath.Join(root, "inner")))
		h.removeLink(root)
		return nil
	}))
	h.wantNothing()
}

func TestCleanupTempMounts_ClosesWhatStayedOpen(t *testing.T) {
	h := newWinHost(t)
	setTempDir(t, h.path("tmp"))
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
	h.wantDirectory(h.path("tmp"))
	h.wantNothing()
}

func TestSetTempMountLocation_MakesAPrivateDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	setTempDir(t, dir)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() || getTempLocation() != dir {
		t.Errorf("%v, %v, %s", info, err, getTempLocation())
	}
	wantError(t, SetTempMountLocation("\x00"), "invalid location")
	needWindows(t, "Wine keeps no protected access list")
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := sd.String(), "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"; got != want {
		t.Errorf("access to it is %s, want %s", got, want)
	}
}

func TestSetTempMountLocation_RefusesADirectoryOfAnOrdinaryUser(t *testing.T) {
	dir := t.TempDir()
	if err := hcstest.GiveAway(dir); err != nil {
		t.Skip(err)
	}
	before := getTempLocation()
	wantError(t, SetTempMountLocation(dir), "failed to set the location of temporary mounts", os.ErrPermission)
	if now := getTempLocation(); now != before {
		t.Errorf("the location was set to %s", now)
	}
}
