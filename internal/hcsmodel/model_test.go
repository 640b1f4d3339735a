package hcsmodel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain makes this binary the process that gets killed: with HCSMODEL_MAKE in
// the environment it makes those calls and exits.
func TestMain(m *testing.M) {
	dir := os.Getenv("HCSMODEL_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	model, err := Open(dir)
	if err != nil {
		panic(err)
	}
	for _, call := range strings.Fields(os.Getenv("HCSMODEL_MAKE")) {
		if err := do(model, Call(call), os.Getenv("HCSMODEL_LAYER")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	os.Exit(0)
}

// do makes a call; layers have one parent, the directory they are in.
func do(m *Model, call Call, layer string) error {
	switch call {
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

func makeLayer(t *testing.T, writable bool) string {
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
	t.Run("in memory", func(t *testing.T) { test(t, New(t.TempDir())) })
	t.Run("in files", func(t *testing.T) {
		m, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		test(t, m)
	})
}

func TestCallsInAnyStateSucceedOrFailWithACode(t *testing.T) {
	for _, test := range []struct {
		name     string
		readOnly bool
		done     []Call
		call     Call
		code     syscall.Errno
	}{
		{"an active layer cannot be activated", false, []Call{Activate}, Activate, 0x20},
		{"a closed layer cannot be prepared", false, nil, Prepare, 0x57},
		{"an active layer can be prepared", false, []Call{Activate}, Prepare, 0},
		{"a prepared layer cannot be prepared", false, []Call{Activate, Prepare}, Prepare, 0x57},
		{"a closed layer has no mount path", false, nil, MountPath, 0x15},
		{"an active layer has a mount path", false, []Call{Activate}, MountPath, 0},
		{"a closed layer cannot be unprepared", false, nil, Unprepare, NotActive},
		{"an active layer cannot be unprepared", false, []Call{Activate}, Unprepare, NotPrepared},
		{"a prepared layer cannot be deactivated", false, []Call{Activate, Prepare}, Deactivate, 0x20},
		{"a closed layer cannot be deactivated", false, nil, Deactivate, NotActive},
		{"a layer that was closed can be opened again", false,
			[]Call{Activate, Prepare, Unprepare, Deactivate, Activate}, Prepare, 0},
		{"a read-only layer can be activated twice", true, []Call{Activate}, Activate, 0},
		{"a read-only layer can be deactivated at any time", true, nil, Deactivate, 0},
		{"a read-only layer has a mount path at any time", true, nil, MountPath, 0},
		{"a read-only layer that is prepared cannot be deactivated", true, []Call{Prepare}, Deactivate, 0x20},
		{"a read-only layer can be unprepared at any time", true, nil, Unprepare, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			both(t, func(t *testing.T, m *Model) {
				layer := makeLayer(t, !test.readOnly)
				for _, call := range test.done {
					if err := do(m, call, layer); err != nil {
						t.Fatal(err)
					}
				}
				open := m.OpenLayers()
				err := do(m, test.call, layer)
				if test.code == 0 && err != nil || test.code != 0 && !errors.Is(err, test.code) {
					t.Errorf("%s = %v, want code 0x%x", test.call, err, uintptr(test.code))
				}
				if err != nil && !reflect.DeepEqual(m.OpenLayers(), open) {
					t.Errorf("a failed call changed the open layers from %q to %q", open, m.OpenLayers())
				}
			})
		})
	}
}

func TestPathsThatAreNoLayerAreRefused(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer := makeLayer(t, true)
		for path, code := range map[string]syscall.Errno{
			filepath.Join(layer, "absent"):           errPathNotFound,
			filepath.Join(layer, "sandbox.vhdx"):     errPathNotFound,
			layer + string(filepath.Separator):       errInvalidParameter,
			"":                                       errInvalidParameter,
			layer + string(filepath.Separator) + `.`: 0,
		} {
			for _, call := range []Call{Activate, Prepare, MountPath, Unprepare, Deactivate} {
				if err := do(m, call, path); code != 0 && !errors.Is(err, code) || code == 0 && err != nil {
					t.Errorf("%s %q = %v, want code 0x%x", call, path, err, uintptr(code))
				}
			}
		}
	})
}

func TestParentsOfAWritableLayer(t *testing.T) {
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

func TestMountPathIsTheVolumeOrTheDirectory(t *testing.T) {
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
		m.EmptyMountPath = true
		if got, err := m.GetLayerMountPath(writable); got != "" || err != nil {
			t.Errorf("EmptyMountPath: %q, %v", got, err)
		}
	})
}

func TestTheJournalHasEveryCallUntilReset(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer := makeLayer(t, true)
		m.ActivateLayer(layer)
		m.ActivateLayer(layer)
		m.PrepareLayer(layer, []string{"b", "a"})
		want := []string{"ActivateLayer " + layer, "ActivateLayer " + layer, "PrepareLayer " + layer + " [b a]"}
		if got := m.Calls(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		m.ResetCalls()
		if got := m.Calls(); len(got) > 0 {
			t.Errorf("after ResetCalls: %q", got)
		}
	})
}

