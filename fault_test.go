//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcsmodel"
)

// scenario is something that the fault and kill tests disturb: it prepares a
// host and then does one thing with layer 2 at the targets a and b.
type scenario struct {
	name      string
	directory bool // there is an empty directory at a in the beginning
	base      bool // the layer has no parents
	foreign   bool // other code opened the layer, without a record
	refused   bool // and keeps it open
	prepare   func(h *host, m *Mount)
	do        func(h *host, m *Mount) error
}

func (s scenario) host(h *host) *Mount {
	h.write(h.target("user/data"), "mine")
	if s.directory {
		h.mkdir(h.target("a"))
	}
	if s.base {
		return h.base("2")
	}
	return h.scratch("2")
}

// mount is the mount of the layer that host has made.
func (s scenario) mount(h *host) *Mount {
	if s.base {
		return h.baseMount("2")
	}
	return h.scratchMount("2")
}

var scenarios = []scenario{
	{name: "mount at an absent target", prepare: nothing, do: mountAtA},
	{name: "mount at an empty directory", directory: true, prepare: nothing, do: mountAtA},
	{name: "mount a base layer", base: true, prepare: nothing, do: mountAtA},
	{name: "mount at a second target", prepare: mountedAtB, do: mountAtA},
	{name: "mount over a stale link", directory: true, prepare: stale, do: mountAtA},
	{name: "mount at a second target after a reboot", prepare: func(h *host, m *Mount) {
		mountedAtB(h, m)
		h.reboot()
	}, do: mountAtA},
	{name: "unmount by target", directory: true, prepare: mountedAtA, do: unmountA},
	{name: "unmount a base layer", base: true, directory: true, prepare: mountedAtA, do: unmountA},
	{name: "unmount one of two targets", prepare: mountedAtBoth, do: unmountA},
	{name: "unmount by source", directory: true, prepare: mountedAtBoth, do: unmountSource},
	{name: "unmount after a reboot", directory: true, prepare: stale, do: unmountA},
	{name: "unmount a layer that other code opened", foreign: true, prepare: openedElsewhere, do: unmountSource},
	{name: "refuse a layer that other code opened", foreign: true, refused: true, prepare: openedElsewhere, do: refusedAtA(errorSharingViolation)},
	{name: "refuse a base layer that other code opened", base: true, foreign: true, refused: true, prepare: openedElsewhere, do: refusedAtA(errorInvalidParameter)},
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
func stale(h *host, m *Mount)          { mountedAtA(h, m); h.reboot() }
func mountAtA(h *host, m *Mount) error { return h.mount(m, h.target("a")) }
func refusedAtA(code syscall.Errno) func(h *host, m *Mount) error {
	return func(h *host, m *Mount) error {
		if err := mountAtA(h, m); !stderrors.Is(err, code) {
			return fmt.Errorf("not refused with 0x%x: %w", uintptr(code), err)
		}
		return nil
	}
}
func unmountA(h *host, _ *Mount) error      { return h.unmount(h.target("a")) }
func unmountSource(h *host, m *Mount) error { return h.unmount(m.Source) }

// wantRecovered unmounts all that a scenario may have left, as a process would
// that comes after, and fails the test unless that leaves the host as it was in
// the beginning.
func (s scenario) wantRecovered(h *host, m *Mount) {
	h.t.Helper()
	for _, path := range []string{h.target("a"), h.target("b"), m.Source} {
		if err := h.unmountAll(context.Background(), path); err != nil {
			h.t.Errorf("cleaning up %s: %v", path, err)
		}
	}
	h.wantClosed()
	want := "user/\nuser/data mine\n"
	if s.directory {
		want = "a/\n" + want
	}
	if got := tree(h.t, h.path("mnt")); got != want {
		h.t.Errorf("after cleaning up there is\n%swant\n%s", got, want)
	}
}

// tree lists what is below dir: directories, links and files with their content.
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
			if err != nil {
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

// fault is a way in which a call goes wrong.
type fault struct {
	name   string
	onward bool  // all later calls go wrong too
	before error // what the call fails with, before it has an effect
	after  error // what it fails with, once it has had its effect
}

// errKilled stands for the death of the process in a call. Unwinding the stack
// then does what the system does for a process that died: it drops the locks.
var errKilled = stderrors.New("killed")

var faults = []fault{
	{name: "fails", before: errorSharingViolation},
	{name: "and all later ones fail", before: errorSharingViolation, onward: true},
	{name: "fails for an instant", before: errorNotReady},
	{name: "and all later ones fail for an instant", before: errorNotReady, onward: true},
	{name: "fails for an instant though it had its effect", after: errorDeviceNotConnected},
	{name: "kills the process before its effect", before: errKilled},
	{name: "kills the process after its effect", after: errKilled},
}

// plan makes call number at, counted from now, go wrong, and returns whether it
// has come to that.
func (f fault) plan(h *host, at int) (happened func() bool) {
	call := -1
	wrong := func(err error) error {
		if call != at && !(f.onward && call > at) {
			return nil
		}
		if err == errKilled {
			panic(errKilled)
		}
		return err
	}
	h.model.Before = func(hcsmodel.Call, string) error {
		call++
		return wrong(f.before)
	}
	h.model.After = func(hcsmodel.Call, string) error { return wrong(f.after) }
	return func() bool { return call >= at }
}

func TestNoFaultInAnyHCSCallLeaksALayerOrTouchesAFile(t *testing.T) {
	for _, scenario := range scenarios {
		for _, fault := range faults {
			for at, more := 0, true; more; at++ {
				more = false // as -failfast runs nothing any more
				t.Run(fmt.Sprintf("%s/call %d %s", scenario.name, at, fault.name), func(t *testing.T) {
					h := newHost(t)
					m := scenario.host(h)
					scenario.prepare(h, m)
					before := tree(t, h.path("mnt"))
					records := len(h.records())
					layers := tree(t, h.path("layers"))

					happened := fault.plan(h, at)
					died, err := survive(func() error { return scenario.do(h, m) })
					more = happened()
					h.model.Before, h.model.After = nil, nil

					if !scenario.foreign {
						h.wantNoLeak()
					}
					if scenario.refused {
						h.wantOpen("2")
					}
					// What failed without a record of more to undo has undone all.
					if !died && err != nil && strings.HasPrefix(scenario.name, "mount") && len(h.records()) == records {
						if after := tree(t, h.path("mnt")); after != before && scenario.name != "mount over a stale link" {
							t.Errorf("the failed mount left\n%swhere there was\n%s", after, before)
						}
					}
					if err == nil && !died {
						h.wantDone(scenario)
					}
					scenario.wantRecovered(h, m)
					if after := tree(t, h.path("layers")); after != layers {
						t.Errorf("the layers have changed to\n%sfrom\n%s", after, layers)
					}
				})
			}
		}
	}
}

// wantDone fails the test unless a scenario that reported success did its work.
func (h *host) wantDone(s scenario) {
	h.t.Helper()
	isLink := strings.HasPrefix(describe(h.target("a")), "link to ")
	if isLink != strings.HasPrefix(s.name, "mount") {
		h.t.Errorf("success, and at the target is %s", describe(h.target("a")))
	}
}

func survive(do func() error) (died bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != errKilled {
				panic(r)
			}
			died = true
		}
	}()
	return false, do()
}

