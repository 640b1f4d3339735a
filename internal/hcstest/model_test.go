package hcstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestMain makes this binary the process that gets killed: with HCSTEST_MAKE in
// the environment it makes those calls and exits.
func TestMain(m *testing.M) {
	dir := os.Getenv("HCSTEST_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	KeepFiles()
	model, err := Open(dir)
	if err != nil {
		panic(err)
	}
	for _, call := range strings.Fields(os.Getenv("HCSTEST_MAKE")) {
		if err := do(model, Call(call), os.Getenv("HCSTEST_LAYER")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	os.Exit(0)
}

// do makes a call; layers have one parent, the directory they are in, and that is
// what is bound to one.
func do(m *Model, call Call, layer string) error {
	switch call {
	case Bind:
		return m.Bind(layer, filepath.Dir(layer), false)
	case Unbind:
		return m.Unbind(layer)
	case Bindings:
		_, err := m.Bindings(layer)
		return err
	case Activate:
		return m.ActivateLayer(layer)
	case Prepare:
		return m.PrepareLayer(layer, []string{filepath.Dir(layer)})
	case MountPath:
		_, err := m.GetLayerMountPath(layer)
		return err
	case Unprepare:
		return m.UnprepareLayer(layer)
	case Deactivate:
		return m.DeactivateLayer(layer)
	}
	panic("no such call: " + call)
}

func makeLayer(t testing.TB, writable bool) string {
	layer := filepath.Join(t.TempDir(), "1")
	if err := os.Mkdir(layer, 0o777); err != nil {
		t.Fatal(err)
	}
	if writable {
		if err := os.WriteFile(filepath.Join(layer, "sandbox.vhdx"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return layer
}

// both runs a test on the two kinds of models.
func both(t *testing.T, test func(*testing.T, *Model)) {
	run := func(t *testing.T, m *Model) {
		t.Cleanup(func() { // Wine does not see a link that leads nowhere, so T.TempDir could not be removed
			for _, b := range m.Bound() {
				unlinkStream(b.Root)
			}
		})
		test(t, m)
	}
	t.Run("in memory", func(t *testing.T) { run(t, New(t.TempDir())) })
	t.Run("in files", func(t *testing.T) {
		m, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		run(t, m)
	})
}

// must makes calls that have to succeed.
func must(t *testing.T, m *Model, layer string, calls ...Call) {
	t.Helper()
	for _, call := range calls {
		if err := do(m, call, layer); err != nil {
			t.Fatal(err)
		}
	}
}

// wantCode fails the test unless the call fails with the code, or succeeds if that
// is 0.
func wantCode(t *testing.T, m *Model, layer string, call Call, code syscall.Errno) {
	t.Helper()
	if err := do(m, call, layer); code == 0 && err != nil || code != 0 && !errors.Is(err, code) {
		t.Errorf("%s = %v, want code 0x%x", call, err, uintptr(code))
	}
}

// wantPath fails the test unless GetLayerMountPath gives that.
func wantPath(t *testing.T, m *Model, layer, want string) {
	t.Helper()
	if got, err := m.GetLayerMountPath(layer); got != want || err != nil {
		t.Errorf("GetLayerMountPath = %q, %v, want %q", got, err, want)
	}
}

// wantOpen fails the test unless OpenLayers returns just this layer, or no layer.
func wantOpen(t *testing.T, m *Model, layer string, open bool) {
	t.Helper()
	var want []string
	if open {
		want = []string{layer}
	}
	if got := m.OpenLayers(); !reflect.DeepEqual(got, want) {
		t.Errorf("open layers %q, want %q", got, want)
	}
}

// wantVolume fails the test unless the volume of a layer, by its name number n, is, or
// is not, there.
func wantVolume(t *testing.T, m *Model, layer string, n int, there bool) {
	t.Helper()
	if m.volumes != "" && isDir(volumeOf(m, layer, n)) != there {
		t.Errorf("that volume %d is there is not %v", n, there)
	}
}

func volumeOf(m *Model, path string, n int) string {
	return m.volumeDir(layer{Path: path, Volume: volumeName(path, n)})
}

func TestModel_AnswersEveryCallInEveryState(t *testing.T) {
	for _, p := range testedPersonalities() {
		t.Run(p.Name, func(t *testing.T) {
			both(t, func(t *testing.T, m *Model) {
				m.Personality = p
				testCallsInAnyState(t, m)
			})
		})
	}
}

// testedPersonalities returns those under which calls are made in all states.
func testedPersonalities() []Personality {
	if runtime.GOOS == "windows" {
		return Personalities[:1] // the rest is the same everywhere, and slow under Wine
	}
	return Personalities
}

func testCallsInAnyState(t *testing.T, m *Model) {
	p := m.Personality
	var deactivatePrepared syscall.Errno
	if p.DeactivatePrepared == Refuses {
		deactivatePrepared = 0x20
	}
	for _, test := range []struct {
		name     string
		readOnly bool
		done     []Call
		call     Call
		code     syscall.Errno
		open     bool // after it all
	}{
		{"a closed layer can be activated", false, nil, Activate, 0, true},
		{"an active layer cannot be activated", false, []Call{Activate}, Activate, 0x20, true},
		{"a closed layer cannot be prepared", false, nil, Prepare, 0x57, false},
		{"an active layer can be prepared", false, []Call{Activate}, Prepare, 0, true},
		{"a prepared layer cannot be prepared", false, []Call{Activate, Prepare}, Prepare, p.PreparedTwice, true},
		{"a prepared layer can be unprepared", false, []Call{Activate, Prepare}, Unprepare, 0, true},
		{"an active layer can be deactivated", false, []Call{Activate}, Deactivate, 0, false},
		{"a layer that was prepared can be deactivated", false, []Call{Activate, Prepare, Unprepare}, Deactivate, 0, false},
		{"a layer that was closed can be opened again", false,
			[]Call{Activate, Prepare, Unprepare, Deactivate, Activate}, Prepare, 0, true},
		{"the mount path of a closed layer", false, nil, MountPath, p.ClosedPath, false},
		{"a closed layer is unprepared", false, nil, Unprepare, p.UnprepareClosed, false},
		{"an active layer is unprepared", false, []Call{Activate}, Unprepare, p.UnprepareActive, true},
		{"a closed layer is deactivated", false, nil, Deactivate, 0, false},
		{"a prepared layer is deactivated", false, []Call{Activate, Prepare}, Deactivate, deactivatePrepared, p.DeactivatePrepared != Detaches},
		{"a read-only layer can be activated twice", true, []Call{Activate}, Activate, 0, false},
		{"a read-only layer has a mount path at any time", true, nil, MountPath, 0, false},
		{"a read-only layer can be prepared", true, nil, Prepare, 0, true},
		{"a read-only layer cannot be prepared twice", true, []Call{Prepare}, Prepare, p.PreparedTwice, true},
		{"a read-only layer can be unprepared", true, []Call{Prepare}, Unprepare, 0, false},
		{"a read-only layer that is not prepared is unprepared", true, []Call{Activate}, Unprepare, p.UnprepareClosed, false},
		{"a read-only layer that is not prepared is deactivated", true, []Call{Activate}, Deactivate, 0, false},
		{"a read-only layer that is prepared is deactivated", true, []Call{Prepare}, Deactivate, 0, !p.DetachReadOnly},
	} {
		layer := makeLayer(t, !test.readOnly)
		t.Run(test.name, func(t *testing.T) {
			must(t, m, layer, test.done...)
			wantCode(t, m, layer, test.call, test.code)
			wantOpen(t, m, layer, test.open)
			if err := m.Reboot(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// makeCommitted makes a layer that was committed and has kept its scratch disk.
func makeCommitted(t *testing.T) string {
	layer := makeLayer(t, true)
	if err := os.Mkdir(filepath.Join(layer, "Files"), 0o777); err != nil {
		t.Fatal(err)
	}
	return layer
}

func TestModel_ACommittedLayerIsReadOnly(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer := makeCommitted(t)
		must(t, m, layer, Activate, Activate)
		wantOpen(t, m, layer, false)
		wantPath(t, m, layer, layer)
	})
}

func TestPersonality_AttachesKeptDiskMakesACommittedLayerWritable(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.AttachesKeptDisk = true
		layer, readOnly := makeCommitted(t), makeLayer(t, false)
		wantCode(t, m, layer, MountPath, m.Personality.ClosedPath)
		must(t, m, layer, Activate)
		wantCode(t, m, layer, Activate, errSharingViolation)
		wantVolume(t, m, layer, 0, true)
		must(t, m, layer, Prepare, Deactivate)
		wantVolume(t, m, layer, 0, false)
		wantPath(t, m, readOnly, readOnly)
	})
}

func TestModel_ALayerStaysWhatItWasOpenedAs(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer, readOnly := makeLayer(t, true), makeLayer(t, false)
		must(t, m, layer, Activate)
		must(t, m, readOnly, Prepare)
		if err := errors.Join(os.Remove(filepath.Join(layer, "sandbox.vhdx")),
			os.WriteFile(filepath.Join(readOnly, "sandbox.vhdx"), nil, 0o666)); err != nil {
			t.Fatal(err)
		}
		wantPath(t, m, readOnly, readOnly)
		wantCode(t, m, layer, Activate, errSharingViolation)
		must(t, m, layer, Prepare, Unprepare, Deactivate)
		wantVolume(t, m, layer, 0, false)
		must(t, m, layer, Activate) // now it is read-only
		wantVolume(t, m, layer, 0, false)
	})
}

func TestModel_ALayerWhoseDirectoryIsGoneCanBeClosed(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		for _, prepared := range []bool{true, false} {
			layer := makeLayer(t, true)
			must(t, m, layer, Activate, MountPath)
			if prepared {
				must(t, m, layer, Prepare)
			}
			volume, err := m.GetLayerMountPath(layer)
			if err := errors.Join(err, os.RemoveAll(layer)); err != nil {
				t.Fatal(err)
			}
			wantCode(t, m, layer, Activate, errPathNotFound)
			wantCode(t, m, layer, Prepare, errPathNotFound)
			wantPath(t, m, layer, volume)
			if prepared {
				must(t, m, layer, Unprepare)
			}
			wantCode(t, m, layer, Unprepare, m.Personality.UnprepareActive)
			must(t, m, layer, Deactivate)
			wantVolume(t, m, layer, 0, false)
			wantOpen(t, m, layer, false)
			wantCode(t, m, layer, MountPath, errPathNotFound)
			wantCode(t, m, layer, Unprepare, m.Personality.UnprepareClosed)
			must(t, m, layer, Deactivate)
		}
	})
}

func TestPersonality_GoneRefusedKeepsALayerOpen(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.GoneRefused = true
		layer := makeLayer(t, true)
		must(t, m, layer, Activate, Prepare)
		if err := os.RemoveAll(layer); err != nil {
			t.Fatal(err)
		}
		for _, call := range []Call{Unprepare, Deactivate} {
			wantCode(t, m, layer, call, errPathNotFound)
			wantCode(t, m, filepath.Join(layer, "absent"), call, errPathNotFound)
		}
		wantOpen(t, m, layer, true)
		wantVolume(t, m, layer, 0, true)
		must(t, m, layer, MountPath)
		if err := os.Mkdir(layer, 0o777); err != nil {
			t.Fatal(err)
		}
		must(t, m, layer, Unprepare, Deactivate)
		wantVolume(t, m, layer, 0, false)
	})
}

func TestModel_AClosedLayerAnswersAsIfNeverOpen(t *testing.T) {
	for _, p := range Personalities {
		t.Run(p.Name, func(t *testing.T) {
			both(t, func(t *testing.T, m *Model) {
				m.Personality = p
				layer := makeLayer(t, true)
				must(t, m, layer, Activate, Prepare, Unprepare, Deactivate)
				wantCode(t, m, layer, Unprepare, p.UnprepareClosed)
				wantCode(t, m, layer, Deactivate, 0)
				wantOpen(t, m, layer, false)
			})
		})
	}
}

func TestPersonality_IgnoringDeactivateKeepsALayerPrepared(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.DeactivatePrepared = Ignores
		layer := makeLayer(t, true)
		must(t, m, layer, Activate, Prepare, Deactivate)
		wantCode(t, m, layer, Prepare, m.Personality.PreparedTwice)
		wantVolume(t, m, layer, 0, true)
		must(t, m, layer, Unprepare, Deactivate)
		wantVolume(t, m, layer, 0, false)
	})
}

