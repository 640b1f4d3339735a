//go:build amd64 || arm64

package mount

import (
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
)

func TestMount_KilledAtAnyStepIsCleanedUp(t *testing.T) {
	underPersonalities(t, true, func(t *testing.T, p hcstest.Personality) {
		for i, s := range scenarios {
			if !chosen(p, i, 16) {
				continue
			}
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				h := newSharedHost(t, p)
				m := s.begin(h)
				// If a process is killed before a change, it leaves what is there at that time.
				var left []state
				child := startChild(t)
				err := child.run(s, h.dir, func(change) {
					if now := stateOf(t, h.dir); len(left) == 0 || !now.equal(left[len(left)-1]) {
						left = append(left, now)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				for i, state := range left {
					state.restore(t, h.dir)
					h := sharedHost(t, h.dir)
					h.identifyMade()
					h.wantNoHarm(s)
					s.wantRecovered(h, m, false)
					if t.Failed() {
						t.Fatalf("in state %d of %d, which was\n%s", i, len(left), state)
					}
				}
				count("kills", p, len(left))
			})
		}
	})
}

func TestMount_KilledHoldsNoLock(t *testing.T) {
	s := scenarios[0]
	for at, killed := 1, true; killed; at++ {
		h := newSharedHost(t, hcstest.Likely)
		m := s.begin(h)
		child := startChild(t)
		changes := 0
		err := child.run(s, h.dir, func(change) {
			if changes++; changes == at {
				child.kill()
			}
		})
		if killed = child.killed; !killed && err != nil {
			t.Fatal(err)
		}
		s.wantRecovered(h, m, false)
	}
}

func TestMount_RecordsEachStepBeforeItTakesIt(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			h := newSharedHost(t, hcstest.Likely)
			s.begin(h)
			unflushed := map[string]bool{}
			err := startChild(t).run(s, h.dir, func(c change) {
				switch c.number {
				case unix.SYS_WRITE, unix.SYS_PWRITE64:
					unflushed[c.path] = true
					opens := strings.HasPrefix(c.data, string(hcstest.Activate)) || strings.HasPrefix(c.data, string(hcstest.Prepare)) || strings.HasPrefix(c.data, string(hcstest.Bind))
					if c.path == h.path("hcs", "calls") && opens && len(h.tableFiles()) == 0 {
						t.Errorf("there is no record yet: %s", c.data)
					}
				case unix.SYS_FSYNC:
					delete(unflushed, c.path)
				case unix.SYS_SYMLINKAT:
					if strings.HasSuffix(c.path, sourceStream) {
						return // the model shows the stream of what is bound
					}
					if file := h.recordFile(c.path); unflushed[file] {
						t.Error("the link is made before its record is on the disk")
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// state is what there is in some directories of a host: the content of files, the text of
// links after " -> ", and "/" for directories, by path.
type state map[string]string

// changing is what a process may change on a host.
var changing = []string{"table", "mnt", "hcs", "layers", "boot"}

// stateOf returns the state of all that a process may change, or of some directories.
func stateOf(t testing.TB, dir string, names ...string) state {
	t.Helper()
	if len(names) == 0 {
		names = changing
	}
	s := state{}
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(dir, name), func(path string, entry os.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil {
				return err
			}
			key := strings.TrimPrefix(path, dir+"/")
			switch {
			case entry.IsDir():
				s[key] = "/"
			case entry.Type() == os.ModeSymlink:
				text, err := os.Readlink(path)
				s[key] = " -> " + text
				return err
			default:
				data, err := os.ReadFile(path)
				s[key] = string(data)
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s state) equal(other state) bool {
	if len(s) != len(other) {
		return false
	}
	for path, content := range s {
		if is, ok := other[path]; !ok || is != content {
			return false
		}
	}
	return true
}

// String lists the state without locks and what the model of HCS keeps.
func (s state) String() string {
	var list strings.Builder
	for _, path := range s.paths() {
		if !strings.HasPrefix(path, "table/lock/") && !strings.HasPrefix(path, "hcs/") {
			list.WriteString(path + ": " + s[path] + "\n")
		}
	}
	return list.String()
}

// identifyMade corrects the IDs in the records of directories that were made for bindings:
// restore has made these directories anew, so they have other IDs.
func (h *host) identifyMade() {
	h.t.Helper()
	for _, r := range h.mounts() {
		if r.Hidden == "" {
			continue
		}
		if id, err := winfs.FileID(r.Resolved); err == nil {
			h.change(r.Target, func(r *table.Record) { r.Hidden = id })
		}
	}
}

// paths returns the paths, each after that of the directory it is in.
func (s state) paths() []string {
	var paths []string
	for path := range s {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	return paths
}

// restore makes what a process may change as it was, or some directories.
func (s state) restore(t testing.TB, dir string, names ...string) {
	t.Helper()
	if len(names) == 0 {
		names = changing
	}
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range s.paths() {
		var err error
		content := s[path]
		path = filepath.Join(dir, path)
		switch text, isLink := strings.CutPrefix(content, " -> "); {
		case content == "/":
			err = os.Mkdir(path, 0o755)
		case isLink:
			err = os.Symlink(text, path)
		default:
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
