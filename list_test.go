//go:build !windows

package mount

import (
	stderrors "errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

func TestLookupTellsTheLayerShownAtATarget(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	info, err := h.lookup(h.target("a"))
	if err != nil {
		t.Fatal(err)
	}
	want := Info{Mountpoint: h.target("a"), Source: m.Source, Root: h.record(h.target("a")).destination(), FSType: "windows-layer"}
	if info != want {
		t.Errorf("Lookup = %+v, want %+v", info, want)
	}
}

func TestLookupOfWhatIsNoMountMatchesErrNotExist(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	_, err := h.lookup(h.target("a"))
	wantError(t, err, "look up mount "+h.target("a"), os.ErrNotExist)
	h.wantAt(h.path("table"), "nothing")
	h.mustMount(m, h.target("a"))
	for _, dir := range []string{h.target("b"), m.Source, h.target("a/b"), h.target("no/no")} {
		_, err := h.lookup(dir)
		wantError(t, err, "look up mount "+dir, os.ErrNotExist)
	}
	h.mustUnmount(h.target("a"))
	_, err = h.lookup(h.target("a"))
	wantError(t, err, "look up mount", os.ErrNotExist)
	_, err = h.lookup("\x00")
	wantError(t, err, "NUL")
}

func TestAfterARebootLookupFindsNoMountAndListAll(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.reboot()
	_, err := h.lookup(h.target("a"))
	wantError(t, err, "look up mount", os.ErrNotExist)
	if infos := h.mustList(); len(infos) != 1 || infos[0].Mountpoint != h.target("a") {
		t.Errorf("List = %+v", infos)
	}
	h.wantCalls(openCalls...)
}

func TestLookupFindsNoMountThatIsHalfMadeOrHalfUndone(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	if !h.kill(3, true, func() error { return h.mount(m, h.target("a")) }) {
		t.Fatal("not killed")
	}
	_, err := h.lookup(h.target("a"))
	wantError(t, err, "look up mount", os.ErrNotExist)

	h.mustMount(m, h.target("a"))
	if !h.kill(0, false, func() error { return h.unmount(h.target("a")) }) {
		t.Fatal("not killed")
	}
	_, err = h.lookup(h.target("a"))
	wantError(t, err, "look up mount", os.ErrNotExist)
	if infos := h.mustList(); len(infos) != 1 || infos[0].Mountpoint != h.target("a") {
		t.Errorf("List = %+v", infos)
	}
}

func TestLookupAndListDoNotWaitForACallOfHCS(t *testing.T) {
	for _, during := range []hcstest.Call{hcstest.Activate, hcstest.Unprepare} {
		t.Run(string(during), func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			locks := []string{"l" + string(keyOf(m.Source)), "t" + string(h.key(h.target("a")))}
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
				h.awaitWaiting(done, locks...)
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

func TestListReturnsEveryTargetOfEveryRecord(t *testing.T) {
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
	sort.Slice(infos, func(i, j int) bool { return infos[i].Mountpoint < infos[j].Mountpoint })
}

func TestListReturnsWhatItCouldReadAndNamesWhatItCouldNot(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mustMount(h.scratch("3"), h.target("b"))
	damaged := h.layerFile(h.target("b"))
	h.write(damaged, "torn")
	foreign := filepath.Join(filepath.Dir(damaged), "note.txt")
	h.write(foreign, "mine")
	infos, err := h.list()
	wantError(t, err, damaged, errDamaged)
	wantError(t, err, foreign, errDamaged)
	if len(infos) != 1 || infos[0].Mountpoint != h.target("a") {
		t.Errorf("List = %+v", infos)
	}
}

func TestListIsEmptyWithoutATableAndMakesNone(t *testing.T) {
	h := newHost(t)
	if infos, err := h.list(); err != nil || len(infos) != 0 {
		t.Errorf("List = %+v, %v", infos, err)
	}
	h.wantAt(h.path("table"), "nothing")
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mustUnmount(h.target("a"))
	if infos := h.mustList(); len(infos) != 0 {
		t.Errorf("List = %+v", infos)
	}
}
