//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
)

// Most tests of bindings run for each way in which hosts differ: what the bind filter answers, whether it lists
// bindings, and what a program finds at the target.

// filterPersonalities are those in which the bind filter answers differently.
var filterPersonalities = []string{"likely", "bind-twice-0xb7", "unbind-absent-0x57", "unbind-ancestor-refused",
	"bindings-denied", "bindings-other-names", "all-different-c"}

// looks are what a program finds at a target that is bound.
var looks = map[string]func(modelFilter) bindFilter{
	"shown":   func(f modelFilter) bindFilter { return f },
	"volume":  func(f modelFilter) bindFilter { return volumeFilter{f} },
	"account": func(f modelFilter) bindFilter { return accountFilter{f} },
}

// volumeFilter shows what is bound, and each source is on a volume of its own.
type volumeFilter struct{ modelFilter }

func (f volumeFilter) VolumeOf(path string) (uint64, error) {
	volume, err := f.modelFilter.VolumeOf(path)
	for dir := path; dir != "/"; dir = filepath.Dir(dir) {
		for _, b := range f.Bound() {
			if source := filepath.Clean(b.Source); b.Root == dir || source == dir {
				sum := fnv.New64()
				sum.Write([]byte(source))
				return sum.Sum64(), err
			}
		}
	}
	return volume, err
}

// accountFilter keeps account of what is bound and shows none of it.
type accountFilter struct{ modelFilter }

func (accountFilter) FileID(path string) (string, error) { return winfs.FileID(path) }

func (accountFilter) VolumeOf(path string) (uint64, error) { return winfs.VolumeOf(path) }

// way is a way in which hosts differ.
type way struct {
	lists bool // whether bindings can be listed
	seen  bool // whether a program finds what is bound
}

// bindingHost is a host that shows layers by bindings at the targets a and b.
func bindingHost(t testing.TB) *host { return bindingHostOf(t, hcstest.Likely, "shown") }

func bindingHostOf(t testing.TB, p hcstest.Personality, look string) *host {
	h := newHostOf(t, p)
	h.filter = looks[look](modelFilter{h.model})
	h.binds, h.bindsAt = true, "ab"
	return h
}

// underFilters runs a test in each way.
func underFilters(t *testing.T, test func(t *testing.T, h *host, w way)) {
	for _, name := range filterPersonalities {
		p, found := hcstest.Named(name)
		if !found {
			t.Fatal(name)
		}
		for look := range looks {
			t.Run(name+" "+look, func(t *testing.T) {
				test(t, bindingHostOf(t, p, look), way{lists: p.BindingsCode == 0, seen: look != "account"})
			})
		}
	}
}

