//go:build !windows

package mount

import (
	"os"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// What the random tests have found.

func TestUnmount_RemovesTheDeepestBindingOfALayerFirst(t *testing.T) {
	h := newHost(t)
	h.model.Personality.UnbindAncestor = errorInvalidParameter
	h.bindsAt = "ain"
	m := h.scratch("2")
	outer, inner := h.target("a"), h.target("a/in")
	h.mustMount(m, outer)
	h.mustMount(m, inner)
	for _, file := range []string{h.recordFile(inner), h.recordFile(outer)} { // as the one or the other lists it first
		if err := os.Rename(file, h.path("file")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(h.path("file"), file); err != nil {
			t.Fatal(err)
		}
	}
	h.mustUnmount(m.Source)
	h.wantClosed()
}

func TestMount_RefusesATargetBelowABindingThatIsDead(t *testing.T) {
	h := newHost(t)
	h.bindsAt = "ain"
	outer := h.scratch("1")
	h.mustMount(outer, h.target("a"))
	h.mustMount(h.scratch("2"), h.target("a/in"))
	if err := h.model.DeactivateLayer(outer.Source); err != nil {
		t.Fatal(err)
	}
	wantError(t, h.mount(h.scratch("3"), h.target("a/in")), "it shows layer", os.ErrExist)
}

func TestMount_KeepsARecordOfAKeptDiskThatMayBeAttached(t *testing.T) {
	h := newHost(t)
	h.model.Personality.AttachesKeptDisk = true
	m := h.committed("2")
	prepared := false
	h.model.Before = func(call hcstest.Call, layer string) error {
		if prepared = prepared || call == hcstest.Prepare; prepared {
			return &hcstest.Error{Call: call, Layer: layer, Code: errorAccessDenied}
		}
		return nil
	}
	wantError(t, h.mount(m, h.target("a")), "failed to prepare layer", errorAccessDenied)
	h.model.Before = nil
	h.wantNoLeak()
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}
