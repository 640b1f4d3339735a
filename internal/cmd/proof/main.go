// Command proof proves that this library can take the place of containerd's own package mount in a version of
// containerd. Run it at the top of the repository, or by scripts/containerd:
//
//	go run ./internal/cmd/proof [-mount] CACHE VERSION
//
// In a copy of the module, which git has, it runs scripts/vendor twice. Then it shows that
//
//   - the second time changes nothing
//   - all of containerd builds for Windows, and vet says nothing new of it
//   - the whole exported API of the original is there on Windows, with exact types
//   - for Linux the same files are built as before, and they do build
//   - a module builds for Windows that requires containerd and replaces it by the fork, as k3s does
//   - the newest buildkitd builds for Windows with it (2.4.2)
//   - with go mod vendor all of it builds for Windows (1.7.36 and 2.4.2)
//   - containerd's own tests that touch mounts pass, as far as they run under Wine, and one of a mount of type bind
//     by way of the mount manager
//
// With -mount it builds, vets and tests package mount alone, and no module around it.
//
// containerd is compiled with its own go.mod: its versions of hcsshim and all else, and its version of
// the language. What is to be compared with is kept in the cache, for each version of containerd and
// of Go.
package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// baselineFormat is part of the name of what is kept: raise it when a field of baseline changes.
const baselineFormat = 5

// chainTest mounts by way of containerd's mount manager, with this library below it.
//
//go:embed testdata/chain_windows_test.go
var chainTest []byte

// wineTests are the packages whose tests touch mounts and need no store of layers: those of
// snapshots/windows make layers with virtdisk.dll and offreg.dll, which Wine does not have.
var wineTests = map[string][]string{
	"1": {"./mount", "./metadata", "./archive", "./oci", "./snapshots/storage", "./runtime/v2"},
	"2": {"./core/mount", "./core/mount/manager", "./core/metadata", "./core/snapshots/storage", "./pkg/archive", "./pkg/oci"},
}

func main() {
	mountAlone := flag.Bool("mount", false, "prove it of package mount alone")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: proof [-mount] CACHE VERSION")
		os.Exit(2)
	}
	version := strings.TrimPrefix(flag.Arg(1), "v")
	start := time.Now()
	if err := prove(flag.Arg(0), version, *mountAlone); err != nil {
		fmt.Fprintf(os.Stderr, "containerd %s: NOT proved: %v\n", version, err)
		os.Exit(1)
	}
	fmt.Printf("containerd %s: proved (%.0f s)\n", version, time.Since(start).Seconds())
}

func prove(cache, version string, mountAlone bool) error {
	path := "github.com/containerd/containerd"
	if strings.HasPrefix(version, "2.") {
		path += "/v2"
	}
	src, err := download(path + "@v" + version)
	if err != nil {
		return err
	}
	major, _, _ := strings.Cut(version, ".")
	tests := wineTests[major]
	t := &tree{dir: filepath.Join(cache, version, "tree"), mount: tests[0], packages: "./..."}
	if mountAlone {
		tests, t.packages = tests[:1], t.mount
	}
	if err := t.copy(src); err != nil {
		return err
	}
	old, err := t.baseline(filepath.Join(cache, version))
	if err != nil {
		return fmt.Errorf("before anything was changed: %w", err)
	}
	if err := t.vendorTwice(); err != nil {
		return err
	}
	now, err := t.facts(old.Vetted)
	if err != nil {
		return err
	}
	fmt.Printf("  for Windows     %d packages build, %d of them import %s; vet reported on %d (before: %d), with %d complaints (before: %d)\n",
		now.Packages, now.Importers, t.mount, now.Vetted, old.Vetted, len(now.Complaints), len(old.Complaints))
	fmt.Printf("  API             %d names, methods and fields (before: %d)\n", len(now.API), len(old.API))
	fmt.Printf("  for Linux       %d files, as before\n", len(now.Linux))
	if err := now.check(old); err != nil {
		return err
	}
	if mountAlone {
		return t.test(tests)
	}
	if err := t.importer(filepath.Join(cache, version, "importer")); err != nil {
		return err
	}
	if version == "2.4.2" {
		if err := t.buildkit(filepath.Join(cache, version, "buildkit")); err != nil {
			return err
		}
	}
	if version == "2.4.2" || version == "1.7.36" {
		if err := t.vendored(); err != nil {
			return err
		}
	}
	return t.test(tests)
}