func TestPersonality_ClosedPathIsTheAnswerForAClosedLayer(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer := makeLayer(t, true)
		wantCode(t, m, layer, MountPath, NotActive)
		m.Personality.ClosedPath = errNotReady
		wantCode(t, m, layer, MountPath, errNotReady)
		m.Personality.ClosedPath = 0
		wantPath(t, m, layer, "")
	})
}

func TestPersonality_OpenPathIsTheAnswerForAnActiveWritableLayer(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		readOnly, writable := makeLayer(t, false), makeLayer(t, true)
		for path, want := range map[OpenPath]string{OpenPathEmpty: "", OpenPathDirectory: writable} {
			m.Personality.OpenPath = path
			wantPath(t, m, readOnly, readOnly)
			wantCode(t, m, writable, MountPath, NotActive)
			must(t, m, writable, Activate)
			wantPath(t, m, writable, want)
			wantVolume(t, m, writable, 0, true)
			must(t, m, writable, Deactivate)
		}
	})
}

func TestPersonality_TrailingBackslashIsAddedToVolumesOnly(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		readOnly, writable := makeLayer(t, false), makeLayer(t, true)
		must(t, m, writable, Activate)
		volume, err := m.GetLayerMountPath(writable)
		if err != nil {
			t.Fatal(err)
		}
		m.Personality.TrailingBackslash = true
		wantPath(t, m, writable, volume+string(filepath.Separator))
		wantPath(t, m, readOnly, readOnly)
	})
}

