package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"go/version"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The adapters, which are compiled here for Windows.
var (
	//go:embed adapter/mount_windows.go
	adapter string
	//go:embed adapter16/mount_windows.go
	adapter16 string
)

// choice is the line of an adapter that says how layers are shown.
var choice = regexp.MustCompile(`func init\(\) { windowslayer\.UseBindFilter\((true|false)\) }`)

// modules are what the library imports, each with the oldest version that it was tried with.
var modules = map[string]string{
	"github.com/Microsoft/go-winio": "v0.6.1", // the first with pkg/bindfilter
	"github.com/Microsoft/hcsshim":  "v0.9.12",
	"github.com/pkg/errors":         "v0.9.1",
	"golang.org/x/sys":              "v0.18.0",
}

// Containerd 1.6 requires an older one.
const winio, winioSums = "github.com/Microsoft/go-winio", `github.com/Microsoft/go-winio v0.6.1 h1:9/kr64B9VUZrLm5YYwbGtUJnMgqWVOdUAXu6Migciow=
github.com/Microsoft/go-winio v0.6.1/go.mod h1:LRdKpFKfdobln8UmuiYcKPot9D2v6svN5+sAH+4kjUM=
`

// fork is a checkout of containerd. Names of files are relative to it, with slashes.
type fork struct {
	dir      string
	mount    string            // the directory of package mount
	want     map[string]string // what files are to hold; those with "" go
	require  []string          // arguments of go mod edit
	Module   struct{ Path string }
	Requires []struct {
		Path, Version string
		Indirect      bool
	} `json:"Require"`
}

// vendor puts the library into the fork in dir, or with a version requires it there.
func vendor(dir, version string, library map[string][]byte, out io.Writer) error {
	f := &fork{dir: dir, want: map[string]string{}}
	gomod, err := f.run("go", "mod", "edit", "-json", "go.mod")
	if err == nil {
		err = json.Unmarshal([]byte(gomod), f)
	}
	if err != nil {
		return fmt.Errorf("%s is not a checkout of containerd: %w", dir, err)
	}
	for _, f.mount = range []string{"core/mount", "mount"} {
		if f.read(f.mount+"/mount_windows.go") != "" {
			break
		}
	}
	adapted := f.mount + "/mount_windows.go"
	old := f.read(adapted)
	if old == "" || path.Base(strings.TrimSuffix(f.Module.Path, "/v2")) != "containerd" {
		return fmt.Errorf("%s is not a checkout of containerd, which has core/mount/mount_windows.go or mount/mount_windows.go", dir)
	}
	layers := f.mount + "/internal/windowslayer"
	err = fs.WalkDir(os.DirFS(dir), layers, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			f.want[name] = "" // unless the library has it
		}
		return nil
	})
	if err != nil {
		return err
	}
	source := origin
	if version == "" {
		source = f.Module.Path + "/" + layers
		replacer := strings.NewReplacer(`"`+origin+`/`, `"`+source+`/`)
		for name, content := range library {
			f.want[layers+"/"+name] = replacer.Replace(string(content))
		}
	} else if path.Base(f.Module.Path) != "v2" {
		return fmt.Errorf("-module is for containerd 2.x: %s does not compile with the hcsshim that %s requires", f.Module.Path, origin)
	}
	if err := f.adapt(adapted, old, source); err != nil {
		return err
	}
	if err := f.addRequirements(version); err != nil {
		return err
	}
	maps.DeleteFunc(f.want, func(name, content string) bool { return f.read(name) == content })
	if len(f.want)+len(f.require) == 0 {
		fmt.Fprintln(out, "nothing to change")
		return nil
	}
	if err := f.write(); err != nil {
		return err
	}
	fmt.Fprintf(out, "changed, see git diff --stat. How layers are shown is yours to choose, in %s:\n\t%s\n", adapted, choice.FindString(f.read(adapted)))
	if version != "" {
		fmt.Fprintln(out, "now run go mod tidy there")
	}
	if f.read("vendor/modules.txt") != "" {
		fmt.Fprintln(out, "now run go mod vendor there")
	}
	return nil
}

// read returns what a file holds, with lines that end as on Unix, or "".
func (f *fork) read(name string) string {
	content, _ := os.ReadFile(filepath.Join(f.dir, name)) // one that cannot be read cannot be written
	return strings.ReplaceAll(string(content), "\r\n", "\n")
}

