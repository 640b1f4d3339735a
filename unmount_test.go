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

func TestAfterARebootUnmountCleansUpWithoutACallOfHCS(t *testing.T) {
	for name, layer := range map[string]func(*host) *Mount{"scratch": scratch2, "base layer": base2} {
		for _, by := range []string{"target", "other target", "source"} {
			t.Run(name+" by "+by, func(t *testing.T) {
				h := newHost(t)
				m := layer(h)
				h.mustMount(m, h.mkdir(h.target("a")))
				h.mustMount(m, h.target("b"))
				h.reboot()
				h.model.ResetCalls()
				h.failEvery(errorNotReady, hcstest.Unprepare, hcstest.Deactivate) // for good, as in moby 40723
				h.mustUnmount(map[string]string{"target": h.target("a"), "other target": h.target("b"), "source": m.Source}[by])
				h.wantCalls()
				h.wantAt(h.target("a"), "directory of []")
				h.wantAt(h.target("b"), "nothing")
				h.wantClosed()
				h.mustUnmount(h.target("a"))
				h.wantCalls()
			})
		}
	}
}

func TestAfterARebootALayerThatOtherCodeHasOpenedStaysOpen(t *testing.T) {
	for name, layer := range map[string]func(*host) *Mount{"scratch": scratch2, "base layer": base2} {
		for by, do := range map[string]func(h *host, m *Mount) error{
			"unmount by target": func(h *host, _ *Mount) error { return h.unmountAll(h.target("a")) },
			"unmount by source": func(h *host, m *Mount) error { return h.unmount(m.Source) },
			"unmount from above": func(h *host, _ *Mount) error {
				return h.unmountRecursive(h.path("mnt"))
			},
			"mount of another layer": func(h *host, _ *Mount) error {
				if err := h.mount(h.scratch("3"), h.target("a")); err != nil {
					return err
				}
				return h.unmount(h.target("a"))
			},
		} {
			t.Run(name+", "+by, func(t *testing.T) {
				h := newHost(t)
				m := layer(h)
				h.mustMount(m, h.mkdir(h.target("a")))
				h.reboot()
				openedElsewhere(h, m)
				before := h.model.Calls()
				if err := do(h, m); err != nil {
					t.Error(err)
				}
				for _, call := range h.model.Calls()[len(before):] {
					if strings.Contains(call, m.Source) {
						t.Errorf("HCS was called: %s", call)
					}
				}
				h.wantAt(h.target("a"), "directory of []")
				h.wantOpen("2")
				if left := h.tableFiles(); len(left) != 0 {
					t.Errorf("left in the table: %q", left)
				}
			})
		}
	}
}

func TestWhereHCSRefusesToCloseWhatIsClosedAKilledMountIsCleanedUp(t *testing.T) {
	for _, code := range []string{"0x57", "0x15", "0x5"} {
		for name, layer := range map[string]func(*host) *Mount{"scratch": scratch2, "base layer": base2, "committed": committed2} {
			for _, when := range []string{"before", "after"} {
				for at, more := 0, true; more; at++ {
					more = false // as -failfast runs nothing any more
					t.Run(fmt.Sprintf("%s %s killed %s call %d", code, name, when, at), func(t *testing.T) {
						h := newHost(t)
						personality, found := hcstest.Named("closed-" + code)
						if !found {
							t.Fatal("no such personality")
						}
						h.model.Personality = personality
						m := layer(h)
						h.mkdir(h.target("a"))
						more = h.kill(at, when == "after", func() error { return h.mount(m, h.target("a")) })
						h.mustUnmount(h.target("a"))
						h.wantAt(h.target("a"), "directory of []")
						h.wantClosed()
					})
				}
			}
		}
	}
}

