package mount

import (
	"context"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/Microsoft/hcsshim"
	"github.com/pkg/errors"
	"golang.org/x/sys/windows"
)

// Mount opens the layer m.Source and shows it at target, or at the directory
// below target that m.Target names.
//
// The target must be absent, an empty directory (the link takes its place until
// Unmount puts a directory back) or the link of a mount whose layer has closed, as
// a restart of the system leaves it for a writable layer. A mount whose process has
// died is live: Unmount it first. The directory that the target is in must exist,
// and so must those on the way to m.Target, none of which may be a link.
//
// A layer may be shown at several targets: it is opened once, with the parents of
// the first. Of a layer without parents its Files folder is shown, which must be
// there.
//
// Nothing is touched when m or target is malformed: a Type other than
// "windows-layer", parents that GetParentPaths refuses, a Source that is relative,
// the root of a volume or ends in an element that is empty, "." or "..", a target
// that is the root of a volume, or a path that has a NUL or names something that is
// not a plain directory to Windows. A relative target is taken from the working
// directory. A target in use gives an error that matches os.ErrExist, and a layer
// that other code has open one that matches windows.ERROR_SHARING_VIOLATION (or,
// without a scratch disk, what PrepareLayer says). What HCS says can be matched as
// its Windows code, or as a *hcsshim.HcsError.
//
// ERROR_NOT_READY and ERROR_DEVICE_NOT_CONNECTED of HCS are tried again, five times
// in all, 100 ms apart, and so is what something else keeps from being done to the
// target or the mount table by having it open. Any failure is undone. What could
// not be undone is in the error too, and then the mount table has a record with
// which Unmount can try again.
func (m *Mount) Mount(target string) error {
	mt, err := newMounter()
	if err != nil {
		return err
	}
	return mt.mount(context.Background(), m, target)
}

// Unmount takes away what Mount showed. Its argument is a target, or the
// directory of a layer, which is then unmounted from all its targets. The layer
// is closed with its last target. flags are not used.
//
// The link is removed, the layer closed, the directory put back that the link
// replaced, and the record dropped, in this order; when one fails, the error
// says which, the record stays and Unmount can be called again. A layer that
// HCS does not know (any more) counts as closed.
//
// A directory that is in no record but is a layer, since it holds a sandbox.vhdx,
// a layerchain.json or a Files folder, is closed all the same: other code may
// have opened it. Any other path is no mount: nothing is touched, and the
// result is nil, unless it is malformed as for Mount or cannot be resolved.
//
// What HCS says can be matched, and is tried again, as for Mount. Only links that
// Mount made are ever removed, and of what a user put in their place nothing is.
func Unmount(mount string, flags int) error {
	mt, err := newMounter()
	if err != nil {
		return err
	}
	_, err = mt.unmount(context.Background(), mount)
	return err
}

// UnmountAll is Unmount until nothing is left to unmount, with its errors. It is
// nil for "" and for a path that does not exist and is in no record.
func UnmountAll(mount string, flags int) error {
	mt, err := newMounter()
	if err != nil {
		return err
	}
	return mt.unmountAll(context.Background(), mount)
}

// Lookup tells which layer was mounted at dir, which must be a target itself, and
// not unmounted since. It asks the mount table alone: after a restart of the system,
// or when somebody removed the link, the layer need not be shown there any more. The
// error matches os.ErrNotExist when there is no such mount, and else tells why dir
// or the table cannot be read.
func Lookup(dir string) (Info, error) {
	mt, err := newMounter()
	if err != nil {
		return Info{}, err
	}
	return mt.lookup(context.Background(), dir)
}

// tableDir is where the mount table is kept, once it is known.
var tableDir struct {
	sync.Mutex
	dir string
}

// SetTableDir sets the directory of the mount table, in place of
// %ProgramData%\windows-layer-mounts. A path that is relative, malformed or the
// root of a volume is refused; the last directory is created when it is needed.
// Every process that shares layers must set the same one, before it mounts: a mount
// is unknown in another table.
//
// The directory must be for the table alone: only Administrators and SYSTEM keep
// access to it and to what is in it, unless its access list is a protected one.
// One that belongs to anybody but these and the user of this process, or is a link,
// is not used: Mount and Unmount then fail.
func SetTableDir(dir string) error {
	if err := checkPath(dir); err != nil {
		return errors.WithMessage(err, "mount table")
	}
	dir = filepath.Clean(dir)
	if len(elements(dir)) == 0 {
		return errors.Errorf("mount table: %q is the root of a volume", dir)
	}
	tableDir.Lock()
	defer tableDir.Unlock()
	tableDir.dir = dir
	return nil
}

func newMounter() (*mounter, error) {
	tableDir.Lock()
	defer tableDir.Unlock()
	if tableDir.dir == "" {
		programData, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, windows.KF_FLAG_DEFAULT)
		if err != nil {
			return nil, errors.Wrap(err, "mount table: failed to find ProgramData")
		}
		tableDir.dir = filepath.Join(programData, "windows-layer-mounts")
	}
	return &mounter{hcs: vmcompute{}, table: table{tableDir.dir, pause}}, nil
}

// vmcompute is the Host Compute Service of this machine.
type vmcompute struct{}

func (vmcompute) ActivateLayer(layer string) error {
	return withCode(hcsshim.ActivateLayer(splitLayer(layer)))
}

func (vmcompute) PrepareLayer(layer string, parents []string) error {
	home, id := splitLayer(layer)
	return withCode(hcsshim.PrepareLayer(home, id, parents))
}

func (vmcompute) GetLayerMountPath(layer string) (string, error) {
	path, err := hcsshim.GetLayerMountPath(splitLayer(layer))
	return path, withCode(err)
}

func (vmcompute) UnprepareLayer(layer string) error {
	return withCode(hcsshim.UnprepareLayer(splitLayer(layer)))
}

func (vmcompute) DeactivateLayer(layer string) error {
	return withCode(hcsshim.DeactivateLayer(splitLayer(layer)))
}

func splitLayer(layer string) (home hcsshim.DriverInfo, id string) {
	dir, id := filepath.Split(layer)
	return hcsshim.DriverInfo{HomeDir: dir}, id
}

// codedError lets an error of HCS be matched as its Windows code, for which
// hcsshim's HcsError has no Unwrap.
type codedError struct {
	error
	code syscall.Errno
}

func (e *codedError) Unwrap() []error { return []error{e.error, e.code} }

func withCode(err error) error {
	var hcsErr *hcsshim.HcsError
	if !errors.As(err, &hcsErr) {
		return err
	}
	var code syscall.Errno
	if !errors.As(hcsErr.Err, &code) {
		return err
	}
	// A HRESULT has 32 bits; what the register held above them is no part of it.
	return &codedError{err, syscall.Errno(uint32(code))}
}
