//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
)

// theirMount mounts a layer as containerd's own package does, without a record.
func (h *host) theirMount(m *Mount, target string) {
	h.t.Helper()
	parents, err := m.GetParentPaths()
	h.must(err)
	h.must(h.model.ActivateLayer(m.Source))
	h.must(h.model.PrepareLayer(m.Source, parents))
	var volume string
	for range 5 { // or the volume is late, and containerd's Mount fails
		if volume, err = h.model.GetLayerMountPath(m.Source); err == nil && volume != "" {
			if _, err = os.Stat(volume); err == nil {
				break
			}
		}
	}
	h.must(err)
	if volume = strings.TrimSuffix(volume, "/") + "/"; len(parents) == 0 {
		volume = filepath.Join(volume, "Files")
	}
	h.must(h.model.Bind(target, volume, m.ReadOnly()))
	h.must(os.WriteFile(target+sourceStream, []byte(m.Source), 0o666))
}

// theirUnmount unmounts a target as containerd's own package does.
func (h *host) theirUnmount(target string) {
	h.t.Helper()
	source, err := os.ReadFile(target + sourceStream)
	h.must(err)
	h.must(h.model.Unbind(target))
	h.must(h.model.UnprepareLayer(string(source)))
	h.must(h.model.DeactivateLayer(string(source)))
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// streamAt returns what a program reads from the stream of a target, or "".
func (h *host) streamAt(target string) string {
	text, _ := os.ReadFile(target + sourceStream)
	return string(text)
}

// theirLayers are those that containerd's own package mounts.
var theirLayers = map[string]func(h *host) *Mount{"scratch": scratch2, "base": base2, "committed": func(h *host) *Mount {
	h.committed("2")
	h.write(h.path("layers", "2", "layerchain.json"), `["C:\\layers\\1","C:\\layers\\0"]`)
	return h.scratchMount("2")
}}

func TestMount_LeavesTheSourceOfALayerInAStreamUntilUnmount(t *testing.T) {
	for name, layer := range theirLayers {
		for _, options := range [][]string{nil, {"ro"}} {
			h := bindingHost(t)
			m := layer(h)
			m.Options = append(m.Options, options...)
			layers := h.layerFiles()
			for _, target := range []string{h.target("a"), h.target("b")} {
				h.mustMount(m, target)
			}
			for _, target := range []string{h.target("a"), h.target("b")} {
				if got := h.streamAt(target); got != m.Source {
					t.Errorf("%s: the stream of %s is %q, want %q", name, target, got, m.Source)
				}
				h.mustUnmount(target)
			}
			h.wantClosed()
			if got := tree(t, h.path("layers")); got != layers {
				t.Errorf("%s: the layers are\n%swant\n%s", name, got, layers)
			}
		}
	}
}

func TestUnmount_OfOneBindingLeavesTheStreamToTheOther(t *testing.T) {
	for name, layer := range theirLayers {
		h := bindingHost(t)
		m := layer(h)
		h.mustMount(m, h.target("a"))
		h.mustMount(m, h.target("b"))
		h.mustUnmount(h.target("a"))
		if got := h.streamAt(h.target("b")); got != m.Source {
			t.Errorf("%s: the stream is %q, want %q", name, got, m.Source)
		}
		h.mustUnmount(h.target("b"))
		h.wantClosed()
	}
}

// The directory of a layer may belong to somebody who lets nobody write to it.
func TestMount_GoesOnWithoutAStreamInAReadOnlyLayer(t *testing.T) {
	for name, layer := range theirLayers {
		h := bindingHost(t)
		m := layer(h)
		if name == "scratch" {
			h.inVolume(m, func(volume string) { symlink(t, "/none/at/all", filepath.Clean(volume)+sourceStream) })
			wantError(t, h.mount(m, h.target("a")), "failed to record source for layer "+m.Source)
			h.wantClosed()
			h.wantAt(h.target("a"), "nothing")
			continue
		}
		for _, stream := range []string{h.path("layers", "2", "Files"), h.path("layers", "2")} {
			symlink(t, "/none/at/all", stream+sourceStream)
		}
		h.mustMount(m, h.target("a"))
	}
}

func TestUnmount_LeavesTheStreamOfAnotherLayer(t *testing.T) {
	h := bindingHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	other := h.scratch("3").Source
	stream := streamOf(destination(h.record(h.target("a"))))
	h.must(os.WriteFile(stream, []byte(other), 0o666)) // as if the other layer had got the volume
	h.mustUnmount(h.target("a"))
	h.wantAt(stream, "file: "+other)
}

func TestUnmount_TakesOverWhatContainerdHasMounted(t *testing.T) {
	for name, layer := range theirLayers {
		for by, unmount := range map[string]func(h *host) error{
			"Unmount":          func(h *host) error { return h.unmount(h.target("a")) },
			"UnmountAll":       func(h *host) error { return h.unmountAll(h.target("a")) },
			"UnmountMounts":    func(h *host) error { return h.unmountMounts([]Mount{{Target: "a"}}, h.path("mnt")) },
			"UnmountRecursive": func(h *host) error { return h.unmountRecursive(h.path("mnt")) },
			"of the layer":     func(h *host) error { return h.unmount(h.path("layers", "2")) },
		} {
			t.Run(name+"/"+by, func(t *testing.T) {
				underFilters(t, func(t *testing.T, h *host, w way) {
					if !w.seen || !w.lists && (by == "UnmountRecursive" || by == "of the layer") {
						return // nothing tells
					}
					m := layer(h)
					h.mkdir(h.target("a"))
					h.theirMount(m, h.target("a"))
					wantError(t, h.mount(m, h.target("a")), "", os.ErrExist)
					h.must(unmount(h))
					h.wantClosed()
					h.wantAt(h.target("a"), "directory of []")
				})
			})
		}
	}
}

// If the layer cannot be closed, it stays on record, as if this package had mounted it.
func TestUnmount_KeepsWhatItHasTakenOverUntilItIsClosed(t *testing.T) {
	h := bindingHost(t)
	m := h.scratch("2")
	h.mkdir(h.target("a"))
	h.theirMount(m, h.target("a"))
	h.failEvery(errorSharingViolation, hcstest.Deactivate)
	wantError(t, h.unmount(h.target("a")), "failed to deactivate layer", errorSharingViolation)
	h.model.Before = nil
	if r := h.record(h.target("a")); r.Source != m.Source {
		t.Errorf("on record is %+v", r.Record)
	}
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestUnmount_LeavesADirectoryThatOnlyHasTheStream(t *testing.T) {
	for name, layer := range theirLayers {
		h := bindingHost(t)
		m := layer(h)
		a := h.mkdir(h.target("a"))
		h.must(os.WriteFile(a+sourceStream, []byte(m.Source), 0o666)) // as a copy of a layer has
		openedElsewhere(h, m)
		open := h.model.OpenLayers()
		h.model.ResetCalls()
		h.mustUnmount(a)
		for _, call := range h.model.Calls() {
			if strings.HasPrefix(call, "Unprepare") || strings.HasPrefix(call, "Deactivate") || strings.HasPrefix(call, string(hcstest.Unbind)) {
				t.Errorf("%s: called %s", name, call)
			}
		}
		if now := h.model.OpenLayers(); len(now) != len(open) {
			t.Errorf("%s: open layers %q, want %q", name, now, open)
		}
		h.wantAt(a, "directory of []")
	}
}

func TestUnmount_LeavesALayerThatAnotherTargetShows(t *testing.T) {
	h := bindingHost(t)
	m := h.base("2")
	h.mustMount(m, h.target("b"))
	a := h.mkdir(h.target("a"))
	h.must(h.model.Bind(a, h.path("layers", "2", "Files"), false)) // other code can bind it, and not open it
	h.mustUnmount(a)
	h.wantOpen("2")
	h.wantBound(hcstest.Binding{Root: h.target("b"), Source: h.path("layers", "2", "Files")})
	h.mustUnmount(h.target("b"))
	h.wantClosed()
}

func TestCleanupTempMounts_TakesOverWhatContainerdHasMounted(t *testing.T) {
	h := bindingHost(t)
	tempLocation.Store(h.path("temp"))
	t.Cleanup(func() { tempLocation.Store("") })
	h.mkdir(h.path("temp"))
	target := h.mkdir(h.path("temp", "containerd-mount1"))
	h.theirMount(h.scratch("2"), target)
	failed, err := h.cleanupTempMounts()
	if err != nil || len(failed) > 0 {
		t.Errorf("%v, %v", failed, err)
	}
	h.wantClosed()
	h.wantAt(target, "nothing")
}

// Containerd's own package has unmounted what this one had mounted.
func TestEngine_ClearsWhatContainerdHasUnmounted(t *testing.T) {
	for name, layer := range theirLayers {
		for way, clear := range map[string]func(h *host, m *Mount){
			"Unmount":              func(h *host, m *Mount) { h.mustUnmount(h.target("a")) },
			"Unmount of the layer": func(h *host, m *Mount) { h.mustUnmount(m.Source) },
			"UnmountRecursive":     func(h *host, m *Mount) { h.must(h.unmountRecursive(h.path("mnt"))) },
			"List": func(h *host, m *Mount) {
				if infos, err := h.list(); err != nil || len(infos) > 0 {
					h.t.Errorf("List is %+v, %v", infos, err)
				}
			},
			"Mount": func(h *host, m *Mount) { h.mustMount(m, h.target("a")); h.mustUnmount(h.target("a")) },
			"Mount elsewhere": func(h *host, m *Mount) {
				h.mustMount(m, h.target("b"))
				h.mustUnmount(h.target("b"))
				h.mustUnmount(h.target("a"))
			},
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				h := bindingHost(t)
				m := layer(h)
				h.mustMount(m, h.target("a"))
				h.theirUnmount(h.target("a"))
				clear(h, m)
				h.wantClosed()
				h.wantAt(h.target("a"), "nothing")
			})
		}
	}
}

