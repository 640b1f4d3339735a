package mount

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// accessOf returns the owner and the access list of a file.
func accessOf(t *testing.T, path string) string {
	t.Helper()
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	return sd.String()
}

func TestTheTableIsMadeForAdministratorsAndSystemOnly(t *testing.T) {
	table := newTable(t)
	if err := table.addIndex(keyOf("target"), keyOf("layer")); err != nil {
		t.Fatal(err)
	}
	needWindows(t, "Wine keeps no owner and no protected access list")
	for _, path := range []string{table.dir, filepath.Join(table.dir, "layers"), table.indexPath(keyOf("target"))} {
		// What a directory passes on is of no meaning for a file.
		got, want := strings.ReplaceAll(accessOf(t, path), "OICI", ""), "O:BAD:P(A;;FA;;;SY)(A;;FA;;;BA)"
		if got != want {
			t.Errorf("access to %s is %s, want %s", path, got, want)
		}
	}
}

func TestAnAdministratorsDirectoryBecomesPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "table")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	held, err := holdDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(held.close)
	needWindows(t, "Wine keeps no protected access list")
	if got, want := accessOf(t, dir), "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"; !strings.HasSuffix(got, want) {
		t.Errorf("access to the table is %s, want %s", got, want)
	}
}

func TestTheTableIsHeldSoThatNoOtherTakesItsPlace(t *testing.T) {
	table := newTable(t)
	wantError(t, os.Rename(table.dir, table.dir+"2"), "rename "+table.dir, windows.ERROR_SHARING_VIOLATION)
	wantError(t, removeDir(table.dir), table.dir, windows.ERROR_SHARING_VIOLATION)
	parent := filepath.Dir(table.dir)
	if err := os.Rename(parent, parent+"2"); err == nil {
		if err := os.Rename(parent+"2", parent); err != nil {
			t.Fatal(err)
		}
		needWindows(t, "Wine lets a directory be renamed in which a file is open")
		t.Error("the directory that the table is in was renamed")
	}
}

