package main

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"testing"
)

func apiOf(t *testing.T, source string) []string {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "mount.go", "package mount\n"+source, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := new(types.Config).Check("mount", files, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, name := range pkg.Scope().Names() {
		lines = append(lines, describe(pkg.Scope().Lookup(name))...)
	}
	return lines
}

func TestDescribe_HasExactTypesWithoutNamesOfParameters(t *testing.T) {
	got := apiOf(t, `
		const Flag string = "a="
		var Err error
		type Mount struct { Type string; Options []string }
		func (m *Mount) Mount(target string) (err error) { return nil }
		func (m *Mount) mount() {}
		type Same = Mount
		func With(mounts []Mount, f func(root string) error) error { return nil }`)
	want := []string{
		"var Err error",
		`const Flag string = "a="`,
		"type Mount struct{Type string; Options []string}",
		"method Mount.Mount func(string) error",
		"type Same = mount.Mount",
		"func With func([]mount.Mount, func(string) error) error",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestCheck_FailsIfANameIsLostOrOfAnotherType(t *testing.T) {
	old := &facts{API: apiOf(t, "const Flag = 1\nfunc A(x int) {}")}
	for source, proved := range map[string]bool{
		"const Flag = 1\nfunc A(y int) {}\nfunc B() {}": true,
		"const Flag = 1":                      false,
		"const Flag = 2\nfunc A(x int) {}":    false,
		"const Flag = 1\nfunc A(x string) {}": false,
		"var Flag = 1\nfunc A(x int) {}":      false,
	} {
		if err := (&facts{API: apiOf(t, source)}).check(old); (err == nil) != proved {
			t.Errorf("%s: %v", source, err)
		}
	}
}

func TestCheck_FailsIfAnythingIsWorse(t *testing.T) {
	old := facts{Packages: 2, Vetted: 3, Complaints: []string{"a", "b"}, Linux: []string{"mount.go 1"}}
	for name, worse := range map[string]func(now *facts){
		"fewer packages":     func(now *facts) { now.Packages = 1 },
		"fewer vetted":       func(now *facts) { now.Vetted = 2 },
		"a new complaint":    func(now *facts) { now.Complaints = []string{"a", "a", "b"} },
		"another Linux file": func(now *facts) { now.Linux = []string{"mount.go 2"} },
	} {
		now := old
		worse(&now)
		if now.check(&old) == nil {
			t.Error(name, "is proved")
		}
	}
	now := old
	now.Complaints = []string{"b"}
	if err := now.check(&old); err != nil {
		t.Error(err)
	}
}

func TestReadVet_LeavesOutPositions(t *testing.T) {
	tree := &tree{dir: filepath.FromSlash("/tree")}
	out := `{}
{"a": {"printf": [{"posn": "` + filepath.ToSlash(tree.dir) + `/a/a.go:3:4", "message": "bad verb"}], "fix": {"error": "broken"}}}`
	vetted, got, err := tree.readVet(out, errors.New("go vet: exit status 1\n# b\nvet: b/b.go:7:8: undefined: x\n"))
	want := []string{`fix: a: {"error": "broken"}`, "printf: a/a.go: bad verb", "vet: b/b.go: undefined: x"}
	if filepath.Separator != '/' {
		want[1] = "printf: /tree/a/a.go: bad verb"
	}
	if vetted != 2 || err != nil || !slices.Equal(got, want) {
		t.Errorf("%d, %q, %v", vetted, got, err)
	}
}