// bindOthers makes the binding of another program at a target.
func (h *host) bindOthers(target string) hcstest.Binding {
	h.t.Helper()
	for _, dir := range []string{target, h.path("others")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	others := hcstest.Binding{Root: target, Source: h.path("others")}
	h.mustBind(others)
	return others
}

func (h *host) mustBind(b hcstest.Binding) {
	h.t.Helper()
	if err := h.model.Bind(b.Root, b.Source, b.ReadOnly); err != nil {
		h.t.Fatal(err)
	}
}

// mustUnbind removes a binding, as another program may.
func (h *host) mustUnbind(target string) {
	h.t.Helper()
	if err := h.model.Unbind(target); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) wantNoRecord() {
	h.t.Helper()
	if left := h.tableFiles(); len(left) > 0 {
		h.t.Errorf("left in the table: %q", left)
	}
}

// called returns how often a call was made.
func (h *host) called(name hcstest.Call) (n int) {
	for _, call := range h.model.Calls() {
		if strings.HasPrefix(call, string(name)+" ") {
			n++
		}
	}
	return n
}

// wantNoHCS fails the test if HCS was called.
func (h *host) wantNoHCS() {
	h.t.Helper()
	for _, call := range h.model.Calls() {
		if !strings.HasPrefix(call, "Bf") {
			h.t.Errorf("called %s", call)
		}
	}
}

func TestMount_BindsALayerAndUnmountUndoesIt(t *testing.T) {
	for name, test := range map[string]struct {
		layer    func(h *host) *Mount
		source   func(h *host, m *Mount) string
		readOnly bool
		before   string // what is at the target
	}{
		"a writable layer, no directory": {layer: scratch2, source: (*host).link, before: "nothing"},
		"a directory of a user":          {layer: scratch2, source: (*host).link, before: `directory of ["mine"]`},
		"a layer without parents": {layer: base2, before: "nothing",
			source: func(_ *host, m *Mount) string { return m.Source + "/Files" }},
		"read-only": {layer: scratch2, source: (*host).link, readOnly: true, before: "directory of []"},
	} {
		t.Run(name, func(t *testing.T) {
			underFilters(t, func(t *testing.T, h *host, w way) {
				m, a := test.layer(h), h.target("a")
				if test.before != "nothing" {
					h.mkdir(a)
				}
				if strings.Contains(test.before, "mine") {
					h.write(filepath.Join(a, "mine"), "mine")
				}
				if test.readOnly {
					m.Options = append(m.Options, "ro")
				}
				h.mustMount(m, a)
				h.wantBound(hcstest.Binding{Root: a, Source: test.source(h, m), ReadOnly: test.readOnly})
				h.wantOpen("2")
				if info, err := h.lookup(a); err != nil || (info.Options == "ro") != test.readOnly {
					t.Errorf("Lookup: %+v, %v", info, err)
				}
				h.mustUnmount(a)
				h.wantAt(a, test.before)
				h.wantClosed()
				if h.pauses > 0 {
					t.Errorf("waited %d times", h.pauses)
				}
			})
		})
	}
}

func TestLookup_DoesNotCallALinkReadOnly(t *testing.T) {
	h := newHost(t)
	m := h.base("2")
	m.Options = []string{"ro"}
	h.mustMount(m, h.target("a"))
	if info, err := h.lookup(h.target("a")); err != nil || info.Options != "" {
		t.Errorf("Lookup: %+v, %v", info, err)
	}
}

func TestMount_ShowsALayerByALinkHereAndABindingThere(t *testing.T) {
	for _, order := range []string{"ab", "ba"} {
		underFilters(t, func(t *testing.T, h *host, w way) {
			h.bindsAt = "a"
			m := h.scratch("2")
			h.mustMount(m, h.target("a"))
			h.mustMount(m, h.target("b"))
			h.wantAt(h.target("b"), "link to "+h.link(m))
			h.wantBound(hcstest.Binding{Root: h.target("a"), Source: h.link(m)})
			h.mustUnmount(h.target(order[:1]))
			h.wantOpen("2")
			h.mustUnmount(h.target(order[1:]))
			h.wantClosed()
			h.wantAt(h.path("mnt"), "directory of []")
		})
	}
}

func TestUnmount_RemovesABindingInAProcessThatUsesLinks(t *testing.T) {
	h := bindingHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	if _, err := h.binding(false).unmount(h.target("a")); err != nil {
		t.Fatal(err)
	}
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestMount_RefusesALiveBinding(t *testing.T) {
	underFilters(t, func(t *testing.T, h *host, w way) {
		m := h.scratch("2")
		h.mustMount(m, h.target("a"))
		want := h.model.Bound()
		wantError(t, h.mount(m, h.target("a")), "it shows layer "+m.Source, os.ErrExist)
		h.wantBound(want...)
		h.wantOpen("2")
	})
}

func TestMount_BindsToNothingButADirectory(t *testing.T) {
	h := bindingHost(t)
	h.write(h.target("a"), "mine")
	symlink(t, h.path("layers"), h.target("b"))
	for _, name := range []string{"a", "b"} {
		wantError(t, h.mount(h.scratch("2"), h.target(name)), "not a directory", os.ErrExist)
	}
	h.wantCalls()
	h.wantClosed()
}

func TestMount_RefusesABindingThatWouldHideWhatIsNeeded(t *testing.T) {
	h := bindingHost(t)
	h.write(h.path("elsewhere/layers/3/Files/hello.txt"), "hello")
	symlink(t, h.path("elsewhere"), h.path("link"))
	layer := h.base("2")
	linked := &Mount{Type: "windows-layer", Source: h.path("link/layers/3")}
	makeTable(h)
	for _, test := range []struct {
		m              *Mount
		target, hidden string
	}{
		{layer, "layers/2", "layers/2"},
		{layer, "layers", "layers/2"},
		{layer, "layers/2/Files", "layers/2"},
		{layer, "layers/2/new", "layers/2"},
		{layer, "", "table"},
		{linked, "elsewhere/layers/3", "elsewhere/layers/3"},
		{linked, "elsewhere", "elsewhere/layers/3"},
		{linked, "link/layers/3/Files", "elsewhere/layers/3"},
	} {
		err := h.engine.mount(context.Background(), test.m, h.path(test.target))
		wantError(t, err, "it would hide files of "+h.path(test.hidden))
	}
	h.wantCalls()
	h.wantClosed()
}

func TestMount_RefusesABindingThatWouldHideAParent(t *testing.T) {
	h := bindingHost(t)
	symlink(t, h.mkdir(h.path("elsewhere")), h.path("link"))
	// The parents of a Mount are paths of Windows, which lead nowhere here.
	p := &table.Mount{Record: table.Record{Binding: true, Source: h.path("layers/2"), Dir: h.path("layers/2"),
		Parents: []string{h.path("layers/1"), h.path("more/layers/0"), h.path("link/layers/0")}}}
	for _, target := range []string{"layers/1", "layers/1/Files", "more", "more/layers/0", "elsewhere", "elsewhere/layers/0/new", "link"} {
		p.Resolved = h.path(target)
		wantError(t, h.checkPlace(p, winfs.Name{IsDir: true}), "it would hide files of ")
	}
	p.Resolved = h.target("a")
	if err := h.checkPlace(p, winfs.Name{IsDir: true}); err != nil {
		t.Error(err)
	}
}

// makeTable makes the mount table.
func makeTable(h *host) {
	h.t.Helper()
	unlock, err := h.table.LockTarget("any")
	if err != nil {
		h.t.Fatal(err)
	}
	unlock()
}

func TestMount_RefusesATargetInTheMountTable(t *testing.T) {
	h := newHost(t)
	m := h.base("2")
	makeTable(h)
	symlink(t, h.path("table"), h.path("link"))
	for _, binds := range []bool{false, true} {
		for _, target := range []string{"table", "table/mounts", "table/new", "link/mounts", "link/mounts/new"} {
			err := h.binding(binds).mount(context.Background(), m, h.path(target))
			wantError(t, err, h.path("table")+" is the mount table")
		}
	}
	h.wantCalls()
	h.wantClosed()
}

func TestMount_RefusesToBindToADirectoryWithAMountInIt(t *testing.T) {
	h := bindingHost(t)
	h.bindsAt = "a"
	h.write(h.target("a/mine"), "mine")
	h.mustMount(h.scratch("2"), h.target("a/b"))
	wantError(t, h.mount(h.scratch("3"), h.target("a")), "layers are mounted in it, such as at "+h.target("a/b"), os.ErrExist)
	h.wantOpen("2")
	h.mustUnmount(h.target("a/b"))
	h.wantClosed()
}

func TestMount_RefusesATargetThatAnotherProgramHasBound(t *testing.T) {
	underFilters(t, func(t *testing.T, h *host, w way) {
		others := h.bindOthers(h.target("a"))
		_, isVolume := h.filter.(volumeFilter)
		err := h.mount(h.scratch("2"), h.target("a"))
		switch {
		case w.lists:
			wantError(t, err, others.Source+" is bound there", os.ErrExist)
			h.wantNoHCS()
		case isVolume:
			wantError(t, err, "another volume is bound there", os.ErrExist)
			h.wantNoHCS()
		default:
			wantError(t, err, "failed to bind layer", h.model.Personality.BindTwice)
		}
		h.wantOpen()
		h.wantBound(others)
		h.wantAt(h.target("a"), "directory of []")
		h.wantNoRecord()
	})
}

// The other program has bound the same layer. So the target shows the layer, although our Bind has failed.
func TestMount_LeavesABindingOfTheSameLayerByAnotherProgram(t *testing.T) {
	p, _ := hcstest.Named("bindings-denied")
	for look := range looks {
		h := bindingHostOf(t, p, look)
		m := h.base("2")
		others := hcstest.Binding{Root: h.mkdir(h.target("a")), Source: m.Source + "/Files"}
		h.mustBind(others)
		if h.mount(m, h.target("a")) == nil {
			t.Error("no error")
		}
		h.wantBound(others)
		h.wantOpen()
		h.wantNoRecord()
	}
}

// noFilter is the bind filter of a system that has none.
type noFilter struct{ accountFilter }

func (noFilter) Find() error                     { return errNoFilter }
func (noFilter) Bind(string, string, bool) error { return errNoFilter }
func (noFilter) Unbind(string) error             { return errNoFilter }
func (noFilter) Bindings(string) (bindings []binding, err error) {
	return nil, errNoFilter
}

func TestMount_FailsBeforeAnythingIsTouchedWithoutABindFilter(t *testing.T) {
	h := bindingHost(t)
	h.filter = noFilter{}
	h.mkdir(h.target("b"))
	for name, before := range map[string]string{"a": "nothing", "b": "directory of []"} {
		wantError(t, h.mount(h.scratch("2"), h.target(name)), "UseBindFilter(false)", stderrors.ErrUnsupported)
		h.wantCalls()
		h.wantAt(h.target(name), before)
		h.wantClosed()
	}
}

func TestUnmount_ClosesABoundLayerWithoutABindFilter(t *testing.T) {
	for look := range looks {
		h := bindingHostOf(t, hcstest.Likely, look)
		h.mustMount(h.scratch("2"), h.target("a"))
		h.mustUnbind(h.target("a"))
		h.filter = noFilter{}
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	}
}

func TestMount_IsUndoneWhereTheFilterIsDenied(t *testing.T) {
	for name, denied := range map[string][]hcstest.Call{
		"to bind":          {hcstest.Bind},
		"to bind and list": {hcstest.Bind, hcstest.Bindings},
		"altogether":       {hcstest.Bind, hcstest.Bindings, hcstest.Unbind},
	} {
		for look := range looks {
			h := bindingHostOf(t, hcstest.Likely, look)
			// The code that matches os.ErrPermission where this runs.
			h.failEvery(syscall.EACCES, denied...)
			wantError(t, h.mount(h.scratch("2"), h.target("a")), "the bind filter is denied to this process", os.ErrPermission)
			h.wantAt(h.target("a"), "nothing")
			h.wantClosed()
			if t.Failed() {
				t.Fatal(name, look)
			}
		}
	}
}

func TestMount_TriesToBindAgainWhileTheVolumeIsLate(t *testing.T) {
	for _, code := range []syscall.Errno{syscall.ENOENT, errorNotReady} {
		h := bindingHost(t)
		h.failNext(hcstest.Bind, code, code)
		h.mustMount(h.scratch("2"), h.target("a"))
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	}
}

func TestMount_LeavesADirectoryThatAUserMakesMeanwhile(t *testing.T) {
	h := bindingHost(t)
	m := h.scratch("2")
	h.model.Before = func(call hcstest.Call, _ string) error {
		if call == hcstest.Activate {
			h.mkdir(h.target("a"))
		}
		return nil
	}
	wantError(t, h.mount(m, h.target("a")), "failed to make directory "+h.target("a"), os.ErrExist)
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestMount_UndoesABindThatFails(t *testing.T) {
	for _, before := range []string{"nothing", "directory of []"} {
		for _, code := range []syscall.Errno{errorGenFailure, errorInvalidParameter, errorNotFound} {
			underFilters(t, func(t *testing.T, h *host, w way) {
				for name, fail := range map[string]*func(hcstest.Call, string) error{"before": &h.model.Before, "after": &h.model.After} {
					if name == "after" && !w.lists && !w.seen {
						continue // nothing tells that the layer is bound
					}
					if before != "nothing" {
						h.mkdir(h.target("a"))
					}
					*fail = failing(code, hcstest.Bind)
					wantError(t, h.mount(h.scratch("2"), h.target("a")), "failed to bind layer", code)
					*fail = nil
					h.wantAt(h.target("a"), before)
					h.wantClosed()
					os.Remove(h.target("a"))
				}
			})
		}
	}
}

func TestMount_KeepsTheRecordOfABindThatIsNotUndone(t *testing.T) {
	underFilters(t, func(t *testing.T, h *host, w way) {
		if !w.lists && !w.seen {
			return // nothing tells that the layer is bound
		}
		h.model.After = failing(errorGenFailure, hcstest.Bind)
		h.failEvery(errorSharingViolation, hcstest.Unbind)
		wantError(t, h.mount(h.scratch("2"), h.target("a")), "undo: failed to unbind layer", errorGenFailure, errorSharingViolation)
		h.wantOpen()
		h.wantNoLeak()
		h.model.Before, h.model.After = nil, nil
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	})
}

func TestMount_GoesOnWhereSomebodyElseHasRemovedTheBinding(t *testing.T) {
	underFilters(t, func(t *testing.T, h *host, w way) {
		m, a := h.scratch("2"), h.target("a")
		h.mustMount(m, a)
		h.mustUnbind(a)
		err := h.mount(m, a)
		if !w.seen { // nothing tells that it is gone
			wantError(t, err, "it shows layer", os.ErrExist)
			h.mustUnmount(a)
			h.wantClosed()
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		h.wantBound(hcstest.Binding{Root: a, Source: h.link(m)})
		h.wantOpen("2")
		h.mustUnmount(a)
		h.wantAt(a, "nothing")
		h.wantClosed()
	})
}

func TestMount_FailsIfTheTargetOfABindingCannotBeLookedAt(t *testing.T) {
	h := bindingHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	want := h.model.Bound()
	h.filter = blindFilter{h.filter, errorInvalidParameter}
	wantError(t, h.mount(m, h.target("a")), "failed to look at the target", errorInvalidParameter)
	h.wantBound(want...)
	h.wantOpen("2")
}

// blindFilter is one through which no bound target can be opened.
type blindFilter struct {
	bindFilter
	code syscall.Errno
}

func (f blindFilter) FileID(path string) (string, error) {
	found, err := f.bindFilter.FileID(path)
	if unbound, _ := winfs.FileID(path); found != unbound {
		return "", &os.PathError{Op: "identify", Path: path, Err: f.code}
	}
	return found, err
}

// If a binding is not found right after it was made, it proves nothing that it is not found later.
func TestUnmount_KeepsTheRecordOfABindingThatWasNeverSeen(t *testing.T) {
	for name, filter := range map[string]func(h *host) bindFilter{
		"not shown":  func(h *host) bindFilter { return accountFilter{modelFilter{h.model}} },
		"not opened": func(h *host) bindFilter { return blindFilter{h.filter, errorInvalidParameter} },
	} {
		h := bindingHost(t)
		h.filter = filter(h)
		h.mustMount(h.scratch("2"), h.target("a"))
		if !h.record(h.target("a")).Unseen {
			t.Errorf("%s: seen", name)
		}
		h.failEvery(errorSharingViolation, hcstest.Unbind)
		wantError(t, h.unmount(h.target("a")), "failed to unbind layer", errorSharingViolation)
		h.model.Before = nil
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	}
	h := bindingHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	if h.record(h.target("a")).Unseen {
		t.Error("unseen")
	}
}

func TestUnmount_KeepsTheRecordOfABindingThatCannotBeRemoved(t *testing.T) {
	for _, code := range []syscall.Errno{errorSharingViolation, errorInvalidParameter, errorNotFound, syscall.ENOENT} {
		underFilters(t, func(t *testing.T, h *host, w way) {
			if !w.lists && !w.seen && code != errorSharingViolation {
				return // nothing tells that it is still bound
			}
			h.mustMount(h.scratch("2"), h.target("a"))
			want := h.model.Bound()
			h.failEvery(code, hcstest.Unbind)
			for range 2 {
				if !w.seen && code != errorSharingViolation && len(h.model.OpenLayers()) == 0 {
					return // without its source the list is not there any more, either
				}
				wantError(t, h.unmount(h.target("a")), "failed to unbind layer "+h.path("layers/2")+" from "+h.target("a"), code)
				h.wantBound(want...)
				h.wantNoLeak()
				h.wantOpen() // what fails at the target does not keep the layer open
			}
			h.model.Before = nil
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), "nothing")
			h.wantClosed()
		})
	}
}

func TestUnmount_TriesAgainAfterAFalseAnswer(t *testing.T) {
	for _, code := range []syscall.Errno{errorSharingViolation, errorInvalidParameter, errorNotFound} {
		underFilters(t, func(t *testing.T, h *host, w way) {
			h.mustMount(h.scratch("2"), h.target("a"))
			h.failNext(hcstest.Unbind, code)
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), "nothing")
			h.wantClosed()
		})
	}
}

