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
	"github.com/seed-941ae793/mount/internal/table"
)

// kindsOfLayer make layer 2, each of another kind.
var kindsOfLayer = map[string]func(h *host) *Mount{"scratch": scratch2, "base": base2, "committed": committed2}

// otherCodeOpens opens a layer without a record.
func (h *host) otherCodeOpens(m *Mount) {
	h.t.Helper()
	if err := stderrors.Join(h.model.ActivateLayer(m.Source), h.model.PrepareLayer(m.Source, []string{`C:\layers\1`})); err != nil {
		h.t.Fatal(err)
	}
}

// otherCodeCloses closes a layer that is mounted.
func (h *host) otherCodeCloses(m *Mount) {
	h.t.Helper()
	if err := stderrors.Join(h.model.UnprepareLayer(m.Source), h.model.DeactivateLayer(m.Source)); err != nil {
		h.t.Fatal(err)
	}
}

// wantOnlyAsked fails the test if HCS got any call but those that ask for a volume.
func (h *host) wantOnlyAsked() {
	h.t.Helper()
	for _, call := range h.model.Calls() {
		if !strings.HasPrefix(call, string(hcstest.MountPath)) {
			h.t.Errorf("HCS was called: %s", call)
		}
	}
}

// wantNoRecords fails the test if anything is on record.
func (h *host) wantNoRecords() {
	h.t.Helper()
	if left := h.tableFiles(); len(left) != 0 {
		h.t.Errorf("left in the table: %q", left)
	}
}

// blockMnt keeps the targets in the directory mnt from being looked at, as a drive without its medium does, until
// unblock is called.
func (h *host) blockMnt() (unblock func()) {
	h.t.Helper()
	h.rename(h.path("mnt"), h.path("aside"))
	h.write(h.path("mnt"), "a file")
	return func() {
		h.t.Helper()
		h.remove(h.path("mnt"))
		h.rename(h.path("aside"), h.path("mnt"))
	}
}

func (h *host) rename(from, to string) {
	h.t.Helper()
	if err := os.Rename(from, to); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) remove(path string) {
	h.t.Helper()
	if err := os.RemoveAll(path); err != nil {
		h.t.Fatal(err)
	}
}

func TestMount_OpensTheLayerInOrderAndLinksItsVolume(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.wantCalls(openCalls...)
	h.wantAt(h.target("a"), "link to "+h.link(m))
	h.write(h.target("a/new.txt"), "new")
	h.wantAt(filepath.Join(h.record(h.target("a")).Volume, "new.txt"), "file: new")
}

func TestMount_ShowsTheFilesDirectoryOfABaseLayer(t *testing.T) {
	h := newHost(t)
	m := h.base("0")
	h.mustMount(m, h.target("a"))
	h.wantAt(h.target("a"), "link to "+filepath.Join(m.Source, "Files"))
	h.wantAt(h.target("a/hello.txt"), "file: hello")
	h.mustUnmount(h.target("a"))
	h.wantAt(m.Source, `directory of ["Files" "Hives"]`)
	h.wantClosed()
}

func TestMount_RefusesABaseLayerWithoutFiles(t *testing.T) {
	for name, breakFiles := range map[string]func(h *host, files string){
		"absent": func(h *host, files string) { h.remove(files) },
		"a file": func(h *host, files string) { h.remove(files); h.write(files, "") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := h.base("0")
			files := filepath.Join(m.Source, "Files")
			breakFiles(h, files)
			wantError(t, h.mount(m, h.mkdir(h.target("a"))), "link to "+files+" does not show layer "+m.Source)
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

// It is not known whether HCS attaches the disk that a committed layer has kept.
func TestMount_ShowsACommittedLayerWhetherOrNotItsDiskIsAttached(t *testing.T) {
	for _, attached := range []bool{false, true} {
		t.Run(fmt.Sprint(attached), func(t *testing.T) {
			h := newHost(t)
			h.model.Personality.AttachesKeptDisk = attached
			m := h.committed("2")
			h.mustMount(m, h.mkdir(h.target("a")))
			h.mustMount(m, h.target("b"))
			h.wantAt(h.target("a"), "link to "+h.link(m))
			h.wantAt(h.target("b"), "link to "+h.link(m))
			if isVolume := h.link(m) != m.Source+"/"; isVolume != attached {
				t.Errorf("shows %s", h.link(m))
			}
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), "directory of []")
			h.wantOpen("2")
			h.mustUnmount(h.target("b"))
			h.wantClosed()
		})
	}
}

func TestUnmount_ClosesACommittedLayerThatWasLeftHalfOpen(t *testing.T) {
	for _, attached := range []bool{false, true} {
		for call := range len(openCalls) {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("attached %v, killed in call %d, after it %v", attached, call, after), func(t *testing.T) {
					h := newHost(t)
					h.model.Personality.AttachesKeptDisk = attached
					m := h.committed("2")
					h.kill(call, after, func() error { return h.mount(m, h.target("a")) })
					h.mustUnmount(m.Source)
					h.wantClosed()
				})
			}
		}
	}
}

