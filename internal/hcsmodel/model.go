// Package hcsmodel is a model of the five layer calls of the Windows Host
// Compute Service (HCS), for tests: of one process on any system (New), of
// several processes, which may be killed at any instant (Open), and as the
// simulated vmcompute.dll, which is built on Open.
//
// The model is strict: what real HCS tolerates or only sometimes refuses, it
// refuses always. Where a rule is not documented, it is marked "Assumption:".
package hcsmodel

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"
)

// Call is the name of a call, as vmcompute.dll exports it.
type Call string

// The five calls.
const (
	Activate   Call = "ActivateLayer"
	Prepare    Call = "PrepareLayer"
	MountPath  Call = "GetLayerMountPath"
	Unprepare  Call = "UnprepareLayer"
	Deactivate Call = "DeactivateLayer"
)

// Windows error codes, by their names in winerror.h.
const (
	errPathNotFound     syscall.Errno = 0x3
	errNotReady         syscall.Errno = 0x15
	errSharingViolation syscall.Errno = 0x20
	errInvalidParameter syscall.Errno = 0x57
)

// What closing a layer that is not open gives.
const (
	// NotActive is ERROR_DEV_NOT_EXIST, which UnprepareLayer gives for a layer
	// that is not active (containerd 1.6, sys/filesys_windows.go; containerd pull
	// request 5133).
	// Assumption: DeactivateLayer gives it too. Real HCS seems to tolerate it.
	NotActive syscall.Errno = 0x37
	// NotPrepared is ERROR_FLT_INSTANCE_NOT_FOUND, which UnprepareLayer gives for
	// a layer that is active and not prepared (containerd issue 5326).
	NotPrepared syscall.Errno = 0x801f0015
)

// Error is what a refused call returns.
type Error struct {
	Call  Call
	Layer string
	Code  syscall.Errno // a Windows code, on every system
}

// Error does not use the text of Code, which is that of another error anywhere
// but on Windows.
func (e *Error) Error() string {
	return fmt.Sprintf("%s %s: Windows error 0x%x", e.Call, e.Layer, uintptr(e.Code))
}

// Unwrap returns the Windows code.
func (e *Error) Unwrap() error { return e.Code }

// Model is one machine's HCS. Its methods may be called from many goroutines;
// its fields are set before the first call.
type Model struct {
	// Latency is how long every call takes. No lock is held meanwhile.
	Latency time.Duration
	// Before is called before a call has any effect. An error of it is what the
	// call returns, and nothing happened.
	Before func(Call, string) error
	// After is called once the effect of a call is in place. An error of it is
	// what the call returns, and the effect holds.
	After func(Call, string) error
	// EmptyMountPath makes GetLayerMountPath succeed with "", as hcsshim allows
	// for (mountPathLength == 0).
	EmptyMountPath bool
	// FolderWhenClosed makes GetLayerMountPath give the directory of a writable
	// layer that is not active, in place of an error. Real HCS is not known in
	// this; hcsshim's doc of the call speaks of mounted layers only.
	FolderWhenClosed bool
	// CheckParents makes PrepareLayer refuse a parent that is no directory.
	CheckParents bool

	store   store
	volumes string
}

// layer is what HCS knows about a layer that is open.
type layer struct {
	Path     string
	Active   bool
	Prepared bool
}

func (l *layer) open() bool { return l.Active || l.Prepared }

// store holds the layers that are open and the journal of all calls.
type store interface {
	// update calls f with the layer, which nobody else can read or change
	// meanwhile, and keeps what f made of it unless f fails.
	update(key string, f func(*layer) error) error
	layers() ([]layer, error)
	forgetLayers() error
	record(call string) error
	calls() ([]string, error)
	forgetCalls() error
}

// New returns a model in memory. The volumes of its layers are directories in the
// directory volumes, made when needed; with "" there are none. On Windows the
// mount paths lead to them only when Wine has its DOS devices there: it takes
// `\\?\Volume{GUID}` for the directory dosdevices/volume{guid} of its prefix.
func New(volumes string) *Model {
	return &Model{store: &memory{open: map[string]layer{}}, volumes: volumes}
}