// falseFilter says that it has removed a binding, and has not.
type falseFilter struct{ bindFilter }

func (falseFilter) Unbind(string) error { return nil }

func TestUnmount_DoesNotBelieveARemovalThatIsNotSeen(t *testing.T) {
	for _, look := range []string{"shown", "volume"} {
		h := bindingHostOf(t, hcstest.Likely, look)
		h.mustMount(h.scratch("2"), h.target("a"))
		honest := h.filter
		h.filter = falseFilter{honest}
		wantError(t, h.unmount(h.target("a")), "it is still bound")
		h.wantNoLeak()
		h.filter = honest
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	}
}

func TestUnmount_SucceedsIfTheBindingIsGone(t *testing.T) {
	for name, remove := range map[string]func(h *host){
		"already": func(h *host) { h.mustUnbind(h.target("a")) },
		"now, though the filter says otherwise": func(h *host) {
			h.model.After = failing(errorInvalidParameter, hcstest.Unbind)
		},
	} {
		t.Run(name, func(t *testing.T) {
			underFilters(t, func(t *testing.T, h *host, w way) {
				h.mustMount(h.scratch("2"), h.target("a"))
				remove(h)
				h.mustUnmount(h.target("a"))
				h.wantAt(h.target("a"), "nothing")
				h.wantClosed()
			})
		})
	}
}

