//go:build !windows

package mount

import (
	"fmt"
	"os"
	"testing"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
)

// fill puts n mounts of other layers in the table, at other targets.
func (h *host) fill(n int) (names []table.Name) {
	h.t.Helper()
	unlock, err := h.table.LockLayer("any") // which makes the table
	if err != nil {
		h.t.Fatal(err)
	}
	defer unlock()
	for i := range n {
		source, path := h.path("layers", fmt.Sprintf("other%d", i)), h.path("other", fmt.Sprint(i))
		r, err := h.table.Create(keyOf(source), keyOf(path), table.Record{
			State: table.Shown, Source: source, Dir: source, Volume: h.path("volumes", fmt.Sprintf("Volume{%d}", i)),
			Target: path, Resolved: path,
		})
		if err != nil {
			h.t.Fatal(err)
		}
		r.Release()
		names = append(names, r.Name)
	}
	return names
}

func keyOf(path string) table.Key { return table.KeyOf(winfs.Name{Path: path, CaseSensitive: true}) }

func TestTable_NoOtherRecordIsReadByMountLookupAndUnmount(t *testing.T) {
	h := newHost(t)
	for _, name := range h.fill(100) {
		h.write(h.path("table", "mounts", name.String()), "damaged\n")
	}
	if _, err := h.list(); !errors.Is(err, table.ErrDamaged) {
		t.Fatalf("List does not read every record: %v", err)
	}
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, h.target("b"))
	h.mustLookup(h.target("a"))
	h.mustUnmount(h.target("a"))
	h.mustUnmount(m.Source)
	if _, err := h.lookup(h.target("b")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Lookup after Unmount: %v", err)
	}
	h.mustUnmount(h.target("none"))
	h.wantOpen()
}

func (h *host) mustLookup(target string) {
	h.t.Helper()
	if _, err := h.lookup(target); err != nil {
		h.t.Fatal(err)
	}
}

// What an operation asks for must not grow with the table: only a listing of names may.
func TestTable_AllocationsGrowAsAListingOfNames(t *testing.T) {
	few, many := newHost(t), newHost(t)
	few.fill(10)
	many.fill(1010)
	lists := testing.AllocsPerRun(20, func() { many.atNone() }) - testing.AllocsPerRun(20, func() { few.atNone() })
	fewAllocs, manyAllocs := few.allocations(), many.allocations()
	// Mount lists the names twice, Lookup once and Unmount twice. What the runtime allocates meanwhile counts, too.
	if more := manyAllocs - fewAllocs; more > 5*lists+0.1*fewAllocs {
		t.Errorf("%.0f allocations more for 1,000 other mounts, a listing has %.0f more", more, lists)
	}
}

func (h *host) atNone() {
	if names, err := h.table.At(keyOf("none")); err != nil || len(names) != 0 {
		h.t.Errorf("%v, %v", names, err)
	}
}

// allocations is how often a mount, a lookup and an unmount allocate.
func (h *host) allocations() float64 {
	m, target := h.scratch("2"), h.target("a")
	return testing.AllocsPerRun(20, func() {
		h.mustMount(m, target)
		h.mustLookup(target)
		h.mustUnmount(target)
	})
}
