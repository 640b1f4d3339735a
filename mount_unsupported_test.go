//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"testing"
)

func TestMount_IsUnsupportedElsewhereAndTouchesNothing(t *testing.T) {
	target := filepath.Join(t.TempDir(), "a")
	m := Mount{Type: "windows-layer", Source: `C:\layers\1`}
	_, lookupErr := Lookup(target)
	_, listErr := List()
	_, cleanupErr := CleanupTempMounts(0)
	never := func(string) error { t.Error("called"); return nil }
	for name, err := range map[string]error{
		"Mount":                 m.Mount(target),
		"All":                   All([]Mount{m}, target),
		"Unmount":               Unmount(target, 0),
		"UnmountAll":            UnmountAll(target, 0),
		"UnmountMounts":         UnmountMounts([]Mount{m}, target, 0),
		"UnmountRecursive":      UnmountRecursive(target, 0),
		"Lookup":                lookupErr,
		"List":                  listErr,
		"SetTableDir":           SetTableDir(target),
		"WithTempMount":         WithTempMount(context.Background(), []Mount{m}, never),
		"WithReadonlyTempMount": WithReadonlyTempMount(context.Background(), []Mount{m}, never),
		"SetTempMountLocation":  SetTempMountLocation(target),
		"CleanupTempMounts":     cleanupErr,
	} {
		if !stderrors.Is(err, stderrors.ErrUnsupported) || !stderrors.Is(err, ErrNotImplementOnUnix) {
			t.Errorf("%s = %v", name, err)
		}
	}
	if _, err := os.Lstat(target); !stderrors.Is(err, os.ErrNotExist) {
		t.Error("something is at the target")
	}
	if !stderrors.Is(ErrNotImplementOnWindows, stderrors.ErrUnsupported) {
		t.Error("ErrNotImplementOnWindows does not match errors.ErrUnsupported")
	}
}