func TestUnmount_RemovesABindingWhoseDirectoryWasRemoved(t *testing.T) {
	for _, madeBy := range []string{"user", "Mount"} {
		underFilters(t, func(t *testing.T, h *host, w way) {
			if madeBy == "user" {
				h.mkdir(h.target("a"))
			}
			h.mustMount(h.scratch("2"), h.target("a"))
			if err := os.Remove(h.target("a")); err != nil {
				t.Fatal(err)
			}
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), "nothing")
			h.wantClosed()
		})
	}
}

func TestUnmount_ClosesALayerWhoseTargetWasRemovedWithItsParent(t *testing.T) {
	for _, look := range []string{"shown", "account"} {
		h := bindingHostOf(t, hcstest.Likely, look)
		h.mkdir(h.target("dir"))
		h.mustMount(h.scratch("2"), h.target("dir/a"))
		if err := os.RemoveAll(h.target("dir")); err != nil {
			t.Fatal(err)
		}
		h.failEvery(errorSharingViolation, hcstest.Unbind)
		wantError(t, h.unmount(h.target("dir/a")), "failed to unbind layer", errorSharingViolation)
		h.wantOpen()
		h.model.Before = nil
		h.mustUnmount(h.target("dir/a"))
		h.wantClosed()
		h.wantAt(h.target("dir/a"), "nothing")
	}
}