// Open returns the model whose state is in dir, which is made when needed. Every
// process that opens dir shares the state, and killing one at any instant leaves
// each call either done or not done, but for the volume of ActivateLayer and
// DeactivateLayer, which may have come or gone without the rest. Before and After
// come preset to inject what SetFaults planned. The volumes are in dir as well, on
// Windows in the directory that the environment variable HCS_SIM_VOLUMES names;
// see New.
func Open(dir string) (*Model, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	volumes := filepath.Join(dir, "volumes")
	if runtime.GOOS == "windows" {
		volumes = os.Getenv("HCS_SIM_VOLUMES")
	}
	faults := faults{dir}
	return &Model{
		Before:  faults.before,
		After:   faults.after,
		store:   files{dir},
		volumes: volumes,
	}, nil
}

// ActivateLayer attaches the scratch disk of a writable layer and brings up its
// volume.
func (m *Model) ActivateLayer(path string) error {
	return m.call(Activate, path, "", func(l *layer, writable bool) error {
		if !writable {
			// hcsshim, doc of ActivateLayer: "a read-only layer is generally
			// expected to be a no-op".
			return nil
		}
		if l.Active {
			// Seen in reports on containerd and moby: "The process cannot access
			// the file because it is being used by another process. (0x20)".
			return errSharingViolation
		}
		l.Active = true
		return m.attach(path)
	})
}

// PrepareLayer attaches the union filter over the parents, nearest first.
func (m *Model) PrepareLayer(path string, parents []string) error {
	args := " [" + strings.Join(parents, " ") + "]"
	return m.call(Prepare, path, args, func(l *layer, writable bool) error {
		// hcsshim, doc of PrepareLayer: it finds "a mounted read-write layer", and
		// requires "the paths to all parent layers". Preparing twice gives 0x57 in
		// public reports.
		// Assumption: so do the other two, and a read-only layer may be prepared.
		if l.Prepared || writable && (!l.Active || len(parents) == 0) {
			return errInvalidParameter
		}
		for _, parent := range parents {
			if m.CheckParents && !isDir(parent) {
				return errPathNotFound // Assumption: as for the layer itself.
			}
		}
		l.Prepared = true
		return nil
	})
}

