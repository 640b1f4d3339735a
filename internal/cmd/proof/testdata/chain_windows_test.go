package manager

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/windows"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// What ctr images mount REF TARGET does: the manager mounts a layer, and appends a mount of type bind, which shows it
// at the target.
func TestManager_ChainOfALayerAndABind(t *testing.T) {
	if os.Getenv("HCS_SIM_DIR") == "" {
		t.Skip("needs the simulated HCS")
	}
	t.Setenv("HCS_SIM_SHOW", "1") // the bind filter shows what is bound
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if errors.Is(err, windows.ERROR_NOT_SUPPORTED) {
			t.Skip("the simulated bind filter may not mount on Linux")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"base/Files/hello", "scratch/sandbox.vhdx", "target/"} {
		must(os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o777))
		if filepath.Base(name)+"/" != name {
			must(os.WriteFile(filepath.Join(dir, name), nil, 0o666))
		}
	}
	parents, err := json.Marshal([]string{filepath.Join(dir, "base")})
	must(err)
	layer := mount.Mount{Type: "windows-layer", Source: filepath.Join(dir, "scratch"), Options: []string{"parentLayerPaths=" + string(parents)}}
	target := filepath.Join(dir, "target")

	db, err := bolt.Open(filepath.Join(dir, "mounts.db"), 0o600, nil)
	must(err)
	manager, err := NewManager(db, filepath.Join(dir, "m"))
	must(err)
	defer func() {
		if closer, is := manager.(io.Closer); is { // since 2.4 it also closes the database
			must(closer.Close())
		}
		must(db.Close())
	}()
	ctx := namespaces.WithNamespace(context.Background(), "test")
	info, err := manager.Activate(ctx, "1", []mount.Mount{layer}, mount.WithTemporary)
	must(err)
	if len(info.System) != 1 || info.System[0].Type != "bind" {
		t.Fatalf("the manager leaves %+v to mount", info.System)
	}
	must(mount.All(info.System, target))
	if _, err := os.Stat(filepath.Join(target, "hello")); err != nil {
		t.Error(err)
	}
	must(mount.UnmountMounts(info.System, target, 0))
	must(manager.Deactivate(ctx, "1"))
	if _, err := os.Stat(filepath.Join(target, "hello")); !os.IsNotExist(err) {
		t.Errorf("at the target after all: %v", err)
	}
	must(layer.Mount(target)) // which is not possible while the layer is open
	must(mount.UnmountAll(target, 0))
}