// The directory of a writable layer has its disk and not its files.
func TestMount_RefusesAWritableLayerForWhichHCSNamesNoVolume(t *testing.T) {
	for _, named := range []hcstest.OpenPath{hcstest.OpenPathEmpty, hcstest.OpenPathDirectory} {
		t.Run(string(named), func(t *testing.T) {
			h := newHost(t)
			h.model.Personality.OpenPath = named
			wantError(t, h.mount(h.scratch("2"), h.mkdir(h.target("a"))), "HCS names no volume")
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestMount_OpensALayerOnceForAllItsTargets(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			h.mustMount(m, h.target("a"))
			shown := describe(h.target("a"))
			h.model.ResetCalls()
			m.Options = nil // which an open layer does not need
			h.mustMount(m, h.target("b"))
			h.mustMount(m, h.target("c"))
			h.wantAt(h.target("b"), shown)
			h.wantAt(h.target("c"), shown)
			h.mustUnmount(h.target("a"))
			h.mustUnmount(h.target("c"))
			h.wantOnlyAsked()
			h.wantAt(h.target("b"), shown)
			h.mustUnmount(h.target("b"))
			h.wantClosed()
		})
	}
}

func TestMount_ReplacesAnEmptyDirectoryWhichUnmountPutsBack(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.mkdir(h.target("a")))
	h.wantAt(h.target("a"), "link to "+h.link(m))
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestMount_RefusesATargetInUse(t *testing.T) {
	for name, use := range map[string]func(h *host, target string){
		"directory with a file": func(h *host, target string) { h.write(filepath.Join(target, "data"), "mine") },
		"file":                  func(h *host, target string) { h.write(target, "mine") },
		"link":                  func(h *host, target string) { symlink(h.t, h.mkdir(h.path("empty")), target) },
		"link that leads nowhere": func(h *host, target string) {
			symlink(h.t, h.path("gone"), target)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			use(h, h.target("a"))
			before := describe(h.target("a"))
			wantError(t, h.mount(h.scratch("2"), h.target("a")), "failed to mount at "+h.target("a"), os.ErrExist)
			h.wantAt(h.target("a"), before)
			h.wantCalls()
			h.wantClosed()
		})
	}
}

func TestMount_RefusesALiveMountAndKeepsIt(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			live := layer(h)
			h.mustMount(live, h.target("a"))
			shown := describe(h.target("a"))
			h.model.ResetCalls()
			for _, m := range []*Mount{live, h.scratch("3"), h.base("0")} {
				wantError(t, h.mount(m, h.target("a")), "it shows layer "+live.Source, os.ErrExist)
			}
			h.wantOnlyAsked()
			h.wantAt(h.target("a"), shown)
			h.wantOpen("2")
		})
	}
}

func TestMount_RefusesATargetWhoseParentIsNotADirectory(t *testing.T) {
	h := newHost(t)
	h.write(h.target("file"), "mine")
	wantError(t, h.mount(h.scratch("2"), h.target("absent/a")), "failed to mount at "+h.target("absent/a"), os.ErrNotExist)
	wantError(t, h.mount(h.scratch("2"), h.target("file/a")), "failed to mount at "+h.target("file/a"))
	h.wantCalls()
	h.wantAt(h.path("mnt"), `directory of ["file"]`)
}

// If a layer could be mounted there, other processes would fail for all layers, or find the layer in place of
// the table.
func TestMount_RefusesATargetInTheTable(t *testing.T) {
	for _, state := range []string{"new", "in use"} {
		t.Run(state, func(t *testing.T) {
			h := newHost(t)
			if state == "in use" {
				h.mustMount(h.scratch("3"), h.target("live"))
				h.mustUnmount(h.target("live"))
				h.model.ResetCalls()
			} else {
				h.mkdir(h.mkdir(h.path("table")) + "/mounts")
			}
			before := describe(h.path("table"))
			symlink(t, h.path("table"), h.path("other"))
			for _, target := range []string{h.path("table"), h.path("table/a"), h.path("table/mounts"), h.path("table/mounts/a"), h.path("other/a")} {
				wantError(t, h.mount(h.scratch("2"), target), h.path("table")+" is the mount table")
			}
			h.wantCalls()
			h.wantAt(h.path("table"), before)
			h.wantNoRecords()
			h.mustMount(h.scratch("2"), h.target("a"))
		})
	}
}