func TestAReadOnlyLayerIsClosedOnlyWhenUnprepareSaysSo(t *testing.T) {
	for name, layer := range map[string]func(*host) *Mount{"base layer": base2, "committed": committed2} {
		for _, code := range []syscall.Errno{errorNotReady, errorSharingViolation, 0xaa, 5} {
			t.Run(fmt.Sprintf("%s 0x%x", name, uintptr(code)), func(t *testing.T) {
				h := newHost(t)
				h.mustMount(layer(h), h.mkdir(h.target("a")))
				h.failNext(hcstest.Unprepare, code)
				h.mustUnmount(h.target("a"))
				h.wantClosed()

				h.mustMount(layer(h), h.target("a"))
				h.failEvery(code, hcstest.Unprepare)
				for range 2 {
					wantError(t, h.unmount(h.target("a")), "failed to unprepare layer", code)
					h.wantOpen("2")
					h.wantNoLeak()
				}
				h.model.Before = nil
				h.mustUnmount(h.target("a"))
				h.wantAt(h.target("a"), "directory of []")
				h.wantClosed()
			})
		}
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

func TestALinkThatAUserMadeIsNotTakenForThatOfAMountWithoutAVolume(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if !h.kill(1, false, func() error { return h.mount(m, h.target("a")) }) {
		t.Fatal("not killed")
	}
	text := (&record{Parents: m.Options}).destination()
	symlink(t, text, h.target("a"))
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "link to "+text)
	h.wantClosed()
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
		if err := h.unmountAll(path); err != nil {
			t.Error(err)
		}
	}
	h.wantCalls()
	h.wantAt(h.path("table"), "nothing")
	h.wantAt(h.target("file"), "file: mine")
	h.wantAt(h.target("dir"), `directory of ["data"]`)
}

func TestUnmountPassesAnUnknownLayerToHCS(t *testing.T) {
	for _, names := range [][]string{{"sandbox.vhdx"}, {"layerchain.json"}, {"Files", "Hives"}, {"sandbox.vhdx", "Files"}} {
		t.Run(fmt.Sprint("with ", names), func(t *testing.T) {
			h := newHost(t)
			m := h.baseMount("2")
			for _, name := range names {
				path := filepath.Join(m.Source, name)
				if name == "Files" || name == "Hives" {
					path = filepath.Join(path, "x")
				}
				h.write(path, "")
			}
			openedElsewhere(h, m)
			h.model.ResetCalls()
			h.mustUnmount(m.Source)
			h.wantCalls(calls(openCalls[:1], closeCalls)...)
			h.wantClosed()
		})
	}
}

func TestUnmountOfADirectoryThatIsNoLayerAsksNothingOfHCS(t *testing.T) {
	for _, names := range [][]string{{}, {"Files"}, {"Hives"}, {"data"}} {
		for _, when := range []string{"without a table", "with a table"} {
			t.Run(fmt.Sprint(when, " ", names), func(t *testing.T) {
				h := newHost(t)
				if when == "with a table" {
					h.fill(1)
				}
				dir := h.mkdir(h.target("data"))
				for _, name := range names {
					h.write(filepath.Join(dir, name, "x"), "mine")
				}
				before := tree(t, dir)
				if err := h.unmountAll(dir); err != nil {
					t.Error(err)
				}
				h.wantCalls()
				if after := tree(t, dir); after != before {
					t.Errorf("the directory holds\n%s", after)
				}
			})
		}
	}
}

func TestUnmountOfAnUnknownLayerThatIsInUseFails(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if err := h.model.ActivateLayer(m.Source); err != nil {
		t.Fatal(err)
	}
	h.failEvery(errorSharingViolation, hcstest.Deactivate)
	err := h.unmount(m.Source)
	wantError(t, err, "failed to deactivate layer "+m.Source, errorSharingViolation)
	wantError(t, err, "is still open as "+strings.TrimSuffix(h.link(m), "/"))
}