func TestModel_ALateVolumeIsNotNamedAtFirst(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.VolumeLate = 2
		layer := makeLayer(t, true)
		for range 2 { // at each activation
			must(t, m, layer, Activate)
			wantVolume(t, m, layer, 0, true)
			wantCode(t, m, layer, MountPath, errNotReady)
			must(t, m, layer, Prepare, Unprepare) // do not count
			wantCode(t, m, layer, MountPath, errNotReady)
			must(t, m, layer, MountPath, MountPath, Deactivate)
		}
		m.Personality.VolumeLingers = 1
		must(t, m, layer, Activate, Deactivate, MountPath) // one that lingers is not late
	})
}

func TestModel_ALingeringVolumeIsNamedForThatManyCalls(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.VolumeLingers = 3
		layer, other := makeLayer(t, true), makeLayer(t, true)
		must(t, m, layer, Activate)
		volume, err := m.GetLayerMountPath(layer)
		if err != nil {
			t.Fatal(err)
		}
		must(t, m, layer, Prepare, Deactivate)
		wantOpen(t, m, layer, false)
		wantCode(t, m, layer, Unprepare, NotActive) // one that is refused counts
		must(t, m, layer, Deactivate)
		must(t, m, other, Deactivate, Deactivate) // do not count
		m.Before = func(Call, string) error { return errNotReady }
		wantCode(t, m, layer, Deactivate, errNotReady) // nor does this
		m.Before = nil
		wantVolume(t, m, layer, 0, true)
		wantPath(t, m, layer, volume)
		wantVolume(t, m, layer, 0, false)
		wantCode(t, m, layer, MountPath, NotActive)
		wantOpen(t, m, layer, false)
	})
}

func TestModel_ALayerWhoseVolumeLingersCanBeOpenedAgain(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.VolumeLingers = 2
		layer := makeLayer(t, true)
		must(t, m, layer, Activate, Deactivate, Deactivate)
		wantCode(t, m, layer, Activate, 0)
		must(t, m, layer, MountPath, MountPath, MountPath) // no longer lingers
		wantOpen(t, m, layer, true)
		wantVolume(t, m, layer, 0, true)
		must(t, m, layer, Deactivate, Deactivate)
		wantVolume(t, m, layer, 0, true)
		must(t, m, layer, Deactivate)
		wantVolume(t, m, layer, 0, false)
	})
}

func TestModel_ANewVolumeHasAnotherGUIDAndTheSameFiles(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.NewVolume = true
		layer := makeLayer(t, true)
		seen := map[string]bool{}
		for n := range 4 {
			must(t, m, layer, Activate)
			path, err := m.GetLayerMountPath(layer)
			if err != nil {
				t.Fatal(err)
			}
			if seen[path] {
				t.Errorf("%s again", path)
			}
			seen[path] = true
			wantVolume(t, m, layer, n, true)
			if m.volumes != "" {
				file := filepath.Join(volumeOf(m, layer, n), "file")
				if data, err := os.ReadFile(file); n > 0 && (string(data) != "data" || err != nil) {
					t.Errorf("the file holds %q, %v", data, err)
				}
				if err := os.WriteFile(file, []byte("data"), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			if n == 1 { // it goes on after a restart
				if err := m.Reboot(); err != nil {
					t.Fatal(err)
				}
			} else {
				must(t, m, layer, Deactivate)
			}
			wantVolume(t, m, layer, n, false)
		}
	})
}

func TestModel_ANewVolumeReplacesOneThatLingers(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.NewVolume, m.Personality.VolumeLingers = true, 3
		layer := makeLayer(t, true)
		must(t, m, layer, Activate, Deactivate, Activate)
		wantVolume(t, m, layer, 0, false)
		wantVolume(t, m, layer, 1, true)
	})
}

// volumePath activates a layer and returns its mount path.
func volumePath(t *testing.T, m *Model, layer string) string {
	t.Helper()
	must(t, m, layer, Activate)
	path, err := m.GetLayerMountPath(layer)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestModel_TheNextLayerGetsAGUIDThatWasGivenUp(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.GUIDReused = true
		a, b := makeLayer(t, true), makeLayer(t, true)
		first := volumePath(t, m, a)
		must(t, m, a, Deactivate)
		if again := volumePath(t, m, a); again != first {
			t.Errorf("the same layer gets %s after %s", again, first)
		}
		must(t, m, a, Deactivate)
		if other := volumePath(t, m, b); other != first {
			t.Errorf("the next layer gets %s, and %s was given up", other, first)
		}
		second := volumePath(t, m, a)
		if second == first {
			t.Error("two layers have one GUID")
		}
		if err := m.Reboot(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{volumePath(t, m, a), volumePath(t, m, b)} {
			if path != first && path != second {
				t.Errorf("%s is new, and %s and %s were given up", path, first, second)
			}
		}
	})
}

