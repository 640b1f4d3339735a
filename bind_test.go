//go:build !windows

package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
)

// plainDir makes a directory of a user and returns a mount of type bind of it.
func (h *host) plainDir(name string, options ...string) *Mount {
	h.write(h.path(name, "data"), "mine")
	return &Mount{Type: bindType, Source: h.path(name), Options: options}
}

func TestMount_BindShowsADirectoryAndUnmountHidesIt(t *testing.T) {
	for _, options := range [][]string{nil, {"rw"}, {"rbind"}, {"rbind", "ro"}} {
		for _, before := range []string{"nothing", `directory of ["file"]`} {
			h := newHost(t)
			m, a := h.plainDir("dir", options...), h.target("a")
			if before != "nothing" {
				h.write(h.path("mnt", "a", "file"), "theirs")
			}
			h.mustMount(m, a) // whatever bindsAt says
			h.wantBound(hcstest.Binding{Root: a, Source: m.Source, ReadOnly: m.ReadOnly()})
			info, err := h.lookup(a)
			if err != nil || info.FSType != "bind" || info.Source != m.Source || info.Root != m.Source || (info.Options == "ro") != m.ReadOnly() {
				t.Errorf("%+v, %v", info, err)
			}
			h.mustUnmount(a)
			h.wantClosed()
			h.wantNoHCS()
			h.wantAt(a, before)
			h.wantAt(h.path("dir"), `directory of ["data"]`)
		}
	}
}

func TestMount_RefusesAMalformedBind(t *testing.T) {
	h := newHost(t)
	h.write(h.path("file"), "mine")
	for words, m := range map[string]*Mount{
		"is not a directory":                   {Type: bindType, Source: h.path("file")},
		"no such file":                         {Type: bindType, Source: h.path("none")},
		"is not absolute":                      {Type: bindType, Source: "dir"},
		"path is empty":                        {Type: bindType},
		`option "nosuid" is not supported`:     {Type: bindType, Source: h.path("mnt"), Options: []string{"ro", "nosuid"}},
		"it would hide files of " + h.path(""): {Type: bindType, Source: h.path("")},
	} {
		wantError(t, h.mount(m, h.target("a")), words)
	}
	wantError(t, h.mount(&Mount{Type: bindType, Source: h.path("none")}, h.target("a")), "invalid bind mount", os.ErrNotExist)
	h.wantClosed()
	h.wantAt(h.target("a"), "nothing")
	if calls := h.model.Calls(); len(calls) > 0 {
		t.Errorf("called %q", calls)
	}
}

func TestUnmount_OfTheSourceOfABindChangesNothing(t *testing.T) {
	h := newHost(t)
	m, a := h.plainDir("dir"), h.target("a")
	h.mustMount(m, a)
	h.mustUnmount(m.Source)
	h.wantBound(hcstest.Binding{Root: a, Source: m.Source})
	h.mustUnmount(a)
	h.wantClosed()
}

func TestMount_BindsADirectoryAtManyTargets(t *testing.T) {
	h := newHost(t)
	m := h.plainDir("dir")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, h.target("b"))
	h.mustUnmount(h.target("a"))
	h.wantBound(hcstest.Binding{Root: h.target("b"), Source: m.Source})
	h.mustUnmount(h.target("b"))
	h.wantClosed()
}

// If a mount of type bind shows the directory of a layer, the layer is still a layer of its own.
func TestMount_BindOfALayersDirectoryIsNoMountOfTheLayer(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(&Mount{Type: bindType, Source: m.Source}, h.target("a"))
	h.wantOpen()
	h.mustMount(m, h.target("b"))
	h.wantOpen("2")
	h.mustUnmount(h.target("a"))
	h.wantOpen("2")
	h.mustUnmount(h.target("b"))
	h.wantClosed()
}

// chain mounts a layer at a. Then it binds what a shows, or a folder in it, to b. Containerd's mount manager
// does the same.
func (h *host) chain(bindsAt, folder string) (layer, bind *Mount) {
	h.t.Helper()
	h.bindsAt = bindsAt
	layer = h.base("2")
	h.write(h.path("layers", "2", "Files", "in", "data"), "layer's")
	h.mustMount(layer, h.target("a"))
	if bindsAt != "" && folder != "" { // the model shows no files of a binding
		h.mkdir(h.path("mnt", "a", folder))
	}
	bind = &Mount{Type: bindType, Source: h.path("mnt", "a", folder), Options: []string{"rbind"}}
	h.mustMount(bind, h.target("b"))
	return layer, bind
}

