//go:build !windows

package mount

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// writeNewerFormat writes what a newer build of this package may write to a file of the table.
func (h *host) writeNewerFormat(file string) {
	h.t.Helper()
	const version, record = "2", `{"state":"shown","more":"than is known"}`
	h.write(file, fmt.Sprintf("%s %08x %s\n", version, crc32.ChecksumIEEE([]byte(version+record)), record))
}

func TestUnmount_RemovesTheLinkAndThenClosesTheLayer(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.model.ResetCalls()
	h.model.Before = func(hcstest.Call, string) error {
		h.wantAt(h.target("a"), "nothing")
		return nil
	}
	h.mustUnmount(h.target("a"))
	h.wantCalls(closeCalls...)
	h.wantClosed()
}

func TestUnmount_OfASourceUnmountsItFromAllTargets(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			h.mustMount(m, h.target("a"))
			h.mustMount(m, h.mkdir(h.target("b")))
			h.mustMount(h.scratch("3"), h.target("c"))
			h.mustUnmount(m.Source)
			h.wantAt(h.target("a"), "nothing")
			h.wantAt(h.target("b"), "directory of []")
			h.wantOpen("3")
		})
	}
}

func TestUnmount_OfASourceThatIsSpelledInAnotherWay(t *testing.T) {
	for name, spell := range map[string]func(h *host) string{
		"not clean":           func(h *host) string { return h.path("layers") + "/.//x/../2/" },
		"link on the way":     func(h *host) string { symlink(h.t, h.path("layers"), h.path("other")); return h.path("other", "2") },
		"link to the layer":   func(h *host) string { symlink(h.t, h.path("layers", "2"), h.path("other")); return h.path("other") },
		"relative":            func(h *host) string { h.chdir(h.path("mnt")); return "../layers/2" },
		"its own directory .": func(h *host) string { h.chdir(h.path("layers", "2")); return "." },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mustMount(h.scratch("2"), h.target("a"))
			h.model.ResetCalls()
			h.mustUnmount(spell(h))
			h.wantCalls(closeCalls...)
			h.wantAt(h.target("a"), "nothing")
			h.wantClosed()
		})
	}
}

// A link in the source may be gone at Unmount, or lead to a layer of the same name.
func TestUnmount_ClosesTheLayerThatItsSourceLedTo(t *testing.T) {
	for name, turn := range map[string]func(h *host){
		"gone": func(h *host) {},
		"leads elsewhere": func(h *host) {
			h.write(h.path("elsewhere", "2", "sandbox.vhdx"), "scratch")
			symlink(h.t, h.path("elsewhere"), h.path("other"))
			h.otherCodeOpens(&Mount{Source: h.path("elsewhere", "2")})
		},
	} {
		for _, by := range []string{"target", "directory", "other target", "restart and target"} {
			t.Run(name+", by "+by, func(t *testing.T) {
				h := newHost(t)
				m := h.scratch("2")
				symlink(t, h.path("layers"), h.path("other"))
				linked := *m
				linked.Source = h.path("other", "2")
				h.mustMount(&linked, h.target("a"))
				h.remove(h.path("other"))
				turn(h)
				switch by {
				case "target":
					h.mustUnmount(h.target("a"))
				case "directory":
					h.mustUnmount(m.Source)
				case "other target":
					h.mustMount(m, h.target("b"))
					h.mustUnmount(h.target("a"))
					h.mustUnmount(h.target("b"))
				case "restart and target":
					h.reboot()
					turn := h.model.Calls()
					h.mustUnmount(h.target("a"))
					if len(h.model.Calls()) != len(turn) {
						t.Error("HCS was called")
					}
				}
				h.wantAt(h.path("mnt"), "directory of []")
				h.wantNoRecords()
				if name == "leads elsewhere" && by != "restart and target" {
					if open := h.model.OpenLayers(); len(open) != 1 || open[0] != h.path("elsewhere", "2") {
						t.Errorf("open: %q", open)
					}
				} else {
					h.wantOpen()
				}
			})
		}
	}
}

func TestUnmount_CleansUpWithoutHCSAfterARestart(t *testing.T) {
	for name, layer := range kindsOfLayer {
		for by, do := range map[string]func(h *host, m *Mount) error{
			"target":    func(h *host, m *Mount) error { return h.unmountAll(h.target("a")) },
			"source":    func(h *host, m *Mount) error { return h.unmount(m.Source) },
			"recursive": func(h *host, m *Mount) error { return h.unmountRecursive(h.path("mnt")) },
		} {
			t.Run(name+" by "+by, func(t *testing.T) {
				h := newHost(t)
				m := layer(h)
				h.mustMount(m, h.mkdir(h.target("a")))
				h.reboot()
				h.otherCodeOpens(m) // which keeps it open
				h.model.ResetCalls()
				if err := do(h, m); err != nil {
					t.Error(err)
				}
				h.wantCalls()
				h.wantAt(h.target("a"), "directory of []")
				h.wantOpen("2")
				h.wantNoRecords()
			})
		}
	}
}