func TestRebootForgetsTheLayers(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		layer := makeLayer(t, true)
		m.ActivateLayer(layer)
		if got := m.OpenLayers(); !reflect.DeepEqual(got, []string{layer}) {
			t.Errorf("open before: %q", got)
		}
		if err := m.Reboot(); err != nil {
			t.Fatal(err)
		}
		if got := m.OpenLayers(); len(got) > 0 {
			t.Errorf("open after: %q", got)
		}
		if err := m.ActivateLayer(layer); err != nil {
			t.Error(err)
		}
	})
}

func TestAnErrorOfBeforePreventsTheEffectAndOneOfAfterDoesNot(t *testing.T) {
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

func TestCallsOfManyGoroutinesOverlapAndAreNotLost(t *testing.T) {
	both(t, func(t *testing.T, m *Model) {
		const n = 20
		m.Latency = 100 * time.Millisecond
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

func TestOneLayerIsActivatedOnceByManyModelsOfOneDirectory(t *testing.T) {
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

func TestPlannedFaultsFailOrKillThatManyCalls(t *testing.T) {
	dir, layer := t.TempDir(), makeLayer(t, true)
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := SetFaults(dir, "ActivateLayer 0x15 2", "ActivateLayer 0xC0370106 1"); err != nil {
		t.Fatal(err)
	}
	for _, code := range []syscall.Errno{0x15, 0x15, 0xC0370106} {
		if err := m.ActivateLayer(layer); !errors.Is(err, code) {
			t.Errorf("ActivateLayer = %v, want code 0x%x", err, uintptr(code))
		}
	}
	if err := m.ActivateLayer(layer); err != nil {
		t.Errorf("after the planned faults: %v", err)
	}
	for _, line := range []string{"", "Activate 0x15 1", "ActivateLayer what 1", "ActivateLayer 0 1", "ActivateLayer 0x15 -1"} {
		if SetFaults(dir, line) == nil {
			t.Errorf("SetFaults takes %q", line)
		}
	}
}

func TestAKilledProcessLeavesTheCallDoneOrNotDone(t *testing.T) {
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

func TestTheStateIsReadableWhateverInstantAProcessIsKilledAt(t *testing.T) {
	dir, layer := t.TempDir(), makeLayer(t, true)
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	calls := []Call{Activate, Prepare, MountPath, Unprepare, Deactivate}
	for i := 0; i < 20; i++ {
		var many []Call
		for j := 0; j < 1000; j++ {
			many = append(many, calls...)
		}
		process := makeCalls(dir, layer, many...)
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		for len(m.Calls()) == 0 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(i) * time.Millisecond)
		if err := process.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		process.Wait()
		open := len(m.OpenLayers()) == 1
		if err := m.ActivateLayer(layer); open != errors.Is(err, errSharingViolation) || !open && err != nil {
			t.Fatalf("open is %v and ActivateLayer = %v", open, err)
		}
		if err := m.Reboot(); err != nil {
			t.Fatal(err)
		}
		m.ResetCalls()
	}
}

// makeCalls returns a process that makes the calls on the model of dir.
func makeCalls(dir, layer string, calls ...Call) *exec.Cmd {
	names := make([]string, len(calls))
	for i, call := range calls {
		names[i] = string(call)
	}
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(),
		"HCSMODEL_DIR="+dir, "HCSMODEL_LAYER="+layer, "HCSMODEL_MAKE="+strings.Join(names, " "))
	return process
}