// download returns the directory of a module.
func download(module string) (string, error) {
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	var found struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &found); jsonErr != nil {
		return "", fmt.Errorf("download %s: %w: %w", module, err, jsonErr)
	}
	if found.Error != "" {
		return "", fmt.Errorf("download %s: %s", module, found.Error)
	}
	return found.Dir, nil
}

// copy makes the tree a copy of a module, which git has.
func (t *tree) copy(src string) error {
	if err := os.RemoveAll(t.dir); err != nil {
		return err
	}
	if err := os.CopyFS(t.dir, os.DirFS(src)); err != nil {
		return err
	}
	// Some modules have the list of what would be there, and the go command would look for the rest.
	if err := os.RemoveAll(filepath.Join(t.dir, "vendor")); err != nil {
		return err
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"-c", "user.name=proof", "-c", "user.email=proof@localhost", "commit", "-qm", "as released"}} {
		if _, err := t.git(args...); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) git(args ...string) (string, error) {
	out, err := exec.Command("git", append([]string{"-C", t.dir}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", args[0], err, out)
	}
	return string(out), nil
}

// vendorTwice runs scripts/vendor, and makes sure that a second time changes nothing.
func (t *tree) vendorTwice() error {
	var said string
	for range 2 {
		out, err := exec.Command("go", "run", "./internal/cmd/vendoring", t.dir).CombinedOutput()
		if err != nil {
			return fmt.Errorf("scripts/vendor: %w\n%s", err, out)
		}
		said = string(out)
		fmt.Print("  " + strings.ReplaceAll(strings.TrimSpace(said), "\n", "\n  ") + "\n")
	}
	if said != "nothing to change\n" {
		return fmt.Errorf("scripts/vendor has changed something the second time:\n%s", said)
	}
	if _, err := t.git("add", "-A"); err != nil {
		return err
	}
	changed, err := t.git("diff", "--cached", "--shortstat")
	fmt.Print("  git            " + changed)
	return err
}

// importer builds a module that requires containerd and replaces it by the tree. For it the tree's own replacements
// do not count.
func (t *tree) importer(dir string) error {
	module, err := t.run("windows", "list", "-m", "-f", "{{.Path}} {{.GoVersion}}")
	if err != nil {
		return err
	}
	module, language, _ := strings.Cut(strings.TrimSpace(module), " ")
	version := "v1.99.0"
	if strings.HasSuffix(module, "/v2") {
		version = "v2.99.0"
	}
	absolute, err := filepath.Abs(t.dir)
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(t.dir, "go.sum"))
	if err != nil {
		return err
	}
	err = os.MkdirAll(dir, 0o755)
	for name, content := range map[string]string{
		"go.mod":  fmt.Sprintf("module example.com/importer\n\ngo %s\n\nrequire %s %s\n\nreplace %[2]s => %[4]s\n", language, module, version, absolute),
		"go.sum":  string(sums),
		"main.go": fmt.Sprintf("package main\n\nimport %q\n\nfunc main() {\n\tif err := mount.UnmountAll(\"\", 0); err != nil {\n\t\tpanic(err)\n\t}\n}\n", module+strings.TrimPrefix(t.mount, ".")),
	} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)
		}
	}
	if err != nil {
		return err
	}
	if _, err := (&tree{dir: dir}).run("windows", "build", "-mod=mod", "-o", os.DevNull, "."); err != nil {
		return err
	}
	fmt.Println("  replaced        by the fork in a module that requires containerd, which builds for Windows")
	return nil
}

// buildkit builds the newest buildkitd with the tree in place of its containerd.
func (t *tree) buildkit(dir string) error {
	src, err := download("github.com/moby/buildkit@latest")
	if err != nil {
		return err
	}
	b := &tree{dir: dir}
	if err := b.copy(src); err != nil {
		return err
	}
	absolute, err := filepath.Abs(t.dir)
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"mod", "edit", "-replace", "github.com/containerd/containerd/v2=" + absolute},
		{"build", "-mod=mod", "-o", os.DevNull, "./cmd/buildkitd"},
	} {
		if _, err := b.run("windows", args...); err != nil {
			return err
		}
	}
	fmt.Printf("  buildkitd       of %s builds for Windows with it\n", filepath.Base(src))
	return nil
}