func TestATableThatIsOrHoldsAnothersDirectoryIsMovedAside(t *testing.T) {
	for _, anothers := range []string{"table", `table\layers`} {
		t.Run(anothers, func(t *testing.T) {
			h := newWinHost(t)
			planted := `layers\` + string(keyOf("planted"))
			h.write(h.path("table", planted))
			giveAway(t, h.path(anothers))
			h.must(h.scratch().Mount(h.path("target")))
			h.wantOpen("2")
			if !isTrusted(t, h.path(anothers)) {
				t.Errorf("%s is not ours", anothers)
			}
			aside, err := filepath.Glob(h.path("table.untrusted-*"))
			if err != nil || len(aside) != 1 {
				t.Fatalf("moved aside are %q, %v", aside, err)
			}
			if data, err := os.ReadFile(filepath.Join(aside[0], planted)); err != nil || string(data) != "data" {
				t.Errorf("what was moved aside has changed: %s, %v", data, err)
			}
			h.must(Unmount(h.path("target"), 0))
			h.wantNothing()
		})
	}
}

func TestATableThatItsOwnerKeepsFromThisUserStaysWhereItIs(t *testing.T) {
	needWindows(t, "Wine keeps no protected access list")
	h := newWinHost(t)
	sa, err := securityOf("O:BAD:P(A;OICI;FA;;;SY)") // an operator may have set that
	if err == nil {
		err = withPath("mkdir", h.path("table"), func(p *uint16) error { return windows.CreateDirectory(p, sa) })
	}
	h.must(err)
	_, err = List()
	wantError(t, err, h.path("table"), os.ErrPermission)
	if aside, err := filepath.Glob(h.path("table.untrusted-*")); err != nil || len(aside) != 0 {
		t.Errorf("moved aside are %q, %v", aside, err)
	}
}

func TestATableThatAnotherUserMadeInAdvanceIsMovedAsideAlsoWhenItIsSet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "table")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "planted"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	giveAway(t, dir)
	useTable(t, dir)
	if err := mountTable.hold(); err != nil {
		t.Fatal(err)
	}
	if !isTrusted(t, dir) {
		t.Errorf("%s is not ours", dir)
	}
}

func TestATableThatIsSetAgainStaysTheSame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "table")
	useTable(t, dir)
	table := mountTable.table
	if err := SetTableDir(dir + `\`); err != nil {
		t.Fatal(err)
	}
	if mountTable.table != table {
		t.Error("it is another one, and the one before is held open")
	}
}

func TestALayerFileOfAnotherOwnerIsNotBelievedAndItsSourceClosesTheLayer(t *testing.T) {
	h := newWinHost(t)
	h.must(h.scratch().Mount(h.path("target")))
	file := h.recordFile()
	giveAway(t, file)
	h.ResetCalls()
	text := file + " belongs to "
	wantError(t, Unmount(h.path("target"), 0), text, os.ErrPermission)
	wantError(t, h.scratch().Mount(h.path("second")), text, os.ErrPermission)
	_, err := Lookup(h.path("target"))
	wantError(t, err, text, os.ErrPermission)
	_, err = List()
	wantError(t, err, text, os.ErrPermission)
	h.wantCalls()
	h.wantOpen("2")
	h.must(Unmount(h.layer("2"), 0))
	h.must(Unmount(h.path("target"), 0))
	h.wantNothing()
}

// giveAway gives a file to another user of the Linux that Wine runs on, as whose
// files Wine shows those of that user.
func giveAway(t *testing.T, path string) {
	t.Helper()
	prefix := os.Getenv("WINEPREFIX")
	if prefix == "" || filepath.VolumeName(path) != "C:" {
		t.Skip("needs Wine: Windows lets nobody give a file away but to himself")
	}
	before := accessOf(t, path)
	unix := prefix + "/drive_c" + strings.ReplaceAll(path[2:], `\`, "/")
	out, err := exec.Command("start", "/wait", "/unix", "/bin/chown", "65534", unix).CombinedOutput()
	// start does not always wait, and that of Wine 10 reports a code where chown had none.
	for deadline := time.Now().Add(5 * time.Second); accessOf(t, path) == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Skipf("needs root, to give a file away: %v, %s", err, out)
		}
	}
}

func isTrusted(t *testing.T, path string) bool {
	t.Helper()
	handle, err := openExisting(path, windows.READ_CONTROL, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(handle), path)
	defer file.Close()
	return checkTrust(file) == nil
}

func TestTheDefaultTableIsInProgramData(t *testing.T) {
	mountTable.table = nil
	mt, err := newMounter()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(os.Getenv("ProgramData"), "windows-layer-mounts"); !strings.EqualFold(mt.table.dir, want) {
		t.Errorf("the table is %s, want %s", mt.table.dir, want)
	}
}

func TestSetTableDirRefusesAPathThatIsNotAbsoluteOrARoot(t *testing.T) {
	for _, dir := range []string{"", "table", `\table`, `C:table`} {
		wantError(t, SetTableDir(dir), "mount table: path")
	}
	for _, root := range []string{`C:\`, `C:/`, `\\server\share`, `\\?\C:\`} {
		wantError(t, SetTableDir(root), "is the root of a volume")
	}
}

func TestSetTableDirRefusesADirectoryThatHoldsAnythingElse(t *testing.T) {
	dir := t.TempDir()
	useTable(t, dir) // which is empty yet
	file := filepath.Join(dir, "mine.txt")
	if err := os.WriteFile(file, []byte("mine"), 0o666); err != nil {
		t.Fatal(err)
	}
	before := accessOf(t, dir)
	text := "holds \"mine.txt\" and is not for a mount table alone"
	wantError(t, SetTableDir(dir), text)
	_, err := List() // the directory that was empty when it was set
	wantError(t, err, text)
	if after := accessOf(t, dir); after != before {
		t.Errorf("access to the directory was %s and is %s", before, after)
	}
	entries, err := os.ReadDir(dir)
	if data, readErr := os.ReadFile(file); err != nil || len(entries) != 1 || readErr != nil || string(data) != "mine" {
		t.Errorf("the directory holds %v, %v, and the file %q, %v", entries, err, data, readErr)
	}
}

// lockInChild holds a lock until its input ends. It says when it is about to lock and
// when it has.
func lockInChild() error {
	fmt.Println("ready")
	unlock, err := mountTable.lockLayer(keyOf("layer"))
	if err != nil {
		return err
	}
	fmt.Println("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	unlock()
	return err
}

func TestALockExcludesOtherProcessesAndEndsWithItsOwn(t *testing.T) {
	h := &winHost{t: t, dir: t.TempDir()}
	useTable(t, h.path("table"))
	unlock := mustLock(t, mountTable.lockLayer, keyOf("layer"))
	child := h.child("lock")
	stdin, inErr := child.StdinPipe()
	stdout, outErr := child.StdoutPipe()
	for _, err := range []error{inErr, outErr, child.Start()} {
		h.must(err)
	}
	defer stdin.Close()
	said := make(chan string, 2)
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			said <- lines.Text()
		}
		close(said)
	}()
	if first := <-said; first != "ready" {
		t.Fatalf("the child says %q", first)
	}
	mustLock(t, mountTable.lockLayer, keyOf("other"))()
	select {
	case early := <-said:
		t.Errorf("the child says %q while this process has the lock", early)
	default:
	}
	unlock()
	if second := <-said; second != "locked" {
		t.Fatalf("the child says %q", second)
	}
	mustLock(t, mountTable.lockLayer, keyOf("other"))() // which the child does not hold
	h.must(child.Process.Kill())
	mustLock(t, mountTable.lockLayer, keyOf("layer"))()
	_ = child.Wait() // it was killed
}

func TestWhatAScannerHasOpenIsTriedAgain(t *testing.T) {
	const readable = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE // and not to be removed
	for _, test := range []struct {
		name  string
		path  func(s *scanned) string
		share uint32
		do    func(s *scanned) error
	}{
		{"read a layer file", layerFile, 0, func(s *scanned) error { _, err := s.mt.table.read(s.e.Key); return err }},
		{"write a layer file anew", layerFile, readable, writeAnew},
		{"write over what a killed process left", func(s *scanned) string { return layerFile(s) + unfinishedSuffix }, 0, writeAnew},
		{"sweep what a killed process left", func(s *scanned) string { return layerFile(s) + unfinishedSuffix }, readable, func(s *scanned) error { return s.mt.table.sweep(s.e.Key) }},
		{"drop a layer file", layerFile, readable, dropEntry},
		{"drop an index", indexFile, readable, dropEntry},
		{"read an index", indexFile, 0, func(s *scanned) error { _, err := s.mt.table.layerAt(s.at.Key); return err }},
		{"make an index", indexFile, 0, func(s *scanned) error { return s.mt.table.addIndex(s.at.Key, s.e.Key) }},
		{"look into the target", targetDir, 0, mountAgain},
		{"replace the target", targetDir, readable, mountAgain},
		{"remove a temporary directory", targetDir, readable, func(s *scanned) error { return removeTemp(s.mt, s.at.Path) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScanned(t)
			pauses := 0
			var scanner windows.Handle
			s.mt.table.pause = func(context.Context) error {
				pauses++
				return windows.CloseHandle(scanner)
			}
			scanner = scan(t, test.path(s), test.share)
			if err := test.do(s); err != nil {
				t.Error(err)
			}
			if pauses != 1 {
				t.Errorf("%d pauses while it was open, want 1", pauses)
			}
		})
	}
}

// scan opens a file as a scanner does, which shares it only so.
func scan(t *testing.T, path string, share uint32) windows.Handle {
	t.Helper()
	handle, err := createFile(path, windows.GENERIC_READ, share, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
	if err != nil {
		t.Fatal(err)
	}
	return handle
}

func TestATableThatAScannerHasOpenIsHeldOnceItHasClosedIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "table")
	held, err := holdDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	held.close()
	for _, path := range []string{dir, filepath.Join(dir, "layers"), filepath.Join(dir, "lock")} {
		scanner := scan(t, path, 0)
		pauses := 0
		again := &table{dir: dir, pause: func(context.Context) error {
			pauses++
			return windows.CloseHandle(scanner)
		}}
		if err := again.hold(); err != nil {
			t.Fatal(err)
		}
		again.held.close()
		if pauses != 1 {
			t.Errorf("%d pauses while %s was open, want 1", pauses, path)
		}
	}
}

// scanned is a table with the record of a layer, another layer and a directory, of
// which a scanner may open each.
type scanned struct {
	mt    *mounter
	e     *entry
	at    target
	layer *Mount
}

func newScanned(t *testing.T) *scanned {
	t.Helper()
	mt, layer, dir := newBaseHost(t)
	s := &scanned{mt: mt, layer: layer, at: target{Path: filepath.Join(dir, "target"), Key: keyOf("target")}}
	s.e = &entry{record: record{Key: keyOf("other"), Source: filepath.Join(dir, "other"), Targets: []target{s.at}}, table: mt.table}
	for _, err := range []error{s.e.write(), mt.table.addIndex(s.at.Key, s.e.Key), os.WriteFile(layerFile(s)+unfinishedSuffix, nil, 0o666)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.e.close()
	return s
}

func layerFile(s *scanned) string { return s.mt.table.layerPath(s.e.Key) }
func indexFile(s *scanned) string { return s.mt.table.indexPath(s.at.Key) }
func targetDir(s *scanned) string { return s.at.Path }
func writeAnew(s *scanned) error {
	defer s.e.close()
	return s.e.write()
}
func dropEntry(s *scanned) error  { return s.e.drop() }
func mountAgain(s *scanned) error { return s.mt.mount(context.Background(), s.layer, s.at.Path) }
