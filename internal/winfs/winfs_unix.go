//go:build !windows

package winfs

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/pkg/errors"
)

// Link creates a symbolic link with that text at path.
func Link(text, path string) error { return os.Symlink(text, path) }

// ReadLink returns the text of a link. The error matches ErrNotLink if the file at path is not a symbolic link.
func ReadLink(path string) (string, error) {
	text, err := os.Readlink(path)
	if errors.Is(err, syscall.EINVAL) {
		err = &os.PathError{Op: "read link", Path: path, Err: ErrNotLink}
	}
	return text, err
}

// RemoveLink removes the link at path if its text is text, and otherwise does nothing. It flushes the change of
// the directory.
func RemoveLink(path, text string) error {
	now, err := ReadLink(path)
	if errors.Is(err, ErrNotLink) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || now != text {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := os.Remove(path); err != nil {
		return err
	}
	return dir.Sync()
}

// RemoveDir removes the directory at path. It returns an error if the directory is not empty.
func RemoveDir(path string) error {
	if err := syscall.Rmdir(path); err != nil {
		return &os.PathError{Op: "remove directory", Path: path, Err: err}
	}
	return nil
}

// RemoveFile removes the file at path.
func RemoveFile(path string) error { return os.Remove(path) }

// FileID returns an ID of the file at path that is unique on its volume. It does not follow a link.
func FileID(path string) (string, error) {
	stat, err := lstat(path)
	return strconv.FormatUint(stat.Ino, 16), err
}

// VolumeOf returns the number of the device that the file at path is on. It does not follow a link.
func VolumeOf(path string) (uint64, error) {
	stat, err := lstat(path)
	return uint64(stat.Dev), err
}

func lstat(path string) (stat syscall.Stat_t, err error) {
	if err = syscall.Lstat(path, &stat); err != nil {
		err = &os.PathError{Op: "identify", Path: path, Err: err}
	}
	return stat, err
}

func finalName(path string) (Name, error) {
	final, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Name{}, err
	}
	info, err := os.Stat(final)
	return Name{Path: final, CaseSensitive: true, IsDir: err == nil && info.IsDir()}, err
}

func longName(_, base string) string { return base }

// Match returns the names in a directory that match a pattern. In the pattern, * stands for any text. It has none,
// or one at its beginning, or another one at its end. Match does not use path.Match, which would take most of the
// time of a mount if there are many names.
func Match(dir, pattern string) ([]string, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	names, err := file.Readdirnames(-1)
	matches := func(name, text string) bool { return name == text }
	switch {
	case strings.HasSuffix(pattern, "*"):
		matches = strings.Contains
	case strings.HasPrefix(pattern, "*"):
		matches = strings.HasSuffix
	}
	return slices.DeleteFunc(names, func(name string) bool { return !matches(name, strings.Trim(pattern, "*")) }), err
}

// IsBusy reports whether an error may be due to another program that has the file open for a moment.
func IsBusy(err error) bool { return errors.Is(err, syscall.EBUSY) }

func makePrivateDir(path string) error { return os.Mkdir(path, 0o700) }

// OpenPrivateDir opens the directory at path. If there is none, OpenPrivateDir creates it.
func OpenPrivateDir(path string) (*os.File, error) {
	if err := MakePrivateDir(path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
}

// OpenPrivate opens a file that this package has created. If the file is absent and flag has os.O_CREATE,
// OpenPrivate creates it.
func OpenPrivate(path string, flag int) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|flag, 0o600)
}

// RemoveOpen removes a file that OpenPrivate has opened, and closes it.
func RemoveOpen(file *os.File) error {
	if err := os.Remove(file.Name()); err != nil {
		return err
	}
	return file.Close()
}

// MoveUntrusted renames the directory at from to to.
func MoveUntrusted(from, to string) error { return os.Rename(from, to) }

// CheckOwner returns nil: on these systems every owner counts as trusted.
func CheckOwner(string) error { return nil }