func TestModel_ALayerWhoseVolumeLingersKeepsItsGUID(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.GUIDReused = true
		layer, other := makeLayer(t, true), makeLayer(t, true)
		must(t, m, other, Activate)
		volume := volumePath(t, m, layer)
		must(t, m, other, Deactivate)
		m.Personality.VolumeLingers = 3
		must(t, m, layer, Deactivate)
		if again := volumePath(t, m, layer); again != volume {
			t.Errorf("it gets %s, and %s was there", again, volume)
		}
	})
}

func TestModel_FilesStayWithTheirLayerIfAGUIDIsReused(t *testing.T) {
	m, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m.volumes = t.TempDir() // on Windows too
	m.Personality.GUIDReused = true
	a, b := makeLayer(t, true), makeLayer(t, true)
	for range 3 {
		for _, layer := range []string{a, b} {
			must(t, m, layer, Activate)
			there, _ := filepath.Glob(filepath.Join(m.volumes, "*}"))
			if len(there) != 1 {
				t.Fatalf("there are %q", there)
			}
			file := filepath.Join(there[0], filepath.Base(filepath.Dir(layer)))
			if err := os.WriteFile(file, nil, 0o666); err != nil {
				t.Fatal(err)
			}
			if found, err := os.ReadDir(there[0]); len(found) != 1 || err != nil {
				t.Errorf("in the volume of %s is %v, %v", layer, found, err)
			}
			must(t, m, layer, Deactivate)
		}
	}
}

func TestPersonalities_LikelyIsFirstAndAllNamesDiffer(t *testing.T) {
	if Personalities[0] != Likely {
		t.Errorf("the first is %q", Personalities[0].Name)
	}
	for _, p := range Personalities {
		if got, ok := Named(p.Name); got != p || !ok {
			t.Errorf("Named(%q) = %+v, %v", p.Name, got, ok)
		}
		if same := p; p.Name != Likely.Name {
			if same.Name = Likely.Name; same == Likely {
				t.Errorf("%s does not differ from likely", p.Name)
			}
		}
	}
	if _, ok := Named("absent"); ok {
		t.Error(`Named("absent") reports true`)
	}
}

func TestPersonalities_AllDifferentTurnEachField(t *testing.T) {
	fields := reflect.TypeOf(Likely)
	for i := range fields.NumField() {
		turned := fields.Field(i).Name == "OpenPath" // in none
		for _, p := range Personalities {
			if strings.HasPrefix(p.Name, "all-different-") && reflect.ValueOf(p).Field(i).Interface() != reflect.ValueOf(Likely).Field(i).Interface() {
				turned = true
			}
		}
		if !turned {
			t.Errorf("%s is not", fields.Field(i).Name)
		}
	}
}

func TestModel_IsLikelyUntilSetPersonality(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if got := New("").Personality; got != Likely {
		t.Errorf("New: %+v", got)
	}
	want := Likely
	for _, p := range append(Personalities, Likely, Likely) { // longer and shorter ones
		m, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if m.Personality != want {
			t.Errorf("got %+v, want %+v", m.Personality, want)
		}
		if err := SetPersonality(dir, p); err != nil {
			t.Fatal(err)
		}
		want = p
	}
}

func TestSetPersonality_HoldsForOtherProcesses(t *testing.T) {
	dir, layer := t.TempDir(), makeLayer(t, true)
	p, _ := Named("closed-0x801f0015")
	if err := SetPersonality(dir, p); err != nil {
		t.Fatal(err)
	}
	output, err := makeCalls(dir, layer, Activate, Deactivate, Unprepare).CombinedOutput()
	if err == nil || !strings.Contains(string(output), "UnprepareLayer "+layer+": Windows error 0x801f0015") {
		t.Errorf("%v: %s", err, output)
	}
}

func TestModel_ProcessesCountTheCallsOfAVolumeTogether(t *testing.T) {
	dir, layer := t.TempDir(), makeLayer(t, true)
	p := Likely
	p.ClosedPath, p.VolumeLate, p.VolumeLingers = 0, 2, 3
	if err := SetPersonality(dir, p); err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := func(calls ...Call) {
		t.Helper()
		if output, err := makeCalls(dir, layer, calls...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	}
	elsewhere(Activate, MountPath)
	wantPath(t, m, layer, "")
	if path, err := m.GetLayerMountPath(layer); path == "" || err != nil {
		t.Errorf("the volume is still late: %q, %v", path, err)
	}
	must(t, m, layer, Deactivate, Deactivate)
	elsewhere(MountPath)
	wantVolume(t, m, layer, 0, true)
	elsewhere(MountPath)
	wantVolume(t, m, layer, 0, false)
}

func TestModel_RefusesPathsThatAreNoLayer(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer := makeLayer(t, true)
		for path, code := range map[string]syscall.Errno{
			layer + string(filepath.Separator):       errInvalidParameter,
			"":                                       errInvalidParameter,
			layer + string(filepath.Separator) + `.`: 0,
		} {
			for _, call := range []Call{Activate, Prepare, MountPath, Unprepare, Deactivate} {
				wantCode(t, m, path, call, code)
			}
		}
		for _, path := range []string{filepath.Join(layer, "absent"), filepath.Join(layer, "sandbox.vhdx")} {
			for _, call := range []Call{Activate, Prepare, MountPath} {
				wantCode(t, m, path, call, errPathNotFound)
			}
			wantCode(t, m, path, Unprepare, NotActive) // as any layer that is closed
			wantCode(t, m, path, Deactivate, 0)
		}
	})
}

