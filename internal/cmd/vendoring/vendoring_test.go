package main

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A small containerd of its own, and a small engine.
var (
	fakeTree = map[string]string{
		"go.mod": "module example.com/containerd\n\ngo 1.24\n\nrequire (\n" +
			"\tgithub.com/Microsoft/go-winio v0.6.2\n\tgithub.com/Microsoft/hcsshim v0.11.7\n\tgolang.org/x/sys v0.45.0\n)\n\n" +
			"require (\n\tgithub.com/a/a v1.0.0 // indirect\n\tgithub.com/pkg/errors v0.9.1 // indirect\n\tgolang.org/x/text v0.1.0 // indirect\n)\n",
		"go.sum":               "github.com/a/a v1.0.0 h1:a=\ngolang.org/x/sys v0.45.0 h1:b=\n",
		"mount/mount.go":       "package mount\n\nimport \"fmt\"\n\ntype Mount struct{ Type string }\n\nfunc (m *Mount) Mount(target string) error { return fmt.Errorf(\"%w\", m.mount(target)) }\n",
		"mount/temp.go":        "package mount\n\nvar tempMountLocation string\n",
		"mount/mountinfo.go":   "package mount\n\ntype Info struct{}\n",
		"mount/lookup_unix.go": "//go:build !windows\n\npackage mount\n\nfunc Lookup(dir string) (Info, error) { return Info{}, nil }\n",
		"mount/mount_windows.go": "package mount\n\nimport \"github.com/Microsoft/go-winio/pkg/bindfilter\"\n\n" +
			"// mount binds.\nfunc (m *Mount) mount(target string) error { return bindfilter.ApplyFileBinding(target, m.Type, true) }\n\nfunc Unmount(string, int) error { return nil }\n",
		"mount/lookup_unsupported.go": "//go:build windows\n\npackage mount\n\nfunc Lookup(dir string) (Info, error) { return Info{}, nil }\n",
		"mount/temp_unsupported.go":   "//go:build windows || darwin\n// +build windows darwin\n\npackage mount\n\nfunc SetTempMountLocation(root string) error { return nil }\n",
	}
	fakeEngine = map[string]string{
		"go.mod":               "module " + origin + "\n",
		"LICENSE":              "Apache\n",
		"mount.go":             "package mount\n\ntype Mount struct{}\n",
		"temp.go":              "package mount\n\nvar tempMountLocation string\n",
		"mount_windows.go":     "package mount\n\nimport _ \"github.com/Microsoft/hcsshim\"\n\nfunc (m *Mount) mount(target string) error { return nil }\n\nfunc Unmount(string, int) error { return nil }\n",
		"mount_unsupported.go": "//go:build !windows\n\npackage mount\n",
		"table.go":             "package mount\n\nimport \"github.com/pkg/errors\"\n\ntype table struct{}\n\nvar errTable = errors.New(\"\")\n",
		"table_windows.go":     "package mount\n\nimport _ \"github.com/Microsoft/go-winio/pkg/bindfilter\"\n\nfunc Lookup(dir string) (Info, error) { return Info{}, nil }\n\nfunc SetTempMountLocation(root string) error { return nil }\n",
		"table_test.go":        "package mount\n",
	}
)

// write makes a directory of files, those of more in place of the others or without where "".
func writeFiles(t *testing.T, files map[string]string, more ...string) string {
	t.Helper()
	files = maps.Clone(files)
	for i := 0; i < len(more); i += 2 {
		files[more[i]] = more[i+1]
	}
	dir := t.TempDir()
	for name, content := range files {
		if content == "" {
			continue
		}
		put(t, filepath.Join(dir, name), content)
	}
	return dir
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// wantFiles fails the test unless exactly these files are in a directory.
func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	if got := readFiles(t, dir); !maps.Equal(got, want) {
		t.Errorf("in %s is %q, want %q", dir, got, want)
	}
}

func readFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			var content []byte
			content, err = os.ReadFile(filepath.Join(dir, name))
			files[name] = string(content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// knowFakes makes the files of fakeTree those of a release.
func knowFakes(t *testing.T) {
	released := forms
	t.Cleanup(func() { forms = released })
	forms = map[string][]string{}
	for name := range released {
		forms[name] = []string{formOf([]byte(fakeTree["mount/"+name]))}
	}
}

func engineOf(t *testing.T, more ...string) *engine {
	t.Helper()
	e, err := readEngine(writeFiles(t, fakeEngine, more...))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// vendorInto runs the program and returns what it printed.
func vendorInto(dir string, e *engine) (string, error) {
	var out bytes.Buffer
	tree, err := findTree(dir, &out)
	if err == nil {
		err = tree.vendor(e)
	}
	return out.String(), err
}

func mustVendor(t *testing.T, dir string, e *engine) string {
	t.Helper()
	out, err := vendorInto(dir, e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mustUndo(t *testing.T, dir string) {
	t.Helper()
	tree, err := findTree(dir, new(bytes.Buffer))
	if err == nil {
		err = tree.undo()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheEngineTakesThePlaceOfWhatIsForWindowsAlone(t *testing.T) {
	knowFakes(t)
	dir := writeFiles(t, fakeTree)
	out := mustVendor(t, dir, engineOf(t))
	files := readFiles(t, dir)
	for name, content := range fakeTree {
		got, there := files[name]
		switch name {
		case "mount/mount_windows.go", "mount/lookup_unsupported.go":
			if there {
				t.Error(name, "is still there")
			}
		case "mount/temp_unsupported.go":
			if !strings.HasPrefix(got, "//go:build darwin\n// +build darwin\n\npackage mount\n") {
				t.Errorf("%s: %s", name, got)
			}
		case "go.mod":
		default:
			if got != content {
				t.Error(name, "has changed")
			}
		}
	}
	for name, want := range map[string]string{
		"hcs_mount_windows.go":          "func (m *Mount) mount",
		"hcs_table_windows.go":          "// Code generated by scripts/vendor from table.go of " + origin,
		"hcs_table_os_windows.go":       "from table_windows.go",
		"hcs_choice_windows.go":         "func init() { UseBindFilter(true) }",
		keepDir + "/LICENSE":            "Apache",
		keepDir + "/manifest.json":      `"Origin": "` + origin,
		"hcs_mount_unsupported.go":      "",
		"hcs_temp_windows.go":           "",
		"hcs_method_windows.go":         "",
		"hcs_mount_unsupported_test.go": "",
	} {
		content, there := files["mount/"+name]
		if there != (want != "") || !strings.Contains(content, want) {
			t.Errorf("%s: %q", name, content)
		}
	}
	for _, line := range []string{"remove mount/mount_windows.go", "change mount/temp_unsupported.go", "add mount/hcs_table_windows.go", "change go.mod", "\tfunc init() { UseBindFilter(true) }"} {
		if !strings.Contains(filepath.ToSlash(out), line+"\n") {
			t.Errorf("%q was not printed:\n%s", line, out)
		}
	}
}

func TestATreeThatMountedByLinksGoesOnWithLinksAndGetsItsMethod(t *testing.T) {
	knowFakes(t)
	windows := "package mount\n\nfunc (m *Mount) Mount(target string) error { return nil }\n\nfunc Unmount(string, int) error { return nil }\n"
	forms["mount_windows.go"] = []string{formOf([]byte(windows))}
	dir := writeFiles(t, fakeTree, "mount/mount_windows.go", windows, "mount/mount.go", "package mount\n\ntype Mount struct{}\n")
	mustVendor(t, dir, engineOf(t))
	files := readFiles(t, dir)
	if got := files["mount/hcs_choice_windows.go"]; !strings.HasSuffix(got, "func init() { UseBindFilter(false) }\n") {
		t.Error(got)
	}
	if got := files["mount/hcs_method_windows.go"]; !strings.Contains(got, "func (m *Mount) Mount(target string) error { return m.mount(target) }") {
		t.Error(got)
	}
}

func TestASecondRunChangesNothing(t *testing.T) {
	knowFakes(t)
	dir, e := writeFiles(t, fakeTree), engineOf(t)
	mustVendor(t, dir, e)
	once := readFiles(t, dir)
	if out := mustVendor(t, dir, e); !strings.HasPrefix(out, "nothing to change\n") {
		t.Error(out)
	}
	wantFiles(t, dir, once)
}

func TestANewerEngineTakesThePlaceOfTheOlderOneAndKeepsTheChoice(t *testing.T) {
	knowFakes(t)
	dir := writeFiles(t, fakeTree)
	mustVendor(t, dir, engineOf(t, "old.go", "package mount\n"))
	put(t, filepath.Join(dir, "mount", choiceName), "package mount\n\nfunc init() { UseBindFilter(false) }\n")
	mustVendor(t, dir, engineOf(t, "new.go", "package mount\n"))
	files := readFiles(t, dir)
	for name, want := range map[string]bool{"hcs_old_windows.go": false, "hcs_new_windows.go": true, "hcs_table_windows.go": true} {
		if _, there := files["mount/"+name]; there != want {
			t.Errorf("%s is there: %t", name, there)
		}
	}
	if !strings.Contains(files["mount/"+choiceName], "UseBindFilter(false)") {
		t.Error("the choice was not kept")
	}
	mustUndo(t, dir)
	wantFiles(t, dir, fakeTree)
}

func TestUndoBringsBackEveryFile(t *testing.T) {
	knowFakes(t)
	dir := writeFiles(t, fakeTree)
	mustVendor(t, dir, engineOf(t))
	mustUndo(t, dir)
	wantFiles(t, dir, fakeTree)
}

// stopper is an output that stops the program after some lines.
type stopper struct{ lines int }

func (s *stopper) Write(line []byte) (int, error) {
	if s.lines--; s.lines < 0 {
		panic(s)
	}
	return len(line), nil
}

// stopped does something with a tree until a number of lines is printed, and reports whether it
// has come to that.
func stopped(t *testing.T, dir string, lines int, do func(tree *tree) error) (is bool) {
	t.Helper()
	defer func() { is = recover() != nil }()
	tree, err := findTree(dir, &stopper{lines})
	if err == nil {
		err = do(tree)
	}
	if err != nil {
		t.Fatal(err)
	}
	return false
}

func TestARunThatWasStoppedAnywhereCanBeRepeatedAndUndone(t *testing.T) {
	knowFakes(t)
	e := engineOf(t)
	whole := writeFiles(t, fakeTree)
	mustVendor(t, whole, e)
	want := readFiles(t, whole)
	for lines, more := 0, true; more; lines++ {
		repeated, undone := writeFiles(t, fakeTree), writeFiles(t, fakeTree)
		for _, dir := range []string{repeated, undone} {
			more = stopped(t, dir, lines, func(tree *tree) error { return tree.vendor(e) })
		}
		mustVendor(t, repeated, e)
		got := readFiles(t, repeated)
		for _, manifest := range []map[string]string{got, want} { // which may have edits twice
			delete(manifest, "mount/_windows-layer-mounts/manifest.json")
		}
		if !maps.Equal(got, want) {
			t.Errorf("stopped after %d changes and repeated, it has made %q", lines, got)
		}
		mustUndo(t, repeated)
		wantFiles(t, repeated, fakeTree)
		if _, err := os.Stat(filepath.Join(undone, "mount", keepDir, "manifest.json")); err != nil {
			continue // nothing but copies was made
		}
		mustUndo(t, undone)
		wantFiles(t, undone, fakeTree)
		if t.Failed() {
			t.Fatalf("when it was stopped after %d changes", lines)
		}
	}
}

func TestAnUndoThatWasStoppedAnywhereCanBeRepeated(t *testing.T) {
	knowFakes(t)
	e := engineOf(t)
	for lines, more := 0, true; more; lines++ {
		dir := writeFiles(t, fakeTree)
		mustVendor(t, dir, e)
		if more = stopped(t, dir, lines, (*tree).undo); more {
			mustUndo(t, dir)
		}
		if wantFiles(t, dir, fakeTree); t.Failed() {
			t.Fatalf("when it was stopped after %d changes", lines)
		}
	}
}

func TestWhatGitDoesToTheEndsOfLinesIsNoChange(t *testing.T) {
	knowFakes(t)
	dir := writeFiles(t, fakeTree)
	mustVendor(t, dir, engineOf(t))
	path := filepath.Join(dir, "mount", "hcs_table_windows.go")
	put(t, path, strings.ReplaceAll(readFiles(t, dir)["mount/hcs_table_windows.go"], "\n", "\r\n"))
	mustVendor(t, dir, engineOf(t))
}

func TestCommentsAndLayoutDoNotMatterInWhatIsReplaced(t *testing.T) {
	knowFakes(t)
	windows := strings.Replace(fakeTree["mount/mount_windows.go"], "// mount binds.\n", "\r\n// mount shows a layer.\r\n", 1)
	mustVendor(t, writeFiles(t, fakeTree, "mount/mount_windows.go", windows), engineOf(t))
}

func TestATreeThatIsRefusedIsLeftUntouched(t *testing.T) {
	knowFakes(t)
	for _, test := range []struct{ name, file, content, want string }{
		{"it is no containerd", "mount/mount_windows.go", "", "is not a checkout of containerd"},
		{"what is replaced was changed", "mount/mount_windows.go", fakeTree["mount/mount_windows.go"] + "\nfunc mine() {}\n", "mount_windows.go is none that this program knows"},
		{"what is replaced is missing", "mount/lookup_unsupported.go", "", "lookup_unsupported.go is not there"},
		{"its name is taken by a file", "mount/hcs_table_windows.go", "package mount\n", "hcs_table_windows.go is there already"},
		{"its name is taken by a type", "mount/own.go", "package mount\n\ntype table int\n", "table is declared already"},
		{"its import is the name of a function", "mount/own.go", "package mount\n\nfunc errors() {}\n", "errors is declared already"},
		{"its name is taken by an import", "mount/own.go", "package mount\n\nimport table \"os\"\n\nvar _ = table.Args\n", "table is the name of an import"},
		{"a name that it needs is missing", "mount/temp.go", "package mount\n", "tempMountLocation is declared nowhere"},
		{"it is of another package", "mount/own.go", "package mounts\n", "package mounts"},
		{"its files are built for Windows otherwise", "mount/temp_unsupported.go", strings.Replace(fakeTree["mount/temp_unsupported.go"], "windows || darwin", "darwin || windows", 1), "build constraint"},
		{"its hcsshim is too old", "go.mod", strings.Replace(fakeTree["go.mod"], "hcsshim v0.11.7", "hcsshim v0.9.2", 1), "requires github.com/Microsoft/hcsshim v0.9.2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := writeFiles(t, fakeTree, test.file, test.content)
			before := readFiles(t, dir)
			if out, err := vendorInto(dir, engineOf(t)); err == nil || !strings.Contains(err.Error(), test.want) || out != "" {
				t.Errorf("%v, printed %q", err, out)
			}
			if !maps.Equal(readFiles(t, dir), before) {
				t.Error("files have changed")
			}
		})
	}
}

func TestAnExportedNameThatWouldBeLostIsRefused(t *testing.T) {
	knowFakes(t)
	windows := fakeTree["mount/mount_windows.go"] + "\nfunc GetNewThing() {}\n"
	forms["mount_windows.go"] = []string{formOf([]byte(windows))}
	_, err := vendorInto(writeFiles(t, fakeTree, "mount/mount_windows.go", windows), engineOf(t))
	if err == nil || !strings.Contains(err.Error(), "mount_windows.go declares GetNewThing") {
		t.Error(err)
	}
}

func TestWhatWasChangedSinceIsNotLost(t *testing.T) {
	knowFakes(t)
	for _, test := range []struct{ file, content, want string }{
		{"hcs_table_windows.go", "package mount\n", "hcs_table_windows.go is not as this program left it"},
		{"temp_unsupported.go", "package mount\n", "temp_unsupported.go is not as this program left it"},
		{"mount_windows.go", "package mount\n", "mount_windows.go has come back"},
	} {
		dir := writeFiles(t, fakeTree)
		mustVendor(t, dir, engineOf(t))
		put(t, filepath.Join(dir, "mount", test.file), test.content)
		before := readFiles(t, dir)
		if _, err := vendorInto(dir, engineOf(t)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Error(err)
		}
		if !maps.Equal(readFiles(t, dir), before) {
			t.Error("files have changed")
		}
	}
}

func TestUndoOfATreeThatWasNotChangedIsAnError(t *testing.T) {
	tree, err := findTree(writeFiles(t, fakeTree), new(bytes.Buffer))
	if err == nil {
		err = tree.undo()
	}
	if err == nil || !strings.Contains(err.Error(), "was not changed by this program") {
		t.Error(err)
	}
}

func TestAModuleThatWasIndirectIsDirectAndKeepsItsVersion(t *testing.T) {
	knowFakes(t)
	dir := writeFiles(t, fakeTree)
	mustVendor(t, dir, engineOf(t))
	want := strings.Replace(fakeTree["go.mod"], "\tgithub.com/pkg/errors v0.9.1 // indirect\n", "", 1)
	want = strings.Replace(want, "\tgolang.org/x/sys v0.45.0\n", "\tgithub.com/pkg/errors v0.9.1\n\tgolang.org/x/sys v0.45.0\n", 1)
	files := readFiles(t, dir)
	if files["go.mod"] != want || files["go.sum"] != fakeTree["go.sum"] {
		t.Errorf("%s\n%s", files["go.mod"], files["go.sum"])
	}
}

func TestAModuleThatIsTooOldOrMissingIsAddedWithItsSumsAndUndone(t *testing.T) {
	knowFakes(t)
	gomod := strings.Replace(fakeTree["go.mod"], "go-winio v0.6.2", "go-winio v0.5.3", 1)
	gomod = strings.Replace(gomod, "\tgithub.com/pkg/errors v0.9.1 // indirect\n", "", 1)
	dir := writeFiles(t, fakeTree, "go.mod", gomod)
	before := readFiles(t, dir)
	mustVendor(t, dir, engineOf(t))
	files := readFiles(t, dir)
	for _, line := range []string{"\tgithub.com/Microsoft/go-winio v0.6.1\n", "\tgithub.com/pkg/errors v0.9.1\n"} {
		if !strings.Contains(files["go.mod"], line) {
			t.Errorf("no %q:\n%s", line, files["go.mod"])
		}
	}
	if got := strings.Count(files["go.sum"], "\n"); got != 6 {
		t.Errorf("%d lines in go.sum", got)
	}
	mustUndo(t, dir)
	wantFiles(t, dir, before)
}

func TestUndoLeavesAModuleThatWasUpdatedSince(t *testing.T) {
	knowFakes(t)
	dir := writeFiles(t, fakeTree)
	mustVendor(t, dir, engineOf(t))
	gomod := filepath.Join(dir, "go.mod")
	put(t, gomod, strings.Replace(readFiles(t, dir)["go.mod"], "errors v0.9.1", "errors v0.9.2", 1))
	mustUndo(t, dir)
	if got := readFiles(t, dir)["go.mod"]; !strings.Contains(got, "\tgithub.com/pkg/errors v0.9.2\n") {
		t.Error(got)
	}
}

func TestATreeIsToldWhenItsDirectoryVendorLacksSomething(t *testing.T) {
	knowFakes(t)
	const all = "# github.com/Microsoft/go-winio v0.6.2\ngithub.com/Microsoft/go-winio/pkg/bindfilter\n" +
		"# github.com/Microsoft/hcsshim v0.11.7\ngithub.com/Microsoft/hcsshim\n# github.com/pkg/errors v0.9.1\ngithub.com/pkg/errors\n"
	for text, want := range map[string]bool{
		all: false,
		strings.Replace(all, "go-winio/pkg/bindfilter", "go-winio", 1): true,
		strings.Replace(all, "errors v0.9.1", "errors v0.8.0", 1):      true,
	} {
		out := mustVendor(t, writeFiles(t, fakeTree, "vendor/modules.txt", text), engineOf(t))
		if strings.Contains(out, "run go mod vendor") != want {
			t.Errorf("%s\n%s", text, out)
		}
	}
}

func TestVersionsAreComparedByTheirNumbers(t *testing.T) {
	for _, test := range []struct {
		version, other string
		older          bool
	}{
		{"v0.5.3", "v0.6.1", true},
		{"v0.6.1", "v0.6.1", false},
		{"v0.6.3-0.20251027160822-ad3df93bed29", "v0.6.1", false},
		{"v0.0.0-20211216021012-1d35b9e2eb4e", "v0.18.0", true},
		{"v0.9.12", "v0.9.2", false},
		{"v0.15.0-rc.4", "v0.9.12", false},
	} {
		if got := isOlder(test.version, test.other); got != test.older {
			t.Errorf("%s is older than %s: %t", test.version, test.other, got)
		}
	}
}

func TestTheRealEngineHasNoTwoFilesOfOneName(t *testing.T) {
	e, err := readEngine(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	want := -len(portable)
	for _, path := range files {
		if name := filepath.Base(path); !strings.HasSuffix(name, "_test.go") && name != "mount_unsupported.go" && name != "other.go" {
			want++
		}
	}
	if len(e.files) != want {
		t.Errorf("%d files, not %d", len(e.files), want)
	}
}
