//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcsmodel"
)

func TestUnmountByTargetClosesTheLayerInReverseOrder(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.model.ResetCalls()
	h.mustUnmount(h.target("a"))
	h.wantCalls(closeCalls...)
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestUnmountBySourceRemovesEveryLinkAndClosesTheLayer(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, h.target("b"))
	h.mustUnmount(m.Source)
	h.wantAt(h.target("a"), "nothing")
	h.wantAt(h.target("b"), "nothing")
	h.wantClosed()
}

func TestAfterARebootUnmountCleansUp(t *testing.T) {
	for _, by := range []string{"target", "source"} {
		t.Run("by "+by, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			h.mustMount(m, h.mkdir(h.target("a")))
			h.reboot()
			path := h.target("a")
			if by == "source" {
				path = m.Source
			}
			h.mustUnmount(path)
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestUnmountWorksAfterTheLayerIsRemoved(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.reboot()
	if err := os.RemoveAll(m.Source); err != nil {
		t.Fatal(err)
	}
	h.mustUnmount(m.Source)
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestAfterTheLinkWasRemovedByHand(t *testing.T) {
	removed := func(t *testing.T) (*host, *Mount) {
		h := newHost(t)
		m := h.scratch("2")
		h.mustMount(m, h.target("a"))
		if err := os.RemoveAll(h.target("a")); err != nil {
			t.Fatal(err)
		}
		return h, m
	}
	t.Run("Unmount closes the layer", func(t *testing.T) {
		h, _ := removed(t)
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	})
	t.Run("Mount shows it again", func(t *testing.T) {
		h, m := removed(t)
		h.mustMount(m, h.target("a"))
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	})
	t.Run("a second target opens it afresh", func(t *testing.T) {
		h, m := removed(t)
		h.mustMount(m, h.target("b"))
		h.mustUnmount(h.target("a"))
		h.mustUnmount(h.target("b"))
		h.wantClosed()
	})
}

func TestUnmountLeavesAloneWhatAUserPutInThePlaceOfTheLink(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(h *host, target string)
	}{
		{"a file", func(h *host, target string) { h.write(target, "mine") }},
		{"a directory", func(h *host, target string) { h.write(filepath.Join(target, "data"), "mine") }},
		{"a link", func(h *host, target string) { symlink(h.t, h.path("mnt"), target) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
			if err := os.Remove(h.target("a")); err != nil {
				t.Fatal(err)
			}
			test.make(h, h.target("a"))
			before := describe(h.target("a"))
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), before)
			h.wantClosed()
		})
	}
}

func TestUnmountOfWhatIsNoMountTouchesNothing(t *testing.T) {
	h := newHost(t)
	h.write(h.target("file"), "mine")
	h.write(h.target("dir/data"), "mine")
	symlink(t, h.target("dir"), h.target("link"))
	for _, path := range []string{"", h.target("none"), h.target("none/none"), h.target("file"), h.target("dir"), h.target("link"), "/"} {
		h.mustUnmount(path)
		if err := h.unmountAll(context.Background(), path); err != nil {
			t.Error(err)
		}
	}
	h.wantCalls()
	h.wantAt(h.path("table"), "nothing")
	h.wantAt(h.target("file"), "file: mine")
	h.wantAt(h.target("dir"), `directory of ["data"]`)
}

func TestUnmountPassesAnUnknownLayerToHCS(t *testing.T) {
	for _, name := range []string{"sandbox.vhdx", "layerchain.json", "Files"} {
		t.Run("with "+name, func(t *testing.T) {
			h := newHost(t)
			h.write(h.path("layers", "2", name), "")
			if name == "sandbox.vhdx" { // the others are of read-only layers
				if err := h.model.ActivateLayer(h.path("layers", "2")); err != nil {
					t.Fatal(err)
				}
			}
			if err := h.model.PrepareLayer(h.path("layers", "2"), []string{`C:\layers\1`}); err != nil {
				t.Fatal(err)
			}
			h.model.ResetCalls()
			h.mustUnmount(h.path("layers", "2"))
			h.wantCalls(closeCalls...)
			h.wantClosed()
		})
	}
}

func TestUnmountOfAnUnknownLayerThatIsInUseFails(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if err := h.model.ActivateLayer(m.Source); err != nil {
		t.Fatal(err)
	}
	h.failNext(hcsmodel.Deactivate, errorSharingViolation)
	wantError(t, h.unmount(m.Source), "failed to deactivate layer "+m.Source, errorSharingViolation)
}

func TestUnprepareFailingDoesNotStopDeactivate(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if err := h.model.ActivateLayer(m.Source); err != nil {
		t.Fatal(err)
	}
	h.failNext(hcsmodel.Unprepare, errorGenFailure)
	h.mustUnmount(m.Source)
	h.wantClosed()
}

func TestAnUnmountThatFailsDoesNotTellWhatWasNotOpenAnyway(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if err := h.model.ActivateLayer(m.Source); err != nil { // and not prepared
		t.Fatal(err)
	}
	h.failNext(hcsmodel.Deactivate, errorSharingViolation)
	err := h.unmount(m.Source)
	wantError(t, err, "failed to deactivate", errorSharingViolation)
	if stderrors.Is(err, hcsmodel.NotPrepared) {
		t.Errorf("error %q", err)
	}
}

func TestALayerThatStaysOpenKeepsItsRecord(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
	h.failNext(hcsmodel.Deactivate, errorSharingViolation)
	wantError(t, h.unmount(h.target("a")), "failed to deactivate layer "+h.path("layers", "2"), errorSharingViolation)
	h.wantNoLeak()
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestUnmountRefusesAPathThatIsMalformed(t *testing.T) {
	wantError(t, newHost(t).unmount("a\x00b"), "failed to unmount")
}

func TestAllReportsWhatItCouldNotUnmount(t *testing.T) {
	h := newHost(t)
	h.failNext(hcsmodel.Deactivate, errorSharingViolation)
	bad := Mount{Type: "bind"}
	err := h.all(context.Background(), []Mount{*h.scratch("2"), bad}, h.target("a"))
	wantError(t, err, "invalid windows mount type: 'bind'; undo: failed to deactivate layer", errorSharingViolation)
	h.wantNoLeak()
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestUnmountMountsGoesOnAfterAFailure(t *testing.T) {
	h := newHost(t)
	outer, inner := *h.scratch("2"), *h.base("0")
	inner.Target = "sub"
	mounts := []Mount{outer, inner}
	if err := h.all(context.Background(), mounts, h.target("a")); err != nil {
		t.Fatal(err)
	}
	h.failNext(hcsmodel.Deactivate, errorSharingViolation)
	wantError(t, h.unmountMounts(context.Background(), mounts, h.target("a")), "layer "+inner.Source, errorSharingViolation)
	h.wantAt(h.target("a"), "nothing")
	h.mustUnmount(inner.Source)
	h.wantClosed()
}

func TestADirectoryThatCannotBePutBackKeepsTheRecord(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
	mnt, aside := h.path("mnt"), h.path("aside")
	h.model.Before = func(call hcsmodel.Call, _ string) error {
		if call == hcsmodel.Deactivate {
			if err := os.Rename(mnt, aside); err != nil {
				t.Error(err)
			}
			h.write(mnt, "a file in the place of the parent")
		}
		return nil
	}
	wantError(t, h.unmount(h.target("a")), "failed to put the directory back")
	h.model.Before = nil
	if err := stderrors.Join(os.Remove(mnt), os.Rename(aside, mnt)); err != nil {
		t.Fatal(err)
	}
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestUnmountOfAnUnknownLayerThatWasMountedMeanwhileUnmountsIt(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	r := record{Target: h.target("a"), Resolved: h.target("a"), Source: m.Source}
	r.SourceKey, _ = sourceKey(m.Source)
	if err := h.table.prepare(); err != nil {
		t.Fatal(err)
	}
	r.TargetKey, _ = targetKey(r.Target)
	unlockTarget := mustLock(t, h.table.lockTarget, r.TargetKey)
	unlockSource := mustLock(t, h.table.lockSource, r.SourceKey)
	unmounted := make(chan error, 1)
	go func() { unmounted <- h.unmount(m.Source) }()
	// It finds nothing in the table, and waits for the layer.
	h.awaitWaiting("s"+string(r.SourceKey), unmounted)
	if err := h.show(context.Background(), layer{m.Source, []string{`C:\layers\1`}}, r); err != nil {
		t.Error(err)
	}
	unlockSource()
	unlockTarget()
	if err := <-unmounted; err != nil {
		t.Error(err)
	}
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestUnmountOfATargetThatIsMountedMeanwhileLeavesTheLayersOtherTargets(t *testing.T) {
	h := newHost(t)
	m := h.scratchMount("2") // read-only: a link to it leads to its directory
	h.mkdir(m.Source)
	h.mustMount(m, h.target("b"))
	shown := describe(h.target("b"))
	r := h.record(h.target("b"))
	r.Target, r.Resolved = h.target("a"), h.target("a")
	r.TargetKey, _ = targetKey(r.Target)
	unlock := mustLock(t, h.table.lockTarget, r.TargetKey)
	symlink(t, r.link(), r.Target)
	unmounted := make(chan error, 1)
	go func() { unmounted <- h.unmount(r.Target) }()
	// It finds no record, and waits before it follows the link.
	h.awaitWaiting("t"+string(r.TargetKey), unmounted)
	if err := h.table.add(r); err != nil {
		t.Error(err)
	}
	unlock()
	if err := <-unmounted; err != nil {
		t.Error(err)
	}
	h.wantAt(r.Target, "nothing")
	h.wantAt(h.target("b"), shown)
}

func TestATargetThatCannotBeLookedAtIsAnErrorAndKeepsTheRecord(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	if err := os.Rename(h.path("mnt"), h.path("aside")); err != nil {
		t.Fatal(err)
	}
	h.write(h.path("mnt"), "a file in the place of the parent")
	wantError(t, h.unmount(h.target("a")), "failed to look at the target")
	wantError(t, h.mount(m, h.target("a")), "failed to look at the target")
	wantError(t, h.mount(m, h.target("b")), "failed to mount")
	h.wantNoLeak()
	h.wantOpen("2")
}

func TestUnmountAllGoesOnUntilNothingIsLeft(t *testing.T) {
	h := newHost(t)
	m := h.base("2")
	h.mustMount(m, h.target("a"))
	// The directory of the layer becomes a target, so that it is both.
	if err := stderrors.Join(os.Rename(m.Source, h.path("moved")), os.Mkdir(m.Source, 0o755)); err != nil {
		t.Fatal(err)
	}
	h.mustMount(h.scratch("3"), m.Source)
	if err := h.unmountAll(context.Background(), m.Source); err != nil {
		t.Error(err)
	}
	h.wantClosed()
	h.wantAt(h.target("a"), "nothing")
	h.wantAt(m.Source, "directory of []")
}

func TestUnmountSucceedsWhenTheDirectoryAboveTheTargetHasGone(t *testing.T) {
	h := newHost(t)
	target := h.mkdir(filepath.Join(h.mkdir(h.target("above")), "a"))
	h.mustMount(h.scratch("2"), target)
	if err := os.RemoveAll(h.target("above")); err != nil {
		t.Fatal(err)
	}
	h.mustUnmount(target)
	h.wantClosed()
	h.wantAt(h.target("above"), "nothing")
}

func TestUnmountOfALinkToAnUnknownLayerTouchesNothing(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if err := h.model.ActivateLayer(m.Source); err != nil {
		t.Fatal(err)
	}
	symlink(t, m.Source, h.target("a"))
	h.model.ResetCalls()
	h.mustUnmount(h.target("a"))
	h.wantCalls()
	h.wantAt(h.target("a"), "link to "+m.Source)
}

func TestUnmountMountsCanBeRepeated(t *testing.T) {
	h := newHost(t)
	first := h.scratch("2")
	h.inVolume(first, func(volume string) { h.mkdir(filepath.Join(volume, "sub")) })
	second := h.scratch("3")
	second.Target = "sub/below"
	mounts := []Mount{*first, *second}
	if err := h.all(context.Background(), mounts, h.target("a")); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"first", "again"} {
		if err := h.unmountMounts(context.Background(), mounts, h.target("a")); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		h.wantClosed()
	}
}