func TestMount_RefusesMalformedArgumentsBeforeItTouchesAnything(t *testing.T) {
	h := newHost(t)
	good := *h.scratch("2")
	for _, test := range []struct {
		name, text string
		change     func(m *Mount, target *string)
	}{
		{"type", "'overlay'", func(m *Mount, _ *string) { m.Type = "overlay" }},
		{"no source", "path is empty", func(m *Mount, _ *string) { m.Source = "" }},
		{"relative source", "is not absolute", func(m *Mount, _ *string) { m.Source = "layers/2" }},
		{"root as source", "root of a volume", func(m *Mount, _ *string) { m.Source = "/" }},
		{"separator at the end of the source", `is ""`, func(m *Mount, _ *string) { m.Source += "/" }},
		{"source without a name", `is ".."`, func(m *Mount, _ *string) { m.Source += "/.." }},
		{"parents", "failed to unmarshal parent layer paths", func(m *Mount, _ *string) { m.Options = []string{ParentLayerPathsFlag + "{"} }},
		{"no target", "path is empty", func(_ *Mount, target *string) { *target = "" }},
		{"NUL in the target", "contains a NUL", func(_ *Mount, target *string) { *target += "\x00" }},
		{"target that is not Unicode", "is not valid Unicode", func(_ *Mount, target *string) { *target += "\xff" }},
		{"root as target", "root of a volume", func(_ *Mount, target *string) { *target = "/" }},
		{"sub-directory out of the target", `path contains ".."`, func(m *Mount, _ *string) { m.Target = "../b" }},
		{"NUL in the sub-directory", "contains a NUL", func(m *Mount, _ *string) { m.Target = "b\x00" }},
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

func TestMount_RefusesAWayThatARecordCannotHold(t *testing.T) {
	h := newHost(t)
	symlink(t, h.mkdir(h.path("\xff")), h.path("link"))
	wantError(t, h.mount(h.scratch("2"), h.path("link", "a")), "is not valid Unicode")
	h.wantCalls()
	h.wantAt(h.path("\xff"), "directory of []")
}

func TestMount_FailsIfAPathCannotBeResolved(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	long, loop := h.target(strings.Repeat("x", 300)), h.target("loop")
	symlink(t, loop, loop)
	for dir, text := range map[string]string{long: long, loop: "too many links"} {
		path := filepath.Join(dir, "a")
		wantError(t, h.mount(m, path), text)
		wantError(t, h.mount(&Mount{Type: m.Type, Source: path}, h.target("a")), text)
		wantError(t, h.unmount(path), text)
		wantError(t, h.unmountRecursive(path), text)
		_, err := h.lookup(path)
		wantError(t, err, text)
	}
	wantError(t, h.mount(m, long), "failed to mount at "+long, syscall.ENAMETOOLONG)
	wantError(t, h.unmount(loop), "failed to unmount "+loop)
	h.wantCalls()
	h.wantNoRecords()
}

// chdir changes the working directory until the test ends.
func (h *host) chdir(dir string) {
	h.t.Helper()
	before, err := os.Getwd()
	if err == nil {
		err = os.Chdir(dir)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = os.Chdir(before) })
}

func TestMount_TakesARelativeTargetFromTheWorkingDirectory(t *testing.T) {
	h := newHost(t)
	h.chdir(h.path("mnt"))
	h.mustMount(h.scratch("2"), "a")
	h.wantAt(h.target("a"), "link to "+h.link(h.scratchMount("2")))
	h.mustUnmount("./a/")
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestMount_PassesTheCleanSourceToHCS(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	m.Source = h.path("layers") + "//../layers/./2"
	h.mustMount(m, h.target("a"))
	h.wantCalls(openCalls...)
	h.mustUnmount(m.Source)
	h.wantClosed()
}

// HCS wants paths without links (hcsshim pull request 939).
func TestMount_PassesToHCSTheLayerThatALinkLeadsTo(t *testing.T) {
	for name, source := range map[string]func(h *host) string{
		"link on the way":   func(h *host) string { symlink(h.t, h.path("layers"), h.path("other")); return h.path("other", "2") },
		"link to the layer": func(h *host) string { symlink(h.t, h.path("layers", "2"), h.path("other")); return h.path("other") },
		"link to a link to it": func(h *host) string {
			symlink(h.t, "layers", h.path("x"))
			symlink(h.t, "x/2", h.path("y"))
			return h.path("y")
		},
		"link and back from it": func(h *host) string { symlink(h.t, "layers", h.path("x")); return h.path("x") + "/../x/./2" },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			linked := *m
			linked.Source = source(h)
			h.mustMount(&linked, h.target("a"))
			h.wantCalls(openCalls...)
			h.mustMount(m, h.target("b"))
			h.wantAt(h.target("b"), describe(h.target("a")))
			h.mustUnmount(linked.Source)
			h.wantAt(h.path("mnt"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestMount_KnowsATargetUnderEveryNameThatItHas(t *testing.T) {
	h := newHost(t)
	symlink(t, h.path("mnt"), h.path("other"))
	h.mustMount(h.scratch("2"), h.path("other", "a"))
	wantError(t, h.mount(h.scratch("3"), h.target("a")), "it shows layer", os.ErrExist)
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestMount_ClearsWhatARestartHasLeftAtTheTarget(t *testing.T) {
	for name, layer := range kindsOfLayer {
		for _, other := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, another layer %v", name, other), func(t *testing.T) {
				h := newHost(t)
				left := layer(h)
				h.mustMount(left, h.mkdir(h.target("a")))
				h.reboot()
				m := left
				if other {
					m = h.scratch("3")
					h.otherCodeOpens(left)
				}
				h.mustMount(m, h.target("a"))
				h.wantAt(h.target("a"), "link to "+destination(h.record(h.target("a"))))
				h.mustUnmount(h.target("a"))
				h.wantAt(h.target("a"), "directory of []")
				h.wantNoRecords()
				if other {
					h.wantOpen("2")
				} else {
					h.wantOpen()
				}
			})
		}
	}
}

func TestMount_ClearsTheOtherTargetsOfALayerAfterARestart(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			h.mustMount(m, h.mkdir(h.target("a")))
			h.reboot()
			h.mustMount(m, h.target("b"))
			h.wantAt(h.target("a"), "directory of []")
			h.mustUnmount(h.target("a"))
			h.wantOpen("2")
			h.mustUnmount(h.target("b"))
			h.wantClosed()
		})
	}
}

// If one target cannot be looked at, the layer can still be mounted at another.
func TestMount_ShowsALayerWhoseOtherTargetCannotBeLookedAt(t *testing.T) {
	for name, before := range map[string]func(h *host){
		"mounted":                 func(h *host) {},
		"unmounted in vain":       func(h *host) { wantError(h.t, h.unmount(h.target("a")), h.target("a"), syscall.ENOTDIR) },
		"restarted":               func(h *host) { h.reboot() },
		"unmounted and restarted": func(h *host) { wantError(h.t, h.unmount(h.target("a")), h.target("a")); h.reboot() },
		"closed by other code":    func(h *host) { h.otherCodeCloses(h.scratchMount("2")) },
	} {
		for _, made := range []string{"directory", "nothing"} {
			t.Run(name+", "+made, func(t *testing.T) {
				h := newHost(t)
				m := h.scratch("2")
				b := filepath.Join(h.mkdir(h.path("elsewhere")), "b")
				if made == "directory" {
					h.mkdir(h.target("a"))
				}
				before0 := describe(h.target("a"))
				h.mustMount(m, h.target("a"))
				unblock := h.blockMnt()
				before(h)
				h.mustMount(m, b)
				h.wantAt(b, "link to "+h.link(m))
				h.record(h.target("a")) // which is still there
				unblock()
				h.mustUnmount(h.target("a"))
				h.wantAt(h.target("a"), before0)
				h.wantOpen("2")
				h.mustUnmount(b)
				h.wantClosed()
			})
		}
	}
}

func TestMount_OpensALayerAgainOnceItsTargetIsInReach(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.mkdir(h.target("a")))
	unblock := h.blockMnt()
	wantError(t, h.unmount(h.target("a")), "layer "+m.Source, syscall.ENOTDIR)
	unblock()
	h.model.ResetCalls()
	h.mustMount(m, h.target("a"))
	h.wantCalls(openCalls...)
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestMount_ShowsALayerAgainWhoseLinkSomebodyHasRemoved(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			h.mustMount(m, h.target("a"))
			shown := describe(h.target("a"))
			h.remove(h.target("a"))
			h.mustMount(m, h.target("a"))
			h.wantAt(h.target("a"), shown)
			h.remove(h.target("a"))
			h.mustMount(m, h.target("b"))
			h.wantAt(h.target("b"), shown)
			h.mustUnmount(h.target("a"))
			h.wantOpen("2")
			h.mustUnmount(h.target("b"))
			h.wantClosed()
		})
	}
}

