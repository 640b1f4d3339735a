package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// keepDir is where a tree keeps what undoes the change, beside the files of the package. The go
// command ignores directories whose names begin with an underscore.
const keepDir = "_windows-layer-mounts"

// manifest says what was changed in a tree. Its files are those of the package's directory.
type manifest struct {
	Origin   string            // where the files come from
	Revision string            // which version of them
	Written  map[string]string // the hash of each file that was put there or changed
	Replaced []string          // those that were there before, kept in keepDir as they were
	Modules  []moduleEdit      // what was changed in go.mod, oldest first
	Sums     []string          // the lines that were added to go.sum
}

// tree is a checkout of containerd.
type tree struct {
	dir string // of the checkout
	pkg string // the directory of package mount in it
	out io.Writer

	manifest manifest          // empty in a tree that has not been changed
	original map[string][]byte // the files of the package without the change
}

func (t *tree) path(name string) string   { return filepath.Join(t.dir, t.pkg, name) }
func (t *tree) module(name string) string { return filepath.Join(t.dir, name) }

func (t *tree) manifestPath() string { return t.path(filepath.Join(keepDir, "manifest.json")) }
func (t *tree) keptPath(replaced string) string {
	return t.path(filepath.Join(keepDir, "replaced", replaced))
}

// findTree finds package mount in a checkout of containerd and reads it.
func findTree(dir string, out io.Writer) (*tree, error) {
	for _, pkg := range []string{filepath.Join("core", "mount"), "mount"} {
		t := &tree{dir: dir, pkg: pkg, out: out}
		if isFile(t.module("go.mod")) && (isFile(t.path("mount_windows.go")) || isFile(t.manifestPath())) {
			return t, t.read()
		}
	}
	return nil, fmt.Errorf("%s is not a checkout of containerd: go.mod with %s or %s is not there",
		dir, filepath.Join("core", "mount", "mount_windows.go"), filepath.Join("mount", "mount_windows.go"))
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func (t *tree) read() error {
	t.original = map[string][]byte{}
	entries, err := os.ReadDir(t.path(""))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Type().IsRegular() {
			if t.original[entry.Name()], err = os.ReadFile(t.path(entry.Name())); err != nil {
				return err
			}
		}
	}
	text, err := os.ReadFile(t.manifestPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &t.manifest); err != nil {
		return fmt.Errorf("read %s: %w", t.manifestPath(), err)
	}
	return t.revert()
}

// revert makes t.original what it was before the change. It refuses a tree in which somebody has
// changed since what the change concerns. What is missing, or is already as it was before, is no
// loss: a run may have been stopped half-way.
func (t *tree) revert() error {
	kept := map[string][]byte{}
	for _, name := range t.manifest.Replaced {
		content, err := os.ReadFile(t.keptPath(name))
		if err != nil {
			return err
		}
		kept[name] = content
	}
	isKept := func(name string) bool {
		content, is := kept[name]
		return is && hashOf(content) == hashOf(t.original[name])
	}
	for name, hash := range t.manifest.Written {
		content, there := t.original[name]
		if there && name != choiceName && hashOf(content) != hash && !isKept(name) {
			return fmt.Errorf("%s is not as this program left it: it would be lost", t.path(name))
		}
		delete(t.original, name)
	}
	for name := range kept {
		if _, there := t.original[name]; there && !isKept(name) {
			return fmt.Errorf("%s has come back, which was replaced: it would be lost", t.path(name))
		}
	}
	maps.Copy(t.original, kept)
	return nil
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// hashOf returns the hash of a file. Git may have changed how its lines end.
func hashOf(content []byte) string {
	return fmt.Sprintf("%x", sha256.Sum256(bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))))
}

// vendor puts the engine into the tree.
func (t *tree) vendor(e *engine) error {
	changed, err := plan(t.original, e)
	if err != nil {
		return fmt.Errorf("%s: %w", t.path(""), err)
	}
	if chosen, err := os.ReadFile(t.path(choiceName)); err == nil {
		changed[choiceName] = chosen
	}
	next := manifest{Origin: origin, Revision: e.revision, Written: map[string]string{}}
	want := map[string][]byte{} // by path; nil for what is to go
	for name, hash := range t.manifest.Written {
		// Unless it is written again. It stays in the manifest, should this run be stopped before.
		want[t.path(name)], next.Written[name] = nil, hash
	}
	for name, content := range changed {
		if old, there := t.original[name]; there {
			next.Replaced = append(next.Replaced, name)
			want[t.keptPath(name)] = old
		}
		if want[t.path(name)] = content; content != nil {
			next.Written[name] = hashOf(content)
		}
	}
	slices.Sort(next.Replaced)
	ours, err := parseAdded(changed)
	if err != nil {
		return err
	}
	if err := t.addModules(ours.imports, &next, want); err != nil {
		return err
	}
	text, err := json.MarshalIndent(next, "", "\t")
	if err != nil {
		return err
	}
	want[t.manifestPath()] = append(text, '\n')
	want[t.path(filepath.Join(keepDir, "LICENSE"))] = e.license
	if err := t.apply(want); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%s chooses how layers are shown:\n", filepath.Join(t.pkg, choiceName))
	fmt.Fprintf(t.out, "\t%s\n", lastLine(changed[choiceName]))
	return t.adviseVendor(ours.imports, &next)
}

// undo makes the tree what it was before.
func (t *tree) undo() error {
	if t.manifest.Origin == "" {
		return fmt.Errorf("%s was not changed by this program: there is no %s", t.dir, t.manifestPath())
	}
	want := map[string][]byte{}
	for name := range t.manifest.Written {
		want[t.path(name)] = nil
	}
	for _, name := range t.manifest.Replaced {
		want[t.path(name)] = t.original[name]
	}
	if err := t.dropModules(want); err != nil {
		return err
	}
	if err := t.apply(want); err != nil {
		return err
	}
	fmt.Fprintln(t.out, "remove", filepath.Join(t.pkg, keepDir))
	return os.RemoveAll(t.path(keepDir))
}

// apply makes the files what they are to be, and prints each that it changes. First comes what
// undoes the change: the files that are kept, and the manifest that names them.
func (t *tree) apply(want map[string][]byte) error {
	changed := false
	paths := slices.Sorted(maps.Keys(want))
	rank := func(path string) int {
		switch {
		case path == t.manifestPath():
			return 1
		case strings.HasPrefix(path, t.path(keepDir)+string(filepath.Separator)):
			return 0
		}
		return 2
	}
	slices.SortStableFunc(paths, func(a, b string) int { return rank(a) - rank(b) })
	for _, path := range paths {
		verb, err := write(path, want[path])
		if err != nil {
			return err
		}
		if verb != "" {
			changed = true
			fmt.Fprintln(t.out, verb, strings.TrimPrefix(path, filepath.Clean(t.dir)+string(filepath.Separator)))
		}
	}
	if !changed {
		fmt.Fprintln(t.out, "nothing to change")
	}
	return nil
}

// write makes a file hold content, or takes it away where that is nil, and returns what it did.
func write(path string, content []byte) (verb string, err error) {
	old, err := os.ReadFile(path)
	absent := errors.Is(err, os.ErrNotExist)
	switch {
	case err != nil && !absent:
		return "", err
	case content == nil && absent || content != nil && !absent && bytes.Equal(old, content):
		return "", nil
	case content == nil:
		return "remove", os.Remove(path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if verb = "change"; absent {
		verb = "add"
	}
	return verb, os.WriteFile(path, content, 0o644)
}
