//go:build !windows

package mount

import (
	stderrors "errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
)

// scenario is something that the fault and kill tests disturb: it prepares a
// host and then does one thing with layer 2 at the targets a and b.
type scenario struct {
	name      string
	directory bool // there is an empty directory at a in the beginning
	two       bool // the layer is at b too
	kind      kind
	foreign   bool // other code opened the layer, without a record
	kept      bool // and keeps it open whatever is done
	silent    bool // HCS is not called, and the bind filter at most for a list
	bindsAt   string
	prepare   func(h *host, m *Mount)
	do        func(h *host, m *Mount) error
}

// kind is what kind of layer a scenario has.
type kind int

const (
	scratch   kind = iota // with a scratch disk
	base                  // read-only, without parents
	committed             // read-only, with parents
	plain                 // no layer: a directory, for a mount of type bind
)

// begin prepares a host, and returns the mount of its layer.
func (s scenario) begin(h *host) *Mount {
	h.t.Helper()
	h.write(h.target("user/data"), "mine")
	if s.directory {
		h.mkdir(h.target("a"))
	}
	switch s.kind {
	case base:
		h.base("2")
	case plain:
		h.write(h.path("layers", "2", "data"), "mine")
	case committed:
		h.base("2")
		if h.model.Personality.CommittedKeepsScratch {
			h.scratch("2")
		}
	default:
		h.scratch("2")
	}
	m := s.mount(h)
	s.prepare(h, m)
	h.model.ResetCalls()
	return m
}

// mount is the mount of the layer that begin has made, on a host that shows it as the scenario does.
func (s scenario) mount(h *host) *Mount {
	h.bindsAt = s.bindsAt
	switch s.kind {
	case base:
		return h.baseMount("2")
	case plain:
		return &Mount{Type: bindType, Source: h.path("layers", "2"), Options: []string{"rbind", "ro"}}
	}
	return h.scratchMount("2")
}

// isMount reports whether the scenario mounts at a.
func (s scenario) isMount() bool { return strings.HasPrefix(s.name, "mount") }

// scenarios are those with links, and then again with bindings. If a scenario has two targets, it is there
// once more, with a binding at a and a link at b. Last come plainScenarios.
var scenarios = func() []scenario {
	all := linkScenarios
	for _, s := range linkScenarios {
		if s.foreign && !s.kept {
			continue // nothing is mounted
		}
		name := s.name
		s.name, s.bindsAt = name+", bound", "ab"
		all = append(all, s)
		if s.two {
			s.name, s.bindsAt = name+", one bound", "a"
			all = append(all, s)
		}
	}
	return append(all, plainScenarios...)
}()

// plainScenarios are not for links.
var plainScenarios = []scenario{
	{name: "mount a plain directory", kind: plain, bindsAt: "a", prepare: nothing, do: mountAtA},
	{name: "mount a plain directory at a directory", kind: plain, bindsAt: "a", directory: true, prepare: nothing, do: mountAtA},
	{name: "mount a plain directory when the first Mount was killed", kind: plain, bindsAt: "a", prepare: killedAfter(hcstest.Bind, mountAtA), do: mountAtA},
	{name: "unmount a plain directory", kind: plain, bindsAt: "a", prepare: mountedAtA, do: unmountA},
	{name: "unmount a plain directory from a directory", kind: plain, bindsAt: "a", directory: true, prepare: mountedAtA, do: unmountA},
	{name: "unmount a plain directory when Unmount was killed", kind: plain, bindsAt: "a", prepare: func(h *host, m *Mount) {
		mountedAtA(h, m)
		killedBefore(hcstest.Unbind, unmountA)(h, m)
	}, do: unmountA},
	{name: "unmount what containerd has mounted", foreign: true, directory: true, prepare: theirsAtA, do: unmountA},
	{name: "unmount a base layer that containerd has mounted", kind: base, foreign: true, directory: true, prepare: theirsAtA, do: unmountA},
	{name: "unmount what containerd has unmounted", bindsAt: "a", directory: true, prepare: func(h *host, m *Mount) {
		mountedAtA(h, m)
		h.theirUnmount(h.target("a"))
	}, do: unmountA},
	{name: "unmount a plain directory after a reboot", kind: plain, bindsAt: "a", silent: true, prepare: stale, do: unmountA},
}