func TestPrepareLayer_ChecksTheParentsOfAWritableLayer(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer := makeLayer(t, true)
		if err := m.ActivateLayer(layer); err != nil {
			t.Fatal(err)
		}
		if err := m.PrepareLayer(layer, nil); !errors.Is(err, errInvalidParameter) {
			t.Errorf("without parents: %v", err)
		}
		absent := []string{filepath.Join(layer, "absent")}
		m.CheckParents = true
		if err := m.PrepareLayer(layer, absent); !errors.Is(err, errPathNotFound) {
			t.Errorf("with an absent parent: %v", err)
		}
		m.CheckParents = false
		if err := m.PrepareLayer(layer, absent); err != nil {
			t.Errorf("with an absent parent, unchecked: %v", err)
		}
	})
}

func TestGetLayerMountPath_IsTheVolumeOrTheDirectory(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		readOnly, writable := makeLayer(t, false), makeLayer(t, true)
		if got, err := m.GetLayerMountPath(readOnly); got != readOnly || err != nil {
			t.Errorf("read-only layer: %q, %v", got, err)
		}
		if err := m.ActivateLayer(writable); err != nil {
			t.Fatal(err)
		}
		got, err := m.GetLayerMountPath(writable)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(got, string(filepath.Separator)+"Volume{") || !strings.HasSuffix(got, "}") {
			t.Errorf("writable layer: %q", got)
		}
		if runtime.GOOS != "windows" {
			if entries, err := os.ReadDir(got); len(entries) > 0 || err != nil {
				t.Errorf("the volume holds %q, %v", entries, err)
			}
		}
	})
}

func TestCalls_HasEveryCallUntilResetCalls(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer := makeLayer(t, true)
		m.ActivateLayer(layer)
		m.ActivateLayer(layer)
		m.PrepareLayer(layer, []string{"b", "a"})
		m.Bind(layer, "a", false)
		m.Bind(layer, "a", true)
		m.Unbind(layer)
		m.Bindings(layer)
		want := []string{
			"ActivateLayer " + layer, "ActivateLayer " + layer, "PrepareLayer " + layer + " [b a]",
			"BfSetupFilter " + layer + " a", "BfSetupFilter " + layer + " a read-only", "BfRemoveMapping " + layer, "BfGetMappings " + layer,
		}
		if got := m.Calls(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		m.ResetCalls()
		if got := m.Calls(); len(got) > 0 {
			t.Errorf("after ResetCalls: %q", got)
		}
	})
}

func TestReboot_ForgetsTheLayers(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.VolumeLingers = 1
		layer, lingers := makeLayer(t, true), makeLayer(t, true)
		must(t, m, layer, Activate, Prepare)
		must(t, m, lingers, Activate, Deactivate)
		wantOpen(t, m, layer, true)
		if err := m.Reboot(); err != nil {
			t.Fatal(err)
		}
		wantOpen(t, m, layer, false)
		wantVolume(t, m, layer, 0, false)
		wantVolume(t, m, lingers, 0, false)
		must(t, m, layer, Activate, Prepare)
	})
}

func TestModel_AnErrorOfBeforePreventsTheEffect(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer, fault := makeLayer(t, true), errors.New("fault")
		fail := func(Call, string) error { return fault }
		m.Before, m.After = fail, nil
		if err := m.ActivateLayer(layer); err != fault || len(m.OpenLayers()) != 0 {
			t.Errorf("Before: %v, open layers %q", err, m.OpenLayers())
		}
		m.Before, m.After = nil, fail
		if err := m.ActivateLayer(layer); err != fault || len(m.OpenLayers()) != 1 {
			t.Errorf("After: %v, open layers %q", err, m.OpenLayers())
		}
	})
}

func TestModel_CallsOfManyGoroutinesOverlap(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		const n = 20
		m.Latency = 300 * time.Millisecond
		layers := make([]string, n)
		for i := range layers {
			layers[i] = makeLayer(t, true)
		}
		start := time.Now()
		var wg sync.WaitGroup
		for _, layer := range layers {
			layer := layer
			wg.Add(1)
			go func() {
				defer wg.Done()
				if err := m.ActivateLayer(layer); err != nil {
					t.Error(err)
				}
			}()
		}
		wg.Wait()
		if took := time.Since(start); took > n*m.Latency/2 {
			t.Errorf("%d calls of %v took %v", n, m.Latency, took)
		}
		if len(m.OpenLayers()) != n || len(m.Calls()) != n {
			t.Errorf("%d open layers and %d calls, want %d", len(m.OpenLayers()), len(m.Calls()), n)
		}
	})
}

func TestModel_ManyModelsOfOneDirectoryActivateALayerOnce(t *testing.T) {
	dir, layer := t.TempDir(), makeLayer(t, true)
	var wg sync.WaitGroup
	results := make(chan error, 20)
	for i := 0; i < cap(results); i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			m, err := Open(dir)
			if err == nil {
				err = m.ActivateLayer(layer)
			}
			results <- err
		}()
	}
	wg.Wait()
	close(results)
	succeeded := 0
	for err := range results {
		if err == nil {
			succeeded++
		} else if !errors.Is(err, errSharingViolation) {
			t.Error(err)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d activations succeeded", succeeded)
	}
}

func TestKeepFiles_LetsGoroutinesExcludeOneAnother(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("kept files cannot be removed")
	}
	KeepFiles()
	defer kept.keep(0)
	m, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	layer := makeLayer(t, true)
	var succeeded, all int32 = 0, 200
	var wg sync.WaitGroup
	for range all {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if m.ActivateLayer(layer) == nil {
				atomic.AddInt32(&succeeded, 1)
			}
		}()
	}
	wg.Wait()
	if succeeded != 1 || len(m.Calls()) != int(all) {
		t.Errorf("%d activations succeeded, and the journal has %d", succeeded, len(m.Calls()))
	}
}

