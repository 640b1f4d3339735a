//go:build !(windows || linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package mount

import "os"

// Where layers cannot be mounted and no test runs, there is no table.

func checkPrivateDir(path string) error { return ErrNotImplementOnUnix }

func createPrivateDir(path string) error { return ErrNotImplementOnUnix }

func createPrivate(path string) (*os.File, error) { return nil, ErrNotImplementOnUnix }

func openPrivate(path string) (*os.File, error) { return nil, ErrNotImplementOnUnix }

func lockFile(dir, name string) (unlock func(), err error) { return nil, ErrNotImplementOnUnix }
