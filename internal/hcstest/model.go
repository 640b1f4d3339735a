// Package hcstest is a model of the five layer calls of the Windows Host Compute Service (HCS) and of the three calls
// of the bind filter. It is for tests. New makes a model for the tests of one process, on any system. Open makes a
// model that several processes share, each of which may be killed at any time. The simulated vmcompute.dll and
// bindfltapi.dll use Open.
//
// If hosts differ in an answer, or if the answer is not known, a Personality decides. Otherwise the model is strict:
// it always refuses what real HCS tolerates or refuses only sometimes. Rules that are not documented are marked
// "Assumption:".
package hcstest

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

// Call is the name of a call: the name under which vmcompute.dll or bindfltapi.dll exports it.
type Call string

// The five calls of HCS.
const (
	Activate   Call = "ActivateLayer"
	Prepare    Call = "PrepareLayer"
	MountPath  Call = "GetLayerMountPath"
	Unprepare  Call = "UnprepareLayer"
	Deactivate Call = "DeactivateLayer"
)

// The three calls of the bind filter.
const (
	Bind     Call = "BfSetupFilter"
	Unbind   Call = "BfRemoveMapping"
	Bindings Call = "BfGetMappings"
)

// Windows error codes, by their names in winerror.h.
const (
	errFileNotFound     syscall.Errno = 0x2
	errPathNotFound     syscall.Errno = 0x3
	errNotReady         syscall.Errno = 0x15
	errSharingViolation syscall.Errno = 0x20
	errNotSupported     syscall.Errno = 0x32
	errInvalidParameter syscall.Errno = 0x57
	errDirectory        syscall.Errno = 0x10b
)

// Codes that UnprepareLayer is reported to return for a layer that is not prepared.
const (
	// NotActive is ERROR_DEV_NOT_EXIST. UnprepareLayer returns it for a layer that is not active (containerd 1.6,
	// sys/filesys_windows.go; containerd pull request 5133).
	NotActive syscall.Errno = 0x37
	// NotPrepared is ERROR_FLT_INSTANCE_NOT_FOUND. UnprepareLayer returns it for a layer that is active but not
	// prepared (containerd pull request 5328).
	NotPrepared syscall.Errno = 0x801f0015
)

// Error is the error of a call that the model refuses.
type Error struct {
	Call  Call
	Layer string        // or the root of a binding, or the path whose bindings the caller wants to list
	Code  syscall.Errno // a Windows code, on every system
}

// Error does not use the text of Code: on other systems the same number stands for another error.
func (e *Error) Error() string {
	return fmt.Sprintf("%s %s: Windows error 0x%x", e.Call, e.Layer, uintptr(e.Code))
}

// Unwrap returns the Windows code.
func (e *Error) Unwrap() error { return e.Code }

// Model is the HCS and the bind filter of one machine. Its methods may be called from many goroutines. Set its
// fields before the first call.
type Model struct {
	// Latency is the time that every call takes. The model holds no lock meanwhile.
	Latency time.Duration
	// Before is called before a call has any effect. If Before returns an error, the call returns that error and has
	// no effect.
	Before func(Call, string) error
	// After is called once a call has had its effect. If After returns an error, the call returns that error, and
	// its effect stays.
	After func(Call, string) error
	// Personality decides the answers in which hosts differ.
	Personality Personality
	// CheckParents makes PrepareLayer refuse a parent that is not a directory.
	CheckParents bool
	// Show makes Bind show the files of the source to all Windows programs in a Wine prefix. If Show is not set, Bind
	// only records the binding. With Show, Bind fails with ERROR_NOT_SUPPORTED (0x32) unless this program runs in
	// that Wine prefix, on amd64, and Linux allows it to mount.
	Show bool

	layers   table[layer]
	guids    table[guids]
	bindings table[binding]
	journal  journal
	volumes  string
	unites   bool // whether PrepareLayer copies the files of the parents into the volume: see unite
}

