//go:build !windows

package mount

// Mount reports ErrNotImplementOnUnix and touches nothing: only Windows has
// container layers.
func (m *Mount) Mount(target string) error { return ErrNotImplementOnUnix }

// Unmount reports ErrNotImplementOnUnix and touches nothing.
func Unmount(mount string, flags int) error { return ErrNotImplementOnUnix }

// UnmountAll reports ErrNotImplementOnUnix and touches nothing.
func UnmountAll(mount string, flags int) error { return ErrNotImplementOnUnix }

// Lookup reports ErrNotImplementOnUnix.
func Lookup(dir string) (Info, error) { return Info{}, ErrNotImplementOnUnix }

// SetTableDir reports ErrNotImplementOnUnix.
func SetTableDir(dir string) error { return ErrNotImplementOnUnix }

func newMounter() (*mounter, error) { return nil, ErrNotImplementOnUnix }