// mergedFilter lists one more binding.
type mergedFilter struct {
	bindFilter
	more binding
}

func (f mergedFilter) Bindings(path string) ([]binding, error) {
	bindings, err := f.bindFilter.Bindings(path)
	return append(bindings, f.more), err
}

func TestUnmount_LeavesWhatAnotherProgramHasBoundBesideTheLayer(t *testing.T) {
	h := bindingHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	want := h.model.Bound()
	honest := h.filter
	h.filter = mergedFilter{honest, binding{h.target("a"), h.mkdir(h.path("others"))}}
	wantError(t, h.unmount(h.target("a")), h.path("others")+" is also bound there")
	h.wantBound(want...)
	h.wantNoLeak()
	h.wantOpen()
	h.filter = honest
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

// namingFilter lists sources by other names.
type namingFilter struct {
	bindFilter
	from, to string
}

func (f namingFilter) Bindings(path string) ([]binding, error) {
	bindings, err := f.bindFilter.Bindings(path)
	for i, b := range bindings {
		bindings[i].source = strings.Replace(b.source, f.from, f.to, 1)
	}
	return bindings, err
}

func TestUnmount_KnowsALayerThatIsListedByAnotherName(t *testing.T) {
	for _, layer := range []func(h *host) *Mount{scratch2, base2} {
		h := bindingHost(t)
		symlink(t, h.dir, h.path("link"))
		h.filter = namingFilter{h.filter, h.dir, h.path("link")}
		h.mustMount(layer(h), h.target("a"))
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	}
}

func TestUnmount_LeavesWhatAnotherProgramHasBoundInPlaceOfTheLayer(t *testing.T) {
	underFilters(t, func(t *testing.T, h *host, w way) {
		if _, isShown := h.filter.(modelFilter); !w.lists && !isShown {
			return // nothing tells whose binding it is
		}
		h.mustMount(h.scratch("2"), h.target("a"))
		h.mustUnbind(h.target("a"))
		others := h.bindOthers(h.target("a"))
		h.mustUnmount(h.target("a"))
		h.wantBound(others)
		h.wantAt(h.target("a"), "directory of []")
		h.wantOpen()
		h.wantNoRecord()
	})
}

func TestMount_RefusesATargetBoundInPlaceOfTheLayer(t *testing.T) {
	for look := range looks {
		h := bindingHostOf(t, hcstest.Likely, look)
		m := h.scratch("2")
		h.mustMount(m, h.target("a"))
		h.mustUnbind(h.target("a"))
		others := h.bindOthers(h.target("a"))
		wantError(t, h.mount(m, h.target("a")), "failed to mount at", os.ErrExist)
		h.wantBound(others)
		h.mustUnmount(h.target("a"))
		h.wantBound(others)
		h.wantOpen()
		h.wantNoRecord()
	}
}

func TestUnmount_KeepsALayerOpenWhileOthersAreBoundInIt(t *testing.T) {
	denied, _ := hcstest.Named("unbind-ancestor-refused")
	denied.BindingsCode = errorAccessDenied
	refused, _ := hcstest.Named("unbind-ancestor-refused")
	for name, p := range map[string]hcstest.Personality{"with a list": refused, "without": denied} {
		for look := range looks {
			if look == "account" && name == "without" {
				continue // nothing tells 0x57 from "not bound"
			}
			t.Run(name+" "+look, func(t *testing.T) {
				h := bindingHostOf(t, p, look)
				a, b := h.target("a"), h.target("a/b")
				nest := func() {
					t.Helper()
					h.mustMount(h.scratch("2"), a)
					h.mustMount(h.scratch("3"), b)
				}
				nest()
				want := h.model.Bound()
				wantError(t, h.unmount(a), "failed to unbind layer", errorInvalidParameter)
				wantError(t, h.unmount(a), "layers are mounted in it, such as at "+b)
				wantError(t, h.mount(h.scratch("4"), a), "layers are mounted in it, such as at "+b)
				h.wantBound(want...)
				h.wantOpen("2", "3")
				h.wantNoLeak()
				h.mustUnmount(b)
				h.mustUnmount(a)
				h.wantClosed()
				h.wantAt(h.path("mnt"), "directory of []")

				for _, root := range []string{a, h.path("mnt")} {
					nest()
					if err := h.unmountRecursive(root); err != nil {
						t.Fatal(err)
					}
					h.wantClosed()
					h.wantAt(h.path("mnt"), "directory of []")
				}
			})
		}
	}
}

func TestUnmount_ClosesALayerInWhichNoOpenLayerIsBound(t *testing.T) {
	p, _ := hcstest.Named("unbind-ancestor-refused")
	h := bindingHostOf(t, p, "shown")
	a, b := h.target("a"), h.target("a/b")
	h.mustMount(h.scratch("2"), a)
	h.mustMount(h.scratch("3"), b)
	h.failEvery(errorSharingViolation, hcstest.Unbind)
	wantError(t, h.unmount(b), "failed to unbind layer", errorSharingViolation)
	h.wantOpen("2")
	h.model.Before = nil
	wantError(t, h.unmount(a), "failed to unbind layer", errorInvalidParameter)
	h.wantOpen()
	h.mustUnmount(b)
	h.mustUnmount(a)
	h.wantClosed()
}

func TestUnmountRecursive_RemovesBindings(t *testing.T) {
	underFilters(t, func(t *testing.T, h *host, w way) {
		m := h.scratch("2")
		h.bindsAt = "a"
		h.mustMount(m, h.target("a"))
		h.mustMount(m, h.target("b"))
		if err := h.unmountRecursive(h.path("mnt")); err != nil {
			t.Fatal(err)
		}
		h.wantAt(h.path("mnt"), "directory of []")
		h.wantClosed()
	})
}

// The list fails as long as the source of a binding is gone.
func TestMount_AndUnmountDoNotWaitForAList(t *testing.T) {
	for _, dead := range []bool{false, true} {
		for look := range looks {
			for _, before := range []string{"nothing", "directory of []"} {
				h := bindingHostOf(t, hcstest.Likely, look)
				others := h.bindOthers(h.target("others"))
				if dead {
					if err := os.Remove(others.Source); err != nil {
						t.Fatal(err)
					}
				}
				if before != "nothing" {
					h.mkdir(h.target("a"))
				}
				m := h.scratch("2")
				for _, do := range []func(path string){func(path string) { h.mustMount(m, path) }, h.mustUnmount} {
					h.model.ResetCalls()
					do(h.target("a"))
					if n := h.called(hcstest.Bindings); n > 1 || h.pauses > 0 {
						t.Errorf("%s: %d lists, %d pauses", look, n, h.pauses)
					}
				}
				h.wantAt(h.target("a"), before)
				h.wantBound(others)
				h.wantOpen()
				h.wantNoRecord()
			}
		}
	}
}

func TestUnmount_LeavesADirectoryThatAUserPutAtTheTarget(t *testing.T) {
	for name, meanwhile := range map[string]func(h *host){
		"after Mount":                   func(h *host) {},
		"after a restart":               func(h *host) { h.reboot() },
		"after the binding was removed": func(h *host) { h.mustUnbind(h.target("a")) },
	} {
		t.Run(name, func(t *testing.T) {
			underFilters(t, func(t *testing.T, h *host, w way) {
				h.mustMount(h.scratch("2"), h.target("a"))
				meanwhile(h)
				mine := h.mkdir(h.target("mine")) // while the other is there, or it could get the same ID
				if err := stderrors.Join(os.Remove(h.target("a")), os.Rename(mine, h.target("a"))); err != nil {
					t.Fatal(err)
				}
				h.mustUnmount(h.target("a"))
				h.wantAt(h.target("a"), "directory of []")
				h.wantClosed()
			})
		})
	}
}

func TestUnmount_LeavesABoundDirectoryThatAUserHasFilled(t *testing.T) {
	h := bindingHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.write(h.target("a/mine"), "mine")
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), `directory of ["mine"]`)
	h.wantClosed()
}

