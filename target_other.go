//go:build !windows

package mount

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/pkg/errors"
)

func makeLink(text, path string) error { return os.Symlink(text, path) }

func readLink(path string) (string, error) { return os.Readlink(path) }

func isBusy(err error) bool { return errors.Is(err, syscall.EBUSY) }

func sameLink(a, b string) bool { return a == b }

// removeDir removes an empty directory, and nothing else that may have come in
// its place.
func removeDir(path string) error {
	return os.NewSyscallError("rmdir", syscall.Rmdir(path))
}

func finalPath(path string) (string, error) { return filepath.EvalSymlinks(path) }

func longName(path string) string { return filepath.Base(path) }

func foldCase(path string) string { return path }
