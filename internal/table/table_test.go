package table

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed-941ae793/mount/internal/winfs"
)

// rec is the record of a mount.
var rec = Record{State: Opening, Source: `C:\layers\2`, Dir: `C:\layers\2`, Target: `C:\mnt\a`, Resolved: `C:\mnt\a`}

// create puts a mount in a table.
func create(t *testing.T, table *Table, layer, target string) *Mount {
	t.Helper()
	unlock, err := table.LockLayer(keyOf(layer)) // which makes the table
	must(t, err)
	defer unlock()
	m, err := table.Create(keyOf(layer), keyOf(target), rec)
	must(t, err)
	t.Cleanup(m.Release)
	return m
}

// path is where the file of a mount is documented to be.
func (m *Mount) path() string {
	return filepath.Join(m.table.dir, "mounts", m.boot+"-"+string(m.LayerKey)+"-"+string(m.TargetKey))
}

// earlier is the table in an earlier start of Windows.
func earlier(t *testing.T, table *Table) *Table {
	e := New(table.dir, "earlier", noPause)
	t.Cleanup(e.Close)
	return e
}

func TestKeyOf_IsTheSameForAllNamesOfAFile(t *testing.T) {
	lower := KeyOf(winfs.Name{Path: `C:\layers\ä`})
	if upper := KeyOf(winfs.Name{Path: `c:\LAYERS\Ä`}); upper != lower {
		t.Error("names that differ in case have different keys")
	}
	if other := KeyOf(winfs.Name{Path: `C:\layers\b`}); other == lower {
		t.Error("different names have the same key")
	}
	if KeyOf(winfs.Name{Path: `C:\a`, CaseSensitive: true}) == KeyOf(winfs.Name{Path: `C:\A`, CaseSensitive: true}) {
		t.Error("two files of a case-sensitive directory have the same key")
	}
}

func TestTable_ListsMountsByTargetAndLayer(t *testing.T) {
	table := newTable(t)
	a, b, c := create(t, table, "1", "a"), create(t, table, "1", "b"), create(t, table, "2", "c")
	// A layer whose key is that of a target, and the other way around.
	swapped := create(t, table, "a", "1")
	stale := create(t, earlier(t, table), "1", "a")
	for _, name := range []string{"mine", "a-b", "a-b-c-d"} {
		write(t, filepath.Join(table.mounts(), name), "")
	}
	for _, test := range []struct {
		list string
		do   func() ([]Name, error)
		want []*Mount
	}{
		{"At a", func() ([]Name, error) { return table.At(keyOf("a")) }, []*Mount{a, stale}},
		{"At b", func() ([]Name, error) { return table.At(keyOf("b")) }, []*Mount{b}},
		{"At none", func() ([]Name, error) { return table.At(keyOf("none")) }, nil},
		{"Of 1", func() ([]Name, error) { return table.Of(keyOf("1")) }, []*Mount{a, b, stale}},
		{"Of 2", func() ([]Name, error) { return table.Of(keyOf("2")) }, []*Mount{c}},
		{"Of none", func() ([]Name, error) { return table.Of(keyOf("none")) }, nil},
		{"All", table.All, []*Mount{a, b, c, swapped, stale}},
	} {
		names, err := test.do()
		var want []Name
		for _, m := range test.want {
			want = append(want, m.Name)
		}
		byText := func(a, b Name) int { return strings.Compare(a.String(), b.String()) }
		slices.SortFunc(names, byText)
		slices.SortFunc(want, byText)
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("%s: %v, %v, want %v", test.list, names, err, want)
		}
	}
	if table.IsStale(a.Name) || !table.IsStale(stale.Name) {
		t.Error("the mount of the earlier start is not the stale one")
	}
}

