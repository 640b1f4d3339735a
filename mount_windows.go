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

func (m *Mount) mount(target string) error {
	return withMounter(func(mt *mounter) error { return mt.mount(context.Background(), m, target) })
}

// Unmount takes away what Mount showed. Its argument is a target, or the directory of a layer, which is
// then unmounted from all its targets. The layer is closed with its last target. flags are not used.
//
// Unmount removes the link and puts back the directory that it replaced, or it removes the binding and the
// directory that Mount made for it. Then it closes the layer, even if that failed, and drops the record once
// all of this has succeeded. Otherwise the error says which step failed, and Unmount can be called again.
// A writable layer is closed when its volume is gone, whatever HCS says. What was mounted before a restart
// of the system is cleared away without HCS: somebody else may have opened the layer since, or bound
// something to the target.
//
// For a layer's directory that is in no record HCS is asked to close the layer, since other code may have
// opened it. A directory counts as a layer's when it holds a sandbox.vhdx, a layerchain.json, or Files and
// Hives. Any other path is no mount: nothing is touched, and the result is nil, unless the path is
// malformed as for Mount, or cannot be resolved.
//
// When a file of the mount table is damaged, Unmount of a target of that layer fails with an error that
// names the file. Unmount of the layer's directory closes the layer, and its links stay.
//
// Errors of HCS can be matched as for Mount. Closing the layer and removing a binding are retried after any
// error: there are five attempts, 100 ms apart. Only links, bindings and directories that Mount made are
// removed, and not what somebody put in their place. For bindings that takes a list of them, which Windows
// Server 2019 does not have.
func Unmount(mount string, flags int) error {
	return withMounter(func(mt *mounter) error {
		_, err := mt.unmount(mount)
		return err
	})
}

// UnmountAll calls Unmount until nothing is left to unmount, and returns its errors. It returns nil for ""
// and for a path that does not exist and is in no record.
func UnmountAll(mount string, flags int) error {
	return withMounter(func(mt *mounter) error { return mt.unmountAll(mount) })
}

// Lookup returns which layer is shown at dir, which must be a target itself. It waits for nobody, and
// does not look at the target: somebody may have removed the link meanwhile. The error matches
// os.ErrNotExist when there is no such mount, as after a restart of the system. Any other error says why
// dir or the table cannot be read.
func Lookup(dir string) (Info, error) {
	mt, err := newMounter()
	if err != nil {
		return Info{}, err
	}
	return lookup(mt, dir)
}

// List returns every mount on record, one for each target. It includes those that a killed process or a
// restart of the system has left, and those whose Unmount has failed. It waits for nobody. When it cannot
// read some files of the mount table, it returns what it could read, and an error that names each of
// these files.
func List() ([]Info, error) {
	mt, err := newMounter()
	if err != nil {
		return nil, err
	}
	return list(mt)
}

// mountTable is the mount table of this process. Its table is nil until the first call that needs it.
var mountTable struct {
	sync.Mutex
	*table
}

// SetTableDir sets the directory of the mount table, in place of %ProgramData%\windows-layer-mounts.
// Every process that shares layers must set the same one, before it mounts: what is on record in another
// table is out of its sight. The last directory of the path is made when the table is first needed. SetTableDir refuses a path that is relative, malformed or
// the root of a volume, and a directory that holds anything but a mount table.
//
// Only Administrators and SYSTEM keep access to the directory, unless its access list is protected
// already. A directory that belongs to anybody else, but for the user of this process, is not trusted:
// it is renamed, with ".untrusted-" and a number at the end, and a new one is made.
func SetTableDir(dir string) error {
	if err := checkPath(dir); err != nil {
		return errors.WithMessage(err, "mount table")
	}
	dir = filepath.Clean(dir)
	if len(elements(dir)) == 0 {
		return errors.Errorf("mount table: %q is the root of a volume", dir)
	}
	if err := checkContent(dir); err != nil && hasTrustedOwner(dir) {
		return errors.Wrap(err, "mount table")
	}
	mountTable.Lock()
	defer mountTable.Unlock()
	if t := mountTable.table; t != nil && t.dir == dir {
		return nil
	}
	mountTable.table = &table{dir: dir, pause: pause}
	return nil
}

func newMounter() (*mounter, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	mountTable.Lock()
	defer mountTable.Unlock()
	if mountTable.table == nil {
		programData, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, windows.KF_FLAG_DEFAULT)
		if err != nil {
			return nil, errors.Wrap(err, "mount table: failed to find ProgramData")
		}
		mountTable.table = &table{dir: filepath.Join(programData, "windows-layer-mounts"), pause: pause}
	}
	t := mountTable.table
	return &mounter{
		opener: opener{vmcompute{}, t.pause},
		binder: binder{bindflt{}, t.pause},
		table:  t,
		boot:   boot,
		binds:  bindsLayers.Load(),
	}, nil
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

// codedError is an error of HCS that errors.Is can match as its Windows code. hcsshim's HcsError has no
// Unwrap.
type codedError struct {
	error
	code syscall.Errno
}

func (e *codedError) Unwrap() []error { return []error{e.error, e.code} }

func withCode(err error) error {
	var hcsErr *hcsshim.HcsError
	var code syscall.Errno
	if !errors.As(err, &hcsErr) || !errors.As(hcsErr.Err, &code) {
		return err
	}
	// An HRESULT has 32 bits. The upper half of the register that returned it is not part of it.
	return &codedError{err, syscall.Errno(uint32(code))}
}