func TestUnmount_OfALayerThatWasRemovedAfterARestart(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.reboot()
	h.remove(m.Source)
	h.mustUnmount(m.Source)
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestUnmount_OfAKilledMountWhoseLayerIsGone(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			if !h.kill(1, false, func() error { return h.mount(m, h.mkdir(h.target("a"))) }) {
				t.Fatal("not killed")
			}
			h.remove(m.Source)
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestUnmount_ClosesALayerWhoseLinkSomebodyHasRemoved(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.remove(h.target("a"))
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestUnmount_LeavesAloneWhatSomebodyPutInThePlaceOfTheLink(t *testing.T) {
	for name, put := range map[string]func(h *host, target string){
		"a file":             func(h *host, target string) { h.write(target, "mine") },
		"a directory":        func(h *host, target string) { h.write(filepath.Join(target, "data"), "mine") },
		"an empty directory": func(h *host, target string) { h.mkdir(target) },
		"a link":             func(h *host, target string) { symlink(h.t, h.path("mnt"), target) },
	} {
		for _, when := range []string{"at once", "after a restart"} {
			t.Run(name+" "+when, func(t *testing.T) {
				h := newHost(t)
				h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
				h.remove(h.target("a"))
				put(h, h.target("a"))
				before := describe(h.target("a"))
				if when != "at once" {
					h.reboot()
				}
				h.mustUnmount(h.target("a"))
				h.wantAt(h.target("a"), before)
				h.wantClosed()
			})
		}
	}
}

// Before the volume is on record, nothing at the target is ours.
func TestUnmount_LeavesAloneALinkThatMountDidNotMake(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if !h.kill(1, false, func() error { return h.mount(m, h.target("a")) }) {
		t.Fatal("not killed")
	}
	text := destination(h.record(h.target("a")))
	symlink(t, text, h.target("a"))
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "link to "+text)
	h.wantClosed()
}

func TestUnmount_PutsADirectoryBackOnlyForItsOwnLink(t *testing.T) {
	t.Run("not where somebody has removed the link", func(t *testing.T) {
		h := newHost(t)
		h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
		h.remove(h.target("a"))
		h.failEvery(errorSharingViolation, hcstest.Deactivate)
		for range 2 {
			wantError(t, h.unmount(h.target("a")), "failed to deactivate")
			h.wantAt(h.target("a"), "nothing")
		}
		h.model.Before = nil
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	})
	t.Run("not twice", func(t *testing.T) {
		h := newHost(t)
		h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
		h.failEvery(errorSharingViolation, hcstest.Deactivate)
		wantError(t, h.unmount(h.target("a")), "failed to deactivate")
		h.wantAt(h.target("a"), "directory of []")
		h.remove(h.target("a"))
		h.model.Before = nil
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	})
	for _, state := range []table.State{table.Linked, table.Leaving} {
		for _, when := range []string{"at once", "after a restart"} {
			t.Run(fmt.Sprintf("where a process was killed as it had removed it, %s, %s", state, when), func(t *testing.T) {
				h := newHost(t)
				h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
				h.change(h.target("a"), func(r *table.Record) { r.State = state })
				h.remove(h.target("a"))
				if when != "at once" {
					h.reboot()
				}
				h.mustUnmount(h.target("a"))
				h.wantAt(h.target("a"), "directory of []")
				h.wantClosed()
			})
		}
	}
}

func TestUnmount_OfATargetWhoseParentIsGone(t *testing.T) {
	for _, state := range []table.State{table.Linked, table.Shown, table.Leaving} {
		t.Run(string(state), func(t *testing.T) {
			h := newHost(t)
			target := h.mkdir(filepath.Join(h.mkdir(h.target("above")), "a"))
			h.mustMount(h.scratch("2"), target)
			h.change(target, func(r *table.Record) { r.State = state })
			h.remove(h.target("above"))
			h.mustUnmount(target)
			h.wantAt(h.target("above"), "nothing")
			h.wantClosed()
		})
	}
}

// throughLink mounts layer 2 at the empty directory mnt/a by the path other/a, and removes other, which is a link
// to mnt.
func throughLink(t *testing.T) *host {
	h := newHost(t)
	symlink(t, h.path("mnt"), h.path("other"))
	h.mkdir(h.target("a"))
	h.mustMount(h.scratch("2"), h.path("other", "a"))
	h.remove(h.path("other"))
	return h
}

func TestUnmount_FindsATargetOnWhoseWayALinkIsGone(t *testing.T) {
	for name, do := range map[string]func(h *host) error{
		"by where the link led": func(h *host) error { return h.unmount(h.target("a")) },
		"as it was mounted":     func(h *host) error { return h.unmount(h.path("other", "a")) },
		"by source":             func(h *host) error { return h.unmount(h.path("layers", "2")) },
		"recursive":             func(h *host) error { return h.unmountRecursive(h.path("mnt")) },
		"mount after a restart": func(h *host) error {
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

func TestUnmount_ThroughALinkThatLeadsElsewhereNowTouchesNothing(t *testing.T) {
	h := throughLink(t)
	shown := describe(h.target("a"))
	symlink(t, h.mkdir(h.path("elsewhere")), h.path("other"))
	h.mustUnmount(h.path("other", "a"))
	if err := h.unmountRecursive(h.path("other")); err != nil {
		t.Error(err)
	}
	h.wantAt(h.target("a"), shown)
	h.wantAt(h.path("elsewhere"), "directory of []")
	h.wantOpen("2")
}

func TestUnmount_OfWhatIsNeitherATargetNorALayerTouchesNothing(t *testing.T) {
	for _, state := range []string{"without a table", "with a table"} {
		t.Run(state, func(t *testing.T) {
			h := newHost(t)
			if state == "with a table" {
				h.mustMount(h.scratch("2"), h.target("live"))
				h.model.ResetCalls()
			}
			h.write(h.target("file"), "mine")
			h.write(h.target("dir/data"), "mine")
			h.write(h.target("files/Files/data"), "mine")
			h.write(h.target("hives/Hives/data"), "mine")
			symlink(t, h.target("dir"), h.target("link"))
			symlink(t, h.target("nowhere"), h.target("dangling"))
			before := describe(h.path("mnt"))
			for _, path := range []string{"", "/", h.target("none"), h.target("none/none"), h.target("file"), h.target("dir"),
				h.target("link"), h.target("dangling"), h.target("files"), h.target("hives"), h.path("layers")} {
				h.mustUnmount(path)
				if err := h.unmountAll(path); err != nil {
					t.Error(err)
				}
			}
			h.wantCalls()
			h.wantAt(h.path("mnt"), before)
			h.wantAt(h.target("dir"), `directory of ["data"]`)
			if state == "without a table" {
				h.wantAt(h.path("table"), "nothing")
			} else {
				h.wantOpen("2")
			}
		})
	}
}

func TestUnmount_OfAnUnknownLayerClosesIt(t *testing.T) {
	for _, names := range [][]string{{"sandbox.vhdx"}, {"layerchain.json"}, {"Files/x", "Hives/x"}, {"sandbox.vhdx", "Files/x"}} {
		t.Run(fmt.Sprint(names), func(t *testing.T) {
			h := newHost(t)
			m := h.baseMount("2")
			for _, name := range names {
				h.write(filepath.Join(m.Source, name), "")
			}
			h.otherCodeOpens(m)
			h.mustUnmount(m.Source)
			h.wantClosed()
		})
	}
}

func TestUnmount_OfAnUnknownLayerThatStaysOpenIsAnError(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.otherCodeOpens(m)
	h.failEvery(errorSharingViolation, hcstest.Deactivate)
	err := h.unmount(m.Source)
	wantError(t, err, "failed to deactivate layer "+m.Source, errorSharingViolation)
	wantError(t, err, "is still open as "+strings.TrimSuffix(h.link(m), "/"))
}

func TestUnmount_OfAClosedUnknownLayerIsNilWhateverHCSSays(t *testing.T) {
	for _, code := range []syscall.Errno{errorNotReady, errorInvalidParameter, errorAccessDenied, errorGenFailure} {
		h := newHost(t)
		h.failEvery(code, hcstest.Unprepare, hcstest.Deactivate)
		if err := h.unmountAll(h.scratch("2").Source); err != nil {
			t.Error(err)
		}
	}
}

// A link is not the directory of a layer: it may be that of another program, which shows the layer there.
func TestUnmount_OfALinkToAnUnknownLayerTouchesNothing(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.otherCodeOpens(m)
	symlink(t, m.Source, h.target("a"))
	h.model.ResetCalls()
	h.mustUnmount(h.target("a"))
	h.wantCalls()
	h.wantAt(h.target("a"), "link to "+m.Source)
}

func TestUnmount_KeepsTheRecordOfALayerThatStaysOpen(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			h.mustMount(m, h.mkdir(h.target("a")))
			h.mustMount(m, h.target("b"))
			h.failEvery(errorSharingViolation, hcstest.Unprepare, hcstest.Deactivate)
			for range 2 {
				wantError(t, h.unmount(m.Source), "layer "+m.Source, errorSharingViolation)
				h.wantOpen("2")
				h.wantNoLeak()
				h.wantAt(h.target("a"), "directory of []")
				h.wantAt(h.target("b"), "nothing")
			}
			h.model.Before = nil
			h.mustUnmount(h.target("b")) // the layer is shown nowhere
			h.wantClosed()
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), "directory of []")
		})
	}
}

