//go:build !(windows && amd64)

package hcstest

import (
	"errors"
	"os"
)

func show(Binding) error { return errors.ErrUnsupported }
func shown(string) bool  { return false }
func hide(string) error  { return errors.ErrUnsupported }

func symlink(text, path string) error { return os.Symlink(text, path) }
func unlink(path string) error        { return os.Remove(path) }

// GiveAway makes another user the owner of a file. Windows does not allow that, so GiveAway needs Wine, and root.
func GiveAway(path string) error { return errors.ErrUnsupported }
