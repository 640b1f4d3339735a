//go:build !windows

package mount

// Only Windows has container layers.
func (m *Mount) mount(target string) error { return ErrNotImplementOnUnix }

// Unmount reports ErrNotImplementOnUnix and touches nothing.
func Unmount(mount string, flags int) error { return ErrNotImplementOnUnix }

// UnmountAll reports ErrNotImplementOnUnix and touches nothing.
func UnmountAll(mount string, flags int) error { return ErrNotImplementOnUnix }

// Lookup reports ErrNotImplementOnUnix.
func Lookup(dir string) (Info, error) { return Info{}, ErrNotImplementOnUnix }

// List reports ErrNotImplementOnUnix.
func List() ([]Info, error) { return nil, ErrNotImplementOnUnix }

// SetTableDir reports ErrNotImplementOnUnix.
func SetTableDir(dir string) error { return ErrNotImplementOnUnix }

// UseBindFilter is a stub, until the bind filter is merged.
func UseBindFilter(on bool) {}

func newMounter() (*mounter, error) { return nil, ErrNotImplementOnUnix }