func TestUnmount_LeavesALayerOpenThatOtherCodeHasOpenedAgain(t *testing.T) {
	for name, unmount := range map[string]func(h *host, m *Mount) error{
		"by target": func(h *host, m *Mount) error { return h.unmount(h.target("a")) },
		"by source": func(h *host, m *Mount) error { return h.unmount(m.Source) },
	} {
		for _, when := range []string{"mounted", "half unmounted"} {
			t.Run(name+", "+when, func(t *testing.T) {
				h := newHost(t)
				h.model.Personality.NewVolume = true
				m := h.scratch("2")
				h.mustMount(m, h.target("a"))
				if when == "half unmounted" {
					h.failEvery(errorSharingViolation, hcstest.Unprepare, hcstest.Deactivate)
					wantError(t, h.unmount(h.target("a")), "is still open", errorSharingViolation)
					h.model.Before = nil
				}
				h.otherCodeCloses(m)
				h.otherCodeOpens(m)
				if err := unmount(h, m); err != nil {
					t.Fatal(err)
				}
				h.wantOpen("2")
				h.wantNoRecords()
			})
		}
	}
}

// The volume on record can be reached, but it is that of another layer.
func TestUnmount_IsDoneOnceTheVolumeBelongsToAnotherLayer(t *testing.T) {
	for _, closedPath := range []syscall.Errno{hcstest.NotActive, errorNotReady, 0} {
		for _, unprepareClosed := range []syscall.Errno{hcstest.NotActive, hcstest.NotPrepared, 0} {
			for _, reopened := range []bool{false, true} {
				t.Run(fmt.Sprintf("0x%x 0x%x %v", uintptr(closedPath), uintptr(unprepareClosed), reopened), func(t *testing.T) {
					h := newHost(t)
					h.model.Personality.GUIDReused, h.model.Personality.ClosedPath = true, closedPath
					h.model.Personality.UnprepareClosed = unprepareClosed
					m, other := h.scratch("2"), h.scratch("3")
					h.mustMount(m, h.mkdir(h.target("a")))
					h.otherCodeCloses(m)
					h.otherCodeOpens(other)
					h.write(filepath.Join(h.link(other), "data"), "of layer 3")
					h.mustUnmount(h.target("a"))
					h.wantAt(h.target("a"), "directory of []")
					h.wantAt(filepath.Join(h.link(other), "data"), "file: of layer 3")
					h.wantOpen("3")
					h.wantNoRecords()
				})
			}
		}
	}
}