var linkScenarios = []scenario{
	{name: "mount at an absent target", prepare: nothing, do: mountAtA},
	{name: "mount at an empty directory", directory: true, prepare: nothing, do: mountAtA},
	{name: "mount a base layer", kind: base, prepare: nothing, do: mountAtA},
	{name: "mount a committed layer", kind: committed, directory: true, prepare: nothing, do: mountAtA},
	{two: true, name: "mount at a second target", prepare: mountedAtB, do: mountAtA},
	{two: true, name: "mount a base layer at a second target", kind: base, directory: true, prepare: mountedAtB, do: mountAtA},
	{name: "mount over a stale link", directory: true, prepare: stale, do: mountAtA},
	{two: true, name: "mount at a second target after a reboot", prepare: func(h *host, m *Mount) {
		mountedAtB(h, m)
		h.reboot()
	}, do: mountAtA},
	{two: true, name: "mount at a second target when the first Mount was killed", directory: true, prepare: killedBefore(hcstest.Prepare, mountAtB), do: mountAtA},
	{two: true, name: "mount a committed layer at a second target when the first Mount was killed", kind: committed, prepare: killedAfter(hcstest.Prepare, mountAtB), do: mountAtA},
	{two: true, name: "mount at a second target when Unmount of the first was killed", directory: true, prepare: func(h *host, m *Mount) {
		mountedAtB(h, m)
		killedBefore(hcstest.Deactivate, unmountB)(h, m)
	}, do: mountAtA},
	{name: "unmount by target", directory: true, prepare: mountedAtA, do: unmountA},
	{name: "unmount a base layer", kind: base, directory: true, prepare: mountedAtA, do: unmountA},
	{name: "unmount a committed layer", kind: committed, directory: true, prepare: mountedAtA, do: unmountA},
	{two: true, name: "unmount one of two targets", directory: true, prepare: mountedAtBoth, do: unmountA},
	{two: true, name: "unmount one of two targets when Unmount of the layer was killed", directory: true, prepare: func(h *host, m *Mount) {
		mountedAtBoth(h, m)
		killedBefore(hcstest.Unprepare, unmountSource)(h, m)
	}, do: unmountA},
	{two: true, name: "unmount the one whole of two targets", directory: true, prepare: func(h *host, m *Mount) {
		mountedAtBoth(h, m)
		h.cutShort(h.target("b"))
	}, do: unmountA},
	{two: true, name: "unmount the one cut short of two targets", directory: true, prepare: func(h *host, m *Mount) {
		mountedAtBoth(h, m)
		h.cutShort(h.target("a"))
	}, do: unmountA},
	{name: "unmount when Mount was killed", directory: true, prepare: killedBefore(hcstest.Prepare, mountAtA), do: unmountA},
	{two: true, name: "unmount by source", directory: true, prepare: mountedAtBoth, do: unmountSource},
	{name: "unmount after a reboot", directory: true, silent: true, prepare: stale, do: unmountA},
	{name: "unmount after a reboot a layer that other code opened", directory: true, foreign: true, kept: true, silent: true,
		prepare: func(h *host, m *Mount) { stale(h, m); openedElsewhere(h, m) }, do: unmountA},
	{name: "unmount after a reboot a base layer that other code opened", kind: base, foreign: true, kept: true, silent: true,
		prepare: func(h *host, m *Mount) { stale(h, m); openedElsewhere(h, m) }, do: unmountSource},
	{name: "unmount a layer that other code opened", foreign: true, prepare: openedElsewhere, do: unmountSource},
	{name: "unmount a base layer that other code opened", kind: base, foreign: true, prepare: openedElsewhere, do: unmountSource},
	{name: "refuse a layer that other code opened", foreign: true, kept: true, prepare: openedElsewhere, do: refusedAtA(errorSharingViolation)},
	{name: "refuse a base layer that other code opened", kind: base, foreign: true, kept: true, prepare: openedElsewhere, do: refusedPrepared},
	{name: "refuse after a reboot a layer that other code opened", directory: true, foreign: true, kept: true,
		prepare: func(h *host, m *Mount) { stale(h, m); openedElsewhere(h, m) }, do: refusedAtA(errorSharingViolation)},
}

