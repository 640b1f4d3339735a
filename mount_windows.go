package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/Microsoft/go-winio/pkg/bindfilter"
	"github.com/Microsoft/hcsshim"
	"github.com/pkg/errors"
	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/retry"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// withEngine calls do with the engine for the HCS, the bind filter and the mount table of this machine.
func withEngine(do func(e *engine) error) error {
	t, err := currentTable()
	if err != nil {
		return err
	}
	return do(&engine{
		layers: hcs.Layers{Calls: vmcompute{}, Pause: pause},
		filter: bindflt{},
		table:  t,
		pause:  pause,
		binds:  bindsLayers.Load(),
	})
}

// pause is how long the engine waits before it tries again. Tests with a simulated HCS, which counts calls and
// not time, do not wait.
var pause retry.Pause = retry.Wait

// mountTable is the mount table of this process. It is nil until the first call that needs it.
var mountTable struct {
	sync.Mutex
	dir   string // see SetTableDir
	table *table.Table
}

func setTableDir(dir string) error {
	if err := table.CheckDir(dir); err != nil {
		return errors.Wrap(err, "mount table")
	}
	mountTable.Lock()
	defer mountTable.Unlock()
	if dir != mountTable.dir {
		mountTable.dir, mountTable.table = dir, nil
	}
	return nil
}

func currentTable() (*table.Table, error) {
	mountTable.Lock()
	defer mountTable.Unlock()
	if mountTable.table != nil {
		return mountTable.table, nil
	}
	dir := mountTable.dir
	if dir == "" {
		programData, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, windows.KF_FLAG_DEFAULT)
		if err != nil {
			return nil, errors.Wrap(err, "mount table: find ProgramData")
		}
		dir = filepath.Join(programData, "windows-layer-mounts")
	}
	boot, err := table.Boot()
	if err != nil {
		return nil, errors.WithMessage(err, "mount table")
	}
	mountTable.table = table.New(dir, boot, pause)
	return mountTable.table, nil
}

func setTempLocation(dir string) error {
	dir, err := winpath.Abs(dir)
	if err != nil {
		return errors.WithMessage(err, "invalid location of temporary mounts")
	}
	if err = os.MkdirAll(filepath.Dir(dir), 0o777); err == nil {
		err = winfs.MakePrivateDir(dir)
	}
	if err == nil {
		err = winfs.CheckOwner(dir)
	}
	if err != nil {
		return errors.Wrap(err, "failed to set the location of temporary mounts")
	}
	tempLocation.Store(dir)
	return nil
}

// vmcompute is the Host Compute Service of this machine. The first three calls open a layer, in this order;
// the other two close it.
type vmcompute struct{}

func (vmcompute) ActivateLayer(dir string) error {
	return withCode(hcsshim.ActivateLayer(splitLayer(dir)))
}

func (vmcompute) PrepareLayer(dir string, parents []string) error {
	home, id := splitLayer(dir)
	return withCode(hcsshim.PrepareLayer(home, id, parents))
}

func (vmcompute) GetLayerMountPath(dir string) (string, error) {
	path, err := hcsshim.GetLayerMountPath(splitLayer(dir))
	return path, withCode(err)
}

func (vmcompute) UnprepareLayer(dir string) error {
	return withCode(hcsshim.UnprepareLayer(splitLayer(dir)))
}

func (vmcompute) DeactivateLayer(dir string) error {
	return withCode(hcsshim.DeactivateLayer(splitLayer(dir)))
}

// splitLayer splits the directory of a layer as hcsshim takes it.
func splitLayer(dir string) (home hcsshim.DriverInfo, id string) {
	parent, id := filepath.Split(dir)
	return hcsshim.DriverInfo{HomeDir: parent}, id
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

// bindflt is the bind filter of this machine.
type bindflt struct{}

var procBfSetupFilter = windows.NewLazySystemDLL("bindfltapi.dll").NewProc("BfSetupFilter")

func (bindflt) Find() error {
	if err := procBfSetupFilter.Find(); err != nil {
		return fmt.Errorf("%w: %w", errNoFilter, err)
	}
	return nil
}

func (bindflt) Bind(root, source string, readOnly bool) error {
	return bindfilter.ApplyFileBinding(winpath.Plain(root), source, readOnly)
}

func (bindflt) Unbind(root string) error { return bindfilter.RemoveFileBinding(winpath.Plain(root)) }

func (bindflt) Bindings(path string) (bindings []binding, err error) {
	mappings, err := bindfilter.GetBindMappings(path)
	for _, mapping := range mappings {
		for _, source := range mapping.Targets {
			bindings = append(bindings, binding{mapping.MountPoint, source})
		}
	}
	return bindings, err
}

func (bindflt) FileID(path string) (string, error) { return winfs.FileID(path) }

func (bindflt) VolumeOf(path string) (uint64, error) { return winfs.VolumeOf(path) }