// layer is what HCS knows about a layer.
type layer struct {
	Path     string
	Active   bool   // only a writable layer can be active
	Prepared bool   // a read-only layer may be prepared without being active
	Volume   string // the name of the volume that exists, or ""
	Late     int    // for how many more calls the volume is late: see Personality.VolumeLate
	Lingers  int    // for how many more calls the volume lingers: see Personality.VolumeLingers

	// These fields keep their values when the layer is closed.
	Names  int    // how many names its volumes have had that no other volume may get
	United string // the parents whose files are in the volume
}

// open reports whether the layer is active or prepared.
func (l layer) open() bool { return l.Active || l.Prepared }

// unknown reports whether the layer is in the state of one that was never open.
func (l layer) unknown() bool { return l == layer{Path: l.Path} }

// guids has the names of volumes that layers no longer use; see Personality.GUIDReused.
type guids struct{ Free []string }

func (g guids) unknown() bool { return len(g.Free) == 0 }

// entry is the state of one thing, such as a layer.
type entry interface {
	// unknown reports whether nothing is known about the thing.
	unknown() bool
}

// table holds the entries of all things of one kind, by their keys.
type table[T entry] interface {
	// update calls f with the entry. Nobody else can read or change the entry meanwhile. The changes that f makes to
	// the entry are stored when f calls keep.
	update(key string, f func(e *T, keep func() error) error) error
	// each does the same with every entry that is not unknown.
	each(f func(e *T, keep func() error) error) error
}

// journal holds all calls.
type journal interface {
	record(call string) error
	calls() ([]string, error)
	forgetCalls() error
}

// New returns a model in memory. Its personality is Likely.
//
// The volumes of the model's layers are directories in the directory volumes. They are created when they are needed.
// If volumes is "", there are none. On Windows the mount paths lead to these directories only if volumes is the
// directory of the DOS devices of a Wine prefix: to Wine `\\?\Volume{GUID}` is the directory dosdevices/volume{guid}
// of the prefix.
func New(volumes string) *Model {
	return &Model{
		Personality: Likely,
		layers:      &memory[layer]{known: map[string]layer{}},
		guids:       &memory[guids]{known: map[string]guids{}},
		bindings:    &memory[binding]{known: map[string]binding{}},
		journal:     &memoryJournal{},
		volumes:     volumes,
	}
}

// Open returns the model whose state is in dir. If dir does not exist, Open creates it. All processes that open dir
// share the state. If a process is killed at any time, each of its calls is either done or not done.
//
// Open sets Before and After so that they inject the faults that SetFaults has planned, and sets the personality to
// the one that SetPersonality has set. The volumes are in dir as well; on Windows they are in the directory that the
// environment variable HCS_SIM_VOLUMES names (see New). The volume of a prepared layer shows the files of its
// parents.
func Open(dir string) (*Model, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	personality, err := personality(dir)
	if err != nil {
		return nil, err
	}
	volumes := filepath.Join(dir, "volumes")
	if runtime.GOOS == "windows" {
		volumes = os.Getenv("HCS_SIM_VOLUMES")
	}
	faults := faults{dir}
	return &Model{
		Personality: personality,
		Before:      faults.before,
		After:       faults.after,
		layers:      files[layer]{dir, ".layer"},
		guids:       file[guids]{filepath.Join(dir, "guids")},
		bindings:    file[binding]{filepath.Join(dir, "bindings")},
		journal:     fileJournal{dir},
		volumes:     volumes,
		unites:      true,
	}, nil
}

// ActivateLayer attaches the scratch disk of a writable layer and brings up its volume.
func (m *Model) ActivateLayer(path string) error {
	return m.layerCall(Activate, path, "", func(l *layer, writable bool) (syscall.Errno, error) {
		if !writable {
			// hcsshim, doc of ActivateLayer: "a read-only layer is generally
			// expected to be a no-op".
			return 0, nil
		}
		if l.Active {
			// Reports on containerd and moby quote this code: "The process cannot access the file because it is
			// being used by another process. (0x20)".
			return errSharingViolation, nil
		}
		l.Active = true
		l.Late, l.Lingers = m.Personality.VolumeLate, 0
		if l.Volume != "" && !m.Personality.NewVolume {
			return 0, nil // the volume of the last activation lingers: keep it
		}
		return 0, m.nameVolume(l)
	})
}