func TestUnmount_ClosesALayerWhoseTargetCannotBeLookedAt(t *testing.T) {
	for name, layer := range kindsOfLayer {
		for by, path := range map[string]func(h *host, m *Mount) string{
			"target": func(h *host, m *Mount) string { return h.target("a") },
			"source": func(h *host, m *Mount) string { return m.Source },
		} {
			for _, made := range []string{"directory", "nothing"} {
				t.Run(fmt.Sprint(name, " by ", by, ", ", made), func(t *testing.T) {
					h := newHost(t)
					m := layer(h)
					if made == "directory" {
						h.mkdir(h.target("a"))
					}
					before := describe(h.target("a"))
					h.mustMount(m, h.target("a"))
					path := path(h, m)
					unblock := h.blockMnt()
					wantError(t, h.unmount(path), "layer "+m.Source, syscall.ENOTDIR)
					h.wantOpen()
					h.model.ResetCalls()
					wantError(t, h.unmount(path), "layer "+m.Source, syscall.ENOTDIR)
					unblock()
					h.mustUnmount(path)
					h.wantCalls()
					h.wantAt(h.target("a"), before)
					h.wantClosed()
				})
			}
		}
	}
}

func TestUnmount_OfATargetThatCannotBeLookedAtLeavesTheOthers(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	b := filepath.Join(h.mkdir(h.path("elsewhere")), "b")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, b)
	shown := describe(b)
	unblock := h.blockMnt()
	wantError(t, h.unmount(h.target("a")), "layer "+m.Source, syscall.ENOTDIR)
	h.wantOpen("2")
	h.wantAt(b, shown)
	unblock()
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "nothing")
	h.wantOpen("2")
	h.mustUnmount(b)
	h.wantClosed()
}

// A target that cannot be looked at does not keep the layer open.
func TestUnmount_ClosesALayerWithItsLastTargetInReach(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	b := filepath.Join(h.mkdir(h.path("elsewhere")), "b")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, b)
	unblock := h.blockMnt()
	wantError(t, h.unmount(h.target("a")), "layer "+m.Source, syscall.ENOTDIR)
	_ = h.unmount(b) // which may report what is left at the other
	h.wantAt(b, "nothing")
	h.wantOpen()
	h.mustUnmount(b)
	unblock()
	h.model.ResetCalls()
	h.mustUnmount(h.target("a"))
	h.wantCalls()
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestUnmount_OfASourceGoesOnWithItsOtherTargets(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mkdir(h.path("elsewhere"))
	h.mustMount(m, h.target("a"))
	for i := range 4 {
		h.mustMount(m, h.path("elsewhere", fmt.Sprint(i)))
	}
	unblock := h.blockMnt()
	wantError(t, h.unmount(m.Source), "layer "+m.Source, syscall.ENOTDIR)
	h.wantAt(h.path("elsewhere"), "directory of []")
	h.wantOpen()
	if left := h.mounts(); len(left) != 1 || left[0].Target != h.target("a") {
		t.Errorf("on record: %+v", left)
	}
	unblock()
	h.mustUnmount(m.Source)
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

// As on a drive that has lost its medium: not even the directory of the target has a name. What is mounted in a
// layer there is still in the volume of that layer.
func TestUnmount_OfATargetThatCannotBeResolvedClosesTheLayer(t *testing.T) {
	for name, do := range map[string]func(h *host, drive string) error{
		"target":           func(h *host, drive string) error { return h.unmount(drive + "/mnt/a") },
		"inner target":     func(h *host, drive string) error { return h.unmount(drive + "/mnt/a/inner") },
		"recursive":        func(h *host, drive string) error { return h.unmountRecursive(drive + "/mnt") },
		"recursive, drive": func(h *host, drive string) error { return h.unmountRecursive(drive) },
	} {
		for _, spelled := range []string{"drive", "link"} {
			t.Run(name+", by "+spelled, func(t *testing.T) {
				h := newHost(t)
				drive := h.mkdir(h.mkdir(h.path("disk")) + "/drive")
				h.mkdir(drive + "/mnt")
				path := map[string]string{"drive": drive, "link": h.path("link")}[spelled]
				symlink(t, drive, h.path("link"))
				h.mustMount(h.scratch("2"), path+"/mnt/a")
				h.mustMount(h.scratch("3"), path+"/mnt/a/inner")
				h.rename(h.path("disk"), h.path("aside"))
				h.write(h.path("disk"), "a file")
				err := do(h, path)
				switch name {
				case "target":
					wantError(t, err, "failed to remove the link to layer "+h.path("layers/2"), syscall.ENOTDIR)
					h.wantOpen("3")
				case "inner target":
					if err != nil {
						t.Error(err)
					}
					h.wantOpen("2")
				default:
					wantError(t, err, "", syscall.ENOTDIR)
					h.wantOpen()
				}
				h.remove(h.path("disk"))
				h.rename(h.path("aside"), h.path("disk"))
				if err := h.unmountRecursive(drive); err != nil {
					t.Error(err)
				}
				h.wantAt(drive+"/mnt", "directory of []")
				if name != "target" { // or else what is in the layer is known by its volume alone
					h.wantClosed()
				}
			})
		}
	}
}

func TestUnmount_RefusesAMalformedPath(t *testing.T) {
	h := newHost(t)
	wantError(t, h.unmount("a\x00b"), "failed to unmount: path")
	wantError(t, h.unmount(`C:\mnt\a:b`), "contains a colon") // on every system
}

func TestUnmount_OfADamagedRecordNamesItsFileAndTouchesNothing(t *testing.T) {
	for name, damage := range map[string]func(h *host) string{
		"damaged": func(h *host) string { return h.damage(h.target("a")) },
		"newer":   func(h *host) string { file := h.recordFile(h.target("a")); h.writeNewerFormat(file); return file },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			h.mustMount(m, h.target("a"))
			shown := describe(h.target("a"))
			file := damage(h)
			content := describe(file)
			h.model.ResetCalls()
			wantError(t, h.unmount(h.target("a")), file, table.ErrDamaged)
			wantError(t, h.unmountRecursive(h.target("a")), file, table.ErrDamaged)
			h.wantCalls()
			h.wantAt(h.target("a"), shown)
			h.wantAt(file, content)

			h.mustUnmount(m.Source)
			h.wantAt(h.target("a"), shown)
			h.wantClosed()
		})
	}
}

