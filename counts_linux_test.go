//go:build amd64 || arm64

package mount

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMount_ChangesTwoFilesAndFlushesTwiceForALink(t *testing.T) {
	wantCounts(t, 2, 2, "mount at an empty directory", "unmount by target")
}

func TestMount_ChangesTwoFilesAndFlushesNoneForABinding(t *testing.T) {
	wantCounts(t, 2, 0, "mount at an empty directory, bound", "unmount by target, bound")
	wantCounts(t, 2, 0, "mount at an absent target, bound", "unmount by target, bound")
}

func wantCounts(t *testing.T, wantChanges, wantFlushes int, scenarios ...string) {
	t.Helper()
	h := sharedHost(t, newHost(t).dir)
	h.mustMakeTable()
	h.scratch("2")
	h.mkdir(h.target("a"))
	var changes, flushes []string
	child := startChild(t)
	for _, name := range scenarios {
		err := child.run(scenarioNamed(t, name), h.dir, func(c change) {
			path, isTables := strings.CutPrefix(c.path, h.path("table")+"/")
			switch c.number {
			case unix.SYS_FSYNC: // of a record, or of the directory that a link has left
				flushes = append(flushes, path)
			case unix.SYS_WRITE, unix.SYS_PWRITE64:
			default:
				if isTables && !strings.HasPrefix(path, "lock") { // locks stay
					changes = append(changes, path)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	h.wantClosed()
	if len(changes) != wantChanges || len(flushes) != wantFlushes {
		t.Errorf("%d changes %q and %d flushes %q, want %d and %d", len(changes), changes, len(flushes), flushes, wantChanges, wantFlushes)
	}
}

func scenarioNamed(t *testing.T, name string) scenario {
	t.Helper()
	for _, s := range scenarios {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("no scenario %q", name)
	return scenario{}
}

func (h *host) mustMakeTable() {
	h.t.Helper()
	unlock, err := h.table.LockLayer("any")
	if err != nil {
		h.t.Fatal(err)
	}
	unlock()
}
