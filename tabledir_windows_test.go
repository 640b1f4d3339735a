package mount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

// restoreTable undoes what a test does with SetTableDir.
func restoreTable(t *testing.T) {
	before := mountTable.dir
	t.Cleanup(func() {
		if mountTable.table != nil {
			mountTable.table.Close() // Windows removes no directory that is held
		}
		mountTable.dir, mountTable.table = before, nil
	})
}

func TestSetTableDir_DefaultIsInProgramData(t *testing.T) {
	restoreTable(t)
	mountTable.dir, mountTable.table = "", nil
	table, err := currentTable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := table.Resolved()
	if want := filepath.Join(os.Getenv("ProgramData"), "windows-layer-mounts"); err != nil || !strings.EqualFold(strings.TrimPrefix(dir, `\\?\`), want) {
		t.Errorf("the table is in %s, %v, want %s", dir, err, want)
	}
}

func TestSetTableDir_RefusesARootAndWhatIsNotAbsolute(t *testing.T) {
	for _, dir := range []string{"", "table", `\table`, `C:table`} {
		wantError(t, SetTableDir(dir), "mount table: path")
	}
	for _, root := range []string{`C:\`, `C:/`, `\\server\share`, `\\?\C:\`} {
		wantError(t, SetTableDir(root), "is the root of a volume")
	}
}

func TestSetTableDir_OfTheSameDirectoryKeepsTheTable(t *testing.T) {
	restoreTable(t)
	dir := filepath.Join(t.TempDir(), "table")
	var tables []any
	for _, dir := range []string{dir, dir + `\`, dir + "2"} {
		if err := SetTableDir(dir); err != nil {
			t.Fatal(err)
		}
		table, err := currentTable()
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, table)
	}
	if tables[0] != tables[1] || tables[1] == tables[2] {
		t.Errorf("the tables are %p", tables)
	}
}

func TestSetTableDir_RefusesADirectoryWithAnythingElseInIt(t *testing.T) {
	restoreTable(t)
	dir := t.TempDir()
	if err := SetTableDir(dir); err != nil { // which is empty yet
		t.Fatal(err)
	}
	file := filepath.Join(dir, "mine.txt")
	if err := os.WriteFile(file, []byte("mine"), 0o666); err != nil {
		t.Fatal(err)
	}
	before := accessList(t, dir)
	const text = `contains "mine.txt", which is not part of a mount table`
	wantError(t, SetTableDir(dir), text)
	_, err := List() // of the directory that was empty when it was set
	wantError(t, err, text)
	if after := accessList(t, dir); after != before {
		t.Errorf("access to the directory was %s and is %s", before, after)
	}
	files, err := os.ReadDir(dir)
	if data, readErr := os.ReadFile(file); err != nil || len(files) != 1 || readErr != nil || string(data) != "mine" {
		t.Errorf("the directory contains %v, %v, and the file %q, %v", files, err, data, readErr)
	}
}

func accessList(t *testing.T, path string) string {
	t.Helper()
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	return sd.String()
}