func TestUnmount_OfALayerOneOfWhoseRecordsIsDamaged(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			for _, target := range []string{"a", "b"} {
				h.mustMount(m, h.target(target))
			}
			file := h.damage(h.target("a"))
			h.failEvery(errorSharingViolation, hcstest.Unprepare, hcstest.Deactivate)
			wantError(t, h.unmount(m.Source), "layer "+m.Source, errorSharingViolation)
			h.wantAt(h.target("b"), "nothing")
			h.wantAt(file, "file: garbage\n")
			h.model.Before = nil
			h.mustUnmount(m.Source)
			h.wantClosed()
		})
	}
}

// Nothing tells whether the other target shows the layer.
func TestUnmount_KeepsALayerOpenWhoseOtherRecordIsDamaged(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, h.target("b"))
	h.damage(h.target("a"))
	h.mustUnmount(h.target("b"))
	h.wantAt(h.target("b"), "nothing")
	h.wantOpen("2")
	h.mustUnmount(m.Source)
	h.wantClosed()
}

// Somebody else may have opened the layer since.
func TestUnmount_LeavesALayerOpenWhoseStaleRecordIsDamaged(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			h.mustMount(m, h.target("a"))
			h.writeNewerFormat(h.recordFile(h.target("a")))
			h.reboot()
			h.otherCodeOpens(m)
			h.model.ResetCalls()
			h.mustUnmount(m.Source)
			h.wantCalls()
			h.wantOpen("2")
			h.wantNoRecords()
		})
	}
}

// bringBack puts back the file of a mount that was removed, as a power failure may.
func (h *host) bringBack(target string, unmount func()) {
	h.t.Helper()
	file := h.recordFile(target)
	data, err := os.ReadFile(file)
	if err != nil {
		h.t.Fatal(err)
	}
	unmount()
	h.write(file, string(data))
}

func TestUnmount_OfATargetWithTwoRecordsAfterAPowerFailure(t *testing.T) {
	for name, second := range map[string]func(h *host) *Mount{
		"of one layer":  scratch2,
		"of two layers": func(h *host) *Mount { return h.scratch("3") },
	} {
		for _, newVolume := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, new volume %v", name, newVolume), func(t *testing.T) {
				h := newHost(t)
				h.model.Personality.NewVolume = newVolume
				h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
				h.bringBack(h.target("a"), func() {
					h.reboot()
					h.mustMount(second(h), h.target("a"))
				})
				h.reboot()
				h.model.ResetCalls()
				h.mustUnmount(h.target("a"))
				h.wantCalls()
				h.wantAt(h.target("a"), "directory of []")
				h.wantClosed()
			})
		}
	}
}