func TestUnmountOfAnUnknownLayerThatIsClosedIsNilWhateverHCSSays(t *testing.T) {
	for _, code := range []syscall.Errno{errorNotReady, errorInvalidParameter, 5, errorGenFailure} {
		h := newHost(t)
		h.failEvery(code, hcstest.Unprepare, hcstest.Deactivate)
		if err := h.unmountAll(h.scratch("2").Source); err != nil {
			t.Error(err)
		}
	}
}

func TestUnprepareFailingDoesNotStopDeactivate(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if err := h.model.ActivateLayer(m.Source); err != nil {
		t.Fatal(err)
	}
	h.failNext(hcstest.Unprepare, errorGenFailure)
	h.mustUnmount(m.Source)
	h.wantClosed()
}

func TestALayerThatStaysOpenKeepsItsRecord(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
	h.failEvery(errorSharingViolation, hcstest.Deactivate)
	for range 2 {
		err := h.unmount(h.target("a"))
		wantError(t, err, "failed to deactivate layer "+h.path("layers", "2"), errorSharingViolation)
		wantError(t, err, "is still open as "+h.record(h.target("a")).Volume)
		h.wantNoLeak()
		h.wantAt(h.target("a"), "directory of []")
	}
	h.model.Before = nil
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestALayerWhoseVolumeHasGoneIsClosedWhateverHCSSays(t *testing.T) {
	for _, code := range []syscall.Errno{errorNotReady, errorSharingViolation, 5, errorGenFailure} {
		h := newHost(t)
		h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
		if err := os.Rename(h.record(h.target("a")).Volume, h.path("volumes", "gone")); err != nil {
			t.Fatal(err)
		}
		h.failEvery(code, hcstest.Unprepare, hcstest.Deactivate)
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "directory of []")
		h.wantClosed()
	}
}