// run runs a program at the top of the fork.
func (f *fork) run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = f.dir
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, bytes.TrimSpace(errOut.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

// adapt adds the adapter for a library, and takes out what it replaces. It refuses a fork in which that exports
// what the adapter lacks.
func (f *fork) adapt(adapted, old, library string) error {
	names, err := exports(adapted, old)
	if err != nil {
		return err
	}
	template := adapter
	if slices.Contains(names, "Mount.Mount") { // which later versions have in mount.go
		template = adapter16
	}
	template = strings.ReplaceAll(template, "\r\n", "\n")
	chosen := choice.FindString(old + template) // the template's, unless the fork has one
	f.want[adapted] = choice.ReplaceAllLiteralString(strings.Replace(template, `"`+origin+`"`, `"`+library+`"`, 1), chosen)
	has, err := exports(adapted, template)
	if err != nil {
		return err
	}
	replaced := map[string]string{adapted: old}
	for _, base := range []string{"lookup_unsupported.go", "temp_unsupported.go"} {
		name := f.mount + "/" + base
		text := f.read(name)
		switch constraint, rest, _ := strings.Cut(text, "\n"); constraint {
		case "", "//go:build darwin":
			continue
		case "//go:build windows":
			f.want[name] = ""
		case "//go:build windows || darwin":
			f.want[name] = "//go:build darwin\n" + strings.Replace(rest, "// +build windows darwin", "// +build darwin", 1)
		default:
			return fmt.Errorf("%s begins with a build constraint that this program does not know: %s", name, constraint)
		}
		replaced[name] = text
	}
	for _, name := range slices.Sorted(maps.Keys(replaced)) {
		names, err := exports(name, replaced[name])
		if err != nil {
			return err
		}
		for _, exported := range names {
			if !slices.Contains(has, exported) {
				return fmt.Errorf("%s exports %s, which the adapter lacks: it would be lost", name, exported)
			}
		}
	}
	return nil
}

// exports returns the names that a file exports, those of methods as Type.Name.
func exports(name, content string) (names []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, content, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	ast.FileExports(file)
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			name := decl.Name.Name
			if decl.Recv != nil {
				name = strings.TrimPrefix(types.ExprString(decl.Recv.List[0].Type), "*") + "." + name
			}
			if ast.IsExported(name) { // and so is the type of a method
				names = append(names, name)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, spec.Name.Name)
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names, nil
}

// addRequirements requires what the library imports, at the fork's versions, or a version of the library.
func (f *fork) addRequirements(libraryVersion string) error {
	modules := maps.Clone(modules)
	if libraryVersion != "" {
		modules = map[string]string{origin: libraryVersion}
	}
	for _, r := range f.Requires {
		needed, is := modules[r.Path]
		delete(modules, r.Path)
		isOld := version.Compare(goVersion(r.Version), goVersion(needed)) < 0
		switch {
		case !is && r.Path == origin:
			f.require = append(f.require, "-droprequire="+origin)
		case !is:
		case r.Path == origin && r.Version != needed, r.Path == winio && isOld:
			f.require = append(f.require, "-require="+r.Path+"@"+needed)
		case isOld:
			return fmt.Errorf("go.mod requires %s %s, but it has to be %s at least: update it first", r.Path, r.Version, needed)
		case r.Indirect:
			f.require = append(f.require, "-droprequire="+r.Path, "-require="+r.Path+"@"+r.Version)
		}
		if sums := f.read("go.sum"); r.Path == winio && isOld && !strings.Contains(sums, winioSums) {
			f.want["go.sum"] = sums + winioSums
		}
	}
	for path, version := range modules {
		f.require = append(f.require, "-require="+path+"@"+version)
	}
	return nil
}

// goVersion makes the version of a module one that go/version compares. A pre-release counts as what it leads to.
func goVersion(module string) string {
	release, _, _ := strings.Cut(module, "-")
	return "go" + strings.TrimPrefix(release, "v")
}

// write changes the fork, unless that would lose what git does not have.
func (f *fork) write() error {
	if _, err := f.run("git", "ls-files", "--error-unmatch", f.mount+"/mount_windows.go"); err != nil {
		return fmt.Errorf("git does not have %s/mount_windows.go, and git is the only way back: %w", f.mount, err)
	}
	changed, err := f.run("git", "status", "--porcelain", "--", f.mount)
	if err != nil {
		return err
	}
	if changed != "" {
		return fmt.Errorf("%s has changes that git does not have, commit them first:\n%s", f.mount, changed)
	}
	if len(f.require) > 0 {
		if _, err := f.run("go", slices.Concat([]string{"mod", "edit"}, f.require, []string{"go.mod"})...); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.want)) {
		file := filepath.Join(f.dir, name)
		var err error
		if f.want[name] == "" {
			err = os.Remove(file)
		} else if err = os.MkdirAll(filepath.Dir(file), 0o755); err == nil {
			err = os.WriteFile(file, []byte(f.want[name]), 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