func TestList_KeepsALayerThatIsOpen(t *testing.T) {
	for name, layer := range theirLayers {
		for _, bindsAt := range []string{"", "a"} {
			h := newHost(t)
			h.bindsAt = bindsAt
			h.mustMount(layer(h), h.target("a"))
			if bindsAt == "" {
				h.must(os.Remove(h.target("a"))) // a user has removed the link, and the layer is still open
			}
			if infos, err := h.list(); err != nil || len(infos) != 1 {
				t.Errorf("%s: %+v, %v", name, infos, err)
			}
			if r := h.record(h.target("a")); r.State != table.Shown {
				t.Errorf("%s: state %s", name, r.State)
			}
		}
	}
}

// What was mounted before a restart is none of containerd's business, and the reverse.
func TestUnmount_OfAStaleRecordLeavesTheStreamOfAMountOfContainerds(t *testing.T) {
	for name, layer := range theirLayers {
		h := bindingHost(t)
		m := layer(h)
		h.mustMount(m, h.target("b"))
		h.reboot()
		h.mkdir(h.target("a"))
		h.theirMount(m, h.target("a"))
		h.mustUnmount(h.target("b"))
		if got := h.streamAt(h.target("a")); got != m.Source {
			t.Errorf("%s: the stream is %q", name, got)
		}
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	}
}