func TestTheLinkIsGoneBeforeTheLayerIsClosed(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.model.Before = func(call hcstest.Call, _ string) error {
		if call == hcstest.Unprepare || call == hcstest.Deactivate {
			h.wantAt(h.target("a"), "nothing")
		}
		return nil
	}
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestALayerIsClosedOnceItsVolumeHasGoneThoughHCSRefuses(t *testing.T) {
	for _, code := range []syscall.Errno{errorNotReady, errorSharingViolation, 5, errorGenFailure} {
		h := newHost(t)
		h.mustMount(h.scratch("2"), h.target("a"))
		volume, refusals := h.record(h.target("a")).Volume, 0
		h.model.Before = func(call hcstest.Call, _ string) error {
			if call != hcstest.Deactivate {
				return nil
			}
			if refusals++; refusals == 1 {
				return stderrors.Join(os.Rename(volume, h.path("volumes", "gone")), code)
			}
			return code
		}
		h.mustUnmount(h.target("a"))
		if refusals != 1 {
			t.Errorf("%v: %d calls of DeactivateLayer, want 1", code, refusals)
		}
		h.wantClosed()
	}
}

func TestALayerThatOtherCodeHasClosedIsOpenedAgain(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	if err := stderrors.Join(h.model.UnprepareLayer(m.Source), h.model.DeactivateLayer(m.Source)); err != nil {
		t.Fatal(err)
	}
	h.mustMount(m, h.target("b"))
	h.wantOpen("2")
	h.mustUnmount(h.target("b"))
	h.wantClosed()
}

func TestUnmountLeavesALayerOpenThatOtherCodeOpenedOnceMore(t *testing.T) {
	h := newHost(t)
	h.model.Personality.NewVolume = true
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.model.Personality.VolumeLate = 9 // so that HCS does not tell
	for _, err := range []error{h.model.UnprepareLayer(m.Source), h.model.DeactivateLayer(m.Source), h.model.ActivateLayer(m.Source)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	h.mustUnmount(h.target("a"))
	h.wantOpen("2")
}

func TestUnmountThatCouldNotCloseALayerLeavesItOpenOnceOtherCodeHasOpenedItAgain(t *testing.T) {
	for name, again := range map[string]func(h *host, m *Mount) error{
		"by target": unmountA,
		"by source": unmountSource,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.model.Personality.NewVolume = true
			m := h.scratch("2")
			h.mustMount(m, h.target("a"))
			h.failEvery(errorSharingViolation, hcstest.Deactivate)
			wantError(t, h.unmount(h.target("a")), "is still open", errorSharingViolation)
			h.model.Before = nil
			for _, err := range []error{h.model.DeactivateLayer(m.Source), h.model.ActivateLayer(m.Source)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := again(h, m); err != nil {
				t.Fatal(err)
			}
			h.wantOpen("2")
			if left := h.tableFiles(); len(left) != 0 {
				t.Errorf("left in the table: %q", left)
			}
		})
	}
}

func TestUnmountRefusesAPathThatIsMalformed(t *testing.T) {
	wantError(t, newHost(t).unmount("a\x00b"), "failed to unmount")
}

func TestAllReportsWhatItCouldNotUnmount(t *testing.T) {
	h := newHost(t)
	h.failEvery(errorSharingViolation, hcstest.Unprepare, hcstest.Deactivate)
	bad := Mount{Type: "bind"}
	err := h.all(context.Background(), []Mount{*h.scratch("2"), bad}, h.target("a"))
	wantError(t, err, "invalid windows mount type: 'bind'; undo: failed to unprepare layer", errorSharingViolation)
	wantError(t, err, "failed to deactivate layer")
	h.wantNoLeak()
	h.model.Before = nil
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
	h.model.Before = func(call hcstest.Call, layer string) error {
		if call == hcstest.Unprepare && layer == inner.Source {
			return errorSharingViolation
		}
		return nil
	}
	wantError(t, h.unmountMounts(mounts, h.target("a")), "layer "+inner.Source, errorSharingViolation)
	h.wantAt(h.target("a"), "nothing")
	h.model.Before = nil
	h.mustUnmount(inner.Source)
	h.wantClosed()
}

func TestUnmountOfAnUnknownLayerThatWasMountedMeanwhileUnmountsIt(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if err := h.table.hold(); err != nil {
		t.Fatal(err)
	}
	r, err := newRecord(m)
	if err != nil {
		t.Fatal(err)
	}
	r.Boot = h.boot
	at := target{Path: h.target("a"), Resolved: h.target("a"), Key: h.key(h.target("a"))}
	unlock := mustLock(t, h.table.lockLayer, r.Key)
	unmounted := make(chan error, 1)
	go func() { unmounted <- h.unmount(m.Source) }()
	// It finds nothing in the table, and waits for the layer.
	h.awaitWaiting(unmounted, "l"+string(r.Key))
	if err := h.openAndShow(context.Background(), r, at); err != nil {
		t.Error(err)
	}
	unlock()
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
	at := target{Path: h.target("a"), Resolved: h.target("a"), Key: h.key(h.target("a")), Shown: true}
	unlock := mustLock(t, h.table.lockTarget, at.Key)
	symlink(t, r.destination(), at.Path)
	unmounted := make(chan error, 1)
	go func() { unmounted <- h.unmount(at.Path) }()
	// It finds no record, and waits before it follows the link.
	h.awaitWaiting(unmounted, "t"+string(at.Key))
	if err := h.table.addIndex(at.Key, r.Key); err != nil {
		t.Error(err)
	}
	h.change(h.target("b"), func(r *record) { r.Targets = append(r.Targets, at) })
	unlock()
	if err := <-unmounted; err != nil {
		t.Error(err)
	}
	h.wantAt(at.Path, "nothing")
	h.wantAt(h.target("b"), shown)
	h.wantOpen("2")
}

func TestUnmountOfALinkThatLeadsElsewhereMeanwhileLeavesTheLayerOpen(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("b"))
	symlink(t, m.Source, h.target("a"))
	lock := h.key(h.target("a"))
	unlock := mustLock(t, h.table.lockTarget, lock)
	unmounted := make(chan error, 1)
	go func() { unmounted <- h.unmount(h.target("a")) }()
	h.awaitWaiting(unmounted, "t"+string(lock))
	if err := os.Remove(h.target("a")); err != nil {
		t.Error(err)
	}
	symlink(t, h.path("layers"), h.target("a"))
	unlock()
	if err := <-unmounted; err != nil {
		t.Error(err)
	}
	h.wantOpen("2")
}

