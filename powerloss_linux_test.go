//go:build amd64 || arm64

package mount

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// After a power loss a volume has what was durable, and any number of the changes after
// that, in their order: file systems have a journal of names. The content of files is not
// in the journal. Content that was not flushed may be missing, or any part of it may be
// zeros. The table and the targets are on different volumes, and each of the two may keep
// another number of changes.
//
// A change is durable if a file on the same volume is flushed after it, or moved into
// place, which is written through. The content of that file is then durable, too.

func TestMount_PowerLossIsCleared(t *testing.T) {
	underPersonalities(t, true, func(t *testing.T, p hcstest.Personality) {
		for i, s := range scenarios {
			if s.foreign || !chosen(p, i, 16) { // what other code had open is closed then
				continue
			}
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				h := newSharedHost(t, p)
				s.begin(h)
				trace := tracePower(t, s, h)
				remains := trace.remains()
				for _, one := range remains {
					s.wantCleared(t, h.dir, one)
				}
				count("power losses", p, len(remains))
			})
		}
	})
}

// wantCleared fails the test unless what a power loss has left can be unmounted, and
// mounted over.
func (s scenario) wantCleared(t *testing.T, dir string, left state) {
	t.Helper()
	for _, clear := range []struct {
		name string
		do   func(h *host, m *Mount)
	}{
		{"Unmount of the targets", func(h *host, m *Mount) {
			h.mustUnmountAll(h.target("a"))
			h.mustUnmountAll(h.target("b"))
			h.wantNoChange()
		}},
		{"Unmount of the layer", func(h *host, m *Mount) {
			isOnRecord := len(h.mounts()) > 0
			h.mustUnmount(m.Source)
			if isOnRecord {
				h.wantNoChange()
			}
			h.wantClosed()
		}},
		{"Mount", func(h *host, m *Mount) {
			h.mustMount(m, h.target("a"))
			if s.kind != plain {
				h.wantOpen("2")
			}
		}},
	} {
		if s.kind == plain && clear.name == "Unmount of the layer" {
			continue
		}
		left.restore(t, dir, "table", "mnt")
		h := sharedHost(t, dir)
		h.identifyMade()
		h.reboot()
		h.model.ResetCalls()
		m := s.mount(h)
		clear.do(h, m)
		// If the directory is gone and the link is not there, nobody can tell whether a
		// user has removed the link.
		_, there := left["mnt/a"]
		s.removeMade(h)
		s.wantRecovered(h, m, !there)
		if t.Failed() {
			t.Fatalf("%s, when a power loss had left\n%s", clear.name, left)
		}
	}
}

// removeMade unmounts, and removes the empty directories that Mount had made for bindings: they may stay, since what
// tells that they were made is not flushed.
func (s scenario) removeMade(h *host) {
	h.t.Helper()
	for _, name := range s.bindsAt {
		target := h.target(string(name))
		h.mustUnmountAll(target)
		if !s.directory || name != 'a' {
			_ = os.Remove(target)
		}
	}
}

func (h *host) mustUnmountAll(path string) {
	h.t.Helper()
	if err := h.unmountAll(path); err != nil {
		h.t.Errorf("unmounting %s: %v", path, err)
	}
}

// volume is what a trace has of a volume.
type volume struct {
	states []state // before each change, and at the end
	// durable has, for each of these, the number of the state that was durable then.
	durable []int
	// flushed has, for each of these, the flushed content of the files that have more.
	flushed []map[string]string
}

// powerTrace is what a scenario does to the volumes of the table and of the targets.
type powerTrace struct{ table, targets volume }

// tracePower does a scenario and follows what is durable.
func tracePower(t *testing.T, s scenario, h *host) powerTrace {
	var trace powerTrace
	volumes := map[string]*volume{"table": &trace.table, "mnt": &trace.targets}
	flushed := map[string]map[string]string{"table": {}, "mnt": {}}
	durable := map[string]int{}
	observe := func() {
		for name, v := range volumes {
			now := stateOf(t, h.dir, name)
			v.states = append(v.states, now)
			v.durable = append(v.durable, durable[name])
			unflushed := map[string]string{}
			for path, content := range flushed[name] {
				if now[path] != content {
					unflushed[path] = content
				}
			}
			v.flushed = append(v.flushed, unflushed)
		}
	}
	// A change makes things durable only once it is done.
	done := func() {}
	err := startChild(t).run(s, h.dir, func(c change) {
		name, _, _ := strings.Cut(strings.TrimPrefix(c.path, h.dir+"/"), "/")
		if volumes[name] == nil {
			return
		}
		done()
		observe()
		done = func() {}
		path, to := strings.TrimPrefix(c.path, h.dir+"/"), strings.TrimPrefix(c.to, h.dir+"/")
		files := flushed[name]
		number := len(volumes[name].states)
		switch c.number {
		case unix.SYS_OPENAT:
			done = func() { files[path] = "" } // and what was there is cut off
		case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_FTRUNCATE:
			if _, known := files[path]; !known {
				files[path] = volumes[name].states[number-1][path]
			}
		case unix.SYS_FSYNC:
			done = func() {
				if data, err := os.ReadFile(c.path); err == nil { // and not a directory
					files[path] = string(data)
				}
				durable[name] = number
			}
		case unix.SYS_RENAMEAT:
			done = func() {
				files[to] = files[path]
				delete(files, path)
				durable[name] = number
			}
		case unix.SYS_UNLINKAT:
			done = func() { delete(files, path) }
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	done()
	observe()
	return trace
}

// remains returns all that a power loss at any instant may leave.
func (trace powerTrace) remains() []state {
	seen := map[string]bool{}
	var all []state
	for now := range trace.table.states {
		for _, table := range trace.table.remains(now) {
			for _, targets := range trace.targets.remains(now) {
				left := state{}
				for path, content := range table {
					left[path] = content
				}
				for path, content := range targets {
					left[path] = content
				}
				if text := fmt.Sprint(left); !seen[text] {
					seen[text] = true
					all = append(all, left)
				}
			}
		}
	}
	return all
}

// remains returns what may remain of the volume after a power loss at an instant.
func (v volume) remains(now int) []state {
	var all []state
	add := func(s state) {
		for _, other := range all {
			if other.equal(s) {
				return
			}
		}
		all = append(all, s)
	}
	for i := v.durable[now]; i <= now; i++ {
		add(v.states[i])
		// The files whose content may be lost, all together and each alone.
		paths := v.states[i].paths()
		for _, paths := range append([][]string{paths}, alone(paths)...) {
			for _, lose := range []func(flushed, content string) string{cutOff, zeros, firstHalfZeros} {
				one := state{}
				for path, content := range v.states[i] {
					one[path] = content
				}
				for _, path := range paths {
					if flushed, is := v.flushed[now][path]; is {
						one[path] = lose(flushed, one[path])
					}
				}
				add(one)
			}
		}
	}
	return all
}

func alone(paths []string) [][]string {
	var lists [][]string
	for _, path := range paths {
		lists = append(lists, []string{path})
	}
	return lists
}

func cutOff(flushed, content string) string { return flushed }

func zeros(flushed, content string) string {
	return flushed + strings.Repeat("\x00", max(0, len(content)-len(flushed)))
}

// firstHalfZeros is what remains if the disk has written the end of the file first.
func firstHalfZeros(flushed, content string) string {
	if len(content) <= len(flushed) {
		return content
	}
	n := (len(content) - len(flushed)) / 2
	return flushed + strings.Repeat("\x00", n) + content[len(flushed)+n:]
}
