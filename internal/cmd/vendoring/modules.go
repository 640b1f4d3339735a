package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// module is what the engine needs of a module.
type module struct {
	path, version string
	sums          []string
}

// modules are those that the engine imports, each with the oldest version that it was tried with.
// A tree keeps its own version unless that is older. Then it gets this one, for which sums has the
// lines of go.sum; where there are none, the fork has to decide.
var modules = []module{
	{"github.com/Microsoft/go-winio", "v0.6.1", []string{ // the first with pkg/bindfilter
		"github.com/Microsoft/go-winio v0.6.1 h1:9/kr64B9VUZrLm5YYwbGtUJnMgqWVOdUAXu6Migciow=",
		"github.com/Microsoft/go-winio v0.6.1/go.mod h1:LRdKpFKfdobln8UmuiYcKPot9D2v6svN5+sAH+4kjUM=",
	}},
	{"github.com/Microsoft/hcsshim", "v0.9.12", nil},
	{"github.com/pkg/errors", "v0.9.1", []string{
		"github.com/pkg/errors v0.9.1 h1:FEBLx1zS214owpjy7qsBeixbURkuhQAwrK5UwLGTwt4=",
		"github.com/pkg/errors v0.9.1/go.mod h1:bwawxfHBFNV+L2hUp1rHADufV3IMtnDRdf1r5NINEl0=",
	}},
	{"golang.org/x/sys", "v0.18.0", nil},
}

// moduleEdit is a change of what go.mod says of a module: a version, perhaps with a comment, or ""
// for nothing.
type moduleEdit struct{ Path, Before, After string }

// addModules adds to want what go.mod and go.sum need for the imports, and to next how that is undone.
func (t *tree) addModules(imports []string, next *manifest, want map[string][]byte) error {
	next.Modules, next.Sums = slices.Clone(t.manifest.Modules), slices.Clone(t.manifest.Sums)
	gomod, gosum, err := t.readModules()
	if err != nil {
		return err
	}
	for _, m := range modules {
		if !slices.ContainsFunc(imports, func(path string) bool { return isIn(path, m.path) }) {
			continue
		}
		before := requirement(gomod, m.path)
		version, _, _ := strings.Cut(before, " ")
		if version == "" || isOlder(version, m.version) {
			if m.sums == nil {
				return fmt.Errorf("%s requires %s %s, but it has to be %s at least", t.module("go.mod"), m.path, version, m.version)
			}
			version = m.version
			for _, sum := range m.sums {
				if !slices.Contains(gosum, sum) {
					gosum = insert(gosum, 0, len(gosum), sum)
					next.Sums = append(next.Sums, sum)
				}
			}
		}
		if version != before { // or it is the same with the comment "// indirect"
			next.Modules = append(next.Modules, moduleEdit{m.path, before, version})
			gomod = require(gomod, m.path, version)
		}
	}
	if len(next.Modules) > len(t.manifest.Modules) {
		want[t.module("go.mod")] = join(gomod)
	}
	if len(next.Sums) > len(t.manifest.Sums) {
		want[t.module("go.sum")] = join(gosum)
	}
	return nil
}

// dropModules adds to want go.mod and go.sum without what addModules changed in them, but for what
// somebody has changed since.
func (t *tree) dropModules(want map[string][]byte) error {
	gomod, gosum, err := t.readModules()
	if err != nil {
		return err
	}
	for _, edit := range slices.Backward(t.manifest.Modules) {
		if requirement(gomod, edit.Path) == edit.After {
			gomod = require(gomod, edit.Path, edit.Before)
			want[t.module("go.mod")] = join(gomod)
		}
	}
	if len(t.manifest.Sums) > 0 {
		want[t.module("go.sum")] = join(slices.DeleteFunc(gosum, func(line string) bool { return slices.Contains(t.manifest.Sums, line) }))
	}
	return nil
}

// adviseVendor says when the tree's directory vendor lacks what is imported now.
func (t *tree) adviseVendor(imports []string, next *manifest) error {
	text, err := os.ReadFile(t.module(filepath.Join("vendor", "modules.txt")))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	listed := strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
	lacks := slices.ContainsFunc(imports, func(path string) bool {
		return slices.ContainsFunc(modules, func(m module) bool { return isIn(path, m.path) }) && !slices.Contains(listed, path)
	})
	for _, edit := range next.Modules {
		lacks = lacks || !slices.Contains(listed, "# "+edit.Path+" "+edit.After)
	}
	if lacks {
		fmt.Fprintln(t.out, "now run go mod vendor there: the directory vendor lacks what is imported")
	}
	return nil
}

// isIn reports whether a package is in a module.
func isIn(path, module string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func (t *tree) readModules() (gomod, gosum []string, err error) {
	if gomod, err = readLines(t.module("go.mod")); err != nil {
		return nil, nil, err
	}
	gosum, err = readLines(t.module("go.sum"))
	return gomod, gosum, err
}

func readLines(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	return strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n"), "\n"), err
}

func join(lines []string) []byte { return []byte(strings.Join(lines, "\n") + "\n") }

// requirement returns what go.mod says of a module, such as "v0.9.1 // indirect"; "" is nothing.
func requirement(gomod []string, module string) string {
	if i := requirementAt(gomod, module); i >= 0 {
		_, after, _ := strings.Cut(gomod[i], module+" ")
		return strings.TrimSpace(after)
	}
	return ""
}

func requirementAt(gomod []string, module string) int {
	return slices.IndexFunc(gomod, func(line string) bool {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		return len(fields) > 1 && fields[0] == module && strings.HasPrefix(fields[1], "v")
	})
}

// require makes go.mod say after of a module: in its first block of requirements, or in the last
// one when it is indirect, as go mod tidy has them.
func require(gomod []string, module, after string) []string {
	if i := requirementAt(gomod, module); i >= 0 {
		gomod = slices.Delete(slices.Clone(gomod), i, i+1)
	}
	if after == "" {
		return gomod
	}
	var starts []int
	for i, line := range gomod {
		if line == "require (" {
			starts = append(starts, i+1)
		}
	}
	if len(starts) == 0 {
		return append(slices.Clone(gomod), "", "require "+module+" "+after)
	}
	start := starts[0]
	if strings.HasSuffix(after, "// indirect") {
		start = starts[len(starts)-1]
	}
	return insert(gomod, start, start+slices.Index(gomod[start:], ")"), "\t"+module+" "+after)
}

// insert puts a line where it belongs among the sorted lines from start to end.
func insert(lines []string, start, end int, line string) []string {
	at := start
	for at < end && lines[at] < line {
		at++
	}
	return slices.Insert(slices.Clone(lines), at, line)
}

// isOlder reports whether version comes before another one. Of pre-releases it looks at what they
// lead to, which have what is needed of them.
func isOlder(version, other string) bool { return slices.Compare(numbers(version), numbers(other)) < 0 }

func numbers(version string) (ns []int) {
	release, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	for _, field := range strings.Split(release, ".") {
		n, _ := strconv.Atoi(field)
		ns = append(ns, n)
	}
	return ns
}