func TestMount_OpensALayerAgainThatOtherCodeHasClosed(t *testing.T) {
	for _, target := range []string{"a", "b"} {
		h := newHost(t)
		h.model.Personality.NewVolume = true
		m := h.scratch("2")
		h.mustMount(m, h.mkdir(h.target("a")))
		h.otherCodeCloses(m)
		h.mustMount(m, h.target(target))
		h.wantAt(h.target(target), "link to "+h.link(m))
		h.mustUnmount(h.target(target))
		h.wantAt(h.target("a"), "directory of []")
		h.wantClosed()
	}
}

// A GUID that one layer has given up may be that of another layer now.
func TestMount_NeverShowsTheVolumeOfAnotherLayer(t *testing.T) {
	for _, closedPath := range []syscall.Errno{hcstest.NotActive, errorNotReady, 0} {
		for _, target := range []string{"a", "b"} {
			t.Run(fmt.Sprintf("HCS says 0x%x of a closed layer, at %s", uintptr(closedPath), target), func(t *testing.T) {
				h := newHost(t)
				h.model.Personality.GUIDReused, h.model.Personality.ClosedPath = true, closedPath
				m, other := h.scratch("2"), h.scratch("3")
				h.mustMount(m, h.mkdir(h.target("a")))
				volume := h.record(h.target("a")).Volume
				h.otherCodeCloses(m)
				h.otherCodeOpens(other)
				if h.link(other) != volume+"/" {
					t.Fatalf("layer 3 is %s, want %s", h.link(other), volume)
				}
				if h.mount(m, h.target(target)) != nil { // since HCS does not say what became of the layer
					h.mustUnmount(m.Source)
					h.wantNoRecords()
					h.wantAt(h.target("a"), "directory of []")
					h.mustMount(m, h.target(target))
				}
				h.wantAt(h.target(target), "link to "+h.link(m))
				if h.link(m) == h.link(other) {
					t.Error("both layers have one volume")
				}
				h.mustUnmount(m.Source)
				h.wantAt(h.target("a"), "directory of []")
				h.wantOpen("3")
				h.wantNoRecords()
			})
		}
	}
}

