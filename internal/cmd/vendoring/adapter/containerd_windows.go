// Package mount is the adapter for containerd 1.7 and 2.x, so that it is compiled here. This file has what it needs
// of containerd's own files.
package mount

import (
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
)

// Mount is containerd's.
type Mount struct {
	Type, Source, Target string
	Options              []string
}

// Mount is containerd's.
func (m *Mount) Mount(target string) error { return m.mount(filepath.Join(target, m.Target)) }

// Info is containerd's.
type Info = mountinfo.Info

var tempMountLocation = os.TempDir()

var _ = tempMountLocation // containerd's WithTempMount reads it
