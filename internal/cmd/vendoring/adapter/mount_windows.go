// Written by scripts/vendor of github.com/seed-941ae793/mount.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"path/filepath"

	windowslayer "github.com/seed-941ae793/mount"
)

// Layers are shown through the bind filter, as containerd shows them; with false, by symbolic links.
func init() { windowslayer.UseBindFilter(true) }

// ErrNotImplementOnWindows is the error of an action that Windows does not have.
var ErrNotImplementOnWindows = windowslayer.ErrNotImplementOnWindows

// windowsLayer returns m without its Target, which Mount and UnmountMounts have resolved.
func windowsLayer(m *Mount) *windowslayer.Mount {
	return &windowslayer.Mount{Type: m.Type, Source: m.Source, Options: m.Options}
}

// mount opens the layer m.Source and shows it at target.
func (m *Mount) mount(target string) error { return windowsLayer(m).Mount(target) }

// ParentLayerPathsFlag begins the option that holds the layer's parents, a JSON list of their directories.
const ParentLayerPathsFlag = windowslayer.ParentLayerPathsFlag

// GetParentPaths returns the directories of the layer's parents, the nearest first.
func (m *Mount) GetParentPaths() ([]string, error) { return windowsLayer(m).GetParentPaths() }

// Unmount unmounts a target, or a layer from all its targets, and closes the layer with the last of them.
func Unmount(mount string, flags int) error { return windowslayer.Unmount(mount, flags) }

// UnmountAll calls Unmount until nothing is left to unmount.
func UnmountAll(mount string, flags int) error { return windowslayer.UnmountAll(mount, flags) }

// UnmountRecursive unmounts what is mounted below mount, the deepest first, and mount itself.
func UnmountRecursive(mount string, flags int) error {
	return windowslayer.UnmountRecursive(mount, flags)
}

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

// Names for layers in composite images, which are mounted elsewhere.
const (
	LayerCimPathFlag                = windowslayer.LayerCimPathFlag
	ParentLayerCimPathsFlag         = windowslayer.ParentLayerCimPathsFlag
	CimFSMountType           string = windowslayer.CimFSMountType
	BlockCIMTypeFlag         string = windowslayer.BlockCIMTypeFlag
	BlockCIMTypeFile         string = windowslayer.BlockCIMTypeFile
	MergedCIMPathFlag        string = windowslayer.MergedCIMPathFlag
	BlockCIMMountType        string = windowslayer.BlockCIMMountType
	EnableLayerIntegrityFlag string = windowslayer.EnableLayerIntegrityFlag
	AppendVHDFooterFlag      string = windowslayer.AppendVHDFooterFlag
)

// GetParentCimPaths returns the CIMs of the layer's parents.
func GetParentCimPaths(m *Mount) ([]string, error) {
	return windowslayer.GetParentCimPaths(windowsLayer(m))
}

// GetCimPath returns the CIM into which the layer is unpacked.
func GetCimPath(m *Mount) (string, error) { return windowslayer.GetCimPath(windowsLayer(m)) }

// GetEnableLayerIntegrity reports whether the mount has the option EnableLayerIntegrityFlag.
func GetEnableLayerIntegrity(m *Mount) bool {
	return windowslayer.GetEnableLayerIntegrity(windowsLayer(m))
}

// GetAppendVHDFooter reports whether the mount has the option AppendVHDFooterFlag.
func GetAppendVHDFooter(m *Mount) bool { return windowslayer.GetAppendVHDFooter(windowsLayer(m)) }
