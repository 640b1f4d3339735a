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

// GiveAway gives a file to another user, as Windows lets nobody do. It needs Wine, and root.
func GiveAway(path string) error { return errors.ErrUnsupported }
