//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// tempHost is a host whose temporary mounts are at mnt.
func tempHost(t *testing.T) *host {
	h := newHost(t)
	h.useTempLocation()
	return h
}

// useTempLocation has temporary mounts at mnt until the test ends.
func (h *host) useTempLocation() {
	tempMountLocation = h.path("mnt")
	h.t.Cleanup(func() { tempMountLocation = "" })
}

var errCallback = stderrors.New("callback")

func TestWithTempMountShowsTheMountsAndTakesThemAway(t *testing.T) {
	h := tempHost(t)
	m := h.base("0")
	var root string
	err := h.withTempMount(context.Background(), []Mount{*m}, func(dir string) error {
		root = dir
		h.wantAt(dir, "link to "+filepath.Join(m.Source, "Files"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(root) != h.path("mnt") {
		t.Errorf("mounted at %s", root)
	}
	h.wantAt(h.path("mnt"), "directory of []")
	h.wantClosed()
}

func TestWithTempMountReturnsTheErrorOfTheCallback(t *testing.T) {
	h := tempHost(t)
	err := h.withTempMount(context.Background(), []Mount{*h.scratch("2")}, func(string) error { return errCallback })
	wantError(t, err, "mount callback failed on "+h.path("mnt"), errCallback)
	h.wantAt(h.path("mnt"), "directory of []")
	h.wantClosed()
}

func TestWithTempMountUnmountsWhenTheCallbackPanics(t *testing.T) {
	h := tempHost(t)
	died, _ := survive(func() error {
		return h.withTempMount(context.Background(), []Mount{*h.scratch("2")}, func(string) error { panic(errKilled) })
	})
	if !died {
		t.Error("the panic was swallowed")
	}
	h.wantAt(h.path("mnt"), "directory of []")
	h.wantClosed()
}

func TestWithTempMountReturnsAllErrorsAndRemovesNothingThatIsStillThere(t *testing.T) {
	h := tempHost(t)
	var root string
	h.failEvery(errorSharingViolation, hcstest.Unprepare, hcstest.Deactivate)
	err := h.withTempMount(context.Background(), []Mount{*h.scratch("2")}, func(dir string) error {
		root = dir
		h.write(filepath.Join(dir, "data"), "mine")
		return errCallback
	})
	wantError(t, err, "mount callback failed", errCallback)
	wantError(t, err, "failed to unmount "+root, errorSharingViolation)
	h.wantNoLeak()
	volume := h.record(root).Volume
	h.model.Before = nil
	if failed, err := h.cleanupTempMounts(); err != nil || len(failed) != 0 {
		t.Error(failed, err)
	}
	h.wantAt(root, "nothing")
	h.wantAt(volume+".detached", `directory of ["data"]`) // as the model has it while the layer is closed
	h.wantClosed()
}

func TestWithTempMountKeepsADirectoryThatIsNotEmpty(t *testing.T) {
	h := tempHost(t)
	var root string
	err := h.withTempMount(context.Background(), []Mount{*h.scratch("2")}, func(dir string) error {
		root = dir
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
		h.write(filepath.Join(dir, "data"), "mine")
		return errCallback
	})
	wantError(t, err, "failed to remove the temporary directory", errCallback, syscall.ENOTEMPTY)
	h.wantAt(root, `directory of ["data"]`)
	h.wantClosed()
}

func TestWithTempMountLeavesNothingWhenMountingFails(t *testing.T) {
	h := tempHost(t)
	h.failNext(hcstest.Prepare, errorSharingViolation)
	err := h.withTempMount(context.Background(), []Mount{*h.scratch("2")}, func(string) error {
		t.Error("called")
		return nil
	})
	wantError(t, err, "failed to mount at "+h.path("mnt"), errorSharingViolation)
	h.wantAt(h.path("mnt"), "directory of []")
	h.wantClosed()
}

func TestWithTempMountHonoursTheContextUntilItIsMounted(t *testing.T) {
	h := tempHost(t)
	ctx, cancel := context.WithCancel(context.Background())
	err := h.withTempMount(ctx, []Mount{*h.scratch("2")}, func(string) error {
		cancel()
		return nil
	})
	if err != nil {
		t.Errorf("cancelled while mounted: %v", err)
	}
	h.model.ResetCalls()
	err = h.withTempMount(ctx, []Mount{*h.scratch("2")}, func(string) error {
		t.Error("called")
		return nil
	})
	wantError(t, err, "", context.Canceled)
	h.wantCalls()
	h.wantAt(h.path("mnt"), "directory of []")
	h.wantClosed()
}

func TestWithTempMountNeedsItsLocation(t *testing.T) {
	h := tempHost(t)
	tempMountLocation = h.path("none")
	err := h.withTempMount(context.Background(), nil, func(string) error { return nil })
	wantError(t, err, "failed to make a temporary directory", os.ErrNotExist)
}

func TestTemporaryMountsAreInTheSystemsTemporaryDirectoryByDefault(t *testing.T) {
	if got := getTempLocation(); got != os.TempDir() {
		t.Error(got)
	}
}

func TestCleanupTempMountsCleansUpWhatAKilledProcessLeft(t *testing.T) {
	h := tempHost(t)
	elsewhere := h.mkdir(h.path("elsewhere"))
	h.mustMount(h.scratch("3"), filepath.Join(elsewhere, "a"))
	h.write(h.target("data"), "mine")
	for _, name := range []string{"0", "1", "2"} {
		h.scratch(name)
		died, _ := survive(func() error {
			return h.withTempMount(context.Background(), []Mount{*h.scratchMount(name)}, func(string) error {
				h.model.Before = func(hcstest.Call, string) error { panic(errKilled) } // no unmounting
				panic(errKilled)
			})
		})
		h.model.Before = nil
		if !died {
			t.Fatal("not killed")
		}
	}
	h.reboot()
	failed, err := h.cleanupTempMounts()
	if err != nil || len(failed) != 0 {
		t.Fatal(failed, err)
	}
	h.wantAt(h.path("mnt"), `directory of ["data"]`)
	if left := h.records(); len(left) != 1 || left[0].Targets[0].Path != filepath.Join(elsewhere, "a") {
		t.Errorf("left: %+v", left)
	}
}

func TestCleanupTempMountsKeepsADirectoryThatAUserMade(t *testing.T) {
	h := tempHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	if err := os.Remove(h.target("a")); err != nil {
		t.Fatal(err)
	}
	h.mkdir(h.target("a"))
	if failed, err := h.cleanupTempMounts(); err != nil || len(failed) != 0 {
		t.Fatal(failed, err)
	}
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestCleanupTempMountsReturnsAnErrorForEachThatIsLeft(t *testing.T) {
	h := tempHost(t)
	for _, name := range []string{"0", "1", "2"} {
		h.mustMount(h.scratch(name), h.mkdir(h.target(name)))
	}
	h.model.Before = func(call hcstest.Call, layer string) error {
		if call == hcstest.Deactivate && filepath.Base(layer) != "1" {
			return errorSharingViolation
		}
		return nil
	}
	failed, err := h.cleanupTempMounts()
	if err != nil || len(failed) != 2 {
		t.Fatalf("%q, %v", failed, err)
	}
	for _, err := range failed {
		wantError(t, err, "failed to deactivate layer", errorSharingViolation)
	}
	h.wantNoLeak()
	h.wantOpen("0", "2")
	h.model.Before = nil
	if failed, err := h.cleanupTempMounts(); err != nil || len(failed) != 0 {
		t.Fatal(failed, err)
	}
	h.wantAt(h.path("mnt"), "directory of []")
	h.wantClosed()
}

func TestCleanupTempMountsReportsWhatItCannotRead(t *testing.T) {
	h := tempHost(t)
	for _, name := range []string{"0", "1"} {
		h.mustMount(h.scratch(name), h.mkdir(h.target(name)))
	}
	path := h.layerFile(h.target("0"))
	h.write(path, "torn")
	foreign := filepath.Join(filepath.Dir(path), "note.txt")
	h.write(foreign, "mine")
	failed, err := h.cleanupTempMounts()
	if err != nil || len(failed) != 2 {
		t.Fatalf("%q, %v", failed, err)
	}
	for _, path := range []string{path, foreign} {
		wantError(t, stderrors.Join(failed...), "damaged file "+path, errDamaged)
	}
	h.wantAt(h.target("1"), "nothing")
}

func TestCleanupTempMountsCleansUpEveryTargetOfALayer(t *testing.T) {
	for _, when := range []string{"while it is open", "after a reboot"} {
		t.Run(when, func(t *testing.T) {
			h := tempHost(t)
			m := h.scratch("2")
			h.mustMount(m, h.mkdir(h.target("a")))
			h.mustMount(m, h.mkdir(h.target("b")))
			if when != "while it is open" {
				h.reboot()
			}
			if failed, err := h.cleanupTempMounts(); err != nil || len(failed) != 0 {
				t.Fatal(failed, err)
			}
			h.wantAt(h.path("mnt"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestCleanupTempMountsIsNilWithoutATable(t *testing.T) {
	h := tempHost(t)
	if failed, err := h.cleanupTempMounts(); err != nil || failed != nil {
		t.Error(failed, err)
	}
	h.wantAt(h.path("table"), "nothing")
}

func TestUnmountRecursiveUnmountsWhatIsBelowTheDeepestFirst(t *testing.T) {
	h := newHost(t)
	outer, inner := *h.scratch("2"), *h.base("0")
	inner.Target = "sub"
	if err := h.all(context.Background(), []Mount{outer, inner}, h.mkdir(h.target("a"))); err != nil {
		t.Fatal(err)
	}
	h.mustMount(h.scratch("3"), h.target("ab"))
	h.model.ResetCalls()
	innerThenOuter := []string{"UnprepareLayer 0", "DeactivateLayer 0", "UnprepareLayer 2", "DeactivateLayer 2"}
	if err := h.unmountRecursive(h.target("a")); err != nil {
		t.Fatal(err)
	}
	h.wantCalls(innerThenOuter...)
	h.wantAt(h.target("a"), "directory of []")

	above := h.mkdir(h.target(strings.Repeat("above", 40))) // longer than the path of a volume
	if err := h.all(context.Background(), []Mount{outer, inner}, filepath.Join(above, "a")); err != nil {
		t.Fatal(err)
	}
	h.model.ResetCalls()
	if err := h.unmountRecursive(above); err != nil {
		t.Fatal(err)
	}
	h.wantCalls(innerThenOuter...)

	symlink(t, h.path("mnt"), h.path("other"))
	if err := h.unmountRecursive(h.path("other")); err != nil {
		t.Fatal(err)
	}
	h.wantClosed()
}

func TestUnmountRecursiveOfWhatIsNoMountIsNil(t *testing.T) {
	h := newHost(t)
	for _, path := range []string{"", h.target("none"), h.path("mnt")} {
		if err := h.unmountRecursive(path); err != nil {
			t.Error(err)
		}
	}
	wantError(t, h.unmountRecursive("\x00"), "NUL")
}

func TestUnmountRecursiveGoesOnAfterAFailure(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mustMount(h.scratch("3"), h.target("bb")) // the longer path is the deeper one
	h.model.Before = func(call hcstest.Call, layer string) error {
		if call == hcstest.Deactivate && layer == h.path("layers", "3") {
			return errorSharingViolation
		}
		return nil
	}
	wantError(t, h.unmountRecursive(h.path("mnt")), "failed to deactivate", errorSharingViolation)
	h.wantOpen("3")
}

func TestUnmountRecursiveDoesNotWaitForOtherLayers(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
	h.mustMount(h.scratch("3"), h.target("b"))
	other := h.record(h.target("b"))
	defer mustLock(t, h.table.lockTarget, other.Targets[0].Key)()
	defer mustLock(t, h.table.lockLayer, other.Key)()
	done := make(chan error, 1)
	go func() { done <- h.unmountRecursive(h.target("a")) }()
	h.awaitWaiting(done, "l"+string(other.Key))
	if len(done) == 0 {
		t.Fatal("it waits for another layer")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.wantAt(h.target("a"), "directory of []")
}

func TestUnmountRecursiveIsNotDisturbedByADamagedRecordElsewhere(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mustMount(h.scratch("3"), h.target("b"))
	damaged := h.layerFile(h.target("b"))
	h.write(damaged, "torn")
	h.write(filepath.Join(filepath.Dir(damaged), "note.txt"), "mine")
	for _, path := range []string{h.target("a"), h.target("none")} {
		if err := h.unmountRecursive(path); err != nil {
			t.Error(err)
		}
	}
	h.wantAt(h.target("a"), "nothing")
	wantError(t, h.unmountRecursive(h.target("b")), "damaged file "+damaged, errDamaged)
}

func TestUnmountRecursiveReportsARecordThatItCannotRead(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mustMount(h.scratch("3"), h.target("b"))
	path := h.layerFile(h.target("b"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	symlink(t, path, path)
	wantError(t, h.unmountRecursive(h.target("a")), path, syscall.ELOOP)
	h.wantAt(h.target("a"), "nothing")
}

func TestNothingIsUnmountedWhenTheTableCannotBeRead(t *testing.T) {
	h := tempHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	layers := filepath.Dir(h.layerFile(h.target("a")))
	if err := os.Rename(layers, h.path("aside")); err != nil {
		t.Fatal(err)
	}
	h.write(layers, "a file")
	_, cleanupErr := h.cleanupTempMounts()
	_, listErr := h.list()
	for _, err := range []error{cleanupErr, listErr, h.unmountRecursive(h.path("mnt"))} {
		wantError(t, err, "mount table", syscall.ENOTDIR)
	}
	h.wantOpen("2")
}

func TestARecordThatIsBeingWrittenIsNoDamagedOne(t *testing.T) {
	h := tempHost(t)
	if err := h.table.hold(); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"", "1.0 8a3c"} {
		path := h.table.layerPath(keyOf(data)) + unfinishedSuffix
		h.write(path, data)
		if failed, err := h.cleanupTempMounts(); err != nil || len(failed) != 0 {
			t.Error(failed, err)
		}
		h.wantAt(path, "file: "+data)
	}
}

func TestOptionsAreChangedInACopy(t *testing.T) {
	mounts := []Mount{
		{Type: "windows-layer", Options: []string{"rw", "x", "ro", "volatile"}},
		{Type: "overlay", Options: []string{"volatile", "lowerdir=a", "fsync=volatile", "upperdir=b", "workdir=c"}},
	}
	before := []Mount{
		{Type: "windows-layer", Options: []string{"rw", "x", "ro", "volatile"}},
		{Type: "overlay", Options: []string{"volatile", "lowerdir=a", "fsync=volatile", "upperdir=b", "workdir=c"}},
	}
	for _, test := range []struct {
		name string
		got  []Mount
		want string
	}{
		{"readonlyMounts", readonlyMounts(mounts), "x,volatile,ro;volatile,lowerdir=b:a,fsync=volatile"},
		{"RemoveVolatileOption", RemoveVolatileOption(mounts), "rw,x,ro,volatile;lowerdir=a,upperdir=b,workdir=c"},
	} {
		var got []string
		for _, m := range test.got {
			got = append(got, strings.Join(m.Options, ","))
		}
		if strings.Join(got, ";") != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if !reflect.DeepEqual(mounts, before) {
			t.Errorf("%s has changed its argument to %q", test.name, mounts)
		}
	}
}

func TestWithTempMountUnmountsWhatItMountedWhenTheContextEndsTheRest(t *testing.T) {
	h := tempHost(t)
	ctx, cancel := context.WithCancel(context.Background())
	first, second := *h.scratch("2"), *h.scratch("3")
	first.Target, second.Target = "a", "b"
	h.model.Before = func(call hcstest.Call, layer string) error {
		if layer == second.Source && call == hcstest.Activate {
			cancel()
			return errorNotReady
		}
		return nil
	}
	err := h.withTempMount(ctx, []Mount{first, second}, func(string) error { return nil })
	wantError(t, err, "failed to activate layer", context.Canceled)
	h.wantAt(h.path("mnt"), "directory of []")
	h.wantClosed()
}

func TestTheLocationOfTemporaryMountsIsMadeWhereItIsAbsent(t *testing.T) {
	h := tempHost(t)
	if err := setTempLocation(h.path("a", "b")); err != nil {
		t.Fatal(err)
	}
	h.wantAt(h.path("a", "b"), "directory of []")
	if got := getTempLocation(); got != h.path("a", "b") {
		t.Error(got)
	}
	h.write(h.path("file"), "mine")
	wantError(t, setTempLocation(h.path("file", "c")), "failed to set the location")
	wantError(t, setTempLocation("\x00"), "invalid location")
}

func TestATemporaryDirectoryThatStaysIsInTheError(t *testing.T) {
	h := tempHost(t)
	h.write(h.path("table"), "no table")
	for _, mounts := range [][]Mount{nil, {*h.scratch("2")}} {
		err := h.withTempMount(context.Background(), mounts, func(string) error { return nil })
		wantError(t, err, "the temporary directory "+h.path("mnt", "containerd-mount"))
	}
}

func TestATemporaryDirectoryIsRemovedWhereThereIsNoTable(t *testing.T) {
	h := tempHost(t)
	if err := h.withTempMount(context.Background(), nil, func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	wantError(t, h.withTempMount(context.Background(), []Mount{{Type: "other"}}, func(string) error { return nil }), "invalid windows mount type")
	h.wantAt(h.path("mnt"), "directory of []")
}
