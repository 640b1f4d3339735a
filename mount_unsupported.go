//go:build !windows

package mount

// Only Windows has container layers.
func withEngine(do func(e *engine) error) error { return ErrNotImplementOnUnix }

func setTableDir(dir string) error { return ErrNotImplementOnUnix }

func setTempLocation(dir string) error { return ErrNotImplementOnUnix }