func TestALayerThatAKilledProcessLeftHalfOpenIsOpenedAfreshAtAnotherTarget(t *testing.T) {
	for _, test := range []struct {
		name string
		kill hcsmodel.Call
		do   func(h *host, m *Mount) error
	}{
		{"killed while mounting", hcsmodel.Prepare, func(h *host, m *Mount) error { return h.mount(m, h.target("b")) }},
		{"killed while unmounting", hcsmodel.Deactivate, func(h *host, m *Mount) error { return h.unmount(h.target("b")) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			if test.kill == hcsmodel.Deactivate {
				mountedAtB(h, m)
			}
			h.model.Before = func(call hcsmodel.Call, _ string) error {
				if call == test.kill {
					panic(errKilled)
				}
				return nil
			}
			if died, err := survive(func() error { return test.do(h, m) }); !died {
				t.Fatal(err)
			}
			h.model.Before = nil
			h.model.ResetCalls()
			h.mustMount(m, h.target("a"))
			h.wantCalls(calls(closeCalls, openCalls)...)
			h.mustUnmount(h.target("b"))
			h.wantOpen("2")
			h.mustUnmount(h.target("a"))
			h.wantClosed()
		})
	}
}

func TestALayerIsClosedWithTheLastTargetThatShowsItAndNotWithOneThatWasKilled(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.model.Before = func(hcsmodel.Call, string) error { panic(errKilled) }
	if died, err := survive(func() error { return h.mount(m, h.target("a")) }); !died {
		t.Fatal(err)
	}
	h.model.Before = nil
	h.mustMount(m, h.target("b"))
	h.mustUnmount(h.target("b"))
	h.wantOpen()
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}