func TestMount_WaitsForAVolumeThatIsOutOfReach(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	shown := describe(h.target("a"))
	volume := h.record(h.target("a")).Volume
	pauses := 0
	h.setPause(func(context.Context) error {
		if pauses++; pauses == 4 {
			return os.Rename(volume+" aside", volume)
		}
		return nil
	})
	h.rename(volume, volume+" aside")
	wantError(t, h.mount(h.scratch("3"), h.target("a")), "it shows layer", os.ErrExist)
	pauses = 0
	h.rename(volume, volume+" aside")
	h.mustMount(h.scratchMount("2"), h.target("b"))
	h.wantAt(h.target("a"), shown)
	h.wantAt(h.target("b"), shown)
}

func TestMount_LeavesALayerOpenThatOtherCodeHasOpened(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			h.otherCodeOpens(m)
			code := errorInvalidParameter // PrepareLayer's
			if name == "scratch" {
				code = errorSharingViolation
			}
			wantError(t, h.mount(m, h.mkdir(h.target("a"))), "layer "+m.Source, code)
			h.wantAt(h.target("a"), "directory of []")
			h.wantOpen("2")
			h.wantNoRecords()
		})
	}
}

func TestMount_OfTwoAtATargetRefusesTheSecond(t *testing.T) {
	h := newHost(t)
	first, second := h.scratch("2"), h.scratch("3")
	done := make(chan error, 1)
	h.model.Before = func(call hcstest.Call, layer string) error {
		if call == hcstest.Prepare && layer == first.Source {
			h.hideRecord(h.target("a"), func() { // by which the second would wait for the layer of the first
				go func() { done <- h.mount(second, h.target("a")) }()
				h.awaitWaiting(done)
			})
			if len(done) != 0 {
				t.Fatal("the second does not wait for the first")
			}
		}
		return nil
	}
	h.mustMount(first, h.target("a"))
	wantError(t, <-done, "it shows layer "+first.Source, os.ErrExist)
	h.wantOpen("2")
}

