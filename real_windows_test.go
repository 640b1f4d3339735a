package mount

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/Microsoft/hcsshim"
	"golang.org/x/sys/windows"
)

// realLayer makes a writable layer on one of Docker's, in the real HCS. In CI there
// must be one.
func realLayer(t *testing.T) *Mount {
	if os.Getenv(simDir) != "" {
		t.Skip("the HCS here is the simulation")
	}
	missing := t.Skipf
	if os.Getenv("CI") != "" {
		missing = t.Fatalf
	}
	chains, err := filepath.Glob(filepath.Join(os.Getenv("ProgramData"), `docker\windowsfilter\*\layerchain.json`))
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range chains {
		layer := filepath.Dir(chain)
		if _, err := os.Stat(filepath.Join(layer, "Files")); err != nil {
			continue // a container's
		}
		data, err := os.ReadFile(chain)
		if err != nil {
			t.Fatal(err)
		}
		var parents []string
		if err := json.Unmarshal(data, &parents); err != nil {
			t.Fatal(err)
		}
		parents = append([]string{layer}, parents...)
		home, id := hcsshim.DriverInfo{HomeDir: t.TempDir()}, "scratch"
		if err := hcsshim.CreateScratchLayer(home, id, "", parents); err != nil {
			missing("the Containers feature is not there, or not for this user: %v", err)
		}
		t.Cleanup(func() {
			if err := hcsshim.DestroyLayer(home, id); err != nil {
				t.Error(err)
			}
		})
		return &Mount{Type: "windows-layer", Source: filepath.Join(home.HomeDir, id),
			Options: []string{ParentLayerPathsFlag + listOf(parents)}}
	}
	missing("needs a layer of Docker's: docker pull mcr.microsoft.com/windows/nanoserver")
	return nil
}

// newLayerHost returns a host and a writable layer. On Windows the layer is real and the host has
// no Model.
func newLayerHost(t *testing.T) (*winHost, *Mount) {
	t.Helper()
	if os.Getenv(simDir) != "" {
		h := newWinHost(t)
		return h, h.scratch()
	}
	h := &winHost{t: t, dir: t.TempDir()}
	m := realLayer(t)
	useTable(t, h.path("table"))
	t.Cleanup(func() { // or else all in the layer would be removed with the directory of the test
		if t.Failed() {
			_ = Unmount(m.Source, 0)
		}
	})
	return h, m
}

func TestMount_ByTheRealHCSIsShownAndTakenAway(t *testing.T) {
	for _, binds := range []bool{false, true} {
		t.Run(fmt.Sprintf("bound %t", binds), func(t *testing.T) {
			useBindings(t, binds)
			testShownAndTakenAway(t, realLayer(t))
		})
	}
}

func testShownAndTakenAway(t *testing.T, m *Mount) {
	useTable(t, filepath.Join(t.TempDir(), "table"))
	target, second := filepath.Join(t.TempDir(), "target"), filepath.Join(t.TempDir(), "second")
	if err := os.Mkdir(target, 0o777); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 2; i++ { // the second time shows that the first left nothing
		for _, path := range []string{target, second} {
			if err := m.Mount(path); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(path, "Windows", "System32")); err != nil {
				t.Errorf("the layer does not show its parents: %v", err)
			}
		}
		wantError(t, m.Mount(target), "it shows layer", os.ErrExist)
		if err := Unmount(target, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadDir(second); err != nil {
			t.Errorf("the layer was closed with the first of its targets: %v", err)
		}
		if err := Unmount(m.Source, 0); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(target); err != nil || len(entries) != 0 {
			t.Errorf("at the target: %v, %v", entries, err)
		}
		if _, err := os.Lstat(second); !os.IsNotExist(err) {
			t.Errorf("at the second target: %v", err)
		}
	}
	if err := Unmount(m.Source, 0); err != nil {
		t.Errorf("unmounting a layer that is closed: %v", err)
	}
}

func TestMount_ByTheRealHCSLeavesOthersLayersOpen(t *testing.T) {
	for _, prepared := range []bool{false, true} {
		t.Run(fmt.Sprintf("prepared %t", prepared), func(t *testing.T) {
			m := realLayer(t)
			useTable(t, filepath.Join(t.TempDir(), "table"))
			home, id := splitLayer(m.Source)
			if err := hcsshim.ActivateLayer(home, id); err != nil {
				t.Fatal(err)
			}
			if prepared {
				parents, err := m.GetParentPaths()
				if err == nil {
					err = hcsshim.PrepareLayer(home, id, parents)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			wantError(t, m.Mount(filepath.Join(t.TempDir(), "target")), "it is open already", windows.ERROR_SHARING_VIOLATION)
			volume, err := hcsshim.GetLayerMountPath(home, id)
			if err != nil {
				t.Errorf("the layer was closed: %v", err)
			}
			if _, err := os.Stat(filepath.Join(volume+`\`, "Windows", "System32")); prepared && err != nil {
				t.Errorf("the layer does not show its parents any more: %v", err)
			}
			if err := Unmount(m.Source, 0); err != nil {
				t.Errorf("closing the layer: %v", err)
			}
		})
	}
}