func TestUnmount_OfALiveTargetThatAlsoHasAStaleRecord(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
	m := h.scratch("3")
	h.bringBack(h.target("a"), func() {
		h.reboot()
		h.mustMount(m, h.target("a"))
	})
	if info, err := h.lookup(h.target("a")); err != nil || info.Source != m.Source {
		t.Errorf("Lookup = %+v, %v", info, err)
	}
	wantError(t, h.mount(h.scratch("4"), h.target("a")), "it shows layer "+m.Source, os.ErrExist)
	h.wantAt(h.target("a"), "link to "+h.link(m))
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestUnmount_OfALayerThatIsMountedMeanwhileUnmountsIt(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	unmounted := make(chan error, 1)
	h.model.Before = func(call hcstest.Call, _ string) error {
		if call == hcstest.Activate { // which only Mount calls, once
			h.hideRecord(h.target("a"), func() { // so that it looks like a layer of other code
				go func() { unmounted <- h.unmount(m.Source) }()
				h.awaitWaiting(unmounted)
			})
		}
		return nil
	}
	h.mustMount(m, h.target("a"))
	if err := <-unmounted; err != nil {
		t.Error(err)
	}
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

// hideRecord calls do while nothing is on record of the mount at a target.
func (h *host) hideRecord(target string, do func()) {
	h.t.Helper()
	file, aside := h.recordFile(target), h.path("record")
	h.rename(file, aside)
	do()
	h.rename(aside, file)
}

// The link leads to a layer with another target. If Unmount followed it too early, it would take it for a path
// of the layer.
func TestUnmount_OfATargetThatIsMountedMeanwhileLeavesTheOthers(t *testing.T) {
	h := newHost(t)
	m := h.scratchMount("2") // without a disk: the link leads to its directory
	h.mkdir(m.Source)
	h.mustMount(m, h.target("b"))
	shown := describe(h.target("b"))
	h.mustMount(m, h.target("a"))
	unlock, err := h.table.LockTarget(h.key(h.target("a"))) // as Mount holds it
	if err != nil {
		t.Fatal(err)
	}
	unmounted := make(chan error, 1)
	h.hideRecord(h.target("a"), func() {
		go func() { unmounted <- h.unmount(h.target("a")) }()
		h.awaitWaiting(unmounted)
	})
	unlock()
	if err := <-unmounted; err != nil {
		t.Error(err)
	}
	h.wantAt(h.target("a"), "nothing")
	h.wantAt(h.target("b"), shown)
	h.wantOpen("2")
}

func TestUnmount_OfALinkThatLeadsElsewhereMeanwhileLeavesTheLayerOpen(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("b"))
	symlink(t, m.Source, h.target("a"))
	unlock, err := h.table.LockTarget(h.key(h.target("a")))
	if err != nil {
		t.Fatal(err)
	}
	unmounted := make(chan error, 1)
	go func() { unmounted <- h.unmount(h.target("a")) }()
	h.awaitWaiting(unmounted)
	h.remove(h.target("a"))
	symlink(t, h.path("layers"), h.target("a"))
	unlock()
	if err := <-unmounted; err != nil {
		t.Error(err)
	}
	h.wantOpen("2")
}

func TestUnmountAll_GoesOnUntilNothingIsLeft(t *testing.T) {
	h := newHost(t)
	m := h.base("2")
	h.mustMount(m, h.target("a"))
	// The directory of the layer becomes a target, so that it is both.
	h.rename(m.Source, h.path("moved"))
	h.mustMount(h.scratch("3"), h.mkdir(m.Source))
	if err := h.unmountAll(m.Source); err != nil {
		t.Error(err)
	}
	h.wantAt(h.target("a"), "nothing")
	h.wantAt(m.Source, "directory of []")
	h.wantClosed()
}

// nested mounts three layers, each in the one before, at target, target/sub and target/sub/below. The middle one
// is a base layer.
func (h *host) nested(target string) []Mount {
	h.t.Helper()
	mounts := []Mount{*h.scratch("2"), *h.base("0"), *h.scratch("3")}
	mounts[1].Target, mounts[2].Target = "sub", "sub/below"
	h.mkdir(filepath.Join(mounts[1].Source, "Files", "below"))
	for i, at := range []string{target, filepath.Join(target, "sub"), filepath.Join(target, "sub", "below")} {
		m := mounts[i]
		m.Target = "" // the way to a sub-directory may not lead through a link
		if err := h.mount(&m, at); err != nil {
			h.t.Fatal(err)
		}
	}
	return mounts
}

func TestUnmountMounts_UnmountsTheLastFirst(t *testing.T) {
	h := newHost(t)
	mounts := h.nested(h.target("a"))
	h.model.ResetCalls()
	if err := h.unmountMounts(mounts, h.target("a")); err != nil {
		t.Error(err)
	}
	h.wantCalls("UnprepareLayer 3", "DeactivateLayer 3", "UnprepareLayer 0", "DeactivateLayer 0", "UnprepareLayer 2", "DeactivateLayer 2")
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
	if err := h.unmountMounts(mounts, h.target("a")); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestUnmountMounts_GoesOnAfterAFailure(t *testing.T) {
	h := newHost(t)
	mounts := h.nested(h.target("a"))
	h.model.Before = func(call hcstest.Call, layer string) error {
		if call == hcstest.Unprepare && layer == mounts[1].Source {
			return errorSharingViolation
		}
		return nil
	}
	wantError(t, h.unmountMounts(mounts, h.target("a")), "layer "+mounts[1].Source, errorSharingViolation)
	h.wantAt(h.target("a"), "nothing")
	h.wantOpen("0")
	h.model.Before = nil
	h.mustUnmount(mounts[1].Source)
	h.wantClosed()
}

// A missing directory proves nothing.
func TestUnmountMounts_ClosesALayerOnAWayThatIsGone(t *testing.T) {
	for name, breakWay := range map[string]func(h *host){
		"a directory":                func(h *host) { h.remove(h.target("a/dir")) },
		"a directory, now a file":    func(h *host) { h.remove(h.target("a/dir")); h.write(h.target("a/dir"), "mine") },
		"the outer link":             func(h *host) { h.remove(h.target("a")) },
		"the outer link, now a file": func(h *host) { h.remove(h.target("a")); h.write(h.target("a"), "mine") },
		"the outer link, now a directory": func(h *host) {
			h.remove(h.target("a"))
			h.write(h.target("a/dir/x"), "mine")
		},
		"the volume": func(h *host) { h.remove(h.record(h.target("a")).Volume) },
	} {
		for _, spelled := range []string{"mnt", "link"} {
			t.Run(name+", by "+spelled, func(t *testing.T) {
				h := newHost(t)
				symlink(t, h.path("mnt"), h.path("link"))
				outer, inner := *h.scratch("2"), *h.scratch("3")
				h.inVolume(&outer, func(volume string) { h.mkdir(filepath.Join(volume, "dir")) })
				inner.Target = "dir/sub"
				mounts := []Mount{outer, inner}
				if err := h.mountAll(context.Background(), mounts, h.target("a")); err != nil {
					t.Fatal(err)
				}
				breakWay(h)
				left := describe(h.target("a"))
				err := h.unmountMounts(mounts, h.path(spelled, "a"))
				if err != nil && !strings.HasSuffix(name, "a file") { // or else it cannot look at the target
					t.Error(err)
				}
				h.wantOpen()
				if strings.HasPrefix(left, "link ") {
					left = "nothing"
				}
				h.wantAt(h.target("a"), left)
				if err == nil {
					h.wantClosed()
				}
			})
		}
	}
}

func TestUnmountMounts_ThroughALinkThatLeadsElsewhereNowTouchesNothing(t *testing.T) {
	h := newHost(t)
	symlink(t, h.path("mnt"), h.path("other"))
	outer, inner := *h.scratch("2"), *h.scratch("3")
	inner.Target = "sub"
	mounts := []Mount{outer, inner}
	if err := h.mountAll(context.Background(), mounts, h.path("other", "a")); err != nil {
		t.Fatal(err)
	}
	h.remove(h.path("other"))
	h.mkdir(filepath.Join(h.mkdir(h.path("elsewhere")), "a"))
	symlink(t, h.path("elsewhere"), h.path("other"))
	if err := h.unmountMounts(mounts, h.path("other", "a")); err != nil {
		t.Error(err)
	}
	h.wantOpen("2", "3")
}

func TestUnmountMounts_ClosesWhatIsNestedThreeDeepWithoutTheOutermostLink(t *testing.T) {
	h := newHost(t)
	mounts := h.nested(h.target("a"))
	h.remove(h.target("a"))
	h.model.ResetCalls()
	if err := h.unmountMounts(mounts, h.target("a")); err != nil {
		t.Error(err)
	}
	h.wantCalls("UnprepareLayer 3", "DeactivateLayer 3", "UnprepareLayer 0", "DeactivateLayer 0", "UnprepareLayer 2", "DeactivateLayer 2")
	h.wantClosed()
}

func TestUnmountRecursive_UnmountsTheDeepestFirst(t *testing.T) {
	for name, path := range map[string]func(h *host) string{
		"the directory":              func(h *host) string { return h.path("mnt") },
		"a link to it":               func(h *host) string { symlink(h.t, h.path("mnt"), h.path("s")); return h.path("s") },
		"the target":                 func(h *host) string { return h.target("a") },
		"the target through a link":  func(h *host) string { symlink(h.t, h.path("mnt"), h.path("s")); return h.path("s", "a") },
		"without the outermost link": func(h *host) string { h.remove(h.target("a")); return h.path("mnt") },
		"of the target, without it":  func(h *host) string { h.remove(h.target("a")); return h.target("a") },
		"without the middle link":    func(h *host) string { h.remove(h.target("a/sub")); return h.path("mnt") },
		"without both":               func(h *host) string { h.remove(h.target("a/sub")); h.remove(h.target("a")); return h.path("mnt") },
		"all":                        func(h *host) string { return h.dir },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.nested(h.target("a"))
			h.mustMount(h.scratch("5"), filepath.Join(h.mkdir(filepath.Join(h.dir, "..", "elsewhere")), "a"))
			dir := path(h)
			h.model.ResetCalls()
			if err := h.unmountRecursive(dir); err != nil {
				t.Error(err)
			}
			h.wantCalls("UnprepareLayer 3", "DeactivateLayer 3", "UnprepareLayer 0", "DeactivateLayer 0", "UnprepareLayer 2", "DeactivateLayer 2")
			h.wantAt(h.target("a"), "nothing")
			h.wantOpen("5")
		})
	}
}