func TestMount_TriesAgainWhatMayPass(t *testing.T) {
	for _, call := range []hcstest.Call{hcstest.Activate, hcstest.Prepare, hcstest.MountPath} {
		h := newHost(t)
		m := h.scratch("2")
		h.failOpening(call, errorNotReady, errorNotReady, errorNotReady, errorNotReady)
		h.mustMount(m, h.target("a"))
		h.wantAt(h.target("a"), "link to "+h.link(m))
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	}
}

func TestMount_ACancelledContextEndsTheAttemptsAndNotTheUndo(t *testing.T) {
	for _, call := range []hcstest.Call{hcstest.Prepare, hcstest.MountPath} {
		h := newHost(t)
		ctx, cancel := context.WithCancel(context.Background())
		refused := false
		h.failEvery(errorNotReady, call)
		fail := h.model.Before
		h.model.Before = func(name hcstest.Call, layer string) error {
			if name == hcstest.Deactivate && !refused { // so that the undo, too, is tried again
				refused = true
				return errorSharingViolation
			}
			return fail(name, layer)
		}
		h.setPause(func(ctx context.Context) error {
			h.pauses++
			cancel()
			return ctx.Err()
		})
		wantError(t, h.engine.mount(ctx, h.scratch("2"), h.mkdir(h.target("a"))), "layer "+h.path("layers", "2"), errorNotReady, context.Canceled)
		h.wantAt(h.target("a"), "directory of []")
		h.wantClosed()
		cancel()
	}
}

func TestMount_UndoesWhatItHasDoneIfACallFails(t *testing.T) {
	for name, layer := range kindsOfLayer {
		for _, call := range []hcstest.Call{hcstest.Activate, hcstest.Prepare, hcstest.MountPath} {
			t.Run(fmt.Sprint(name, " ", call), func(t *testing.T) {
				h := newHost(t)
				m := layer(h)
				h.failOpening(call, errorGenFailure)
				err := h.mount(m, h.mkdir(h.target("a")))
				var hcsErr *hcstest.Error
				if !stderrors.As(err, &hcsErr) || hcsErr.Call != call {
					t.Errorf("error %v, want one of %s", err, call)
				}
				wantError(t, err, "layer "+m.Source, errorGenFailure)
				h.wantAt(h.target("a"), "directory of []")
				h.wantClosed()
			})
		}
	}
}

