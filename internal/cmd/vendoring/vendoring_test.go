package main

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A small containerd, and a small library.
const gomod = `module github.com/containerd/containerd/v2

go 1.24

require (
	github.com/Microsoft/go-winio v0.6.2
	github.com/Microsoft/hcsshim v0.14.1
	golang.org/x/sys v0.33.0
)

require (
	github.com/a/a v1.0.0 // indirect
	github.com/pkg/errors v0.9.1 // indirect
)
`

var (
	containerd = map[string]string{
		"go.mod":                           gomod,
		"go.sum":                           "github.com/a/a v1.0.0 h1:a=\n",
		"core/mount/mount.go":              "package mount\n\ntype Mount struct{}\n\nfunc (m *Mount) Mount(target string) error { return m.mount(target) }\n",
		"core/mount/mount_windows.go":      "package mount\n\nfunc (m *Mount) mount(target string) error { return nil }\n\nfunc Unmount(string, int) error { return nil }\n",
		"core/mount/lookup_unsupported.go": "//go:build windows\n\npackage mount\n\nfunc Lookup(dir string) {}\n",
		"core/mount/temp_unsupported.go":   "//go:build windows || darwin\n// +build windows darwin\n\npackage mount\n\nfunc SetTempMountLocation(root string) {}\n",
	}
	library = map[string][]byte{
		"mount.go":            []byte("package mount\n\nimport \"" + origin + "/internal/hcs\"\n"),
		"internal/hcs/hcs.go": []byte("package hcs\n"),
	}
)

// checkout makes a containerd with other files in place of some, or without one where that is "".
func checkout(t *testing.T, other map[string]string) string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command")
	}
	dir := t.TempDir()
	files := maps.Clone(containerd)
	maps.Copy(files, other)
	for name, content := range files {
		if content != "" {
			write(t, dir, name, content)
		}
	}
	return dir
}

// commit makes a containerd that git has.
func commit(t *testing.T, other map[string]string) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	dir := checkout(t, other)
	git(t, dir, "init", "-q")
	save(t, dir)
	return dir
}

