// Package mount is the adapter for containerd 1.6, so that it is compiled here. This file has what it needs
// of containerd's own files.
package mount

import (
	"os"

	"github.com/moby/sys/mountinfo"
)

// Mount is containerd's.
type Mount struct {
	Type, Source string
	Options      []string
}

// Info is containerd's.
type Info = mountinfo.Info

var tempMountLocation = os.TempDir()

var _ = tempMountLocation // containerd's WithTempMount reads it