// PrepareLayer attaches the union filter over the parents, nearest first.
func (m *Model) PrepareLayer(path string, parents []string) error {
	args := " [" + strings.Join(parents, " ") + "]"
	return m.layerCall(Prepare, path, args, func(l *layer, writable bool) (syscall.Errno, error) {
		if l.Prepared {
			return m.Personality.PreparedTwice, nil
		}
		// hcsshim, doc of PrepareLayer: it finds "a mounted read-write layer", and requires "the paths to all parent
		// layers".
		// Assumption: if the layer is not active, or there are no parents, it returns this code. A read-only layer
		// may be prepared.
		if writable && (!l.Active || len(parents) == 0) {
			return errInvalidParameter, nil
		}
		for _, parent := range parents {
			if m.CheckParents && !isDir(parent) {
				return errPathNotFound, nil // Assumption: the code is the same as for the layer itself.
			}
		}
		l.Prepared = true
		if l.Active && m.unites {
			return 0, m.unite(l, parents)
		}
		return 0, nil
	})
}

// GetLayerMountPath returns the volume of a writable layer, or the directory of a read-only layer.
func (m *Model) GetLayerMountPath(path string) (string, error) {
	var result string
	err := m.layerCall(MountPath, path, "", func(l *layer, writable bool) (syscall.Errno, error) {
		late := l.Late > 0
		if late {
			l.Late--
		}
		switch {
		case writable && late && m.Personality.ClosedPath != 0:
			return errNotReady, nil
		case writable && (late || l.Volume == ""):
			return m.Personality.ClosedPath, nil
		case writable:
			result = m.openPath(*l)
		default:
			// hcsshim, doc of GetLayerMountPath: "otherwise it is expected to be the folder path at which the
			// layer is stored".
			result = path
		}
		return 0, nil
	})
	if err != nil {
		return "", err
	}
	return result, nil
}

// UnprepareLayer detaches the union filter.
func (m *Model) UnprepareLayer(path string) error {
	return m.layerCall(Unprepare, path, "", func(l *layer, _ bool) (syscall.Errno, error) {
		switch {
		case l.Prepared:
			l.Prepared = false
		case l.Active:
			return m.Personality.UnprepareActive, nil
		default:
			return m.Personality.UnprepareClosed, nil
		}
		return 0, nil
	})
}

// DeactivateLayer takes the volume down and detaches the scratch disk. If path is a layer that is not active, or is
// not a layer, DeactivateLayer does nothing and succeeds: winc and containerd's integration helpers call it in every
// state, and fail if it returns an error.
func (m *Model) DeactivateLayer(path string) error {
	return m.layerCall(Deactivate, path, "", func(l *layer, writable bool) (syscall.Errno, error) {
		switch {
		case !l.open():
			return 0, nil
		case !writable:
			l.Prepared = l.Prepared && !m.Personality.DetachReadOnly
			return 0, nil
		case l.Prepared && m.Personality.DeactivatePrepared != Detaches:
			switch m.Personality.DeactivatePrepared {
			case Refuses:
				return errSharingViolation, nil
			case Ignores:
				return 0, nil
			}
			panic("no such DeactivatePrepared: " + m.Personality.DeactivatePrepared)
		}
		l.Active, l.Prepared = false, false
		l.Late, l.Lingers = 0, m.Personality.VolumeLingers
		if l.Lingers == 0 {
			l.Volume = ""
		}
		return 0, nil
	})
}

// layerCall makes one call for a layer. The function effect returns a Windows code, or 0.
func (m *Model) layerCall(name Call, path, args string, effect func(l *layer, writable bool) (syscall.Errno, error)) error {
	return m.call(name, path, args, func() (syscall.Errno, error) { return m.take(name, path, effect) })
}

// call makes one call. It writes the call to the journal first, so that the journal also has calls that fail or in
// which the process is killed. The function effect returns a Windows code, or 0.
func (m *Model) call(name Call, path, args string, effect func() (syscall.Errno, error)) error {
	if err := m.journal.record(string(name) + " " + path + args); err != nil {
		return err
	}
	if m.Before != nil {
		if err := m.Before(name, path); err != nil {
			return err
		}
	}
	time.Sleep(m.Latency)
	code, err := effect()
	if err != nil {
		return err
	}
	if code != 0 {
		return &Error{Call: name, Layer: path, Code: code}
	}
	if m.After != nil {
		return m.After(name, path)
	}
	return nil
}