func TestUnmount_LeavesADirectoryThatAUserMadeOnceAllWasUndone(t *testing.T) {
	for _, isRemoved := range []bool{false, true} { // whether the directory that Mount made is gone
		h := bindingHost(t)
		h.mustMount(h.scratch("2"), h.target("a"))
		if isRemoved {
			os.Remove(h.target("a"))
		}
		file, aside := h.recordFile(h.target("a")), h.path("aside")
		h.model.Before = func(call hcstest.Call, _ string) error { // the file of the mount can then not be removed
			if call == hcstest.Deactivate {
				if err := os.Rename(file, aside); err != nil {
					t.Fatal(err)
				}
				h.write(filepath.Join(file, "any"), "")
			}
			return nil
		}
		wantError(t, h.unmount(h.target("a")), "remove the record of layer")
		h.wantAt(h.target("a"), "nothing")
		h.model.Before = nil
		if err := stderrors.Join(os.RemoveAll(file), os.Rename(aside, file)); err != nil {
			t.Fatal(err)
		}
		h.mkdir(h.target("a"))
		h.model.ResetCalls()
		h.mustUnmount(h.target("a"))
		h.wantCalls()
		h.wantAt(h.target("a"), "directory of []")
		h.wantClosed()
	}
}

func TestUnmount_LeavesATargetThatWasNeverBound(t *testing.T) {
	for _, call := range []hcstest.Call{hcstest.Activate, hcstest.Prepare} {
		underFilters(t, func(t *testing.T, h *host, w way) {
			h.model.After = failing(errorGenFailure, call)
			h.failEvery(errorSharingViolation, hcstest.Deactivate)
			wantError(t, h.mount(h.scratch("2"), h.target("a")), "undo: ", errorSharingViolation)
			h.model.Before, h.model.After = nil, nil
			h.wantNoLeak()
			others := h.bindOthers(h.target("a"))
			h.mustUnmount(h.target("a"))
			h.wantBound(others)
			h.wantAt(h.target("a"), "directory of []")
			h.wantOpen()
			h.wantNoRecord()
		})
	}
}

