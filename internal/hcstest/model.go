// Package hcstest is a model of the five layer calls of the Windows Host
// Compute Service (HCS) and of the three calls of the bind filter, for tests: of
// one process on any system (New), of several processes, which may be killed at
// any instant (Open), and as the simulated vmcompute.dll and bindfltapi.dll, which
// are built on Open.
//
// Where hosts differ, or nobody knows, a Personality decides. Elsewhere the model
// is strict: what real HCS tolerates or only sometimes refuses, it refuses always.
// Where a rule is not documented, it is marked "Assumption:".
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

// Call is the name of a call, as vmcompute.dll or bindfltapi.dll exports it.
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

// What UnprepareLayer is reported to give for a layer that is not prepared.
const (
	// NotActive is ERROR_DEV_NOT_EXIST, which UnprepareLayer gives for a layer
	// that is not active (containerd 1.6, sys/filesys_windows.go; containerd pull
	// request 5133).
	NotActive syscall.Errno = 0x37
	// NotPrepared is ERROR_FLT_INSTANCE_NOT_FOUND, which UnprepareLayer gives for
	// a layer that is active and not prepared (containerd pull request 5328).
	NotPrepared syscall.Errno = 0x801f0015
)

// Error is what a refused call returns.
type Error struct {
	Call  Call
	Layer string        // or the root of a binding, or the path whose bindings are asked for
	Code  syscall.Errno // a Windows code, on every system
}

// Error does not use the text of Code, which is that of another error anywhere
// but on Windows.
func (e *Error) Error() string {
	return fmt.Sprintf("%s %s: Windows error 0x%x", e.Call, e.Layer, uintptr(e.Code))
}

// Unwrap returns the Windows code.
func (e *Error) Unwrap() error { return e.Code }

// Model is one machine's HCS and bind filter. Its methods may be called from many
// goroutines; its fields are set before the first call.
type Model struct {
	// Latency is how long every call takes. No lock is held meanwhile.
	Latency time.Duration
	// Before is called before a call has any effect. An error of it is what the
	// call returns, and nothing happened.
	Before func(Call, string) error
	// After is called once the effect of a call is in place. An error of it is
	// what the call returns, and the effect holds.
	After func(Call, string) error
	// Personality decides where hosts differ.
	Personality Personality
	// CheckParents makes PrepareLayer refuse a parent that is no directory.
	CheckParents bool
	// Show makes Bind show the files to all Windows programs of a Wine prefix, and
	// not only keep account. It fails with ERROR_NOT_SUPPORTED (0x32) unless this
	// is one of them, on amd64, and Linux lets it mount.
	Show bool

	layers   table[layer]
	guids    table[guids]
	bindings table[binding]
	journal  journal
	volumes  string
	unites   bool // PrepareLayer shows what is in the parents: see unite
}

// layer is what HCS knows about a layer.
type layer struct {
	Path     string
	Active   bool   // which only a writable layer is
	Prepared bool   // which a read-only layer may be without being active
	Volume   string // the name of the volume that is there, or ""
	Late     int    // see Personality.VolumeLate: so many calls from now on
	Lingers  int    // see Personality.VolumeLingers: so many calls from now on

	// What stays when the layer is closed.
	Names  int    // how many names its volumes have had that no other may get
	United string // the parents whose files are in the volume
}

// open reports whether the layer is active or prepared.
func (l layer) open() bool { return l.Active || l.Prepared }

// unknown reports whether the layer is as one that was never open.
func (l layer) unknown() bool { return l == layer{Path: l.Path} }

// guids are the names of volumes that layers have given up; see Personality.GUIDReused.
type guids struct{ Free []string }

func (g guids) unknown() bool { return len(g.Free) == 0 }

// entry is what is known about one thing, such as a layer.
type entry interface {
	// unknown reports whether that is nothing.
	unknown() bool
}

// table holds what is known about all things of one kind, by their keys.
type table[T entry] interface {
	// update calls f with the entry, which nobody else can read or change
	// meanwhile. What f makes of it counts once f calls keep.
	update(key string, f func(e *T, keep func() error) error) error
	// each does that with every entry that is not unknown.
	each(f func(e *T, keep func() error) error) error
}