func save(t *testing.T, dir string) {
	t.Helper()
	git(t, dir, "add", "-A")
	git(t, dir, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "commit", "-qm", "files")
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("git %q: %v: %s", args, err, out)
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// contents returns all files below dir, but those of git.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".git":
			return fs.SkipDir
		case !entry.IsDir():
			content, err := os.ReadFile(filepath.Join(dir, name))
			files[name] = string(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func mustVendor(t *testing.T, dir, version string, library map[string][]byte) (said string) {
	t.Helper()
	var out bytes.Buffer
	if err := vendor(dir, version, library, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestVendor_PutsTheLibraryAndTheAdapterIntoAFork(t *testing.T) {
	const layers = "github.com/containerd/containerd/v2/core/mount/internal/windowslayer"
	dir := commit(t, nil)
	said := mustVendor(t, dir, "", library)
	if !strings.Contains(said, "core/mount/mount_windows.go:\n\tfunc init() { windowslayer.UseBindFilter(true) }\n") {
		t.Errorf("it says %q", said)
	}
	want := maps.Clone(containerd)
	delete(want, "core/mount/lookup_unsupported.go")
	want["core/mount/temp_unsupported.go"] = "//go:build darwin\n// +build darwin\n\npackage mount\n\nfunc SetTempMountLocation(root string) {}\n"
	want["core/mount/mount_windows.go"] = strings.Replace(adapter, origin+`"`, layers+`"`, 1)
	want["core/mount/internal/windowslayer/mount.go"] = "package mount\n\nimport \"" + layers + "/internal/hcs\"\n"
	want["core/mount/internal/windowslayer/internal/hcs/hcs.go"] = "package hcs\n"
	want["go.mod"] = strings.Replace(gomod, "errors v0.9.1 // indirect", "errors v0.9.1", 1)
	if got := contents(t, dir); !maps.Equal(got, want) {
		t.Errorf("the fork has\n%q, want\n%q", got, want)
	}
	if said := mustVendor(t, dir, "", library); said != "nothing to change\n" {
		t.Errorf("the second time it says %q", said)
	}
}

func TestVendor_GivesContainerd16ItsAdapterAndANewerGoWinio(t *testing.T) {
	dir := commit(t, map[string]string{
		"go.mod":                      strings.NewReplacer("containerd/v2", "containerd", "winio v0.6.2", "winio v0.5.3").Replace(gomod),
		"core/mount/mount_windows.go": "", "core/mount/lookup_unsupported.go": "", "core/mount/temp_unsupported.go": "",
		"mount/mount_windows.go": "package mount\n\nfunc (m *Mount) Mount(target string) error { return nil }\n",
	})
	mustVendor(t, dir, "", library)
	got := contents(t, dir)
	if !strings.Contains(got["mount/mount_windows.go"], "UseBindFilter(false)") {
		t.Error("layers are not linked")
	}
	if !strings.Contains(got["go.mod"], "\tgithub.com/Microsoft/go-winio v0.6.1\n") || strings.Contains(got["go.mod"], "v0.5.3") {
		t.Errorf("go.mod is %q", got["go.mod"])
	}
	if want := containerd["go.sum"] + winioSums; got["go.sum"] != want {
		t.Errorf("go.sum is %q, want %q", got["go.sum"], want)
	}
}

func TestVendor_UpdatesTheLibraryAndKeepsTheChoice(t *testing.T) {
	dir := commit(t, nil)
	mustVendor(t, dir, "", library)
	chosen := strings.Replace(contents(t, dir)["core/mount/mount_windows.go"], "UseBindFilter(true)", "UseBindFilter(false)", 1)
	write(t, dir, "core/mount/mount_windows.go", chosen)
	save(t, dir)
	mustVendor(t, dir, "", map[string][]byte{"mount.go": []byte("package mount\n")})
	got := contents(t, dir)
	if got["core/mount/mount_windows.go"] != chosen {
		t.Errorf("the adapter is %s", got["core/mount/mount_windows.go"])
	}
	if _, stays := got["core/mount/internal/windowslayer/internal/hcs/hcs.go"]; stays {
		t.Error("a file that the library has no more is still there")
	}
	if got := got["core/mount/internal/windowslayer/mount.go"]; got != "package mount\n" {
		t.Errorf("mount.go of the library is %q", got)
	}
}

func TestVendor_RequiresAVersionInPlaceOfTheDirectory(t *testing.T) {
	dir := commit(t, nil)
	mustVendor(t, dir, "", library)
	save(t, dir)
	copied := contents(t, dir)
	mustVendor(t, dir, "v1.2.3", library)
	got := contents(t, dir)
	for name := range got {
		if strings.Contains(name, "windowslayer") {
			t.Error(name, "is still there")
		}
	}
	if want := "\tgithub.com/seed-941ae793/mount v1.2.3\n"; !strings.Contains(got["go.mod"], want) {
		t.Errorf("go.mod is %q", got["go.mod"])
	}
	if !strings.Contains(got["core/mount/mount_windows.go"], "windowslayer \""+origin+"\"\n") {
		t.Errorf("the adapter is %s", got["core/mount/mount_windows.go"])
	}
	save(t, dir)
	mustVendor(t, dir, "", library)
	if got := contents(t, dir); !maps.Equal(got, copied) {
		t.Errorf("back with the directory, the fork has %q, want %q", got, copied)
	}
}

func TestVendor_RefusesAForkAndLeavesItAsItIs(t *testing.T) {
	for _, test := range []struct {
		name, version string
		files         map[string]string
		changed       [2]string // a file, and what it holds
		words         string
	}{
		{name: "without go.mod", files: map[string]string{"go.mod": ""}, words: "is not a checkout of containerd"},
		{name: "another module", files: map[string]string{"go.mod": "module example.com/moby\n"}, words: "is not a checkout of containerd"},
		{name: "without package mount", files: map[string]string{"core/mount/mount_windows.go": ""}, words: "is not a checkout of containerd"},
		{name: "a changed file", changed: [2]string{"core/mount/mount.go", "package mount\n"}, words: "core/mount has changes that git does not have"},
		{name: "a new file", changed: [2]string{"core/mount/internal/windowslayer/x.go", "package mount\n"}, words: "core/mount has changes that git does not have"},
		{name: "a new function", files: map[string]string{"core/mount/mount_windows.go": "package mount\n\nfunc Frob() {}\n"},
			words: "core/mount/mount_windows.go exports Frob, which the adapter lacks"},
		{name: "a new method", files: map[string]string{"core/mount/lookup_unsupported.go": "//go:build windows\n\npackage mount\n\nfunc (m Mount) Frob() {}\n"},
			words: "core/mount/lookup_unsupported.go exports Mount.Frob, which the adapter lacks"},
		{name: "a new constant", files: map[string]string{"core/mount/temp_unsupported.go": "//go:build windows\n\npackage mount\n\nconst Frob = 1\n"},
			words: "core/mount/temp_unsupported.go exports Frob, which the adapter lacks"},
		{name: "an unknown constraint", files: map[string]string{"core/mount/temp_unsupported.go": "//go:build windows || plan9\n\npackage mount\n"},
			words: "core/mount/temp_unsupported.go begins with a build constraint that this program does not know: //go:build windows || plan9"},
		{name: "an old hcsshim", files: map[string]string{"go.mod": strings.Replace(gomod, "hcsshim v0.14.1", "hcsshim v0.9.11", 1)},
			words: "go.mod requires github.com/Microsoft/hcsshim v0.9.11, but it has to be v0.9.12 at least"},
		{name: "an old x/sys", files: map[string]string{"go.mod": strings.Replace(gomod, "sys v0.33.0", "sys v0.17.0", 1)},
			words: "go.mod requires golang.org/x/sys v0.17.0, but it has to be v0.18.0 at least"},
		{name: "a module for 1.x", version: "v1.2.3", files: map[string]string{"go.mod": strings.Replace(gomod, "containerd/v2", "containerd", 1)},
			words: "-module is for containerd 2.x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := checkout(t, test.files)
			if test.changed[0] != "" {
				dir = commit(t, test.files)
				write(t, dir, test.changed[0], test.changed[1])
			}
			before := contents(t, dir)
			var out bytes.Buffer
			if err := vendor(dir, test.version, library, &out); err == nil || !strings.Contains(err.Error(), test.words) {
				t.Errorf("it returns %v, and not that it %s", err, test.words)
			} else {
				t.Log(err)
			}
			if got := contents(t, dir); !maps.Equal(got, before) || out.Len() > 0 {
				t.Errorf("it says %q and leaves %q, not %q", &out, got, before)
			}
		})
	}
}

func TestVendor_RefusesAForkThatGitDoesNotHave(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	dir := checkout(t, nil)
	if err := vendor(dir, "", library, new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "git does not have core/mount/mount_windows.go") {
		t.Error(err)
	}
	if got := contents(t, dir); !maps.Equal(got, containerd) {
		t.Errorf("it leaves %q", got)
	}
}

func TestReadLibrary_ReturnsWhatWindowsBuildsWithoutTestsAndSimulation(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command")
	}
	files, err := readLibrary(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]bool{}
	for name, content := range files {
		dirs[filepath.ToSlash(filepath.Dir(name))] = true
		if strings.HasSuffix(name, ".go") && !bytes.Contains(content, []byte("\n//go:build windows && go1.23\n\n")) {
			t.Error(name, "is not for Windows alone")
		}
		if strings.HasSuffix(name, "_test.go") || strings.Contains(name, "unsupported") || strings.Contains(name, "unix") {
			t.Error(name, "is there")
		}
	}
	want := []string{".", "internal/hcs", "internal/retry", "internal/table", "internal/winfs", "internal/winpath"}
	if got := slices.Sorted(maps.Keys(dirs)); !slices.Equal(got, want) {
		t.Errorf("the directories are %q, want %q", got, want)
	}
}

func TestAdapter_IsWholeInTheDocumentation(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "compatibility.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.ReplaceAll(string(doc), "\r\n", "\n"), "```go\n"+strings.ReplaceAll(adapter, "\r\n", "\n")+"```\n") {
		t.Error("docs/compatibility.md shows another adapter")
	}
}
