package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// sync makes the tree a copy of the module in src.
func sync(src, tree string) error {
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	return differences(src, tree, func(name string) error {
		path := filepath.Join(tree, name)
		content, err := os.ReadFile(filepath.Join(src, name))
		if errors.Is(err, os.ErrNotExist) {
			return os.Remove(path)
		}
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, content, 0o644)
	})
}

// same reports what the tree has otherwise than src.
func same(src, tree string) error {
	return differences(src, tree, func(name string) error {
		return fmt.Errorf("%s is not as it was before", filepath.Join(tree, name))
	})
}

// differences calls do with each file that is not the same in both directories.
func differences(src, tree string, do func(name string) error) error {
	err := files(src, func(name string) error {
		want, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			return err
		}
		if got, err := os.ReadFile(filepath.Join(tree, name)); err != nil || !bytes.Equal(got, want) {
			return do(name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return files(tree, func(name string) error {
		if _, err := os.Lstat(filepath.Join(src, name)); err != nil {
			return do(name)
		}
		return nil
	})
}

// files calls do with each file in dir, but for those of the directory vendor at its top: 1.6 has only
// the list of what would be there, and the go command would look for the rest.
func files(dir string, do func(name string) error) error {
	return fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if name == "vendor" && err == nil {
			return fs.SkipDir
		}
		if err != nil || entry.IsDir() {
			return err
		}
		return do(filepath.FromSlash(name))
	})
}