func TestUnmount_UndoesABindingMountThatWasKilled(t *testing.T) {
	for _, before := range []string{"nothing", "directory of []"} {
		underFilters(t, func(t *testing.T, h *host, w way) {
			for at := 0; ; at++ {
				for _, after := range []bool{false, true} {
					for _, again := range []bool{false, true} {
						if before != "nothing" {
							h.mkdir(h.target("a"))
						}
						m := h.scratch("2")
						died := h.kill(at, after, func() error { return h.mount(m, h.target("a")) })
						h.wantNoLeak()
						if again && died {
							h.mustMount(m, h.target("a"))
							h.wantBound(hcstest.Binding{Root: h.target("a"), Source: h.link(m)})
						}
						h.mustUnmount(h.target("a"))
						h.wantAt(h.target("a"), before)
						h.wantClosed()
						os.Remove(h.target("a"))
						if !died {
							return
						}
						if t.Failed() {
							t.Fatal("killed in call ", at, after)
						}
					}
				}
			}
		})
	}
}

func TestUnmount_GoesOnWithAnUnmountOfABindingThatWasKilled(t *testing.T) {
	underFilters(t, func(t *testing.T, h *host, w way) {
		for at := 0; ; at++ {
			for _, after := range []bool{false, true} {
				h.mustMount(h.scratch("2"), h.target("a"))
				died := h.kill(at, after, func() error { return h.unmount(h.target("a")) })
				h.wantNoLeak()
				h.mustUnmount(h.target("a"))
				h.wantAt(h.target("a"), "nothing")
				h.wantClosed()
				if !died {
					return
				}
				if t.Failed() {
					t.Fatal("killed in call ", at, after)
				}
			}
		}
	})
}

// dyingFilter kills the process as it looks at something for the nth time.
type dyingFilter struct {
	bindFilter
	n *int
}