func TestUnmount_TakesOverAMountAtATargetThatHasAStaleRecord(t *testing.T) {
	for by, unmount := range map[string]func(h *host) error{
		"Unmount":          func(h *host) error { return h.unmount(h.target("a")) },
		"UnmountRecursive": func(h *host) error { return h.unmountRecursive(h.path("mnt")) },
	} {
		h := bindingHost(t)
		m := h.scratch("2")
		h.mkdir(h.target("a"))
		h.mustMount(m, h.target("a"))
		h.reboot()
		h.theirMount(m, h.target("a"))
		if err := unmount(h); err != nil {
			t.Errorf("%s: %v", by, err)
		}
		h.wantClosed()
	}
}

// emptyRecord makes the record of a process that was killed before it recorded anything.
func (h *host) emptyRecord(source, target string) {
	h.t.Helper()
	unlock, err := h.table.LockTarget("any") // which makes the table
	h.must(err)
	unlock()
	r, err := h.table.Create(h.key(source), h.key(target), table.Record{})
	h.must(err)
	r.Release()
	h.must(os.Truncate(h.path("table", "mounts", r.Name.String()), 0))
}

// Its process was killed before it had recorded anything.
func TestUnmount_TakesOverAMountWhoseRecordIsEmpty(t *testing.T) {
	h := bindingHost(t)
	m := h.scratch("2")
	h.mkdir(h.target("a"))
	h.theirMount(m, h.target("a"))
	h.emptyRecord(m.Source, h.target("a"))
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

// One layer of containerd's, of which HCS tells nothing, does not concern others.
func TestUnmount_IsNotKeptFromItsWorkByALayerOfContainerds(t *testing.T) {
	h := bindingHost(t)
	h.mkdir(h.target("a"))
	h.theirMount(h.scratch("2"), h.target("a"))
	other := h.scratch("3")
	h.mustMount(other, h.path("other"))
	openedElsewhere(h, h.scratch("4"))
	h.model.Before = func(call hcstest.Call, layer string) error {
		if call == hcstest.MountPath && layer == h.path("layers", "2") {
			return &hcstest.Error{Call: call, Layer: layer, Code: errorNotReady}
		}
		return nil
	}
	h.mustUnmount(h.path("layers", "4"))
	if err := h.unmountRecursive(h.path("other")); err != nil {
		t.Error(err)
	}
	h.wantOpen("2")
	wantError(t, h.unmount(h.target("a")), "HCS names no volume for layer "+h.path("layers", "2"))
	h.model.Before = nil
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

// Opening a file through a binding may fail for an instant.
func TestUnmount_TakesOverAMountThatCannotBeLookedAtForAnInstant(t *testing.T) {
	h := bindingHost(t)
	h.mkdir(h.target("a"))
	h.theirMount(h.scratch("2"), h.target("a"))
	n := 1
	h.filter = blinkingFilter{h.filter, "", &n}
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

// blinkingFilter is one for which the n-th look at a path fails, or at any path if that is "" (Windows-Containers 635).
type blinkingFilter struct {
	bindFilter
	path string
	n    *int
}

func (f blinkingFilter) blink(path string) error {
	if f.path == "" || f.path == path {
		if *f.n--; *f.n == 0 {
			return &os.PathError{Op: "identify", Path: path, Err: errorInvalidParameter}
		}
	}
	return nil
}

func (f blinkingFilter) FileID(path string) (string, error) {
	if err := f.blink(path); err != nil {
		return "", err
	}
	return f.bindFilter.FileID(path)
}

func (f blinkingFilter) VolumeOf(path string) (uint64, error) {
	if err := f.blink(path); err != nil {
		return 0, err
	}
	return f.bindFilter.VolumeOf(path)
}

func TestUnmount_LeavesALayerThatContainerdShowsElsewhere(t *testing.T) {
	h := bindingHost(t)
	m := h.scratch("2")
	for _, name := range []string{"a", "b"} {
		h.mkdir(h.target(name))
	}
	h.theirMount(m, h.target("a"))
	h.must(h.model.Bind(h.target("b"), h.link(m), false)) // as nerdctl may
	h.mustUnmount(h.target("b"))
	h.wantOpen("2")
	h.wantBound(hcstest.Binding{Root: h.target("a"), Source: h.link(m)})
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestMount_OpensAReadOnlyLayerThatContainerdHasUnmounted(t *testing.T) {
	for _, name := range []string{"base", "committed"} {
		h := bindingHost(t)
		m := theirLayers[name](h)
		h.mustMount(m, h.target("a"))
		h.theirUnmount(h.target("a"))
		h.mustMount(m, h.target("b"))
		h.wantOpen("2")
		h.mustUnmount(h.target("b"))
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	}
}

// A binding whose source is gone works again once the source is back.
func TestList_KeepsABindingWhoseSourceIsGone(t *testing.T) {
	h := newHost(t)
	m, a := h.plainDir("dir"), h.target("a")
	h.mustMount(m, a)
	h.must(os.Rename(h.path("dir"), h.path("elsewhere")))
	if infos, err := h.list(); err != nil || len(infos) != 1 {
		t.Errorf("%+v, %v", infos, err)
	}
	h.must(os.Rename(h.path("elsewhere"), h.path("dir")))
	h.wantBound(hcstest.Binding{Root: a, Source: m.Source})
	h.mustUnmount(a)
	h.wantClosed()
}

func TestMount_DoesNotRewriteAStreamThatIsRight(t *testing.T) {
	h := bindingHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	stream := streamOf(destination(h.record(h.target("a"))))
	before, err := os.Stat(stream)
	h.must(err)
	h.must(os.Chtimes(stream, before.ModTime().Add(-1), before.ModTime().Add(-1)))
	before, err = os.Stat(stream)
	h.must(err)
	h.mustMount(m, h.target("b"))
	if after, err := os.Stat(stream); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("it was written again: %v", err)
	}
}

// Each record here is of our mount at b, which is over in one way or another when containerd mounts the layer at a.
func TestUnmount_OfALayerTakesOverWhatContainerdShowsBesideARecord(t *testing.T) {
	for name, before := range map[string]func(h *host, m *Mount){
		"of an earlier start": func(h *host, m *Mount) { h.mustMount(m, h.target("b")); h.reboot() },
		"of a killed process": func(h *host, m *Mount) { h.kill(1, false, func() error { return h.mount(m, h.target("b")) }) },
		"of containerd's unmount": func(h *host, m *Mount) {
			h.mustMount(m, h.target("b"))
			h.theirUnmount(h.target("b"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := bindingHost(t)
			m := h.scratch("2")
			h.mkdir(h.target("a"))
			h.mkdir(h.target("b"))
			before(h, m)
			h.theirMount(m, h.target("a"))
			h.mustUnmount(m.Source)
			h.wantBound()
			h.wantClosed()
		})
	}
}

func TestUnmount_OfALayerTakesOverItsOtherBinding(t *testing.T) {
	h := bindingHost(t)
	m := h.base("2")
	h.mkdir(h.target("a"))
	h.mustMount(m, h.target("b"))
	h.must(h.model.Bind(h.target("a"), h.path("layers", "2", "Files"), false)) // the stream is there already
	h.mustUnmount(m.Source)
	h.wantBound()
	h.wantClosed()
}

func TestUnmount_ClosesALayerWhoseOtherTargetContainerdHasUnmounted(t *testing.T) {
	for _, name := range []string{"likely", "new-volume"} {
		p, _ := hcstest.Named(name)
		h := bindingHostOf(t, p, "shown")
		m := h.scratch("2")
		h.mkdir(h.target("a"))
		h.mkdir(h.target("b"))
		h.mustMount(m, h.target("b"))
		h.theirUnmount(h.target("b"))
		h.theirMount(m, h.target("a"))
		h.mustUnmount(h.target("a"))
		h.wantBound()
		h.wantClosed()
	}
}

// The record at b has the volume of an earlier activation.
func TestUnmount_ClosesTheVolumeThatIsThere(t *testing.T) {
	p, _ := hcstest.Named("new-volume")
	h := bindingHostOf(t, p, "shown")
	m, b := h.scratch("2"), h.target("a-name-that-is-longer")
	h.mkdir(h.target("a"))
	h.mkdir(b)
	h.mustMount(m, b)
	h.model.After = func(call hcstest.Call, _ string) error {
		if call == hcstest.Deactivate {
			panic(errKilled)
		}
		return nil
	}
	_, _ = survive(func() error { return h.unmount(b) })
	h.model.After = nil
	h.useTable()
	h.theirMount(m, h.target("a"))
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

// Nothing else than the stream tells whose a binding is.
func TestUnmount_WithoutAListKnowsAnotherLayerByItsStream(t *testing.T) {
	p, _ := hcstest.Named("bindings-denied")
	h := bindingHostOf(t, p, "shown")
	h.mkdir(h.target("a"))
	h.mustMount(h.scratch("3"), h.target("a"))
	h.theirUnmount(h.target("a"))
	h.theirMount(h.scratch("2"), h.target("a"))
	h.mustUnmount(h.target("a"))
	h.wantBound()
	h.wantClosed()
}

func TestUnmountRecursive_TakesOverWhatContainerdHasMountedSince(t *testing.T) {
	for by, unmount := range map[string]func(h *host) error{
		"UnmountRecursive": func(h *host) error { return h.unmountRecursive(h.path("mnt")) },
		"CleanupTempMounts": func(h *host) error {
			h.useTempLocation()
			failed, err := h.cleanupTempMounts()
			return stderrors.Join(append(failed, err)...)
		},
	} {
		t.Run(by, func(t *testing.T) {
			h := bindingHost(t)
			h.mkdir(h.target("a"))
			h.mustMount(h.scratch("3"), h.target("a"))
			h.theirUnmount(h.target("a"))
			h.theirMount(h.scratch("2"), h.target("a"))
			h.must(unmount(h))
			h.wantBound()
			h.wantClosed()
		})
	}
}

// The other target is bound to the same volume, as nerdctl may do.
func TestUnmountRecursive_LeavesALayerThatContainerdShowsElsewhere(t *testing.T) {
	h := bindingHost(t)
	m, b := h.scratch("2"), h.mkdir(h.path("b"))
	h.mkdir(h.target("a"))
	h.theirMount(m, h.target("a"))
	h.must(h.model.Bind(b, h.link(m), false))
	h.must(h.unmountRecursive(h.path("mnt")))
	h.wantBound(hcstest.Binding{Root: b, Source: h.link(m)})
	h.wantOpen("2")
	h.mustUnmount(b)
	h.wantClosed()
}

// Its process was killed before it recorded anything.
func TestUnmount_TakesOverWhatContainerdHasMountedBesideAnEmptyRecord(t *testing.T) {
	for by, unmount := range map[string]func(h *host, m *Mount) error{
		"UnmountRecursive": func(h *host, _ *Mount) error { return h.unmountRecursive(h.path("mnt")) },
		"of the layer":     func(h *host, m *Mount) error { return h.unmount(m.Source) },
		"of the target":    func(h *host, _ *Mount) error { return h.unmount(h.target("a")) },
	} {
		for _, layer := range []string{"2", "3"} {
			t.Run(by+" "+layer, func(t *testing.T) {
				h := bindingHost(t)
				m, a := h.scratch("2"), h.mkdir(h.target("a"))
				h.emptyRecord(h.path("layers", layer), a)
				h.theirMount(m, a)
				h.must(unmount(h, m))
				h.wantBound()
				h.wantOpen()
			})
		}
	}
}

func TestUnmount_TakesOverAMountWhoseVolumeCannotBeSeenForAnInstant(t *testing.T) {
	p, _ := hcstest.Named("bindings-denied")
	h := bindingHostOf(t, p, "shown")
	h.mkdir(h.target("a"))
	h.theirMount(h.scratch("2"), h.target("a"))
	n := 1
	h.filter = blinkingFilter{h.filter, "", &n}
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestUnmount_TakesOverAMountWhoseStreamCannotBeReadForAnInstant(t *testing.T) {
	for by, unmount := range map[string]func(h *host) error{
		"of the target":    func(h *host) error { return h.unmount(h.target("a")) },
		"UnmountRecursive": func(h *host) error { return h.unmountRecursive(h.path("mnt")) },
		"of the layer":     func(h *host) error { return h.unmount(h.path("layers", "2")) },
	} {
		t.Run(by, func(t *testing.T) {
			h := bindingHost(t)
			m, a := h.scratch("2"), h.mkdir(h.target("a"))
			h.theirMount(m, a)
			stream := a + sourceStream
			text, err := os.Readlink(stream)
			h.must(err)
			h.must(os.Remove(stream))
			symlink(t, stream, stream) // which leads in a circle
			h.setPause(func(context.Context) error {
				if now, _ := os.Readlink(stream); now == stream {
					h.must(os.Remove(stream))
					symlink(t, text, stream)
				}
				return nil
			})
			h.must(unmount(h))
			h.wantBound()
			h.wantOpen()
		})
	}
}

// The layer has no volume that would tell.
func TestList_LeavesALayerThatContainerdHasMountedElsewhere(t *testing.T) {
	for _, name := range []string{"base", "committed"} {
		h := bindingHost(t)
		m := theirLayers[name](h)
		h.mkdir(h.target("a"))
		h.mkdir(h.target("b"))
		h.mustMount(m, h.target("b"))
		h.theirUnmount(h.target("b"))
		h.theirMount(m, h.target("a"))
		_, err := h.list()
		h.must(err)
		h.wantOpen("2")
		if got := h.streamAt(h.target("a")); got != m.Source {
			t.Errorf("%s: stream %q", name, got)
		}
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	}
}

func TestUnmount_KilledAsItTakesOverLeavesALayerThatIsShownElsewhere(t *testing.T) {
	h := bindingHost(t)
	m, b := h.scratch("2"), h.mkdir(h.target("b"))
	h.mkdir(h.target("a"))
	h.theirMount(m, h.target("a"))
	h.must(h.model.Bind(b, h.link(m), false))
	h.model.Before = func(hcstest.Call, string) error {
		if len(h.tableFiles()) > 0 {
			panic(errKilled) // right after the first record
		}
		return nil
	}
	_, _ = survive(func() error { return h.unmount(h.target("a")) })
	h.model.Before = nil
	h.useTable()
	h.mustUnmount(h.target("a"))
	h.wantBound(hcstest.Binding{Root: b, Source: h.link(m)})
	h.wantOpen("2")
	h.mustUnmount(b)
	h.wantClosed()
}

// The record at a has the volume of an earlier activation, which another layer has now.
func TestUnmount_ClosesTheVolumeThatHCSNames(t *testing.T) {
	p, _ := hcstest.Named("guid-reused")
	h := bindingHostOf(t, p, "shown")
	m, a := h.scratch("2"), h.mkdir(h.target("a-name-that-is-longer"))
	h.mkdir(h.target("b"))
	h.must(h.binding(true).mount(context.Background(), m, a))
	h.theirUnmount(a)
	h.mustMount(h.scratch("3"), h.target("c"))
	h.theirMount(m, h.target("b"))
	h.failEvery(errorSharingViolation, hcstest.Unprepare, hcstest.Deactivate)
	wantError(t, h.unmount(m.Source), "failed to unprepare layer", errorSharingViolation)
	h.wantNoLeak()
	h.model.Before = nil
	h.mustUnmount(m.Source)
	h.wantOpen("3")
}

func TestList_LeavesALayerThatContainerdHasMountedElsewhereIfOneLookFails(t *testing.T) {
	for n := range 6 {
		h := bindingHost(t)
		m, a := theirLayers["base"](h), h.mkdir(h.target("a"))
		h.mkdir(h.target("b"))
		h.mustMount(m, h.target("b"))
		h.theirUnmount(h.target("b"))
		h.theirMount(m, a)
		h.filter = blinkingFilter{h.filter, a, &n}
		_, _ = h.list()
		h.wantOpen("2")
	}
}

// The layer was closed, and the binding could not be removed. Somebody else has removed it.
func TestUnmount_TakesOverWhatContainerdHasMountedWhereOursIsClosed(t *testing.T) {
	for name, layer := range theirLayers {
		t.Run(name, func(t *testing.T) {
			h := bindingHost(t)
			m, a := layer(h), h.mkdir(h.target("a"))
			h.mustMount(m, a)
			h.failEvery(errorSharingViolation, hcstest.Unbind)
			wantError(t, h.unmount(a), "failed to unbind", errorSharingViolation)
			h.model.Before = nil
			h.must(h.model.Unbind(a))
			h.theirMount(m, a)
			h.mustUnmount(a)
			h.wantBound()
			h.wantClosed()
		})
	}
}

// It shows the files of a layer, and has the stream of that layer.
func TestUnmount_DoesNotTakeAKilledBindForAMountOfALayer(t *testing.T) {
	h := bindingHost(t)
	m, a := h.base("2"), h.mkdir(h.target("a"))
	h.mkdir(h.target("b"))
	h.theirMount(m, h.target("b"))
	h.model.After = func(call hcstest.Call, _ string) error {
		if call == hcstest.Bind {
			panic(errKilled)
		}
		return nil
	}
	_, _ = survive(func() error {
		return h.mount(&Mount{Type: bindType, Source: h.path("layers", "2", "Files")}, a)
	})
	h.model.After = nil
	h.useTable()
	h.mustUnmount(h.target("b"))
	h.wantOpen()
	h.mustUnmount(a)
	h.wantClosed()
}
