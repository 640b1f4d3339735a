//go:build !windows

package table

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestResolved_LeadsThroughNoLink(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	symlink(t, "real", filepath.Join(dir, "link"))
	table := tableIn(t, filepath.Join(dir, "link", "table"))
	if path, err := table.Resolved(); err != nil || path != filepath.Join(dir, "real", "table") {
		t.Errorf("%s, %v", path, err)
	}
}

func TestLock_ErrorKeepsNobodyWaiting(t *testing.T) {
	table := newTable(t)
	mustLock(t, table.LockLayer, keyOf("a"))()
	locks := filepath.Join(table.dir, "lock")
	must(t, os.RemoveAll(locks))
	for range 2 {
		_, err := table.LockLayer(keyOf("a"))
		wantError(t, err, "mount table: lock", os.ErrNotExist)
		if n := len(table.locks.locks); n != 0 {
			t.Fatalf("%d locks are remembered that nobody has", n)
		}
	}
	must(t, os.Mkdir(locks, 0o700))
	mustLock(t, table.LockLayer, keyOf("a"))()
}

// alone runs a test in a process of its own, and reports whether this is that process. The test limits how
// large files may grow, and the go command has a file open in the usual process.
func alone(t *testing.T) bool {
	t.Helper()
	const isAlone = "TABLE_TEST_ALONE"
	if os.Getenv(isAlone) != "" {
		return true
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), isAlone+"=1")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// limitFiles lets no file grow beyond n bytes while do runs, as on a disk that is full.
func limitFiles(t *testing.T, n int64, do func()) {
	t.Helper()
	var before syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	limit := before
	limit.Cur = uint64(n)
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	do()
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before))
}

func TestSave_CutsOffWhatItCouldNotWrite(t *testing.T) {
	if !alone(t) {
		return
	}
	table := newTable(t)
	m := create(t, table, "2", "a")
	before := read(t, m.path())
	m.State = Closed
	for _, written := range []int{0, 1, 20, len(m.encode()) - 1} {
		var err error
		limitFiles(t, int64(len(before)+written), func() { err = m.Save(false) })
		wantError(t, err, `mount table: record layer C:\layers\2 at C:\mnt\a`, syscall.EFBIG)
		if text := read(t, m.path()); text != before {
			t.Errorf("after %d bytes of a line the file contains %q, want %q", written, text, before)
		}
	}
	m.State = Shown
	must(t, m.Save(false))
	if text, want := read(t, m.path()), before+string(m.encode()); text != want {
		t.Errorf("the next Save leaves %q, want %q", text, want)
	}
}

func TestCreate_LeavesNoFileThatItCouldNotWrite(t *testing.T) {
	if !alone(t) {
		return
	}
	table := newTable(t)
	mustLock(t, table.LockLayer, keyOf("2"))()
	limitFiles(t, 10, func() {
		_, err := table.Create(keyOf("2"), keyOf("a"), rec)
		wantError(t, err, "mount table: record layer", syscall.EFBIG)
	})
	if names, err := table.All(); err != nil || len(names) != 0 {
		t.Errorf("left are %v, %v", names, err)
	}
}