// journal holds all calls.
type journal interface {
	record(call string) error
	calls() ([]string, error)
	forgetCalls() error
}

// New returns a model in memory. The volumes of its layers are directories in the
// directory volumes, made when needed; with "" there are none. On Windows the
// mount paths lead to them only when Wine has its DOS devices there: it takes
// `\\?\Volume{GUID}` for the directory dosdevices/volume{guid} of its prefix.
// Its personality is Likely.
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

// Open returns the model whose state is in dir, which is made when needed. Every
// process that opens dir shares the state, and killing one at any instant leaves
// each call either done or not done. Before and After come preset to inject what
// SetFaults planned, and the personality is the one that SetPersonality set. The
// volumes are in dir as well, on Windows in the directory that the environment
// variable HCS_SIM_VOLUMES names; see New. The volume of a prepared layer shows the
// files of its parents.
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

// ActivateLayer attaches the scratch disk of a writable layer and brings up its
// volume.
func (m *Model) ActivateLayer(path string) error {
	return m.layerCall(Activate, path, "", func(l *layer, writable bool) (syscall.Errno, error) {
		if !writable {
			// hcsshim, doc of ActivateLayer: "a read-only layer is generally
			// expected to be a no-op".
			return 0, nil
		}
		if l.Active {
			// Seen in reports on containerd and moby: "The process cannot access
			// the file because it is being used by another process. (0x20)".
			return errSharingViolation, nil
		}
		l.Active = true
		l.Late, l.Lingers = m.Personality.VolumeLate, 0
		if l.Volume != "" && !m.Personality.NewVolume {
			return 0, nil // it lingers
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
		// hcsshim, doc of PrepareLayer: it finds "a mounted read-write layer", and
		// requires "the paths to all parent layers".
		// Assumption: without either it gives this code, and a read-only layer may
		// be prepared.
		if writable && (!l.Active || len(parents) == 0) {
			return errInvalidParameter, nil
		}
		for _, parent := range parents {
			if m.CheckParents && !isDir(parent) {
				return errPathNotFound, nil // Assumption: as for the layer itself.
			}
		}
		l.Prepared = true
		if l.Active && m.unites {
			return 0, m.unite(l, parents)
		}
		return 0, nil
	})
}

// GetLayerMountPath returns where a layer is: the volume of a writable one, the
// directory of a read-only one.
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
			// hcsshim, doc of GetLayerMountPath: "otherwise it is expected to be
			// the folder path at which the layer is stored".
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

// DeactivateLayer takes the volume down and detaches the scratch disk. Of what is not
// active, or no layer, it makes nothing and succeeds: winc and containerd's
// integration helpers fail at any error of it and call it in every state.
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

// layerCall makes one call about a layer. The effect returns a code, or 0.
func (m *Model) layerCall(name Call, path, args string, effect func(l *layer, writable bool) (syscall.Errno, error)) error {
	return m.call(name, path, args, func() (syscall.Errno, error) { return m.take(name, path, effect) })
}

// call makes one call. The journal has it from its beginning, so that one that
// fails or kills the process is in it as well. The effect returns a code, or 0.
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

// take lets a call take effect on a layer.
func (m *Model) take(name Call, path string, effect func(l *layer, writable bool) (syscall.Errno, error)) (code syscall.Errno, err error) {
	// HCS splits the path into the directory of all layers and the layer's ID.
	// With an empty ID it acts on the former.
	if path == "" || os.IsPathSeparator(path[len(path)-1]) {
		return errInvalidParameter, nil
	}
	err = m.layers.update(key(path), func(l *layer, keep func() error) error {
		l.Path = filepath.Clean(path)
		return m.change(l, keep, func() (err error) {
			if !isDir(path) && !m.needsNoDirectory(name, *l) {
				code = errPathNotFound // Assumption: and not 2, ERROR_FILE_NOT_FOUND.
				return nil
			}
			lingers := l.Lingers
			code, err = effect(l, m.isWritable(*l))
			if lingers > 0 && l.Lingers == lingers { // and was not activated
				if l.Lingers--; l.Lingers == 0 {
					l.Volume = ""
				}
			}
			return err
		})
	})
	return code, err
}

// needsNoDirectory reports whether a call does its work for a layer whose directory is
// not there.
func (m *Model) needsNoDirectory(name Call, l layer) bool {
	switch name {
	case Unprepare, Deactivate:
		return !m.Personality.GoneRefused
	case MountPath:
		return l.Volume != "" // which does not depend on it
	}
	return false
}

// isWritable reports whether a layer is, or was opened as, a writable one; see
// Personality.
func (m *Model) isWritable(l layer) bool {
	if l.open() || l.Volume != "" {
		return l.Volume != ""
	}
	_, err := os.Stat(filepath.Join(l.Path, "sandbox.vhdx"))
	return err == nil && (m.Personality.AttachesKeptDisk || !isDir(filepath.Join(l.Path, "Files")))
}

// change lets f change a layer, and makes its volume come and go with it. Where
// the volume does, it decides whether the change is done: a process that is killed
// in here leaves either all as it was, or a layer that has no volume and, at most,
// still says otherwise; whoever reads that next corrects it. A GUID is free only when
// no layer says that it has it: a kill before that leaves one that nobody gets.
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

// correct closes a layer whose volume is not there; see change.
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

// nameVolume gives the volume of a layer its name.
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

// freeGUID lets the next layer have the name of a volume that is gone.
func (m *Model) freeGUID(volume string) error {
	if !m.Personality.GUIDReused {
		return nil
	}
	return m.guids.update("", func(g *guids, keep func() error) error {
		g.Free = append(g.Free, volume)
		return keep()
	})
}

// Reboot makes HCS forget all layers, whose volumes go, and the bind filter all
// bindings. What is on disk stays.
func (m *Model) Reboot() error {
	err := m.bindings.each(func(b *binding, keep func() error) error { return b.drop(keep) })
	if err != nil {
		return err
	}
	return m.layers.each(func(l *layer, keep func() error) error {
		return m.change(l, keep, func() error { l.close(); return nil })
	})
}

// attach makes the directory of a layer's volume appear, with what was in it.
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

// detach makes it go.
func (m *Model) detach(l layer) error {
	if m.volumes == "" {
		return nil
	}
	return os.Rename(m.volumeDir(l), m.detachedDir(l))
}

// OpenLayers returns the layers that are active or prepared, sorted. It panics
// when it cannot read the state.
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

// Calls returns the journal of all calls since the beginning or ResetCalls, such
// as `ActivateLayer C:\layers\2` and `PrepareLayer C:\layers\2 [C:\layers\1
// C:\layers\0]`. It panics when it cannot read the state.
func (m *Model) Calls() []string {
	calls, err := m.journal.calls()
	if err != nil {
		panic(err)
	}
	return calls
}

// ResetCalls empties the journal. It panics when it cannot.
func (m *Model) ResetCalls() {
	if err := m.journal.forgetCalls(); err != nil {
		panic(err)
	}
}

// openPath returns what is named for a writable layer that is open.
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
		name = strings.ToLower(name) // as Wine looks it up
	}
	return filepath.Join(m.volumes, name)
}

// detachedDir returns the directory that holds what is in the volume while it is
// not there. Nothing leads to it, and it is the same whatever the volume's name was.
func (m *Model) detachedDir(l layer) string {
	l.Volume = volumeName(l.Path, 0) + ".detached"
	return m.volumeDir(l)
}

// volumeName returns the name of a layer's volume that has had n other ones which no
// layer may get any more. The first one depends on the path alone, so that a test can
// put files there beforehand.
func volumeName(path string, n int) string {
	id := key(path)
	if n > 0 {
		id += fmt.Sprintf(" %d", n)
	}
	sum := sha256.Sum256([]byte(id))
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

// isDir reports whether there is a directory at the path.
func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