// take applies the effect of a call to a layer.
func (m *Model) take(name Call, path string, effect func(l *layer, writable bool) (syscall.Errno, error)) (code syscall.Errno, err error) {
	// HCS splits the path into the directory of all layers and the layer's ID. If the ID is empty, HCS acts on the
	// directory of all layers.
	if path == "" || os.IsPathSeparator(path[len(path)-1]) {
		return errInvalidParameter, nil
	}
	err = m.layers.update(key(path), func(l *layer, keep func() error) error {
		l.Path = filepath.Clean(path)
		return m.change(l, keep, func() (err error) {
			if !isDir(path) && !m.needsNoDirectory(name, *l) {
				code = errPathNotFound // Assumption: it is this code, and not 2, ERROR_FILE_NOT_FOUND.
				return nil
			}
			lingers := l.Lingers
			code, err = effect(l, m.isWritable(*l))
			if lingers > 0 && l.Lingers == lingers { // the call has not activated the layer
				if l.Lingers--; l.Lingers == 0 {
					l.Volume = ""
				}
			}
			return err
		})
	})
	return code, err
}

// needsNoDirectory reports whether a call works for a layer whose directory does not exist.
func (m *Model) needsNoDirectory(name Call, l layer) bool {
	switch name {
	case Unprepare, Deactivate:
		return !m.Personality.GoneRefused
	case MountPath:
		return l.Volume != "" // the volume does not depend on the directory
	}
	return false
}

// isWritable reports whether a layer is writable. For an open layer it reports whether the layer was writable when it
// was opened. See Personality.
func (m *Model) isWritable(l layer) bool {
	if l.open() || l.Volume != "" {
		return l.Volume != ""
	}
	_, err := os.Stat(filepath.Join(l.Path, "sandbox.vhdx"))
	return err == nil && (m.Personality.AttachesKeptDisk || !isDir(filepath.Join(l.Path, "Files")))
}

// change calls f to change a layer, and creates or removes the layer's volume to match.
//
// If the volume comes or goes, the volume decides whether the change is done. If the process is killed in here,
// either nothing has changed, or the volume is gone and the entry of the layer may still name it. In the second case
// the next reader corrects the entry. change frees a GUID only after the entry of the layer has given it up: if the
// process is killed in between, no layer gets the GUID any more.
func (m *Model) change(l *layer, keep func() error, f func() error) error {
	m.correct(l)
	before := *l
	if err := f(); err != nil || *l == before {
		return err
	}
	if before.Volume != "" && l.Volume != before.Volume {
		if err := m.detach(before); err != nil {
			return err
		}
	}
	if err := keep(); err != nil || l.Volume == before.Volume {
		return err
	}
	if before.Volume != "" {
		if err := m.freeGUID(before.Volume); err != nil {
			return err
		}
	}
	if l.Volume != "" {
		return m.attach(*l)
	}
	return nil
}

// correct closes a layer whose volume does not exist; see change.
func (m *Model) correct(l *layer) {
	if m.volumes == "" || l.Volume == "" {
		return
	}
	if _, err := os.Stat(m.volumeDir(*l)); errors.Is(err, os.ErrNotExist) {
		l.close()
	}
}

// close makes HCS forget the layer.
func (l *layer) close() { *l = layer{Path: l.Path, Names: l.Names, United: l.United} }

// nameVolume sets the name of a layer's volume.
func (m *Model) nameVolume(l *layer) error {
	l.Volume = ""
	if m.Personality.GUIDReused {
		err := m.guids.update("", func(g *guids, keep func() error) error {
			if len(g.Free) == 0 {
				return nil
			}
			last := len(g.Free) - 1
			l.Volume, g.Free = g.Free[last], g.Free[:last]
			return keep()
		})
		if err != nil || l.Volume != "" {
			return err
		}
	}
	l.Volume = volumeName(l.Path, l.Names)
	if m.Personality.GUIDReused || m.Personality.NewVolume {
		l.Names++
	}
	return nil
}