func TestSetFaults_FailsThatManyCalls(t *testing.T) {
	dir, layer := t.TempDir(), makeLayer(t, true)
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := SetFaults(dir, "ActivateLayer 0x15 2", "ActivateLayer 0xC0370106 1",
		"BfSetupFilter 0x5 1", "BfRemoveMapping 0x5 1", "BfGetMappings 0x5 1"); err != nil {
		t.Fatal(err)
	}
	for _, call := range []Call{Bind, Unbind, Bindings} {
		wantCode(t, m, layer, call, 0x5)
	}
	must(t, m, layer, Bind, Bindings, Unbind)
	for _, code := range []syscall.Errno{0x15, 0x15, 0xC0370106} {
		if err := m.ActivateLayer(layer); !errors.Is(err, code) {
			t.Errorf("ActivateLayer = %v, want code 0x%x", err, uintptr(code))
		}
	}
	if err := m.ActivateLayer(layer); err != nil {
		t.Errorf("after the planned faults: %v", err)
	}
	if err := errors.Join(SetFaults(dir, "DeactivateLayer 0x15 1"), SetFaults(dir)); err != nil {
		t.Fatal(err)
	}
	if err := m.DeactivateLayer(layer); err != nil {
		t.Errorf("after the plan was taken back: %v", err)
	}
	for _, line := range []string{"", "Activate 0x15 1", "ActivateLayer what 1", "ActivateLayer 0 1", "ActivateLayer 0x15 -1"} {
		if SetFaults(dir, line) == nil {
			t.Errorf("SetFaults takes %q", line)
		}
	}
}

func TestSetFaults_KillsBeforeOrAfterTheEffect(t *testing.T) {
	for kind, want := range map[string]int{"kill-before": 0, "kill-after": 1} {
		t.Run(kind, func(t *testing.T) {
			dir, layer := t.TempDir(), makeLayer(t, true)
			m, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := SetFaults(dir, "ActivateLayer "+kind+" 1"); err != nil {
				t.Fatal(err)
			}
			if output, err := makeCalls(dir, layer, Activate).CombinedOutput(); err == nil {
				t.Fatalf("the process was not killed: %s", output)
			}
			if got := len(m.OpenLayers()); got != want {
				t.Errorf("%d open layers, want %d", got, want)
			}
			if got := m.Calls(); len(got) != 1 {
				t.Errorf("journal: %q", got)
			}
		})
	}
}

func TestModel_AKillAtAnyInstantLeavesALayerOpenOrClosed(t *testing.T) {
	for _, name := range []string{"likely", "all-different-a", "guid-reused"} {
		t.Run(name, func(t *testing.T) { testKillsAtAnyInstant(t, name) })
	}
}