// GetLayerMountPath tells where a layer is: the volume of a writable layer,
// without a trailing backslash, or the directory of a read-only one.
func (m *Model) GetLayerMountPath(path string) (string, error) {
	var result string
	err := m.call(MountPath, path, "", func(l *layer, writable bool) error {
		switch {
		case writable && !l.Active && m.FolderWhenClosed:
			result = path
		case writable && !l.Active:
			return errNotReady // Assumption: there is no volume yet.
		case m.EmptyMountPath:
			result = ""
		case writable:
			result = m.volume(path)
		default:
			// hcsshim, doc of GetLayerMountPath: "otherwise it is expected to be
			// the folder path at which the layer is stored".
			result = path
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return result, nil
}

// UnprepareLayer detaches the union filter.
func (m *Model) UnprepareLayer(path string) error {
	return m.call(Unprepare, path, "", func(l *layer, writable bool) error {
		switch {
		case l.Prepared:
			l.Prepared = false
		case !writable:
			// Succeeds in public reports (docker/for-win 1546, moby 32330).
		case l.Active:
			return NotPrepared
		default:
			return NotActive
		}
		return nil
	})
}

// DeactivateLayer takes the volume down and detaches the scratch disk.
func (m *Model) DeactivateLayer(path string) error {
	return m.call(Deactivate, path, "", func(l *layer, writable bool) error {
		switch {
		case l.Prepared:
			return errSharingViolation // Assumption: the filter holds the volume.
		case !writable:
			return nil // Assumption: a no-op, as ActivateLayer is.
		case !l.Active:
			return NotActive
		}
		l.Active = false
		return m.detach(path)
	})
}

// call makes one call. The journal has it from its beginning, so that one that
// fails or kills the process is in it as well.
func (m *Model) call(name Call, path, args string, effect func(l *layer, writable bool) error) error {
	if err := m.store.record(string(name) + " " + path + args); err != nil {
		return err
	}
	if m.Before != nil {
		if err := m.Before(name, path); err != nil {
			return err
		}
	}
	time.Sleep(m.Latency)
	err := m.store.update(key(path), func(l *layer) error {
		// HCS splits the path into the directory of all layers and the layer's
		// ID. With an empty ID it acts on the former.
		if path == "" || os.IsPathSeparator(path[len(path)-1]) {
			return errInvalidParameter
		}
		if !isDir(path) {
			return errPathNotFound // Assumption: and not 2, ERROR_FILE_NOT_FOUND.
		}
		l.Path = filepath.Clean(path)
		return effect(l, isWritable(path))
	})
	if code, ok := err.(syscall.Errno); ok {
		return &Error{Call: name, Layer: path, Code: code}
	}
	if err != nil {
		return err
	}
	if m.After != nil {
		return m.After(name, path)
	}
	return nil
}

// Reboot makes HCS forget all layers, whose volumes go. What is on disk stays.
func (m *Model) Reboot() error {
	layers, err := m.store.layers()
	for _, l := range layers {
		err = errors.Join(err, m.detach(l.Path))
	}
	return errors.Join(err, m.store.forgetLayers())
}

// attach makes the directory of a layer's volume appear, with what was in it.
func (m *Model) attach(path string) error {
	if m.volumes == "" {
		return nil
	}
	dir := m.volumeDir(path)
	err := os.Rename(dir+detached, dir)
	if errors.Is(err, os.ErrNotExist) { // the first time
		err = os.MkdirAll(dir, 0o777)
	}
	return err
}

// detach makes it go. It is not there for a read-only layer, nor in a process
// that was killed in here before.
func (m *Model) detach(path string) error {
	if m.volumes == "" {
		return nil
	}
	dir := m.volumeDir(path)
	err := os.Rename(dir, dir+detached)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// detached ends the name of the directory of a volume whose layer is not active,
// so that nothing leads to it.
const detached = ".detached"

// OpenLayers returns the layers that are active or prepared, sorted. It panics
// when it cannot read the state.
func (m *Model) OpenLayers() []string {
	layers, err := m.store.layers()
	if err != nil {
		panic(err)
	}
	var paths []string
	for _, l := range layers {
		paths = append(paths, l.Path)
	}
	sort.Strings(paths)
	return paths
}

// Calls returns the journal of all calls since the beginning or ResetCalls, such
// as `ActivateLayer C:\layers\2` and `PrepareLayer C:\layers\2 [C:\layers\1
// C:\layers\0]`. It panics when it cannot read the state.
func (m *Model) Calls() []string {
	calls, err := m.store.calls()
	if err != nil {
		panic(err)
	}
	return calls
}

// ResetCalls empties the journal. It panics when it cannot.
func (m *Model) ResetCalls() {
	if err := m.store.forgetCalls(); err != nil {
		panic(err)
	}
}

// volume returns the mount path of a writable layer.
func (m *Model) volume(path string) string {
	if runtime.GOOS == "windows" {
		return `\\?\` + volumeName(path)
	}
	return m.volumeDir(path)
}

// volumeDir returns the directory that stands for the volume.
func (m *Model) volumeDir(path string) string {
	name := volumeName(path)
	if runtime.GOOS == "windows" {
		name = strings.ToLower(name) // as Wine looks it up
	}
	return filepath.Join(m.volumes, name)
}

// volumeName returns a name that is the same at every activation, so that a test
// can put files there beforehand.
// Assumption: so is that of a scratch disk on Windows.
func volumeName(path string) string {
	sum := sha256.Sum256([]byte(key(path)))
	return fmt.Sprintf("Volume{%x-%x-%x-%x-%x}", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// key returns what is equal for all ways to write the path of a layer.
func key(path string) string {
	path = filepath.Clean(path)
	if runtime.GOOS == "windows" {
		return strings.ToLower(path)
	}
	return path
}

// isWritable tells whether the layer has a scratch disk.
func isWritable(layer string) bool {
	_, err := os.Stat(filepath.Join(layer, "sandbox.vhdx"))
	return err == nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