// The middle one is at vol/sub, behind the link that is gone.
func TestUnmountRecursive_OfAPathBehindALinkThatIsGone(t *testing.T) {
	h := newHost(t)
	h.nested(h.target("a"))
	h.remove(h.target("a"))
	if err := h.unmountRecursive(h.target("a/sub")); err != nil {
		t.Error(err)
	}
	h.wantOpen("2")
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestUnmount_OfATargetBehindALinkThatIsGone(t *testing.T) {
	h := newHost(t)
	h.nested(h.target("a"))
	h.remove(h.target("a"))
	h.mustUnmount(h.target("a/sub/below"))
	h.wantOpen("0", "2")
	h.mustUnmount(h.target("a/sub"))
	h.wantOpen("2")
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestUnmountRecursive_FindsWhatWasMountedThroughALink(t *testing.T) {
	h := newHost(t)
	symlink(t, h.path("mnt"), h.path("s"))
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mustMount(h.scratch("3"), h.path("s", "a", "b"))
	h.model.ResetCalls()
	if err := h.unmountRecursive(h.path("mnt")); err != nil {
		t.Error(err)
	}
	h.wantCalls("UnprepareLayer 3", "DeactivateLayer 3", "UnprepareLayer 2", "DeactivateLayer 2")
	h.wantClosed()
}

func TestUnmountRecursive_FindsWhatIsMountedByAnotherTarget(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.mkdir(h.path("elsewhere"))
	h.mustMount(m, h.path("elsewhere", "b"))
	h.mustMount(h.scratch("3"), h.path("elsewhere", "b", "inner"))
	if err := h.unmountRecursive(h.path("mnt")); err != nil {
		t.Error(err)
	}
	h.wantOpen("2")
	h.mustUnmount(h.path("elsewhere", "b"))
	h.wantClosed()
}

func TestUnmountRecursive_LeavesWhatIsNotBelow(t *testing.T) {
	h := newHost(t)
	for i, name := range []string{"a", "ab", "A"} {
		h.mustMount(h.scratch(fmt.Sprint(i)), h.target(name))
	}
	h.mkdir(h.path("mnt2"))
	h.mustMount(h.scratch("3"), h.path("mnt2", "a"))
	if err := h.unmountRecursive(h.target("a")); err != nil {
		t.Error(err)
	}
	h.wantOpen("1", "2", "3")
	if err := h.unmountRecursive(""); err != nil {
		t.Error(err)
	}
	if err := h.unmountRecursive(h.path("none")); err != nil {
		t.Error(err)
	}
	h.wantOpen("1", "2", "3")
}

func TestUnmountRecursive_OfALayerUnmountsItToo(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	if err := h.unmountRecursive(m.Source); err != nil {
		t.Error(err)
	}
	h.wantClosed()
}

func TestUnmountRecursive_GoesOnAfterAFailure(t *testing.T) {
	h := newHost(t)
	mounts := h.nested(h.target("a"))
	h.model.Before = func(call hcstest.Call, layer string) error {
		if call == hcstest.Unprepare && layer == mounts[1].Source {
			return errorSharingViolation
		}
		return nil
	}
	wantError(t, h.unmountRecursive(h.path("mnt")), "layer "+mounts[1].Source, errorSharingViolation)
	h.wantOpen("0")
	h.model.Before = nil
	h.mustUnmount(mounts[1].Source)
	h.wantClosed()
}

func TestUnmountRecursive_GoesOnDespiteADamagedRecord(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mustMount(h.scratch("3"), h.target("b"))
	h.damage(h.target("a"))
	if err := h.unmountRecursive(h.path("mnt")); err != nil {
		t.Error(err)
	}
	h.wantOpen("2")
}

func TestUnmountRecursive_AfterARestart(t *testing.T) {
	h := newHost(t)
	h.nested(h.mkdir(h.target("a")))
	h.reboot()
	h.model.ResetCalls()
	if err := h.unmountRecursive(h.path("mnt")); err != nil {
		t.Error(err)
	}
	h.wantCalls()
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

// The stale link to a base layer still leads to its files.
func TestUnmountRecursive_FindsWhatIsMountedBehindAStaleLink(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.base("0"), h.target("a"))
	h.reboot()
	h.mustMount(h.scratch("3"), h.target("a/inner"))
	if err := h.unmountRecursive(h.path("mnt")); err != nil {
		t.Error(err)
	}
	h.wantAt(h.path("layers/0/Files"), `directory of ["hello.txt"]`)
	h.wantClosed()
}

// After a restart the volume on record may be that of another layer.
func TestUnmountRecursive_LeavesWhatIsInAReusedVolume(t *testing.T) {
	h := newHost(t)
	h.model.Personality.GUIDReused = true
	h.mustMount(h.scratch("2"), h.target("a"))
	volume := h.record(h.target("a")).Volume
	h.reboot()
	h.mkdir(h.path("elsewhere"))
	h.mustMount(h.scratch("3"), h.path("elsewhere", "b"))
	h.mustMount(h.scratch("4"), h.path("elsewhere", "b", "inner"))
	if now := h.record(h.path("elsewhere", "b")).Volume; now != volume {
		t.Fatalf("layer 3 is %s, want %s", now, volume)
	}
	if err := h.unmountRecursive(h.path("mnt")); err != nil {
		t.Error(err)
	}
	h.wantAt(h.target("a"), "nothing")
	h.wantOpen("3", "4")
	if err := h.unmountRecursive(h.path("elsewhere")); err != nil {
		t.Error(err)
	}
	h.wantClosed()
}

// On Windows a layer shows its files at the root of a volume. Here the root directory stands for that.
func TestPathsOf_LeadThroughTheRootOfAVolume(t *testing.T) {
	h := newHost(t)
	root := string(filepath.Separator)
	outer := &table.Mount{Record: table.Record{Volume: root, Resolved: filepath.Join(root, "mnt", "a")}}
	inner := &table.Mount{Record: table.Record{Resolved: filepath.Join(root, "b", "c")}}
	got := h.engine.pathsOf(inner, map[string][]*table.Mount{winpath.Comparable(root): {outer}}, nil)
	if want := []string{inner.Resolved, filepath.Join(outer.Resolved, "b", "c")}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// If two layers have swapped their volumes, their records may say that each is mounted in the other.
func TestPathsOf_LeadInNoCircle(t *testing.T) {
	h := newHost(t)
	one := &table.Mount{Record: table.Record{Resolved: h.path("two", "a")}}
	two := &table.Mount{Record: table.Record{Resolved: h.path("one", "b")}}
	showing := map[string][]*table.Mount{winpath.Comparable(h.path("one")): {one}, winpath.Comparable(h.path("two")): {two}}
	got := h.engine.pathsOf(one, showing, nil)
	if want := []string{one.Resolved, filepath.Join(two.Resolved, "a")}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Nothing but the record tells where the target was, and another program has the file open.
func TestUnmount_OfALostTargetWhoseRecordCannotBeReadFails(t *testing.T) {
	h := newHost(t)
	symlink(t, h.mkdir(h.path("dir")), h.path("link"))
	target := h.path("link", "a")
	h.mustMount(h.scratch("2"), target)
	file := h.path("table", "mounts", h.mounts()[0].Name.String())
	h.remove(h.path("link"))
	h.must(os.Rename(file, h.path("kept")))
	symlink(t, h.path("kept"), file) // which is not followed
	if err := h.unmount(target); err == nil {
		t.Error("no error")
	}
	h.must(os.Remove(file))
	h.must(os.Rename(h.path("kept"), file))
	h.mustUnmount(target)
	h.wantClosed()
}

// A process was killed before it recorded anything, and other code has opened the layer.
func TestUnmount_OfALayerWithAnEmptyRecordClosesIt(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.emptyRecord(m.Source, h.target("a"))
	h.must(h.model.ActivateLayer(m.Source))
	h.mustUnmount(m.Source)
	h.wantClosed()
}