// vendored builds the tree with a directory vendor.
func (t *tree) vendored() error {
	if _, err := t.run("windows", "mod", "vendor"); err != nil {
		return err
	}
	if _, err := t.run("windows", "build", "-mod=vendor", "./..."); err != nil {
		return err
	}
	fmt.Println("  go mod vendor   all of it builds for Windows with -mod=vendor")
	return nil
}

// check reports what is worse than before.
func (now *facts) check(old *facts) error {
	if lost := minus(old.API, now.API); len(lost) > 0 {
		return fmt.Errorf("the API of the original is not all there:\n%s", strings.Join(lost, "\n"))
	}
	if added := minus(now.Complaints, old.Complaints); len(added) > 0 {
		return fmt.Errorf("vet has new complaints:\n%s", strings.Join(added, "\n"))
	}
	if now.Vetted < old.Vetted || now.Packages < old.Packages {
		return fmt.Errorf("%d packages vetted and %d built, before %d and %d", now.Vetted, now.Packages, old.Vetted, old.Packages)
	}
	if !slices.Equal(now.Linux, old.Linux) {
		return fmt.Errorf("for Linux other files are built: %q, not %q", now.Linux, old.Linux)
	}
	return nil
}

// minus returns the lines of a that are not in b, or not as often.
func minus(a, b []string) (rest []string) {
	b = slices.Clone(b)
	for _, line := range a {
		if i := slices.Index(b, line); i >= 0 {
			b = slices.Delete(b, i, i+1)
		} else {
			rest = append(rest, line)
		}
	}
	return rest
}

// test runs containerd's own tests, up to three times. Some want a later time from a clock that may not
// have ticked meanwhile under Wine, such as TestImagesCreateUpdateDelete, which mounts nothing.
//
// A test of its own goes to the mount manager, which containerd has since 2.2.
func (t *tree) test(packages []string) error {
	const manager = "./core/mount/manager"
	chain := filepath.Join(t.dir, manager, "chain_windows_test.go")
	if err := os.WriteFile(chain, chainTest, 0o644); errors.Is(err, os.ErrNotExist) {
		packages = slices.DeleteFunc(slices.Clone(packages), func(p string) bool { return p == manager })
	} else if err != nil {
		return err
	}
	wine, err := filepath.Abs("scripts/wine")
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		cmd := exec.Command(wine, append([]string{"test"}, packages...)...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = t.dir, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), "GOFLAGS="+flags, "GOWORK=off")
		err := cmd.Run()
		if err == nil {
			return nil
		}
		if attempt == 3 {
			return fmt.Errorf("containerd's own tests: %w", err)
		}
		fmt.Printf("  containerd's own tests failed (%v): attempt %d of 3\n", err, attempt)
	}
}

// baseline returns the facts of the unchanged tree, from the cache when they are there.
func (t *tree) baseline(cache string) (*facts, error) {
	version, err := t.run("windows", "version")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(cache, fmt.Sprintf("baseline-%d-%s-%x.json", baselineFormat, strings.Fields(version)[2], t.packages))
	var kept facts
	if text, err := os.ReadFile(path); err == nil {
		return &kept, json.Unmarshal(text, &kept)
	}
	fmt.Fprintln(os.Stderr, "building and vetting it unchanged first, once for each version of Go ...")
	found, err := t.facts(0)
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(found, "", "\t")
	if err != nil {
		return nil, err
	}
	return found, os.WriteFile(path, text, 0o644)
}

// run runs the go command in the tree, for a system.
func (t *tree) run(system string, args ...string) (stdout string, err error) {
	cmd := exec.Command("go", args...)
	var out, errOut bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.dir, &out, &errOut
	cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH=amd64", "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS="+flags)
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("go %s for %s: %w\n%s", strings.Join(args, " "), system, err, errOut.String())
	}
	return out.String(), nil
}
