package table

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/retry"
	"github.com/seed-941ae793/mount/internal/winfs"
)

// accessTo returns the owner and the access list of a file.
func accessTo(t *testing.T, path string) string {
	t.Helper()
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	must(t, err)
	return sd.String()
}

// giveAway gives a file to another user of the Linux that Wine runs on.
func giveAway(t *testing.T, paths ...string) {
	t.Helper()
	prefix := os.Getenv("WINEPREFIX")
	for _, path := range paths {
		if prefix == "" || filepath.VolumeName(path) != "C:" {
			t.Skip("needs Wine: Windows lets nobody give a file away but to himself")
		}
		before := accessTo(t, path)
		unix := prefix + "/drive_c" + strings.ReplaceAll(path[2:], `\`, "/")
		out, err := exec.Command("start", "/wait", "/unix", "/bin/chown", "65534", unix).CombinedOutput()
		// start does not always wait, and that of Wine 10 reports a code where chown had none.
		for deadline := time.Now().Add(5 * time.Second); accessTo(t, path) == before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Skipf("needs root, to give a file away: %v, %s", err, out)
			}
		}
	}
}

// givenAway returns a table that nobody uses. It has a mount, and some of its files belong to another user.
func givenAway(t *testing.T, names ...string) *Table {
	t.Helper()
	before := newTable(t)
	create(t, before, "2", "a").Release()
	before.Close()
	for _, name := range names {
		giveAway(t, filepath.Join(before.dir, name))
	}
	return tableIn(t, before.dir)
}

func wantTrusted(t *testing.T, path string, want bool) {
	t.Helper()
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	must(t, err)
	owner, _, err := sd.Owner()
	must(t, err)
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	must(t, err)
	if is := owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.Equals(user.User.Sid); is != want {
		t.Errorf("%s belongs to %s", path, owner)
	}
}

// aside returns the directories that were moved aside.
func aside(t *testing.T, table *Table) []string {
	t.Helper()
	dirs, err := filepath.Glob(table.dir + ".untrusted-*")
	must(t, err)
	return dirs
}

func TestTable_IsForAdministratorsAndSystemOnly(t *testing.T) {
	table := newTable(t)
	m := create(t, table, "2", "a")
	needWindows(t, "Wine keeps no owner and no protected access list")
	for _, path := range []string{table.dir, table.mounts(), filepath.Join(table.dir, "lock"), m.path()} {
		// What a directory passes on means nothing for a file.
		got, want := strings.ReplaceAll(accessTo(t, path), "OICI", ""), "O:BAD:P(A;;FA;;;SY)(A;;FA;;;BA)"
		if got != want {
			t.Errorf("access to %s is %s, want %s", path, got, want)
		}
	}
}

func TestTable_DirectoryOfAnAdministratorBecomesPrivate(t *testing.T) {
	table := newTable(t)
	must(t, os.Mkdir(table.dir, 0o777))
	mustLock(t, table.LockLayer, keyOf("2"))()
	needWindows(t, "Wine keeps no protected access list")
	if got, want := accessTo(t, table.dir), "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"; !strings.HasSuffix(got, want) {
		t.Errorf("access to the table is %s, want %s", got, want)
	}
}

func TestTable_HeldDirectoryCannotBeReplaced(t *testing.T) {
	table := newTable(t)
	mustLock(t, table.LockLayer, keyOf("2"))()
	for _, dir := range []string{table.dir, table.mounts()} {
		wantError(t, os.Rename(dir, dir+"2"), "rename "+dir, windows.ERROR_SHARING_VIOLATION)
		wantError(t, winfs.RemoveDir(dir), dir, windows.ERROR_SHARING_VIOLATION)
	}
	parent := filepath.Dir(table.dir)
	if err := os.Rename(parent, parent+"2"); err == nil {
		must(t, os.Rename(parent+"2", parent))
		needWindows(t, "Wine lets a directory be renamed in which a file is open")
		t.Error("the directory above was renamed")
	}
}

func TestTable_DirectoryOfAnUntrustedUserIsMovedAside(t *testing.T) {
	table := givenAway(t, "")
	write(t, filepath.Join(table.dir, "planted"), "planted")
	must(t, CheckDir(table.dir))
	mustLock(t, table.LockLayer, keyOf("2"))()
	wantTrusted(t, table.dir, true)
	if names, err := table.All(); err != nil || len(names) != 0 {
		t.Errorf("of the mounts in it %v are believed, %v", names, err)
	}
	dirs := aside(t, table)
	if len(dirs) != 1 {
		t.Fatalf("moved aside are %q", dirs)
	}
	wantTrusted(t, dirs[0], false)
	if text := read(t, filepath.Join(dirs[0], "planted")); text != "planted" {
		t.Errorf("the file in it has become %q", text)
	}
}

func TestTable_UntrustedDirectoryIsMovedAsideOnce(t *testing.T) {
	dir := givenAway(t, "").dir
	var all sync.WaitGroup
	tables := make([]*Table, 8) // each as another process has it
	for i := range tables {
		tables[i] = New(dir, "boot", retry.Wait)
		t.Cleanup(tables[i].Close)
		all.Add(1)
		go func() {
			defer all.Done()
			unlock, err := tables[i].LockLayer(keyOf("2"))
			if err != nil {
				t.Error(err)
				return
			}
			unlock()
		}()
	}
	all.Wait()
	wantTrusted(t, dir, true)
	if dirs := aside(t, tables[0]); len(dirs) != 1 {
		t.Errorf("moved aside are %q", dirs)
	}
}

// Another process has moved an untrusted directory aside, and uses the table that it has made there.
func TestTable_WhatTakesThePlaceOfAnUntrustedDirectoryIsNotMoved(t *testing.T) {
	table := givenAway(t, "")
	var other *Table
	scanner := scan(t, table.dir, shareReadWrite)
	table.pause = func(context.Context) error { // this process has seen the owner, and is about to rename
		must(t, windows.CloseHandle(scanner))
		other = tableIn(t, table.dir)
		create(t, other, "3", "b").Release()
		other.Close()
		return nil
	}
	names, err := table.All()
	if err != nil || len(names) != 1 || names[0].LayerKey != keyOf("3") {
		t.Errorf("%v, %v", names, err)
	}
	if dirs := aside(t, table); other == nil || len(dirs) != 1 {
		t.Errorf("moved aside are %q", dirs)
	}
}

func TestTable_MountsOfAnUntrustedUserMakeItUnusable(t *testing.T) {
	table := givenAway(t, "mounts")
	for range 2 {
		_, err := table.All()
		wantError(t, err, table.mounts()+" belongs to ", os.ErrPermission)
	}
	if dirs := aside(t, table); len(dirs) != 0 {
		t.Errorf("moved aside are %q", dirs)
	}
	wantTrusted(t, table.mounts(), false)
}

func TestTable_LockOfAnUntrustedUserIsReplaced(t *testing.T) {
	table := givenAway(t, "lock")
	lock := filepath.Join(table.dir, "lock")
	scanner := scan(t, lock, shareReadWrite)
	pauses := 0
	table.pause = func(context.Context) error {
		pauses++
		return windows.CloseHandle(scanner)
	}
	mustLock(t, table.LockLayer, keyOf("2"))()
	wantTrusted(t, lock, true)
	if names, err := table.All(); err != nil || len(names) != 1 {
		t.Errorf("the mounts in the table are %v, %v", names, err)
	}
	if dirs := aside(t, table); len(dirs) != 0 || pauses != 1 {
		t.Errorf("moved aside are %q, after %d pauses", dirs, pauses)
	}
}

func TestTable_ThatItsOwnerDeniesStaysWhereItIs(t *testing.T) {
	needWindows(t, "Wine keeps no protected access list")
	table := newTable(t)
	sd, err := windows.SecurityDescriptorFromString("O:BAD:P(A;OICI;FA;;;SY)") // an operator may have set that
	must(t, err)
	sa := &windows.SecurityAttributes{SecurityDescriptor: sd}
	path, err := windows.UTF16PtrFromString(table.dir)
	must(t, err)
	must(t, windows.CreateDirectory(path, sa))
	_, err = table.All()
	wantError(t, err, table.dir, os.ErrPermission)
	if dirs := aside(t, table); len(dirs) != 0 {
		t.Errorf("moved aside are %q", dirs)
	}
}

func TestLoad_FileOfAnUntrustedUserIsDamaged(t *testing.T) {
	table := newTable(t)
	m := create(t, table, "2", "a")
	m.Release()
	giveAway(t, m.path())
	_, err := table.Load(m.Name)
	wantError(t, err, m.path()+" belongs to ", ErrDamaged, os.ErrPermission)
	must(t, table.Discard(m.Name))
	if names, err := table.All(); err != nil || len(names) != 0 {
		t.Errorf("left are %v, %v", names, err)
	}
}

func TestTable_WhatAScannerHasOpenIsTriedAgain(t *testing.T) {
	for _, test := range []struct {
		name  string
		path  func(m *Mount) string
		share uint32
		do    func(t *testing.T, table *Table, m *Mount) error
	}{
		{"hold the table", func(m *Mount) string { return m.table.dir }, 0, list},
		{"hold mounts", func(m *Mount) string { return m.table.mounts() }, 0, list},
		{"hold the locks", func(m *Mount) string { return filepath.Join(m.table.dir, "lock") }, 0, list},
		{"load", (*Mount).path, shareReadWrite, func(_ *testing.T, table *Table, m *Mount) error {
			m, err := table.Load(m.Name)
			if err == nil {
				m.Release()
			}
			return err
		}},
		{"discard", (*Mount).path, shareReadWrite, func(_ *testing.T, table *Table, m *Mount) error { return table.Discard(m.Name) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := newTable(t)
			m := create(t, before, "2", "a")
			m.Release()
			before.Close()
			table := tableIn(t, before.dir)
			scanner := scan(t, test.path(m), test.share)
			pauses := 0
			table.pause = func(context.Context) error {
				pauses++
				return windows.CloseHandle(scanner)
			}
			if err := test.do(t, table, m); err != nil || pauses != 1 {
				t.Errorf("%v after %d pauses, want 1", err, pauses)
			}
		})
	}
}

func list(_ *testing.T, table *Table, _ *Mount) error {
	_, err := table.All()
	return err
}

func TestRemove_FreesTheNameWhileAScannerHasTheFileOpen(t *testing.T) {
	table := newTable(t)
	m := create(t, table, "2", "a")
	defer windows.CloseHandle(scan(t, m.path(), shareReadWrite|windows.FILE_SHARE_DELETE))
	must(t, m.Remove())
	needWindows(t, "Wine keeps the name until the file is closed")
	again, err := table.Create(m.LayerKey, m.TargetKey, rec)
	must(t, err)
	again.Release()
}

const shareReadWrite = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE // and not to be removed

// scan opens a file as another program does, and shares it with others only in these ways.
func scan(t *testing.T, path string, share uint32) windows.Handle {
	t.Helper()
	name, err := windows.UTF16PtrFromString(path)
	must(t, err)
	handle, err := windows.CreateFile(name, windows.GENERIC_READ, share, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	must(t, err)
	return handle
}