func TestALayerIsClosedAndItsRecordKeptWhenItsTargetCannotBeLookedAt(t *testing.T) {
	for name, layer := range map[string]func(*host) *Mount{"scratch": scratch2, "base layer": base2} {
		for _, by := range []string{"target", "source"} {
			t.Run(name+" by "+by, func(t *testing.T) {
				h := newHost(t)
				m := layer(h)
				h.mustMount(m, h.mkdir(h.target("a")))
				path := h.target("a")
				if by == "source" {
					path = m.Source
				}
				if err := os.Rename(h.path("mnt"), h.path("aside")); err != nil {
					t.Fatal(err)
				}
				h.write(h.path("mnt"), "a file in the place of the parent")
				wantError(t, h.unmount(path), "failed to look at the target", syscall.ENOTDIR)
				h.wantOpen()
				h.model.ResetCalls()
				wantError(t, h.unmount(path), "failed to look at the target", syscall.ENOTDIR)
				wantError(t, h.mount(m, h.target("a")), "failed to look at the target", syscall.ENOTDIR)
				if err := stderrors.Join(os.Remove(h.path("mnt")), os.Rename(h.path("aside"), h.path("mnt"))); err != nil {
					t.Fatal(err)
				}
				h.mustUnmount(path)
				h.wantCalls()
				h.wantAt(h.target("a"), "directory of []")
				h.wantClosed()
			})
		}
	}
}

func TestAMountOverATargetThatCouldNotBeLookedAtOpensItsLayerAfresh(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.mkdir(h.target("a")))
	if err := os.Rename(h.path("mnt"), h.path("aside")); err != nil {
		t.Fatal(err)
	}
	h.write(h.path("mnt"), "a file in the place of the parent")
	wantError(t, h.unmount(h.target("a")), "failed to look at the target")
	if err := stderrors.Join(os.Remove(h.path("mnt")), os.Rename(h.path("aside"), h.path("mnt"))); err != nil {
		t.Fatal(err)
	}
	h.model.ResetCalls()
	h.mustMount(m, h.target("a"))
	h.wantCalls(openCalls...)
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestATargetThatCannotBeLookedAtKeepsALayerOpenThatAnotherShows(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	other := filepath.Join(h.mkdir(h.path("elsewhere")), "b")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, other)
	shown := describe(other)
	if err := os.Rename(h.path("mnt"), h.path("aside")); err != nil {
		t.Fatal(err)
	}
	h.write(h.path("mnt"), "a file in the place of the parent")
	wantError(t, h.unmount(h.target("a")), "failed to look at the target")
	h.wantOpen("2")
	h.wantAt(other, shown)
	if err := stderrors.Join(os.Remove(h.path("mnt")), os.Rename(h.path("aside"), h.path("mnt"))); err != nil {
		t.Fatal(err)
	}
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "nothing")
	h.mustUnmount(other)
	h.wantClosed()
}

