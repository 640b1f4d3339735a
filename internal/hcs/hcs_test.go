package hcs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// Windows codes that calls of the model fail with.
const (
	errAccessDenied     = syscall.Errno(0x5)
	errGenFailure       = syscall.Errno(0x1f)
	errInvalidParameter = syscall.Errno(0x57)
	errBusy             = syscall.Errno(0xaa)
)

// host is a machine with one layer, "2", and a model of HCS.
type host struct {
	Layers
	t      testing.TB
	model  *hcstest.Model
	dir    string
	pauses int
}

func newHost(t testing.TB) *host {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return newHostIn(t, dir, hcstest.Likely)
}

func newHostIn(t testing.TB, dir string, p hcstest.Personality) *host {
	t.Helper()
	h := &host{t: t, model: hcstest.New(volumesIn(t, dir)), dir: dir}
	h.model.Personality = p
	h.Calls = h.model
	h.Pause = func(ctx context.Context) error {
		h.pauses++
		return ctx.Err()
	}
	return h
}

// volumesIn is the directory of the volumes. On Windows only Wine finds them.
func volumesIn(t testing.TB, dir string) string {
	if runtime.GOOS != "windows" {
		return filepath.Join(dir, "volumes")
	}
	volumes := os.Getenv("HCS_SIM_VOLUMES")
	if volumes == "" {
		t.Skip("needs Wine, where a directory can be a volume: run scripts/wine test on Linux")
	}
	return volumes
}

// layer makes layer 2.
func (h *host) layer(disk Disk) *Layer { return h.layerNamed("2", disk) }

func (h *host) layerNamed(name string, disk Disk) *Layer {
	h.t.Helper()
	layer := &Layer{Dir: filepath.Join(h.dir, name), Disk: disk}
	if disk != OwnDisk {
		h.write(filepath.Join(layer.Dir, "Files", "hello.txt"))
		h.write(filepath.Join(layer.Dir, "Hives", "System_Base"))
	}
	if disk != NoDisk {
		h.write(filepath.Join(layer.Dir, "sandbox.vhdx"))
		layer.Parents = []string{`C:\layers\1`, `C:\layers\0`}
	}
	return layer
}

func (h *host) write(path string) {
	h.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, nil, 0o666)); err != nil {
		h.t.Fatal(err)
	}
}

// open opens a layer and forgets the calls that this took.
func (h *host) open(layer *Layer) *Layer {
	h.t.Helper()
	if mayBeOpen, err := h.Open(context.Background(), layer); err != nil || !mayBeOpen {
		h.t.Fatalf("Open: %v, %v", mayBeOpen, err)
	}
	h.model.ResetCalls()
	h.pauses = 0
	return layer
}

// mustClose closes a layer.
func (h *host) mustClose(layer *Layer) {
	h.t.Helper()
	if err := h.Close(layer); err != nil {
		h.t.Errorf("Close: %v", err)
	}
}

// openElsewhere opens a layer as other code does.
func (h *host) openElsewhere(layer *Layer) {
	h.t.Helper()
	if err := errors.Join(h.model.ActivateLayer(layer.Dir), h.model.PrepareLayer(layer.Dir, []string{`C:\layers\1`})); err != nil {
		h.t.Fatal(err)
	}
	h.model.ResetCalls()
}

// closeElsewhere closes a layer as other code does.
func (h *host) closeElsewhere(layer *Layer) {
	h.t.Helper()
	if err := errors.Join(h.model.UnprepareLayer(layer.Dir), h.model.DeactivateLayer(layer.Dir)); err != nil {
		h.t.Fatal(err)
	}
	h.model.ResetCalls()
}

