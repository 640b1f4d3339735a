//go:build !windows

package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pkg/errors"
)

// This file stands in for table_windows.go and target_windows.go, as far as the portable logic needs it
// to be tested on other systems.

type heldDir struct{ dir string }

func holdDir(dir string) (*heldDir, error) {
	for _, path := range []string{dir, filepath.Join(dir, "layers"), filepath.Join(dir, "targets")} {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		if info, err := os.Lstat(path); err != nil || !info.IsDir() {
			return nil, errors.Errorf("%s is not a directory", path)
		}
	}
	return &heldDir{dir}, checkContent(dir)
}

// lockByFile locks the file of that name in a directory. The tests set it.
var lockByFile func(dir, name string) (unlock func(), err error)

func (h *heldDir) lock(name string) (unlock func(), err error) {
	return lockByFile(filepath.Join(h.dir, "lock"), name)
}

func openPrivate(path string, create bool) (*os.File, error) {
	if create {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

func checkTrust(*os.File) error { return nil }

func moveDurably(from, to string) error { return os.Rename(from, to) }

func makeLink(text, path string) error { return os.Symlink(text, path) }

func readLink(path string) (string, error) { return os.Readlink(path) }

func removeLink(path, text string) error { return removeDurably(path, os.Remove) }

func removeDurably(path string, remove func(path string) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := remove(path); err != nil {
		return err
	}
	return dir.Sync()
}

func sameLink(a, b string) bool { return a == b }

func removeDir(path string) error { return syscall.Rmdir(path) }

func removeDirDurably(path string) error { return removeDurably(path, syscall.Rmdir) }

func fileID(path string) (string, error) {
	var stat syscall.Stat_t
	err := syscall.Lstat(path, &stat)
	return fmt.Sprint(stat.Dev, stat.Ino), err
}

func isBusy(err error) bool { return errors.Is(err, syscall.EBUSY) }

func foldCase(path string) string { return path }

func finalPath(path string, follow bool) (final, folded string, exact bool, err error) {
	if !follow {
		return "", "", true, os.ErrNotExist // newTarget looks at the directory that it is in
	}
	final, err = filepath.EvalSymlinks(path)
	return final, final, true, err
}