func testKillsAtAnyInstant(t *testing.T, name string) {
	t.Setenv("HCS_SIM_VOLUMES", t.TempDir()) // on Windows
	dir, layer := t.TempDir(), makeLayer(t, true)
	p, _ := Named(name)
	p.ClosedPath = 0 // so that a closed layer can be asked
	if err := SetPersonality(dir, p); err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	attached := func() []string { // the volumes that are there
		there, err := filepath.Glob(filepath.Join(m.volumes, "*}"))
		if err != nil {
			t.Fatal(err)
		}
		return there
	}
	must(t, m, layer, Activate)
	if err := os.WriteFile(filepath.Join(attached()[0], "file"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	must(t, m, layer, Deactivate)
	m.ResetCalls()
	var calls []Call
	for range 1000 {
		calls = append(calls, Activate, Prepare, MountPath, Unprepare, Deactivate, MountPath, MountPath, MountPath)
	}
	for i := range 8 {
		killInACall(t, m, makeCalls(dir, layer, calls...), time.Duration(i)*time.Millisecond)
		open := len(m.OpenLayers()) == 1
		if there := len(attached()); there > 1 || open && there == 0 || !open && there > 0 && p.VolumeLingers == 0 {
			t.Fatalf("open is %v and %d volumes are there", open, there)
		}
		if err := m.ActivateLayer(layer); open != errors.Is(err, errSharingViolation) || !open && err != nil {
			t.Fatalf("open is %v and ActivateLayer = %v", open, err)
		}
		if files, _ := filepath.Glob(filepath.Join(m.volumes, "*}", "file")); len(files) != 1 || len(attached()) != 1 {
			t.Fatalf("of volumes %q these hold the file: %q", attached(), files)
		}
		if err := m.Reboot(); err != nil {
			t.Fatal(err)
		}
		if there := attached(); len(there) > 0 {
			t.Fatalf("after Reboot there is %q", there)
		}
		m.ResetCalls()
	}
}

func TestModel_AKillAtAnyInstantMixesUpNoVolumes(t *testing.T) {
	t.Setenv("HCS_SIM_VOLUMES", t.TempDir()) // on Windows
	dir, layers := t.TempDir(), []string{makeLayer(t, true), makeLayer(t, true)}
	p, _ := Named("guid-reused")
	if err := SetPersonality(dir, p); err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	mark := func(layer string) string { // is in its volume
		return filepath.Join(m.volumeDir(stateOf(t, m, layer)), filepath.Base(filepath.Dir(layer)))
	}
	var calls []Call
	for range 1000 {
		calls = append(calls, Activate, Prepare, Unprepare, Deactivate)
	}
	for _, layer := range layers {
		must(t, m, layer, Activate)
		if err := os.WriteFile(mark(layer), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 6 {
		if err := m.Reboot(); err != nil {
			t.Fatal(err)
		}
		m.ResetCalls()
		other := makeCalls(dir, layers[0], calls...)
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		killInACall(t, m, makeCalls(dir, layers[1], calls...), time.Duration(10+i)*time.Millisecond)
		if err := other.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		other.Wait()
		open := m.OpenLayers()
		there, err := filepath.Glob(filepath.Join(m.volumes, "*}"))
		if len(there) != len(open) || err != nil {
			t.Fatalf("open are %q, and there are %q, %v", open, there, err)
		}
		for _, layer := range layers {
			if !slices.Contains(open, layer) {
				must(t, m, layer, Activate)
			}
			if _, err := os.Stat(mark(layer)); err != nil {
				t.Fatalf("of %q, %q were open: %v", layers, open, err)
			}
		}
	}
}

// stateOf returns what a model in files knows about a layer.
func stateOf(t *testing.T, m *Model, path string) (state layer) {
	t.Helper()
	err := m.layers.update(key(path), func(l *layer, _ func() error) error {
		state = *l
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func TestModel_ALayerIsClosedIfAKillLeftNoVolume(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		if m.volumes == "" {
			t.Skip("no volumes on Windows but with Wine")
		}
		p := makeLayer(t, true)
		must(t, m, p, Activate, Prepare)
		if err := m.detach(layer{Path: p, Volume: volumeName(p, 0)}); err != nil { // and no more
			t.Fatal(err)
		}
		wantOpen(t, m, p, false)
		wantCode(t, m, p, MountPath, NotActive)
		must(t, m, p, Activate, Prepare)
		wantVolume(t, m, p, 0, true)
	})
}

// wantBound fails the test unless there are exactly these bindings.
func wantBound(t *testing.T, m *Model, want ...Binding) {
	t.Helper()
	if got := m.Bound(); !reflect.DeepEqual(got, want) {
		t.Errorf("bound are %v, want %v", got, want)
	}
}

func TestModel_AnswersTheBindFilterInEveryState(t *testing.T) {
	for _, p := range testedPersonalities() {
		t.Run(p.Name, func(t *testing.T) {
			m := New(t.TempDir())
			m.Personality = p
			for _, test := range []struct {
				name  string
				done  []Call
				call  Call
				code  syscall.Errno
				bound bool // after it all
			}{
				{"a directory can be bound", nil, Bind, 0, true},
				{"a directory cannot be bound twice", []Call{Bind}, Bind, p.BindTwice, true},
				{"what is bound can be unbound", []Call{Bind}, Unbind, 0, false},
				{"what is not bound is unbound", nil, Unbind, p.UnbindAbsent, false},
				{"what is not bound any more is unbound", []Call{Bind, Unbind}, Unbind, p.UnbindAbsent, false},
				{"what was unbound can be bound again", []Call{Bind, Unbind}, Bind, 0, true},
				{"bindings can be asked for", []Call{Bind}, Bindings, p.BindingsCode, true},
			} {
				root := makeLayer(t, false)
				t.Run(test.name, func(t *testing.T) {
					must(t, m, root, test.done...)
					wantCode(t, m, root, test.call, test.code)
					if got := len(m.Bound()) == 1; got != test.bound {
						t.Errorf("bound are %v", m.Bound())
					}
					if err := m.Reboot(); err != nil {
						t.Fatal(err)
					}
				})
			}
		})
	}
}

func TestBindings_ReturnsWhatBindWasGiven(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		root, other := makeLayer(t, false), makeLayer(t, false)
		if other < root {
			root, other = other, root
		}
		separator := string(filepath.Separator)
		if err := errors.Join(m.Bind(other+separator, root+separator, false), m.Bind(root, other, true)); err != nil {
			t.Fatal(err)
		}
		want := []Binding{{root, other, true}, {other, root + separator, false}}
		wantBound(t, m, want...)
		if got, err := m.Bindings(root); !reflect.DeepEqual(got, want) || err != nil {
			t.Errorf("Bindings = %v, %v, want %v", got, err, want)
		}
		must(t, m, root+separator+".", Unbind)
		must(t, m, other, Unbind)
		wantBound(t, m)
	})
}

func TestBind_RefusesWhatIsNoDirectory(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		root := makeLayer(t, true)
		absent, file, link := filepath.Join(root, "absent"), filepath.Join(root, "sandbox.vhdx"), root+" link"
		for _, test := range []struct {
			root, source string
			code         syscall.Errno
		}{
			{absent, root, errPathNotFound},
			{file, root, errDirectory},
			{link, root, errDirectory},
			{root, absent, errPathNotFound},
			{root, file, errDirectory},
		} {
			if test.root == link {
				os.Symlink(root, link)
				if _, err := os.Lstat(link); err != nil {
					continue // under Wine
				}
			}
			if err := m.Bind(test.root, test.source, false); !errors.Is(err, test.code) {
				t.Errorf("Bind(%s, %s) = %v, want code 0x%x", test.root, test.source, err, uintptr(test.code))
			}
		}
		wantBound(t, m)
	})
}

func TestPersonality_UnbindAncestorRefusesARootAboveAnother(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		outer := makeLayer(t, false)
		inner, beside := filepath.Join(outer, "a", "b"), outer+"side"
		if err := errors.Join(os.MkdirAll(inner, 0o777), os.Mkdir(beside, 0o777)); err != nil {
			t.Fatal(err)
		}
		must(t, m, inner, Bind)
		must(t, m, outer, Bind, Unbind, Bind)
		m.Personality.UnbindAncestor = errInvalidParameter
		wantCode(t, m, filepath.Dir(inner), Unbind, m.Personality.UnbindAbsent)
		wantCode(t, m, outer, Unbind, errInvalidParameter)
		wantBound(t, m, Binding{outer, filepath.Dir(outer), false}, Binding{inner, filepath.Dir(inner), false})
		must(t, m, inner, Unbind)
		must(t, m, beside, Bind)
		must(t, m, outer, Unbind)
	})
}

func TestBoundAt_TellsWhatIsBoundToARoot(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		root, other := makeLayer(t, false), makeLayer(t, false)
		must(t, m, root, Bind)
		m.ResetCalls()
		want := Binding{root, filepath.Dir(root), false}
		if got, ok := m.BoundAt(root + string(filepath.Separator)); got != want || !ok {
			t.Errorf("got %v, %v", got, ok)
		}
		if got, ok := m.BoundAt(other); ok {
			t.Errorf("got %v where nothing is bound", got)
		}
		if calls := m.Calls(); len(calls) != 0 {
			t.Errorf("the journal has %q", calls)
		}
	})
}

func TestBind_WantsASeparatorAfterTheNameOfAVolume(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer, root := makeLayer(t, true), makeLayer(t, false)
		must(t, m, layer, Activate)
		volume, err := m.GetLayerMountPath(layer)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Bind(root, volume, false); !errors.Is(err, errInvalidParameter) {
			t.Errorf("without one: %v", err)
		}
		if !isDir(volume + string(filepath.Separator)) {
			t.Skip("no volumes on Windows but with Wine")
		}
		if err := m.Bind(root, volume+string(filepath.Separator), false); err != nil {
			t.Errorf("with one: %v", err)
		}
	})
}

