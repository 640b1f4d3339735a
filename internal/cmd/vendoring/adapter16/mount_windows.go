// Written by scripts/vendor of github.com/seed-941ae793/mount.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"path/filepath"

	windowslayer "github.com/seed-941ae793/mount"
)

// Layers are shown by symbolic links, as containerd 1.6 shows them; with true, through the bind filter.
func init() { windowslayer.UseBindFilter(false) }

// ErrNotImplementOnWindows is the error of an action that Windows does not have.
var ErrNotImplementOnWindows = windowslayer.ErrNotImplementOnWindows

func windowsLayer(m *Mount) *windowslayer.Mount {
	return &windowslayer.Mount{Type: m.Type, Source: m.Source, Options: m.Options}
}

// Mount opens the layer m.Source and shows it at target.
func (m *Mount) Mount(target string) error { return windowsLayer(m).Mount(target) }

// ParentLayerPathsFlag begins the option that holds the layer's parents, a JSON list of their directories.
const ParentLayerPathsFlag = windowslayer.ParentLayerPathsFlag

// GetParentPaths returns the directories of the layer's parents, the nearest first.
func (m *Mount) GetParentPaths() ([]string, error) { return windowsLayer(m).GetParentPaths() }

// Unmount unmounts a target, or a layer from all its targets, and closes the layer with the last of them.
func Unmount(mount string, flags int) error { return windowslayer.Unmount(mount, flags) }

// UnmountAll calls Unmount until nothing is left to unmount.
func UnmountAll(mount string, flags int) error { return windowslayer.UnmountAll(mount, flags) }

// Lookup returns which layer is mounted at dir.
func Lookup(dir string) (Info, error) { return windowslayer.Lookup(dir) }

// SetTempMountLocation sets the directory in which WithTempMount makes its directories.
func SetTempMountLocation(root string) (err error) {
	if err = windowslayer.SetTempMountLocation(root); err == nil {
		tempMountLocation, err = filepath.Abs(root)
	}
	return err
}

// CleanupTempMounts unmounts what is mounted below that directory, and removes the targets.
func CleanupTempMounts(flags int) ([]error, error) { return windowslayer.CleanupTempMounts(flags) }