func TestTable_IsNotMadeToBeRead(t *testing.T) {
	table := newTable(t)
	for _, list := range []func() ([]Name, error){table.All, func() ([]Name, error) { return table.At(keyOf("a")) }} {
		if names, err := list(); err != nil || len(names) != 0 {
			t.Errorf("%v, %v", names, err)
		}
	}
	if _, err := os.Lstat(table.dir); !os.IsNotExist(err) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestTable_MakesNoDirectoryAboveItsOwn(t *testing.T) {
	table := tableIn(t, filepath.Join(t.TempDir(), "none", "table"))
	_, err := table.LockLayer(keyOf("2"))
	wantError(t, err, "mount table", os.ErrNotExist)
	if _, err := os.Lstat(filepath.Dir(table.dir)); !os.IsNotExist(err) {
		t.Errorf("the directory above was made: %v", err)
	}
}

func TestTable_IsReadThroughAnotherOne(t *testing.T) {
	table := newTable(t)
	m := create(t, table, "2", "a")
	other := tableIn(t, table.dir)
	names, err := other.All()
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	loaded, err := other.Load(names[0])
	must(t, err)
	loaded.Release()
	if loaded.Name != m.Name || !reflect.DeepEqual(loaded.Record, m.Record) {
		t.Errorf("%+v, want %+v", loaded, m)
	}
}

func TestTable_DirectoryThatIsNoTableIsRefused(t *testing.T) {
	for _, test := range []struct {
		name, text string
		make       func(t *testing.T, dir string)
	}{
		{"another file in it", `contains "mine", which is not part of a mount table`, func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			write(t, filepath.Join(dir, "mine"), "mine")
		}},
		{"a file", "table", func(t *testing.T, dir string) { write(t, dir, "mine") }},
		{"a link", "table", func(t *testing.T, dir string) { symlink(t, filepath.Join(filepath.Dir(dir), "elsewhere"), dir) }},
		{"mounts is a file", "mounts", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			write(t, filepath.Join(dir, "mounts"), "mine")
		}},
		{"mounts is a link", "mounts", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			symlink(t, filepath.Join(filepath.Dir(dir), "elsewhere"), filepath.Join(dir, "mounts"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := newTable(t)
			elsewhere := filepath.Join(filepath.Dir(table.dir), "elsewhere")
			must(t, os.Mkdir(elsewhere, 0o700))
			test.make(t, table.dir)
			_, listErr := table.All()
			_, lockErr := table.LockLayer(keyOf("2"))
			for _, err := range []error{listErr, lockErr} {
				wantError(t, err, "mount table: ")
				wantError(t, err, test.text)
			}
			if files, err := os.ReadDir(elsewhere); err != nil || len(files) != 0 {
				t.Errorf("the table is made where the link leads: %v, %v", files, err)
			}
		})
	}
}

// symlink makes a link to a directory. It skips the test where no link can be made, as on some versions of Wine.
func symlink(t *testing.T, text, path string) {
	t.Helper()
	err := os.Symlink(text, path)
	if _, statErr := os.Lstat(path); err != nil || statErr != nil {
		t.Skipf("no link can be made: %v, %v", err, statErr)
	}
}

func TestCheckDir_RefusesWhatContainsAnythingElse(t *testing.T) {
	table := newTable(t)
	if err := CheckDir(table.dir); err != nil {
		t.Errorf("an absent directory: %v", err)
	}
	create(t, table, "2", "a")
	if err := CheckDir(table.dir); err != nil {
		t.Errorf("a table: %v", err)
	}
	write(t, filepath.Join(table.dir, "mine"), "mine")
	wantError(t, CheckDir(table.dir), `contains "mine"`)
}

func TestCreate_MakesAFileWithOneLine(t *testing.T) {
	m := create(t, newTable(t), "2", "a")
	if text := read(t, m.path()); text != string(rec.encode()) {
		t.Errorf("the file contains %q", text)
	}
}

func TestCreate_FailsIfThereIsAFile(t *testing.T) {
	table := newTable(t)
	m := create(t, table, "2", "a")
	write(t, m.path(), "mine")
	_, err := table.Create(m.LayerKey, m.TargetKey, rec)
	wantError(t, err, "mount table", os.ErrExist)
	if text := read(t, m.path()); text != "mine" {
		t.Errorf("the file contains %q", text)
	}
}

func TestSave_AppendsOneLine(t *testing.T) {
	for _, durable := range []bool{false, true} {
		m := create(t, newTable(t), "2", "a")
		want := read(t, m.path())
		for _, state := range []State{Linked, Shown, Leaving} {
			m.State = state
			must(t, m.Save(durable))
			want += string(m.encode())
			if text := read(t, m.path()); text != want {
				t.Errorf("the file contains %q, want %q", text, want)
			}
		}
	}
}

func TestSave_WritesOverALineThatWasNotFinished(t *testing.T) {
	for _, rest := range []string{"1", "1 0", lineOf("1", "{}")[:12], strings.Repeat("x", 3000)} {
		table := newTable(t)
		m := create(t, table, "2", "a")
		write(t, m.path(), string(m.encode())+rest)
		loaded, err := table.Load(m.Name)
		must(t, err)
		defer loaded.Release()
		for _, state := range []State{Linked, Shown} {
			loaded.State = state
			must(t, loaded.Save(false))
			again, err := table.Load(m.Name)
			must(t, err)
			again.Release()
			if again.State != state {
				t.Errorf("over %.20q: state %q, want %q", rest, again.State, state)
			}
		}
	}
}

