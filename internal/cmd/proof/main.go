// Command proof proves that this package can take the place of containerd's own in a version of
// containerd. Run it at the top of the repository, or by scripts/containerd:
//
//	go run ./internal/cmd/proof CACHE VERSION
//
// In a copy of the module it runs scripts/vendor twice, and then shows that
//
//   - all of containerd builds for Windows, and vet says nothing new of it
//   - the whole exported API of the original is there on Windows, with exact types
//   - for Linux the same files are built as before, and they do build
//   - containerd's own tests that touch mounts pass, as far as they run under Wine
//   - undoing it leaves the copy as it was.
//
// containerd is compiled with its own go.mod: its versions of hcsshim and all else, and its version of
// the language. What is to be compared with is kept in the cache, for each version of containerd and
// of Go.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// baselineFormat is part of the name of what is kept: raise it when a field of baseline changes.
const baselineFormat = 4

// wineTests are the packages whose tests touch mounts and need no store of layers: those of
// snapshots/windows make layers with virtdisk.dll and offreg.dll, which Wine does not have.
var wineTests = map[string][]string{
	"1": {"./mount", "./metadata", "./archive", "./oci", "./snapshots/storage", "./runtime/v2"},
	"2": {"./core/mount", "./core/mount/manager", "./core/metadata", "./core/snapshots/storage", "./pkg/archive", "./pkg/oci"},
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: proof CACHE VERSION")
		os.Exit(2)
	}
	version := strings.TrimPrefix(os.Args[2], "v")
	start := time.Now()
	if err := prove(os.Args[1], version); err != nil {
		fmt.Fprintf(os.Stderr, "containerd %s: NOT proved: %v\n", version, err)
		os.Exit(1)
	}
	fmt.Printf("containerd %s: proved (%.0f s)\n", version, time.Since(start).Seconds())
}

func prove(cache, version string) error {
	src, err := download(version)
	if err != nil {
		return err
	}
	major, _, _ := strings.Cut(version, ".")
	t := &tree{dir: filepath.Join(cache, version, "tree"), mount: wineTests[major][0]}
	if err := sync(src, t.dir); err != nil {
		return err
	}
	old, err := t.baseline(filepath.Join(cache, version))
	if err != nil {
		return fmt.Errorf("before anything was changed: %w", err)
	}
	if err := vendorTwice(t.dir); err != nil {
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
	if err := t.test(wineTests[major]); err != nil {
		return err
	}
	if err := vendor(t.dir, "-undo"); err != nil {
		return err
	}
	return same(src, t.dir)
}

// download returns the directory of the module.
func download(version string) (string, error) {
	path := "github.com/containerd/containerd"
	if strings.HasPrefix(version, "2.") {
		path += "/v2"
	}
	out, err := exec.Command("go", "mod", "download", "-json", path+"@v"+version).Output()
	var module struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &module); jsonErr != nil {
		return "", fmt.Errorf("download %s: %w: %w", version, err, jsonErr)
	}
	if module.Error != "" {
		return "", fmt.Errorf("download %s: %s", version, module.Error)
	}
	return module.Dir, nil
}

func vendor(args ...string) error {
	_, err := vendorOutput(args...)
	return err
}

func vendorOutput(args ...string) (string, error) {
	cmd := exec.Command("go", append([]string{"run", "./internal/cmd/vendoring"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("scripts/vendor: %w\n%s", err, out)
	}
	return string(out), nil
}

// vendorTwice vendors, and makes sure that a second time changes nothing.
func vendorTwice(dir string) error {
	out, err := vendorOutput(dir)
	if err != nil {
		return err
	}
	fmt.Print("  " + strings.ReplaceAll(strings.TrimSpace(out), "\n", "\n  ") + "\n")
	if out, err = vendorOutput(dir); err == nil && !strings.HasPrefix(out, "nothing to change\n") {
		err = fmt.Errorf("scripts/vendor has changed something the second time:\n%s", out)
	}
	return err
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
func (t *tree) test(packages []string) error {
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
	path := filepath.Join(cache, fmt.Sprintf("baseline-%d-%s.json", baselineFormat, strings.Fields(version)[2]))
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