func nothing(*host, *Mount)           {}
func mountedAtA(h *host, m *Mount)    { h.mustMount(m, h.target("a")) }
func mountedAtB(h *host, m *Mount)    { h.mustMount(m, h.target("b")) }
func mountedAtBoth(h *host, m *Mount) { mountedAtA(h, m); mountedAtB(h, m) }
func openedElsewhere(h *host, m *Mount) {
	if err := openElsewhere(h, m); err != nil {
		h.t.Fatal(err)
	}
}

// openElsewhere opens a layer as other code does, without a record.
func openElsewhere(h *host, m *Mount) error {
	return stderrors.Join(h.model.ActivateLayer(m.Source), h.model.PrepareLayer(m.Source, []string{`C:\layers\1`}))
}

func theirsAtA(h *host, m *Mount)      { h.theirMount(m, h.target("a")) }
func stale(h *host, m *Mount)          { mountedAtA(h, m); h.reboot() }
func mountAtA(h *host, m *Mount) error { return h.mount(m, h.target("a")) }
func mountAtB(h *host, m *Mount) error { return h.mount(m, h.target("b")) }
func refusedAtA(code syscall.Errno) func(h *host, m *Mount) error {
	return func(h *host, m *Mount) error {
		if err := mountAtA(h, m); !stderrors.Is(err, code) {
			return fmt.Errorf("not refused with 0x%x: %w", uintptr(code), err)
		}
		return nil
	}
}
func refusedPrepared(h *host, m *Mount) error {
	return refusedAtA(h.model.Personality.PreparedTwice)(h, m)
}
func unmountA(h *host, _ *Mount) error      { return h.unmount(h.target("a")) }
func unmountB(h *host, _ *Mount) error      { return h.unmount(h.target("b")) }
func unmountSource(h *host, m *Mount) error { return h.unmount(m.Source) }

// killedBefore and killedAfter return a function that calls do in a process. The process
// is killed in a call of that name, before the call has an effect or after it.
func killedBefore(call hcstest.Call, do func(h *host, m *Mount) error) func(h *host, m *Mount) {
	return func(h *host, m *Mount) { h.killed(&h.model.Before, call, m, do) }
}

func killedAfter(call hcstest.Call, do func(h *host, m *Mount) error) func(h *host, m *Mount) {
	return func(h *host, m *Mount) { h.killed(&h.model.After, call, m, do) }
}

func (h *host) killed(hook *func(hcstest.Call, string) error, call hcstest.Call, m *Mount, do func(h *host, m *Mount) error) {
	h.t.Helper()
	before := *hook
	defer func() { *hook = before }()
	*hook = func(c hcstest.Call, _ string) error {
		if c == call {
			panic(errKilled)
		}
		return nil
	}
	if died, err := survive(func() error { return do(h, m) }); !died {
		h.t.Fatalf("not killed: %v", err)
	}
}

// cutShort leaves a target as it is if Unmount is killed before it removes the link.
func (h *host) cutShort(target string) {
	h.t.Helper()
	h.change(target, func(r *table.Record) { r.State = table.Leaving })
}

