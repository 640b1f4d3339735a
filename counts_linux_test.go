//go:build amd64 || arm64

package mount

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAMountAndUnmountChangeFiveFilesOfTheTableAndFlushThree(t *testing.T) {
	h := sharedHost(t, newHost(t).dir)
	if err := h.table.hold(); err != nil {
		t.Fatal(err)
	}
	h.scratch("2")
	h.mkdir(h.target("a"))
	var changes, flushes []string
	child := startChild(t)
	for _, name := range []string{"mount at an empty directory", "unmount by target"} {
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
	if len(changes) != 5 || len(flushes) != 3 {
		t.Errorf("%d changes %q and %d flushes %q, want 5 and 3", len(changes), changes, len(flushes), flushes)
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