// removeVolume takes a volume away, as if its disk had been detached, and returns what brings it back.
func (h *host) removeVolume(volume string) (putBack func() error) {
	h.t.Helper()
	dir := volume
	if runtime.GOOS == "windows" {
		dir = filepath.Join(volumesIn(h.t, h.dir), strings.ToLower(strings.TrimPrefix(volume, `\\?\`)))
	}
	if err := os.Rename(dir, dir+" aside"); err != nil {
		h.t.Fatal(err)
	}
	return func() error { return os.Rename(dir+" aside", dir) }
}

// wantOpen fails the test unless these layers are open and no others.
func (h *host) wantOpen(names ...string) {
	h.t.Helper()
	var want []string
	for _, name := range names {
		want = append(want, filepath.Join(h.dir, name))
	}
	if open := h.model.OpenLayers(); !slices.Equal(open, want) {
		h.t.Errorf("open layers: %q, want %q", open, want)
	}
}

// wantCalls fails the test unless HCS was called exactly so. The directory that the layers are in is left out.
func (h *host) wantCalls(want ...string) {
	h.t.Helper()
	got := strings.ReplaceAll(strings.Join(h.model.Calls(), "\n"), h.dir+string(filepath.Separator), "")
	if got != strings.Join(want, "\n") {
		h.t.Errorf("calls:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

// failNext makes the next calls of that name fail before they have an effect, with one code each.
func (h *host) failNext(name hcstest.Call, codes ...syscall.Errno) {
	h.model.Before = func(call hcstest.Call, layer string) error {
		if call != name || len(codes) == 0 {
			return nil
		}
		code := codes[0]
		codes = codes[1:]
		return &hcstest.Error{Call: call, Layer: layer, Code: code}
	}
}

// failing returns a function that makes every call of these names fail with code. As Before of a model it does
// so before the call has an effect, as After once it has had it.
func failing(code syscall.Errno, names ...hcstest.Call) func(hcstest.Call, string) error {
	return func(call hcstest.Call, layer string) error {
		if slices.Contains(names, call) {
			return &hcstest.Error{Call: call, Layer: layer, Code: code}
		}
		return nil
	}
}

// wantError fails the test unless err is there, contains text, and matches the targets.
func wantError(t testing.TB, err error, text string, targets ...error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want one with %q", err, text)
	}
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("error %v does not match %v", err, target)
		}
	}
}

func repeat(calls []string, times int) []string { return slices.Repeat(calls, times) }

var disks = []Disk{OwnDisk, NoDisk, KeptDisk}

func TestDiskOf_TellsWhichDiskALayerHas(t *testing.T) {
	for _, disk := range disks {
		if got := DiskOf(newHost(t).layer(disk).Dir); got != disk {
			t.Errorf("DiskOf: %q, want %q", got, disk)
		}
	}
	if got := DiskOf(filepath.Join(t.TempDir(), "absent")); got != NoDisk {
		t.Errorf("DiskOf an absent layer: %q", got)
	}
}

func TestIsLayer_KnowsALayerByItsFiles(t *testing.T) {
	for _, test := range []struct {
		names []string
		want  bool
	}{
		{[]string{"sandbox.vhdx"}, true},
		{[]string{"layerchain.json"}, true},
		{[]string{"Files", "Hives"}, true},
		{[]string{"Files"}, false},
		{[]string{"Hives"}, false},
		{[]string{"data"}, false},
		{nil, false},
	} {
		h := newHost(t)
		for _, name := range test.names {
			h.write(filepath.Join(h.dir, name))
		}
		if got := IsLayer(h.dir); got != test.want {
			t.Errorf("IsLayer of a directory with %q: %v", test.names, got)
		}
	}
}

func TestIsVolume_KnowsTheNamesOfVolumes(t *testing.T) {
	const guid = "{01234567-89ab-cdef-0123-456789abcdef}"
	for path, want := range map[string]bool{
		`\\?\Volume` + guid:            true,
		`\\?\Volume` + guid + `\`:      true,
		`\\?\volume` + guid + `\`:      true,
		`\\?\VOLUME` + guid:            true,
		`/volumes/Volume` + guid + `/`: true,
		`C:\Volume{x}y`:                false,
		`C:\Volume{x`:                  false,
		`C:\aVolume{x}`:                false,
		`C:\Volume{x}\Files`:           false,
		`C:\layers\2`:                  false,
		``:                             false,
	} {
		if got := IsVolume(path); got != want {
			t.Errorf("IsVolume(%q): %v", path, got)
		}
	}
}

func TestIsReachable_OnlyAbsenceCounts(t *testing.T) {
	h := newHost(t)
	layer := h.open(h.layer(OwnDisk))
	if !IsReachable(layer.Volume) {
		t.Errorf("the volume of an open layer, %s, is not reachable", layer.Volume)
	}
	h.mustClose(layer)
	if IsReachable(layer.Volume) {
		t.Errorf("the volume of a closed layer, %s, is reachable", layer.Volume)
	}
	if runtime.GOOS != "windows" { // where a file in a path is "path not found"
		h.write(filepath.Join(h.dir, "file"))
		if !IsReachable(filepath.Join(h.dir, "file", "volume")) {
			t.Error("what cannot be looked at (ENOTDIR) counts as absent")
		}
	}
}

func TestIsOpen_TellsWhetherALayerIsStillOpen(t *testing.T) {
	t.Run("open", func(t *testing.T) {
		for _, disk := range disks {
			for _, backslash := range []bool{false, true} {
				h := newHost(t)
				h.model.Personality.TrailingBackslash = backslash
				if is, err := h.IsOpen(h.open(h.layer(disk))); !is || err != nil {
					t.Errorf("IsOpen: %v, %v", is, err)
				}
			}
		}
	})
	t.Run("closed by other code", func(t *testing.T) {
		h := newHost(t)
		layer := h.open(h.layer(OwnDisk))
		h.closeElsewhere(layer)
		if is, err := h.IsOpen(layer); is || err != nil {
			t.Errorf("IsOpen: %v, %v", is, err)
		}
		h.wantCalls() // that the volume is gone tells
	})
	t.Run("closed and opened again by other code", func(t *testing.T) {
		h := newHost(t)
		h.model.Personality.NewVolume = true
		layer := h.open(h.layer(OwnDisk))
		h.closeElsewhere(layer)
		h.openElsewhere(layer)
		if is, err := h.IsOpen(layer); is || err != nil {
			t.Errorf("IsOpen: %v, %v", is, err)
		}
	})
	t.Run("out of reach for an instant", func(t *testing.T) {
		h := newHost(t)
		layer := h.open(h.layer(OwnDisk))
		putBack := h.removeVolume(layer.Volume)
		h.Pause = func(context.Context) error {
			if h.pauses++; h.pauses == 4 {
				return putBack()
			}
			return nil
		}
		if is, err := h.IsOpen(layer); !is || err != nil {
			t.Errorf("IsOpen: %v, %v", is, err)
		}
	})
	t.Run("HCS answers late", func(t *testing.T) {
		h := newHost(t)
		layer := h.open(h.layer(OwnDisk))
		h.failNext(hcstest.MountPath, errAccessDenied, errGenFailure, errNotReady, errBusy)
		if is, err := h.IsOpen(layer); !is || err != nil {
			t.Errorf("IsOpen: %v, %v", is, err)
		}
	})
	t.Run("HCS does not answer", func(t *testing.T) {
		h := newHost(t)
		layer := h.open(h.layer(OwnDisk))
		h.model.Before = failing(errAccessDenied, hcstest.MountPath)
		is, err := h.IsOpen(layer)
		wantError(t, err, "failed to get mount path of layer "+layer.Dir, errAccessDenied)
		if is {
			t.Error("a layer of which nothing tells is reported as open")
		}
	})
}

// guidReused returns a host where layer a was open. Then other code has closed a and opened layer b. The volume
// of b has got the GUID that the volume of a had.
func guidReused(t *testing.T, closedPath syscall.Errno) (h *host, a, b *Layer) {
	t.Helper()
	h = newHost(t)
	h.model.Personality.GUIDReused, h.model.Personality.ClosedPath = true, closedPath
	a, b = h.open(h.layerNamed("a", OwnDisk)), h.layerNamed("b", OwnDisk)
	h.closeElsewhere(a)
	h.openElsewhere(b)
	if path, err := h.mountPath(b.Dir); err != nil || path != a.Volume {
		t.Fatalf("layer b has the volume %s, %v", path, err)
	}
	h.model.ResetCalls()
	return h, a, b
}

// What GetLayerMountPath returns for a writable layer that is not active.
var closedPaths = []syscall.Errno{hcstest.NotActive, errNotReady, 0}

func TestIsOpen_NeverWhenAnotherLayerHasTheVolume(t *testing.T) {
	for _, closedPath := range closedPaths {
		h, a, _ := guidReused(t, closedPath)
		is, err := h.IsOpen(a)
		if is {
			t.Errorf("0x%x: the layer that was closed is reported as open", uintptr(closedPath))
		}
		// A code is no answer.
		if closedPath == 0 && err != nil || closedPath != 0 && !errors.Is(err, closedPath) {
			t.Errorf("0x%x: IsOpen: %v", uintptr(closedPath), err)
		}
	}
}