// freeGUID makes the name of a volume that is gone available to the next layer.
func (m *Model) freeGUID(volume string) error {
	if !m.Personality.GUIDReused {
		return nil
	}
	return m.guids.update("", func(g *guids, keep func() error) error {
		g.Free = append(g.Free, volume)
		return keep()
	})
}

// Reboot makes HCS forget all layers, and makes the bind filter forget all bindings. The volumes of the layers
// disappear. All files on disk stay.
func (m *Model) Reboot() error {
	err := m.bindings.each(func(b *binding, keep func() error) error { return b.drop(keep) })
	if err != nil {
		return err
	}
	return m.layers.each(func(l *layer, keep func() error) error {
		return m.change(l, keep, func() error { l.close(); return nil })
	})
}

// attach makes the directory of a layer's volume appear, with its previous content.
func (m *Model) attach(l layer) error {
	if m.volumes == "" {
		return nil
	}
	err := os.Rename(m.detachedDir(l), m.volumeDir(l))
	if errors.Is(err, os.ErrNotExist) { // the first time
		err = os.MkdirAll(m.volumeDir(l), 0o777)
	}
	return err
}

// detach makes the directory of a layer's volume disappear.
func (m *Model) detach(l layer) error {
	if m.volumes == "" {
		return nil
	}
	return os.Rename(m.volumeDir(l), m.detachedDir(l))
}

// OpenLayers returns the layers that are active or prepared, sorted. It panics if it cannot read the state.
func (m *Model) OpenLayers() []string {
	var paths []string
	err := m.layers.each(func(l *layer, _ func() error) error {
		if m.correct(l); l.open() {
			paths = append(paths, l.Path)
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
	sort.Strings(paths)
	return paths
}

// Calls returns the journal. It has all calls since the beginning or the last ResetCalls, such as
// `ActivateLayer C:\layers\2` and `PrepareLayer C:\layers\2 [C:\layers\1 C:\layers\0]`. Calls panics if it cannot
// read the state.
func (m *Model) Calls() []string {
	calls, err := m.journal.calls()
	if err != nil {
		panic(err)
	}
	return calls
}

// ResetCalls empties the journal. It panics if it cannot.
func (m *Model) ResetCalls() {
	if err := m.journal.forgetCalls(); err != nil {
		panic(err)
	}
}

// openPath returns the mount path of a writable layer that is open.
func (m *Model) openPath(l layer) string {
	switch m.Personality.OpenPath {
	case OpenPathEmpty:
		return ""
	case OpenPathDirectory:
		return l.Path
	}
	path := m.volumeDir(l)
	if runtime.GOOS == "windows" {
		path = `\\?\` + l.Volume
	}
	if m.Personality.TrailingBackslash {
		path += string(filepath.Separator)
	}
	return path
}

// volumeDir returns the directory that stands for the volume.
func (m *Model) volumeDir(l layer) string {
	name := l.Volume
	if runtime.GOOS == "windows" {
		name = strings.ToLower(name) // Wine looks it up in lower case
	}
	return filepath.Join(m.volumes, name)
}

// detachedDir returns the directory that holds the content of the volume while the volume is detached. No mount path
// leads to it. It does not depend on the name that the volume had.
func (m *Model) detachedDir(l layer) string {
	l.Volume = volumeName(l.Path, 0) + ".detached"
	return m.volumeDir(l)
}

// volumeName returns the name of a layer's volume, if its volumes have already had n names that no layer may get any
// more. If n is 0, the name depends on the path alone, so that a test can put files there before the layer is opened.
func volumeName(path string, n int) string {
	id := key(path)
	if n > 0 {
		id += fmt.Sprintf(" %d", n)
	}
	sum := sha256.Sum256([]byte(id))
	return fmt.Sprintf("Volume{%x-%x-%x-%x-%x}", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// key returns the same text for all spellings of a layer's path.
func key(path string) string {
	path = filepath.Clean(path)
	if runtime.GOOS == "windows" {
		return strings.ToLower(path)
	}
	return path
}

// isDir reports whether there is a directory at the path.
func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
