//go:build !(windows && amd64)

package hcstest

import "errors"

func show(Binding) error { return errors.ErrUnsupported }
func shown(string) bool  { return false }
func hide(string) error  { return errors.ErrUnsupported }

// GiveAway gives a file to another user, as Windows lets nobody do. It needs Wine, and root.
func GiveAway(path string) error { return errors.ErrUnsupported }
