//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"testing"
)

func TestEverywhereButOnWindowsMountsAreUnsupportedAndTouchNothing(t *testing.T) {
	target := filepath.Join(t.TempDir(), "a")
	m := Mount{Type: "windows-layer", Source: `C:\layers\1`}
	_, lookupErr := Lookup(target)
	_, listErr := List()
	_, cleanupErr := CleanupTempMounts(0)
	never := func(string) error { t.Error("called"); return nil }
	for name, err := range map[string]error{
		"Mount":         m.Mount(target),
		"Unmount":       Unmount(target, 0),
		"UnmountAll":    UnmountAll(target, 0),
		"All":           All([]Mount{m}, target),
		"UnmountMounts": UnmountMounts([]Mount{m}, target, 0),
		"SetTableDir":   SetTableDir(target),
		"Lookup":        lookupErr,
		"List":          listErr,

		"UnmountRecursive":      UnmountRecursive(target, 0),
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
