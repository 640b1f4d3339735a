// Package hcs opens and closes container layers through the Host Compute Service (HCS). Its result is right
// whichever codes HCS returns.
//
// Opening a layer takes two calls. ActivateLayer attaches its scratch disk; PrepareLayer attaches the union
// filter over its parents. UnprepareLayer and DeactivateLayer undo them. All calls are keyed by the layer's
// directory.
//
// Hosts differ in the codes that HCS returns for the same condition, so a code only decides whether a call
// is tried again. If a layer has a volume, the volume decides whether the layer is open: it is open while HCS
// names a volume for it that can be reached. The function isClosed is the heart of the package.
package hcs

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/retry"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// Calls has the calls of HCS that a mount needs.
type Calls interface {
	// ActivateLayer attaches the scratch disk of a writable layer and brings up its volume. It does nothing
	// for a read-only layer.
	ActivateLayer(dir string) error
	// PrepareLayer attaches the union filter over the parents.
	PrepareLayer(dir string, parents []string) error
	// GetLayerMountPath returns the volume of a writable layer, or the directory of a read-only one. Most hosts
	// return the volume without a separator at its end.
	GetLayerMountPath(dir string) (string, error)
	// UnprepareLayer undoes PrepareLayer.
	UnprepareLayer(dir string) error
	// DeactivateLayer undoes ActivateLayer.
	DeactivateLayer(dir string) error
}

// Layers opens and closes layers.
type Layers struct {
	Calls Calls
	Pause retry.Pause
}

// Layer is a layer as HCS knows it.
type Layer struct {
	Dir     string
	Parents []string
	Disk    Disk
	// Volume is the mount path of the open layer: its volume, or its directory if it has no volume. It is ""
	// until HCS has named the mount path.
	Volume string
}

// Disk tells whether HCS attaches a disk for a layer.
type Disk string

const (
	// NoDisk is a read-only layer, which has no sandbox.vhdx.
	NoDisk Disk = ""
	// OwnDisk is a writable layer: it has a sandbox.vhdx, and no files of its own.
	OwnDisk Disk = "own"
	// KeptDisk is a committed layer that has kept its sandbox.vhdx, as containerd's do. It is not known
	// whether HCS attaches that disk, so this package handles both cases.
	KeptDisk Disk = "kept"
)

// DiskOf returns the Disk of the layer in dir. Call it before opening the layer: files may be removed later.
func DiskOf(dir string) Disk {
	switch {
	case !exists(filepath.Join(dir, "sandbox.vhdx")):
		return NoDisk
	case exists(filepath.Join(dir, "Files")):
		return KeptDisk
	}
	return OwnDisk
}

// IsLayer reports whether dir is the directory of a layer: it has a scratch disk, the chain of its parents, or
// both files and registry hives.
func IsLayer(dir string) bool {
	has := func(name string) bool { return exists(filepath.Join(dir, name)) }
	return has("sandbox.vhdx") || has("layerchain.json") || has("Files") && has("Hives")
}

// ParentsOf returns the directories of a layer's parents, the nearest first. It reads them from the file
// layerchain.json in the layer's directory. Docker and containerd write that file, and hcsshim writes
// it for the layers that it makes.
func ParentsOf(dir string) (parents []string, err error) {
	path := filepath.Join(dir, "layerchain.json")
	text, err := os.ReadFile(path)
	if err == nil {
		err = errors.Wrap(json.Unmarshal(text, &parents), path)
	}
	return parents, errors.WithStack(err)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !winfs.NotExist(err)
}

// IsVolume reports whether a mount path is a volume, `\\?\Volume{GUID}`, and not the directory of a layer.
func IsVolume(path string) bool {
	name := strings.ToLower(winpath.Last(strings.TrimRight(path, `\/`)))
	return strings.HasPrefix(name, "volume{") && strings.HasSuffix(name, "}")
}

// IsReachable reports whether a volume exists. A volume exists while its disk is attached. If the volume cannot
// be looked at for another reason, such as access denied, IsReachable returns true.
func IsReachable(volume string) bool {
	// With the separator the path names the root directory of the volume; without it, the device.
	_, err := os.Stat(volume + string(filepath.Separator))
	return !winfs.NotExist(err)
}

// VolumeOf returns the volume that HCS names for a layer. It returns "" if HCS names none, or names one that
// cannot be reached: HCS may still name the volume of an earlier activation.
func (l Layers) VolumeOf(dir string) string {
	path, err := l.mountPath(dir)
	if err == nil && IsVolume(path) && IsReachable(path) {
		return path
	}
	return ""
}

func (l Layers) mountPath(dir string) (string, error) {
	path, err := l.Calls.GetLayerMountPath(dir)
	return strings.TrimRight(path, `\/`), errors.Wrapf(err, "failed to get mount path of layer %s", dir)
}

// IsOpen reports whether a layer that was opened is still open. It returns an error if it cannot find out. For a
// layer without a volume it returns true.
func (l Layers) IsOpen(layer *Layer) (bool, error) {
	if !IsVolume(layer.Volume) {
		return true, nil // only HCS knows, and it has no call that tells
	}
	ctx := context.Background()
	if !l.Pause.Until(ctx, func() bool { return IsReachable(layer.Volume) }) {
		return false, nil
	}
	// Other code may have closed the layer, and another layer may have got the GUID of its volume.
	var now string
	err := l.Pause.Do(ctx, retry.Always, func() (err error) {
		now, err = l.mountPath(layer.Dir)
		return err
	})
	return err == nil && winpath.Equal(now, layer.Volume), err
}

// ErrSharingViolation is ERROR_SHARING_VIOLATION. ActivateLayer returns it if the layer is open, or if somebody
// closed the layer a moment ago (buildkit 5807).
const ErrSharingViolation = syscall.Errno(32)

// Codes that HCS returns. hcsshim reduces an HRESULT of 0x8007xxxx to its Windows code and passes others
// unchanged. Builds of Windows differ in the code that they return for the same condition.
const (
	errNotReady           = syscall.Errno(21)
	errDevNotExist        = syscall.Errno(55)
	errDeviceNotConnected = syscall.Errno(1167)
	errTimeout            = syscall.Errno(1460)
	errFilterNotFound     = syscall.Errno(0x801f0015)
)

// If a call fails with one of these codes, it is tried again. The codes in transient mean that a volume is not
// there yet; hcsshim's own runtime retries them, too (internal/layers/wcow_mount.go). PrepareLayer times out on
// a machine under load (moby 27588). GetLayerMountPath may return the code for "not active" if the volume of
// the layer is late.
var (
	transient          = []syscall.Errno{errNotReady, errDeviceNotConnected}
	transientPrepare   = append([]syscall.Errno{errTimeout}, transient...)
	transientActivate  = append([]syscall.Errno{ErrSharingViolation}, transient...)
	transientMountPath = append([]syscall.Errno{errDevNotExist}, transient...)
)

// notPrepared has the codes that UnprepareLayer returns if there is nothing to undo: the layer is not active, or
// not prepared (containerd pull requests 5133 and 5328; cloudfoundry's winc). These codes count only if there
// is no other evidence.
var notPrepared = []syscall.Errno{errDevNotExist, errFilterNotFound}