func TestADirectoryIsPutBackOnlyWhereUnmountTookTheLinkAway(t *testing.T) {
	t.Run("not where a user removed the link", func(t *testing.T) {
		h := newHost(t)
		h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
		if err := os.RemoveAll(h.target("a")); err != nil {
			t.Fatal(err)
		}
		h.failEvery(errorSharingViolation, hcstest.Deactivate)
		wantError(t, h.unmount(h.target("a")), "failed to deactivate")
		h.wantAt(h.target("a"), "nothing")
		h.model.Before = nil
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	})
	t.Run("not again where a user removed it", func(t *testing.T) {
		h := newHost(t)
		h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
		h.failEvery(errorSharingViolation, hcstest.Deactivate)
		wantError(t, h.unmount(h.target("a")), "failed to deactivate")
		if err := os.Remove(h.target("a")); err != nil {
			t.Fatal(err)
		}
		h.model.Before = nil
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	})
	for name, leave := range map[string]func(at *target){
		"where a killed Unmount or Mount removed it":  func(at *target) { at.Shown = false },
		"not where the record says that it was there": func(at *target) { at.Shown, at.Restored = false, true },
	} {
		for _, when := range []string{"", ", after a reboot"} {
			t.Run(name+when, func(t *testing.T) {
				h := newHost(t)
				h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
				h.change(h.target("a"), func(r *record) { leave(&r.Targets[0]) })
				if err := os.Remove(h.target("a")); err != nil {
					t.Fatal(err)
				}
				if when != "" {
					h.reboot()
				}
				h.mustUnmount(h.target("a"))
				want := "directory of []"
				if strings.HasPrefix(name, "not") {
					want = "nothing"
				}
				h.wantAt(h.target("a"), want)
				h.wantClosed()
			})
		}
	}
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
	if err := h.unmountAll(m.Source); err != nil {
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
		if err := h.unmountMounts(mounts, h.target("a")); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		h.wantClosed()
	}
}

func TestAKilledMountOfALayerThatHasGoneIsCleanedUp(t *testing.T) {
	for name, layer := range map[string]func(*host) *Mount{"scratch": scratch2, "base layer": base2} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			if !h.kill(1, false, func() error { return h.mount(m, h.mkdir(h.target("a"))) }) {
				t.Fatal("not killed")
			}
			if err := os.RemoveAll(m.Source); err != nil {
				t.Fatal(err)
			}
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestALayerThatIsHalfOpenAndCannotBeClosedIsNotMounted(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if !h.kill(1, true, func() error { return h.mount(m, h.target("a")) }) {
		t.Fatal("not killed")
	}
	h.failEvery(errorSharingViolation, hcstest.Deactivate)
	for _, target := range []string{"a", "b"} {
		wantError(t, h.mount(m, h.target(target)), "failed to deactivate layer "+m.Source, errorSharingViolation)
		h.wantAt(h.target(target), "nothing")
	}
	h.wantNoLeak()
	h.wantOpen("2")
	h.model.Before = nil
	h.mustMount(m, h.target("b"))
	h.mustUnmount(h.target("b"))
	h.wantClosed()
}

func TestUnmountOfALinkThatLeadsToItselfIsAnError(t *testing.T) {
	h := newHost(t)
	symlink(t, h.target("a"), h.target("a"))
	wantError(t, h.unmount(h.target("a")), "failed to resolve "+h.target("a"))
	h.wantCalls()
}

func TestALayerIsClosedWithTheLastTargetThatShowsIt(t *testing.T) {
	for _, by := range []string{"unmount", "mount"} {
		t.Run("which "+by+" takes away", func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			h.mustMount(m, h.target("a"))
			h.mustMount(m, h.mkdir(h.target("b")))
			h.change(h.target("b"), func(r *record) { r.targetAt(h.key(h.target("b"))).Shown = false }) // as a Mount leaves it that is killed
			if by == "mount" {
				h.mustUnmount(h.target("b"))
				h.wantOpen("2")
				h.mustMount(m, h.mkdir(h.target("c")))
				h.change(h.target("c"), func(r *record) { r.targetAt(h.key(h.target("c"))).Shown = false })
				h.mustMount(h.scratch("3"), h.target("c"))
				h.wantOpen("2", "3")
				h.mustUnmount(h.target("c"))
				h.wantAt(h.target("c"), "directory of []")
			}
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("b"), "directory of []")
			h.wantClosed()
		})
	}
}