func TestBindings_FailsIfARootOrSourceIsGone(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		for _, test := range []struct {
			gone   func(Binding) string
			unbind syscall.Errno
		}{
			{func(b Binding) string { return b.Root }, errPathNotFound},
			{func(b Binding) string { return b.Source }, 0},
		} {
			b := Binding{Root: makeLayer(t, false), Source: makeLayer(t, false)}
			if err := errors.Join(m.Bind(b.Root, b.Source, false), os.Remove(test.gone(b))); err != nil {
				t.Fatal(err)
			}
			path := t.TempDir()
			wantCode(t, m, path, Bindings, errFileNotFound)
			if got, err := m.RawBindings(path); !reflect.DeepEqual(got, []Binding{b}) || err != nil {
				t.Errorf("RawBindings = %v, %v, want %v", got, err, b)
			}
			wantCode(t, m, b.Root, Unbind, test.unbind)
			if err := m.Reboot(); err != nil {
				t.Fatal(err)
			}
		}
		wantCode(t, m, filepath.Join(t.TempDir(), "absent"), Bindings, errPathNotFound)
	})
}

func TestPersonality_BindingsOtherNamesLeadToTheSameDirectories(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		m.Personality.BindingsOtherNames = true
		root := makeLayer(t, false)
		must(t, m, root, Bind)
		got, err := m.Bindings(root)
		if err != nil || len(got) != 1 || got[0].Root == root {
			t.Fatalf("Bindings = %v, %v", got, err)
		}
		usual, err := os.Stat(root)
		other, err2 := os.Stat(got[0].Root)
		if err := errors.Join(err, err2); err != nil || !os.SameFile(usual, other) {
			t.Errorf("%s is not %s: %v", got[0].Root, root, err)
		}
		must(t, m, root, Unbind)
	})
}

func TestReboot_DropsTheBindings(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		root := makeLayer(t, false)
		must(t, m, root, Bind)
		if err := m.Reboot(); err != nil {
			t.Fatal(err)
		}
		wantBound(t, m)
		must(t, m, root, Bind)
	})
}

func TestBind_HasNoEffectIfBeforeFails(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		root, fault := makeLayer(t, false), errors.New("fault")
		fail := func(call Call, path string) error {
			if call != Bind || path != root {
				t.Errorf("called for %s %s", call, path)
			}
			return fault
		}
		m.Before, m.After = fail, nil
		if err := do(m, Bind, root); err != fault || len(m.Bound()) != 0 {
			t.Errorf("Before: %v, bound are %v", err, m.Bound())
		}
		m.Before, m.After = nil, fail
		if err := do(m, Bind, root); err != fault || len(m.Bound()) != 1 {
			t.Errorf("After: %v, bound are %v", err, m.Bound())
		}
	})
}

func TestBind_IsDoneOrNotIfAKillEndsIt(t *testing.T) {
	dir, root := t.TempDir(), makeLayer(t, false)
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var calls []Call
	for range 1000 {
		calls = append(calls, Bind, Bindings, Unbind)
	}
	for i := range 8 {
		killInACall(t, m, makeCalls(dir, root, calls...), time.Duration(i)*time.Millisecond)
		code := Likely.UnbindAbsent
		if len(m.Bound()) > 0 {
			wantBound(t, m, Binding{Root: root, Source: filepath.Dir(root)})
			code = 0
		}
		wantCode(t, m, root, Unbind, code)
		wantBound(t, m)
		m.ResetCalls()
	}
}

func TestBind_FailsIfABindingCannotBeShown(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it can be under Wine")
	}
	both(t, func(t *testing.T, m *Model) {
		root := makeLayer(t, false)
		m.Show = true
		wantCode(t, m, root, Bind, errNotSupported)
		wantBound(t, m)
	})
}

func TestBind_ShowsADirectoryUnderWine(t *testing.T) {
	m, root, source := New(""), makeLayer(t, false), makeLayer(t, true)
	m.Show = true
	if err := m.Bind(root, source, true); errors.Is(err, errNotSupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "sandbox.vhdx")); err != nil {
		t.Error(err)
	}
	if os.WriteFile(filepath.Join(root, "new"), nil, 0o666) == nil {
		t.Error("it is not read-only")
	}
	wantBound(t, m, Binding{root, source, true})
	if err := hide(root); err != nil { // as a process that is killed in Unbind
		t.Fatal(err)
	}
	wantBound(t, m)
	if err := m.Bind(root, source, false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o666); err != nil {
		t.Error(err)
	}
	must(t, m, root, Unbind)
	if entries, err := os.ReadDir(root); len(entries) > 0 || err != nil {
		t.Errorf("shown is still %v, %v", entries, err)
	}
	if _, err := os.Stat(filepath.Join(source, "new")); err != nil {
		t.Error(err)
	}
}

// killInACall starts a process and kills it a while after its first call.
func killInACall(t *testing.T, m *Model, process *exec.Cmd, while time.Duration) {
	t.Helper()
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	for len(m.Calls()) == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(while)
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	process.Wait()
}

// makeCalls returns a process that makes the calls on the model of dir.
func makeCalls(dir, layer string, calls ...Call) *exec.Cmd {
	names := make([]string, len(calls))
	for i, call := range calls {
		names[i] = string(call)
	}
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(),
		"HCSTEST_DIR="+dir, "HCSTEST_LAYER="+layer, "HCSTEST_MAKE="+strings.Join(names, " "))
	return process
}

// BenchmarkModel_CallsInFiles makes the five calls as the DLL does, which opens the model for
// each and keeps its files.
func BenchmarkModel_CallsInFiles(b *testing.B) {
	dir, err := os.MkdirTemp("", "") // stays on Windows, where kept files cannot be removed
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	KeepFiles()
	defer kept.keep(0)
	layer := makeLayer(b, true)
	b.ResetTimer()
	for range b.N {
		for _, call := range []Call{Activate, Prepare, MountPath, Unprepare, Deactivate} {
			m, err := Open(dir)
			if err == nil {
				err = do(m, call, layer)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