func TestUnmountRecursive_TakesAChainApartFromItsEnd(t *testing.T) {
	for _, bindsAt := range []string{"", "a"} {
		for _, folder := range []string{"", "in"} {
			h := newHost(t)
			h.chain(bindsAt, folder)
			var unbound []string
			h.model.Before = func(call hcstest.Call, path string) error {
				if call == hcstest.Unbind || call == hcstest.Unprepare {
					unbound = append(unbound, string(call))
				}
				return nil
			}
			if err := h.unmountRecursive(h.path("mnt")); err != nil {
				t.Error(err)
			}
			if len(unbound) < 2 || unbound[0] != string(hcstest.Unbind) || unbound[len(unbound)-1] != string(hcstest.Unprepare) {
				t.Errorf("calls %q", unbound)
			}
			h.wantBound()
			h.wantOpen()
			h.wantNoRecord()
		}
	}
}

func TestUnmountMounts_TakesAChainApartFromItsEnd(t *testing.T) {
	h := newHost(t)
	layer, bind := h.chain("a", "")
	layer.Target, bind.Target = "a", "b"
	if err := h.unmountMounts([]Mount{*layer, *bind}, h.path("mnt")); err != nil {
		t.Error(err)
	}
	h.wantClosed()
}

func TestMount_ClearsABindThatARestartHasLeft(t *testing.T) {
	h := newHost(t)
	m, a := h.plainDir("dir"), h.target("a")
	h.mustMount(m, a)
	h.reboot()
	h.mustMount(m, a)
	h.wantBound(hcstest.Binding{Root: a, Source: m.Source})
	h.mustUnmount(a)
	h.wantClosed()
	h.wantAt(a, "nothing")
}

func TestUnmount_KeepsTheRecordOfABindThatStays(t *testing.T) {
	h := newHost(t)
	m, a := h.plainDir("dir"), h.target("a")
	h.mustMount(m, a)
	h.failEvery(errorSharingViolation, hcstest.Unbind)
	wantError(t, h.unmount(a), "failed to unbind", errorSharingViolation)
	if r := h.record(a); r.State != table.Leaving {
		t.Errorf("state %s", r.State)
	}
	h.model.Before = nil
	h.mustUnmount(a)
	h.wantClosed()
	h.wantNoHCS()
}

// A binding cannot be removed while another one lies below it.
func TestUnmountRecursive_TakesApartBindsInBinds(t *testing.T) {
	refuses, _ := hcstest.Named("unbind-ancestor-refused")
	h := newHostOf(t, refuses)
	m := h.scratch("2")
	long := h.path("mnt", "a-name-that-is-longer-than-all-the-others")
	h.mustMount(m, long)
	folder := h.mkdir(h.path("mnt", filepath.Base(long), "folder"))
	h.mustMount(&Mount{Type: bindType, Source: folder}, h.target("b"))
	h.mustMount(&Mount{Type: bindType, Source: h.plainDir("dir").Source}, h.path("mnt", "b", "sub"))
	for i := range 12 {
		h.mustMount(&Mount{Type: bindType, Source: h.path("dir")}, h.path("mnt", fmt.Sprint("many", i)))
	}
	if err := h.unmountRecursive(h.path("mnt")); err != nil {
		t.Error(err)
	}
	h.wantClosed()
}

func TestUnmount_OfABindWhoseRecordIsDamagedFailsOnce(t *testing.T) {
	for _, reboots := range []bool{false, true} {
		h := newHost(t)
		m, a := h.plainDir("dir"), h.mkdir(h.target("a"))
		h.mustMount(m, a)
		h.change(a, func(r *table.Record) { r.State = "of a newer version" })
		if reboots {
			h.reboot()
		}
		wantError(t, h.mount(m, a), "unknown state", table.ErrDamaged)
		wantError(t, h.unmount(a), "unknown state", table.ErrDamaged)
		h.wantNoRecord()
		h.mustUnmount(a)
		if reboots { // otherwise the binding stays
			h.mustMount(m, a)
			h.mustUnmount(a)
		}
	}
}

// The record of a directory that Windows may take for another would be damaged.
func TestPlanOf_ChecksWhereTheSourceLeads(t *testing.T) {
	h := newHost(t)
	dir, link := h.mkdir(h.path("dir")), h.path("link")
	symlink(t, dir, link)
	_, err := planOf(link, func(path string) error {
		if path == dir {
			return os.ErrInvalid
		}
		return nil
	})
	wantError(t, err, "", os.ErrInvalid)
}