func TestMount_ReportsAndRecordsAnUndoThatFails(t *testing.T) {
	for _, test := range []struct {
		name  string
		codes map[hcstest.Call]error
		texts []string
	}{
		{"PrepareLayer", map[hcstest.Call]error{
			hcstest.Prepare: errorInvalidParameter, hcstest.Deactivate: errorSharingViolation,
		}, []string{"failed to prepare layer", "undo: failed to unprepare layer", "failed to deactivate layer", "is still open as"}},
		{"PrepareLayer, for an instant", map[hcstest.Call]error{
			hcstest.Prepare: errorNotReady, hcstest.Deactivate: errorSharingViolation,
		}, []string{"failed to prepare layer", "undo: failed to unprepare layer", "failed to deactivate layer"}},
		{"GetLayerMountPath", map[hcstest.Call]error{
			hcstest.MountPath: errorInvalidParameter, hcstest.Unprepare: errorGenFailure, hcstest.Deactivate: errorSharingViolation,
		}, []string{"failed to get mount path of layer", "failed to unprepare layer", "failed to deactivate layer"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			h.model.Before = func(call hcstest.Call, _ string) error { return test.codes[call] }
			err := h.mount(h.scratch("2"), h.mkdir(h.target("a")))
			for _, text := range test.texts {
				wantError(t, err, text)
			}
			for _, code := range test.codes {
				wantError(t, err, "", code)
			}
			h.wantNoLeak()
			h.wantOpen("2")
			h.wantAt(h.target("a"), "directory of []")
			h.model.Before = nil
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestMount_ReportsAnUndoThatFailsOnceTheLayerIsOpen(t *testing.T) {
	h := newHost(t)
	h.model.Before = func(call hcstest.Call, _ string) error {
		switch call {
		case hcstest.Prepare:
			h.write(h.target("a"), "in the way")
		case hcstest.Deactivate:
			return errorSharingViolation
		}
		return nil
	}
	err := h.mount(h.scratch("2"), h.target("a"))
	wantError(t, err, "failed to link layer")
	wantError(t, err, "undo: failed to unprepare layer", errorSharingViolation)
	h.wantOpen("2")
	h.wantNoLeak()
	h.model.Before = nil
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "file: in the way")
	h.wantClosed()
}

func TestMount_LeavesAloneWhatSomebodyPutsAtTheTargetMeanwhile(t *testing.T) {
	for _, test := range []struct {
		name, text string
		directory  bool
		put        func(h *host)
	}{
		{"a file in the directory", "failed to replace directory", true, func(h *host) { h.write(h.target("a/data"), "mine") }},
		{"a file", "failed to link layer", false, func(h *host) { h.write(h.target("a"), "mine") }},
		{"an empty directory", "failed to link layer", false, func(h *host) { h.mkdir(h.target("a")) }},
		{"a link in the place of the directory", "failed to replace directory", true, func(h *host) {
			h.remove(h.target("a"))
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
					test.put(h)
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

// vanishOnceOpen makes a base layer whose files are away once it is open, until putBack is called.
func (h *host) vanishOnceOpen() (m *Mount, putBack func()) {
	m = h.base("2")
	files, aside := filepath.Join(m.Source, "Files"), h.path("aside")
	h.model.After = func(call hcstest.Call, _ string) error {
		if call == hcstest.Prepare {
			h.rename(files, aside)
		}
		return nil
	}
	return m, func() { h.rename(aside, files) }
}

func TestMount_FailsIfTheLinkDoesNotShowTheLayer(t *testing.T) {
	h := newHost(t)
	m, _ := h.vanishOnceOpen()
	wantError(t, h.mount(m, h.mkdir(h.target("a"))), "does not show layer "+m.Source, os.ErrNotExist)
	if h.pauses != 4 {
		t.Errorf("%d pauses, want 4", h.pauses)
	}
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

// As on Wine up to 10.0, whose CreateSymbolicLink succeeds and makes nothing.
func TestMount_FailsIfTheLinkIsNotThereAfterItWasMade(t *testing.T) {
	h := newHost(t)
	m, putBack := h.vanishOnceOpen()
	h.setPause(func(context.Context) error {
		if h.pauses++; h.pauses == 1 {
			putBack()
			h.remove(h.target("a"))
		}
		return nil
	})
	wantError(t, h.mount(m, h.target("a")), "does not show layer "+m.Source, os.ErrNotExist)
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestMount_WaitsForFilesThatAreLate(t *testing.T) {
	h := newHost(t)
	m, putBack := h.vanishOnceOpen()
	h.setPause(func(context.Context) error {
		if h.pauses++; h.pauses == 4 {
			putBack()
		}
		return nil
	})
	h.mustMount(m, h.target("a"))
	h.wantAt(h.target("a/hello.txt"), "file: hello")
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestMount_FailsBeforeHCSIsCalledIfTheTableCannotBeUsed(t *testing.T) {
	for name, obstruct := range map[string]func(h *host){
		"a file":                      func(h *host) { h.write(h.path("table"), "") },
		"a directory of another use":  func(h *host) { h.write(h.path("table", "data"), "mine") },
		"mounts is a file":            func(h *host) { h.write(h.path("table", "mounts"), "") },
		"its parent is not there":     func(h *host) { h.engine.table = table.New(h.path("none", "table"), h.boot, h.pause) },
		"its parent is not, and long": func(h *host) { h.engine.table = table.New(h.path(strings.Repeat("x", 300), "table"), h.boot, h.pause) },
		"the record is a directory": func(h *host) {
			h.mustMount(h.scratch("2"), h.target("a"))
			file := h.recordFile(h.target("a"))
			h.mustUnmount(h.target("a"))
			h.model.ResetCalls()
			h.write(filepath.Join(file, "data"), "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			obstruct(h)
			wantError(t, h.mount(h.scratch("2"), h.mkdir(h.target("a"))), "mount table")
			h.wantCalls()
			h.wantAt(h.target("a"), "directory of []")
		})
	}
}

// damage overwrites the file of a mount with a text that no version of this package writes.
func (h *host) damage(target string) (file string) {
	h.t.Helper()
	file = h.recordFile(target)
	h.write(file, "garbage\n")
	return file
}

func TestMount_RefusesATargetWhoseRecordIsDamaged(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	shown := describe(h.target("a"))
	file := h.damage(h.target("a"))
	h.model.ResetCalls()
	for _, m := range []*Mount{h.scratch("2"), h.scratch("3")} {
		wantError(t, h.mount(m, h.target("a")), file, table.ErrDamaged)
	}
	h.wantCalls()
	h.wantAt(h.target("a"), shown)
	h.wantOpen("2")
}

// Which record is read first depends on the file system.
func TestMount_SharesALayerThatIsShownWhateverElseIsOnRecord(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	for i := range 8 {
		h.mustMount(m, h.target(fmt.Sprint(i)))
	}
	for i := range 8 {
		if i != 5 {
			h.damage(h.target(fmt.Sprint(i)))
		}
	}
	h.mustMount(m, h.target("a"))
	h.wantAt(h.target("a"), "link to "+h.link(m))
	h.mustUnmount(h.target("a"))
	h.wantOpen("2")
}

// Nothing tells whether the layer is open.
func TestMount_RefusesALayerWhoseOnlyRecordIsDamaged(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	file := h.damage(h.target("a"))
	h.model.ResetCalls()
	wantError(t, h.mount(m, h.target("b")), file, table.ErrDamaged)
	h.wantOnlyAsked()
	h.wantAt(h.target("b"), "nothing")
	h.mustUnmount(m.Source)
	h.mustMount(m, h.target("b"))
	h.wantOpen("2")
}

// After a restart the layer is known to be closed.
func TestMount_OpensALayerWhoseStaleRecordIsDamaged(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	file := h.recordFile(h.target("a"))
	h.writeNewerFormat(file)
	h.reboot()
	h.mustMount(m, h.target("b"))
	h.wantAt(h.target("b"), "link to "+h.link(m))
	h.mustUnmount(h.target("b"))
	h.wantOpen()
	h.wantAt(file, describe(file))
}

func TestMount_FailsIfALayerLeftHalfOpenCannotBeClosed(t *testing.T) {
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

func TestAll_MountsInOrder(t *testing.T) {
	h := newHost(t)
	outer, inner := *h.scratch("2"), *h.base("0")
	inner.Target = "sub"
	if err := h.mountAll(context.Background(), []Mount{outer, inner}, h.target("a")); err != nil {
		t.Fatal(err)
	}
	h.wantAt(h.target("a"), "link to "+h.link(&outer))
	h.wantAt(h.target("a/sub"), "link to "+filepath.Join(inner.Source, "Files"))
	h.wantAt(h.target("a/sub/hello.txt"), "file: hello")
}

func TestAll_UnmountsWhatItHasMountedIfOneFails(t *testing.T) {
	h := newHost(t)
	middle, bad := *h.base("0"), *h.scratch("3")
	middle.Target, bad.Target = "sub", "sub"
	h.mkdir(h.target("a"))
	err := h.mountAll(context.Background(), []Mount{*h.scratch("2"), middle, bad}, h.target("a"))
	wantError(t, err, "it shows layer "+middle.Source, os.ErrExist)
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestAll_ReportsWhatItCouldNotUnmount(t *testing.T) {
	h := newHost(t)
	h.failEvery(errorSharingViolation, hcstest.Unprepare, hcstest.Deactivate)
	err := h.mountAll(context.Background(), []Mount{*h.scratch("2"), {Type: "overlay"}}, h.target("a"))
	wantError(t, err, "'overlay'; undo: failed to unprepare layer", errorSharingViolation)
	wantError(t, err, "failed to deactivate layer")
	h.wantNoLeak()
	h.model.Before = nil
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestMount_AtASubDirectoryOfALayer(t *testing.T) {
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
	h.wantOpen("2")
}

// What is in a layer is not trusted: a link on the way could lead anywhere.
func TestMount_RefusesASubDirectoryThatIsNotReachedByDirectories(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	symlink(t, h.path("mnt"), h.target("a/out"))
	h.write(h.target("a/file"), "")
	h.model.ResetCalls()
	for sub, text := range map[string]string{
		"out/sub":  h.target("a/out") + " is not a directory",
		"file/sub": h.target("a/file") + " is not a directory",
		"none/sub": "no such file",
		"out":      "not a directory",
	} {
		m := h.base("0")
		m.Target = sub
		wantError(t, h.mount(m, h.target("a")), text)
	}
	h.wantCalls()
	h.wantAt(h.path("mnt"), `directory of ["a"]`)
}