// wantRecovered unmounts all that a scenario may have left, as a later process would. It
// fails the test unless the host is then as it was in the beginning. If mayLack is set,
// the empty directory may be missing.
func (s scenario) wantRecovered(h *host, m *Mount, mayLack bool) {
	h.t.Helper()
	for _, path := range []string{h.target("a"), h.target("b"), m.Source} {
		if err := h.unmountAll(path); err != nil {
			h.t.Errorf("cleaning up %s: %v", path, err)
		}
	}
	h.wantClosed()
	got, want := tree(h.t, h.path("mnt")), s.beginning()
	if got != want && !(mayLack && "a/\n"+got == want) {
		h.t.Errorf("after cleaning up there is\n%swant\n%s", got, want)
	}
}

// beginning is what tree lists of the targets' directory before a scenario.
func (s scenario) beginning() string {
	if s.directory {
		return "a/\nuser/\nuser/data mine\n"
	}
	return "user/\nuser/data mine\n"
}

// tree lists what is below dir: directories, links and files with their content. It leaves out the links by
// which the model shows the streams of what is bound.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		switch {
		case entry.IsDir():
			fmt.Fprintf(&list, "%s/\n", name)
		case entry.Type() == fs.ModeSymlink:
			text, err := os.Readlink(path)
			if err != nil || strings.HasSuffix(path, sourceStream) {
				return err
			}
			fmt.Fprintf(&list, "%s -> %s\n", name, text)
		default:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&list, "%s %s\n", name, data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}