func (f dyingFilter) FileID(path string) (string, error) {
	if *f.n--; *f.n < 0 {
		panic(errKilled)
	}
	return f.bindFilter.FileID(path)
}

func TestUnmount_UndoesABindingMountThatWasKilledAsItLooked(t *testing.T) {
	for _, before := range []string{"nothing", "directory of []"} {
		h := bindingHost(t)
		if before != "nothing" {
			h.mkdir(h.target("a"))
		}
		for at, died := 0, true; died; at++ {
			m, n, whole := h.scratch("2"), at, h.filter
			h.filter = dyingFilter{whole, &n}
			died, _ = survive(func() error { h.mustMount(m, h.target("a")); return nil })
			h.filter = whole
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), before)
			h.wantClosed()
			if t.Failed() {
				t.Fatal("killed at look ", at)
			}
		}
	}
}

// A process may also be killed at any other place.
func TestUnmount_UndoesABindingFromEachStateOfItsRecord(t *testing.T) {
	for name, test := range map[string]struct {
		change   func(r *table.Record)
		isMade   bool
		isBound  bool
		isClosed bool
	}{
		"no directory yet":      {change: func(r *table.Record) { r.State, r.Hidden, r.Unseen = table.Linked, "", true }},
		"its ID not on record":  {change: func(r *table.Record) { r.State, r.Hidden, r.Unseen = table.Linked, "", true }, isMade: true},
		"not bound yet":         {change: func(r *table.Record) { r.State, r.Unseen = table.Linked, true }, isMade: true},
		"bound":                 {change: func(r *table.Record) { r.State, r.Unseen = table.Linked, true }, isMade: true, isBound: true},
		"leaving":               {change: func(r *table.Record) { r.State = table.Leaving }, isMade: true, isBound: true},
		"leaving, unbound":      {change: func(r *table.Record) { r.State = table.Leaving }, isMade: true},
		"leaving, all removed":  {change: func(r *table.Record) { r.State = table.Leaving }},
		"closed, and was bound": {change: func(r *table.Record) { r.State = table.Closed }, isMade: true, isClosed: true},
	} {
		t.Run(name, func(t *testing.T) {
			underFilters(t, func(t *testing.T, h *host, w way) {
				m, a := h.scratch("2"), h.target("a")
				for _, again := range []bool{false, true} {
					h.mustMount(m, a)
					h.change(a, test.change)
					if !test.isBound {
						h.mustUnbind(a)
					}
					if !test.isMade {
						os.Remove(a)
					}
					if test.isClosed {
						if err := stderrors.Join(h.model.UnprepareLayer(m.Source), h.model.DeactivateLayer(m.Source)); err != nil {
							t.Fatal(err)
						}
					}
					if again {
						h.mustMount(m, a)
						h.wantBound(hcstest.Binding{Root: a, Source: h.link(m)})
					}
					h.mustUnmount(a)
					h.wantAt(a, "nothing")
					h.wantClosed()
				}
			})
		})
	}
}

func TestUnmount_DoesNotUnbindWhatWasBoundBeforeARestart(t *testing.T) {
	for _, before := range []string{"nothing", "directory of []"} {
		underFilters(t, func(t *testing.T, h *host, w way) {
			if before != "nothing" {
				h.mkdir(h.target("a"))
			}
			h.mustMount(h.scratch("2"), h.target("a"))
			h.reboot()
			h.model.ResetCalls()
			h.mustUnmount(h.target("a"))
			h.wantNoHCS()
			if n := h.called(hcstest.Unbind); n > 0 {
				t.Errorf("%d calls of %s", n, hcstest.Unbind)
			}
			h.wantAt(h.target("a"), before)
			h.wantClosed()
		})
	}
}

func TestUnmount_LeavesADirectoryThatAnotherProgramHasBoundAfterARestart(t *testing.T) {
	for _, isKnown := range []bool{true, false} { // whether the ID of the directory is on record
		underFilters(t, func(t *testing.T, h *host, w way) {
			_, isVolume := h.filter.(volumeFilter)
			if !w.lists && !isVolume && !(w.seen && isKnown) {
				return // nothing tells
			}
			h.mustMount(h.scratch("2"), h.target("a"))
			if !isKnown {
				h.change(h.target("a"), func(r *table.Record) { r.State, r.Hidden = table.Linked, "" })
			}
			h.reboot()
			others := h.bindOthers(h.target("a"))
			h.mustUnmount(h.target("a"))
			h.wantBound(others)
			h.wantAt(h.target("a"), "directory of []")
			h.wantNoRecord()
		})
	}
}

func TestMount_BindsAgainAfterARestart(t *testing.T) {
	underFilters(t, func(t *testing.T, h *host, w way) {
		m, a := h.scratch("2"), h.target("a")
		h.mustMount(m, a)
		h.reboot()
		h.mustMount(m, a)
		h.wantBound(hcstest.Binding{Root: a, Source: h.link(m)})
		if n := len(h.tableFiles()); n != 1 {
			t.Errorf("%d files in the table", n)
		}
		h.mustUnmount(a)
		h.wantAt(a, "nothing")
		h.wantClosed()
	})
}
