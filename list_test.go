//go:build !windows

package mount

import (
	stderrors "errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
)

// mustList returns what List does, sorted by target.
func (h *host) mustList() []Info {
	h.t.Helper()
	infos, err := h.list()
	if err != nil {
		h.t.Fatal(err)
	}
	sortInfos(infos)
	return infos
}

func sortInfos(infos []Info) {
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Mountpoint, b.Mountpoint) })
}

func (h *host) wantNotFound(dir string) {
	h.t.Helper()
	_, err := h.lookup(dir)
	wantError(h.t, err, "look up mount "+dir, os.ErrNotExist)
}

func TestLookup_ReturnsWhatATargetShows(t *testing.T) {
	for name, layer := range kindsOfLayer {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			h.mustMount(m, h.target("a"))
			symlink(t, h.path("mnt"), h.path("other"))
			root, err := os.Readlink(h.target("a"))
			if err != nil {
				t.Fatal(err)
			}
			want := Info{Mountpoint: h.target("a"), Source: m.Source, Root: root, FSType: "windows-layer"}
			for _, dir := range []string{h.target("a"), h.path("other", "a"), h.path("mnt") + "/./a/"} {
				if info, err := h.lookup(dir); err != nil || info != want {
					t.Errorf("Lookup(%s) = %+v, %v, want %+v", dir, info, err, want)
				}
			}
			h.mustUnmount(h.target("a"))
			h.wantNotFound(h.target("a"))
		})
	}
}

func TestLookup_OfWhatIsNotATargetMatchesErrNotExist(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.wantNotFound(h.target("a"))
	h.wantAt(h.path("table"), "nothing")
	h.mustMount(m, h.target("a"))
	for _, dir := range []string{h.target("b"), m.Source, h.target("a/b"), h.target("no/no"), h.path("mnt"), "/"} {
		h.wantNotFound(dir)
	}
	_, err := h.lookup("\x00")
	wantError(t, err, "contains a NUL")
}

func TestLookup_FindsWhatSomebodyHasRemoved(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.remove(h.target("a"))
	if info, err := h.lookup(h.target("a")); err != nil || info.Source != m.Source {
		t.Errorf("Lookup = %+v, %v", info, err)
	}
}

func TestLookup_FindsNoMountFromBeforeARestartAndListDoes(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.reboot()
	h.wantNotFound(h.target("a"))
	if infos := h.mustList(); len(infos) != 1 || infos[0].Mountpoint != h.target("a") {
		t.Errorf("List = %+v", infos)
	}
	h.wantCalls(openCalls...)
}

func TestLookup_FindsNoHalfMadeMountAndListDoes(t *testing.T) {
	for name, half := range map[string]func(h *host, m *Mount) bool{
		"made": func(h *host, m *Mount) bool {
			return h.kill(3, true, func() error { return h.mount(m, h.target("a")) })
		},
		"undone": func(h *host, m *Mount) bool {
			h.mustMount(m, h.target("a"))
			return h.kill(0, false, func() error { return h.unmount(h.target("a")) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			if !half(h, m) {
				t.Fatal("not killed")
			}
			h.wantNotFound(h.target("a"))
			if infos := h.mustList(); len(infos) != 1 || infos[0].Mountpoint != h.target("a") || infos[0].Source != m.Source {
				t.Errorf("List = %+v", infos)
			}
		})
	}
}

func TestLookup_ReportsADamagedRecord(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	file := h.damage(h.target("a"))
	_, err := h.lookup(h.target("a"))
	wantError(t, err, file, table.ErrDamaged)
	h.wantNotFound(h.target("b"))
}

func TestLookup_AndListDoNotWaitForACallOfHCS(t *testing.T) {
	for _, during := range []hcstest.Call{hcstest.Activate, hcstest.Unprepare} {
		t.Run(string(during), func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			h.model.Before = func(call hcstest.Call, _ string) error {
				if call != during {
					return nil
				}
				done := make(chan error, 1)
				go func() {
					_, err := h.lookup(h.target("a"))
					infos, listErr := h.list()
					if !stderrors.Is(err, os.ErrNotExist) || listErr != nil || len(infos) != 1 {
						err = fmt.Errorf("Lookup: %v, List = %+v, %v", err, infos, listErr)
					} else {
						err = nil
					}
					done <- err
				}()
				h.awaitWaiting(done)
				if len(done) == 0 {
					return stderrors.New("it waits")
				}
				return <-done
			}
			h.mustMount(m, h.target("a"))
			h.mustUnmount(h.target("a"))
		})
	}
}

func TestList_ReturnsEveryMountOnRecord(t *testing.T) {
	h := newHost(t)
	old, killed, scratch, base := h.scratch("1"), h.scratch("2"), h.scratch("3"), h.base("0")
	h.mustMount(old, h.target("old"))
	want := []Info{{Mountpoint: h.target("old"), Source: old.Source, Root: h.link(old), FSType: "windows-layer"}}
	h.reboot()
	if !h.kill(2, true, func() error { return h.mount(killed, h.target("killed")) }) {
		t.Fatal("not killed")
	}
	h.mustMount(scratch, h.target("a"))
	h.mustMount(scratch, h.target("b"))
	h.mustMount(base, h.target("c"))
	want = append(want,
		Info{Mountpoint: h.target("killed"), Source: killed.Source, FSType: "windows-layer"},
		Info{Mountpoint: h.target("a"), Source: scratch.Source, Root: h.link(scratch), FSType: "windows-layer"},
		Info{Mountpoint: h.target("b"), Source: scratch.Source, Root: h.link(scratch), FSType: "windows-layer"},
		Info{Mountpoint: h.target("c"), Source: base.Source, Root: filepath.Join(base.Source, "Files"), FSType: "windows-layer"})
	sortInfos(want)
	if got := h.mustList(); !reflect.DeepEqual(got, want) {
		t.Errorf("List = %+v, want %+v", got, want)
	}
}

func TestList_ReturnsPathsAsTheCallerGaveThem(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	symlink(t, h.path("mnt"), h.path("s"))
	symlink(t, h.path("layers"), h.path("l"))
	m.Source = h.path("l", "2")
	h.mustMount(m, h.path("s", "a"))
	if infos := h.mustList(); len(infos) != 1 || infos[0].Mountpoint != h.path("s", "a") || infos[0].Source != m.Source {
		t.Errorf("List = %+v", infos)
	}
}

func TestList_ReturnsWhatItCouldReadAndNamesWhatItCouldNot(t *testing.T) {
	h := newHost(t)
	var damaged []string
	for _, target := range []string{"a", "b", "c", "d"} {
		h.mustMount(h.scratch("2"), h.target(target))
	}
	damaged = append(damaged, h.damage(h.target("b")), h.recordFile(h.target("c")))
	h.writeNewerFormat(damaged[1])
	infos, err := h.list()
	for _, file := range damaged {
		wantError(t, err, file, table.ErrDamaged)
	}
	sortInfos(infos)
	if len(infos) != 2 || infos[0].Mountpoint != h.target("a") || infos[1].Mountpoint != h.target("d") {
		t.Errorf("List = %+v", infos)
	}
}

func TestList_IsEmptyWithoutATableAndMakesNone(t *testing.T) {
	h := newHost(t)
	if infos := h.mustList(); len(infos) != 0 {
		t.Errorf("List = %+v", infos)
	}
	h.wantAt(h.path("table"), "nothing")
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mustUnmount(h.target("a"))
	if infos := h.mustList(); len(infos) != 0 {
		t.Errorf("List = %+v", infos)
	}
}