// layerFiles lists what is in the layers without what Mount has written to them.
func (h *host) layerFiles() string {
	h.t.Helper()
	lines := strings.SplitAfter(tree(h.t, h.path("layers")), "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, sourceStream) }), "")
}

// fault is a way in which a call goes wrong.
type fault struct {
	name   string
	onward bool         // all later calls go wrong too
	only   hcstest.Call // only this call does, or "" for any
	before error        // what the call fails with, before it has an effect
	after  error        // what it fails with, once it has had its effect; later calls fail before theirs
}

var faults = []fault{
	{name: "fails with 0x20", before: errorSharingViolation},
	{name: "fails with 0x57", before: errorInvalidParameter},
	{name: "fails with 0x5", before: errorAccessDenied},
	{name: "and all later ones fail with 0x20", before: errorSharingViolation, onward: true},
	{name: "and all later ones fail with 0x5", before: errorAccessDenied, onward: true},
	{name: "fails for an instant", before: errorNotReady},
	{name: "and all later ones fail for an instant", before: errorNotReady, onward: true},
	{name: "fails for an instant though it had its effect", after: errorDeviceNotConnected},
	{name: "fails for an instant though it had its effect, and all later ones before theirs", after: errorNotReady, onward: true},
	{name: "fails with 0x1f though it had its effect", after: errorGenFailure},
	{name: "times out", only: hcstest.Prepare, before: errorTimeout},
	{name: "times out though it had its effect", only: hcstest.Prepare, after: errorTimeout},
	{name: "kills the process before its effect", before: errKilled},
	{name: "kills the process after its effect", after: errKilled},
}

// plan makes call number at, counted from now, go wrong. What it returns reports whether
// that call was made.
func (f fault) plan(h *host, at int) (happened func() bool) {
	number := -1
	wrong := func(call hcstest.Call, err error) error {
		if number != at && !(f.onward && number > at) || f.only != "" && call != f.only {
			return nil
		}
		if err == errKilled {
			panic(errKilled)
		}
		return err
	}
	h.model.Before = func(call hcstest.Call, layer string) error {
		number++
		err := f.before
		if number > at && f.after != nil {
			err = f.after
		}
		if isLie(h, call, layer, err) {
			return nil
		}
		return wrong(call, err)
	}
	h.model.After = func(call hcstest.Call, layer string) error {
		if number != at || f.after != errKilled && f.hidesEffect(h, call, layer) {
			return nil
		}
		return wrong(call, f.after)
	}
	return func() bool { return number >= at }
}

// isLie reports whether err would be a wrong answer that nothing can correct: the call is one that opens a
// layer, other code has the layer open, and err says that the call may have opened it. If the volume is late,
// any code of ActivateLayer but 0x20 says so.
func isLie(h *host, call hcstest.Call, layer string, err error) bool {
	isOpen := slices.Contains(h.model.OpenLayers(), layer)
	switch call {
	case hcstest.Activate:
		late := h.model.Personality.VolumeLate > 0 && !isAny(err, errorSharingViolation)
		return err != nil && err != errKilled && (late || isTransient(err)) && isOpen
	case hcstest.Prepare:
		return (isTransient(err) || isAny(err, errorTimeout)) && h.hasNoVolume(layer) && isOpen
	}
	return false
}

// hidesEffect reports whether a call would fail after an effect that nothing else can tell: it has attached the
// filter of a layer without a volume.
func (f fault) hidesEffect(h *host, call hcstest.Call, layer string) bool {
	return call == hcstest.Prepare && !isTransient(f.after) && !isAny(f.after, errorTimeout) && h.hasNoVolume(layer)
}

// hasNoVolume reports whether HCS attaches no disk for a layer.
func (h *host) hasNoVolume(layer string) bool {
	switch hcs.DiskOf(layer) {
	case hcs.NoDisk:
		return true
	case hcs.KeptDisk:
		return !h.model.Personality.AttachesKeptDisk
	}
	return false
}

func isTransient(err error) bool { return isAny(err, errorNotReady, errorDeviceNotConnected) }

func isAny(err error, codes ...syscall.Errno) bool {
	return slices.ContainsFunc(codes, func(code syscall.Errno) bool { return stderrors.Is(err, code) })
}

func TestMount_NoFaultInAnyCallDoesHarm(t *testing.T) {
	underPersonalities(t, false, func(t *testing.T, p hcstest.Personality) {
		for i, scenario := range scenarios {
			for j, fault := range faults {
				if !chosen(p, i+j, 16) {
					continue
				}
				cases := 0
				for more := true; more; cases++ {
					more = false // as -failfast runs nothing any more
					t.Run(fmt.Sprintf("%s/call %d %s", scenario.name, cases, fault.name), func(t *testing.T) {
						more = disturb(newHostOf(t, p), scenario, fault, cases)
					})
				}
				count("faults of HCS", p, cases-1)
			}
		}
	})
}

// disturb does a scenario in which call number at goes wrong, and reports whether that
// call was made.
func disturb(h *host, s scenario, f fault, at int) (happened bool) {
	m := s.begin(h)
	before := tree(h.t, h.path("mnt"))
	records := len(h.mounts())
	layers := h.layerFiles()

	planned := f.plan(h, at)
	died, err := survive(func() error { return s.do(h, m) })
	h.model.Before, h.model.After = nil, nil

	h.wantNoHarm(s)
	// A Mount that fails and leaves no record has undone everything.
	if !died && err != nil && s.isMount() && len(h.mounts()) == records && !s.clears() {
		if after := tree(h.t, h.path("mnt")); after != before {
			h.t.Errorf("the failed mount left\n%swhere there was\n%s", after, before)
		}
	}
	if err == nil && !died {
		h.wantDone(s, m)
	}
	if err != nil && !planned() {
		h.t.Errorf("without a fault: %v", err)
	}
	s.wantRecovered(h, m, false)
	if after := h.layerFiles(); after != layers {
		h.t.Errorf("the layers have changed to\n%sfrom\n%s", after, layers)
	}
	return planned()
}

// clears reports whether the scenario's mount first clears something away. If the mount
// fails, that does not come back.
func (s scenario) clears() bool {
	return strings.Contains(s.name, "over a stale link") || strings.Contains(s.name, "second target after a reboot") ||
		strings.Contains(s.name, "was killed")
}

// wantNoHarm fails the test if a layer is open that no record names, or if a layer is
// closed that other code has open.
func (h *host) wantNoHarm(s scenario) {
	h.t.Helper()
	if !s.foreign {
		h.wantNoLeak()
	}
	if s.kept {
		h.wantOpen("2")
		for _, call := range h.model.Calls() {
			if strings.HasPrefix(call, string(hcstest.Unprepare)) || strings.HasPrefix(call, string(hcstest.Deactivate)) {
				h.t.Errorf("called %s", call) // though it is open again
			}
		}
	}
	if s.silent {
		h.wantNoChange()
	}
	if s.kind == plain {
		h.wantNoHCS()
	}
}

// wantNoChange fails the test when HCS or the bind filter was called for more than a list.
func (h *host) wantNoChange() {
	h.t.Helper()
	for _, call := range h.model.Calls() {
		if !strings.HasPrefix(call, string(hcstest.Bindings)) {
			h.t.Errorf("called %s", call)
		}
	}
}

// wantDone fails the test unless a scenario that reported success did its work.
func (h *host) wantDone(s scenario, m *Mount) {
	h.t.Helper()
	info, err := h.lookup(h.target("a"))
	shown := h.shownAt(h.target("a"))
	if !s.isMount() {
		if !stderrors.Is(err, os.ErrNotExist) || shown != "" {
			h.t.Errorf("success, the target shows %q, and Lookup says %+v, %v", shown, info, err)
		}
		return
	}
	if s.kind != plain {
		h.wantOpen("2")
	}
	if err != nil || info.Source != m.Source || shown != info.Root {
		h.t.Errorf("success, the target shows %q, and Lookup says %+v, %v", shown, info, err)
	}
	if _, err := os.ReadDir(h.target("a")); err != nil {
		h.t.Errorf("the link does not lead to the layer: %v", err)
	}
}

// shownAt returns what a target shows by a link or a binding, or "".
func (h *host) shownAt(target string) string {
	for _, b := range h.model.Bound() {
		if b.Root == target {
			return b.Source
		}
	}
	text, isLink := strings.CutPrefix(describe(target), "link to ")
	if !isLink {
		return ""
	}
	return text
}

func TestMount_OpensALayerAfreshThatWasLeftHalfOpen(t *testing.T) {
	for name, prepare := range map[string]func(h *host, m *Mount){
		"killed while mounting": killedBefore(hcstest.Prepare, mountAtB),
		"killed while unmounting": func(h *host, m *Mount) {
			mountedAtB(h, m)
			killedBefore(hcstest.Deactivate, unmountB)(h, m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			prepare(h, m)
			h.model.ResetCalls()
			h.mustMount(m, h.target("a"))
			h.wantOpened()
			h.mustUnmount(h.target("b"))
			h.wantOpen("2")
			h.mustUnmount(h.target("a"))
			h.wantClosed()
		})
	}
}

// wantOpened fails the test unless HCS was asked to close a layer and then to open it.
func (h *host) wantOpened() {
	h.t.Helper()
	var names []string
	for _, call := range h.model.Calls() {
		if name, _, _ := strings.Cut(call, " "); hcstest.Call(name) != hcstest.MountPath {
			names = append(names, name)
		}
	}
	want := []hcstest.Call{hcstest.Bindings /* containerd may have mounted the layer since */, hcstest.Unprepare, hcstest.Deactivate, hcstest.Activate, hcstest.Prepare}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		h.t.Errorf("calls %q, want %q", names, want)
	}
}

// The other mount was killed while a second target was added or removed.
func TestUnmount_ClosesALayerWithTheLastTargetThatShowsIt(t *testing.T) {
	for _, killed := range []table.State{table.Opening, table.Linked, table.Leaving} {
		t.Run(string(killed), func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			h.mustMount(m, h.target("a"))
			h.mustMount(m, h.target("b"))
			if err := os.Remove(h.target("a")); err != nil {
				t.Fatal(err)
			}
			h.change(h.target("a"), func(r *table.Record) { r.State = killed })
			h.mustUnmount(h.target("b"))
			h.wantClosed()
		})
	}
}