func TestLoad_ReturnsTheLastLine(t *testing.T) {
	table := newTable(t)
	m := create(t, table, "2", "a")
	m.State, m.Volume = Shown, `\\?\Volume{a}`
	must(t, m.Save(false))
	loaded, err := table.Load(m.Name)
	must(t, err)
	loaded.Release()
	if loaded.Name != m.Name || !reflect.DeepEqual(loaded.Record, m.Record) {
		t.Errorf("%+v, want %+v", loaded, m)
	}
}

func TestLoad_OfAMountThatIsOver(t *testing.T) {
	table := newTable(t)
	_, err := table.Load(Name{"boot", "2", "a"})
	wantError(t, err, "mount table", os.ErrNotExist)
	m := create(t, table, "2", "a")
	must(t, m.Remove())
	_, err = table.Load(m.Name)
	wantError(t, err, "mount table", os.ErrNotExist)
}

// If a kill or a power failure has left such a file, there is nothing to undo, or the file is damaged.
func TestLoad_OfAFileWithoutALineThatCounts(t *testing.T) {
	line := string(rec.encode())
	zeros := strings.Repeat("\x00", len(line))
	for _, test := range []struct {
		name, text      string
		damaged, always bool // whether the file is damaged in this start of Windows, or in any
	}{
		{name: "empty", text: ""},
		{name: "begun", text: line[:20]},
		{name: "zeros", text: zeros},
		{name: "whole line of zeros", text: zeros + "\n", damaged: true},
		{name: "wrong checksum", text: strings.Replace(line, "layers", "LAYERS", 1), damaged: true},
		{name: "not a record", text: "mine\n", damaged: true},
		{name: "unknown version", text: lineOf("2", "{}"), always: true},
		{name: "unknown state", text: line + lineOf("1", minimal("mounted")), always: true},
		{name: "directory of all layers", text: lineOf("1", `{"state":"shown","dir":"C:\\layers\\"}`), always: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := newTable(t)
			for _, isStale := range []bool{false, true} {
				maker := table
				if isStale {
					maker = earlier(t, table)
				}
				m := create(t, maker, "2", "a")
				m.Release()
				write(t, m.path(), test.text)
				loaded, err := table.Load(m.Name)
				if test.always || test.damaged && !isStale {
					wantError(t, err, "damaged file "+m.path(), ErrDamaged)
					if text := read(t, m.path()); text != test.text {
						t.Errorf("stale %t: the file has become %q", isStale, text)
					}
					continue
				}
				must(t, err)
				if want := (Record{State: Closed}); !reflect.DeepEqual(loaded.Record, want) {
					t.Errorf("stale %t: %+v, want %+v", isStale, loaded.Record, want)
				}
				must(t, loaded.Remove())
			}
			if test.damaged || test.always {
				return
			}
			if names, err := table.All(); err != nil || len(names) != 0 {
				t.Errorf("left are %v, %v", names, err)
			}
		})
	}
}

func TestLoad_OfADirectoryIsAnError(t *testing.T) {
	table := newTable(t)
	m := create(t, table, "2", "a")
	must(t, m.Remove())
	must(t, os.Mkdir(m.path(), 0o700))
	_, err := table.Load(m.Name)
	wantError(t, err, m.path())
}

func TestRemove_OfAFileThatSomebodyHasRemovedIsNoError(t *testing.T) {
	m := create(t, newTable(t), "2", "a")
	must(t, os.Remove(m.path()))
	must(t, m.Remove())
}

func TestRemove_LeavesOtherMounts(t *testing.T) {
	table := newTable(t)
	m, other := create(t, table, "2", "a"), create(t, table, "2", "b")
	must(t, m.Remove())
	if names, err := table.All(); err != nil || !slices.Equal(names, []Name{other.Name}) {
		t.Errorf("left are %v, %v", names, err)
	}
}

func TestDiscard_RemovesAFileWhateverItContains(t *testing.T) {
	table := newTable(t)
	m := create(t, table, "2", "a")
	m.Release()
	write(t, m.path(), "mine\n")
	for range 2 { // the second time it is gone
		must(t, table.Discard(m.Name))
		if _, err := os.Lstat(m.path()); !os.IsNotExist(err) {
			t.Errorf("the file is there: %v", err)
		}
	}
}
