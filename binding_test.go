//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// bindingHost is a host that shows layers by bindings.
func bindingHost(t testing.TB, p hcstest.Personality) *host {
	h := newHostOf(t, p)
	h.mounter.binds = true
	h.bindsAt = "ab"
	return h
}

// inFilterPersonalities runs a test under those in which the bind filter answers differently.
func inFilterPersonalities(t *testing.T, test func(t *testing.T, h *host)) {
	inPersonalities(t, []string{"bind-twice-0x57", "unbind-absent-0x57", "bindings-denied"}, test)
	whereBindingsAreListed(t, test)
}

// whereBindingsAreListed runs a test under those in which the list of bindings differs.
func whereBindingsAreListed(t *testing.T, test func(t *testing.T, h *host)) {
	inPersonalities(t, []string{"likely", "bindings-other-names"}, test)
}

func inPersonalities(t *testing.T, names []string, test func(t *testing.T, h *host)) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			p, found := hcstest.Named(name)
			if !found {
				t.Fatal("no such personality")
			}
			test(t, bindingHost(t, p))
		})
	}
}

func TestABindingKeepsWhatIsInTheDirectoryOfTheTarget(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		m := h.scratch("2")
		h.write(h.target("a/mine"), "mine")
		h.mustMount(m, h.target("a"))
		h.wantBound(hcstest.Binding{Root: h.target("a"), Source: h.link(m)})
		h.wantAt(h.target("a"), `directory of ["mine"]`)
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), `directory of ["mine"]`)
		h.wantClosed()
	})
}

func TestADirectoryIsMadeForABindingAndRemovedAgain(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		h.mustMount(h.scratch("2"), h.target("a"))
		h.wantAt(h.target("a"), "directory of []")
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	})
}

func TestADirectoryThatWasMadeForABindingStaysWithWhatAUserPutThere(t *testing.T) {
	h := bindingHost(t, hcstest.Likely)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.write(h.target("a/mine"), "mine")
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), `directory of ["mine"]`)
	h.wantClosed()
}

func TestABindingShowsTheFilesFolderOfALayerWithoutParents(t *testing.T) {
	h := bindingHost(t, hcstest.Likely)
	m := h.base("0")
	h.mustMount(m, h.target("a"))
	h.wantBound(hcstest.Binding{Root: h.target("a"), Source: m.Source + "/Files"})
}

func TestABindingOfAReadOnlyMountIsReadOnlyAndLookupSaysSo(t *testing.T) {
	h := bindingHost(t, hcstest.Likely)
	m := h.base("0")
	m.Options = []string{"ro"}
	h.mustMount(m, h.target("a"))
	h.wantBound(hcstest.Binding{Root: h.target("a"), Source: m.Source + "/Files", ReadOnly: true})
	if info, err := h.lookup(h.target("a")); err != nil || info.Options != "ro" {
		t.Errorf("Lookup says %+v, %v", info, err)
	}
}

func TestLookupDoesNotCallALinkReadOnly(t *testing.T) {
	h := newHost(t)
	m := h.base("0")
	m.Options = []string{"ro"}
	h.mustMount(m, h.target("a"))
	if info, err := h.lookup(h.target("a")); err != nil || info.Options != "" {
		t.Errorf("Lookup says %+v, %v", info, err)
	}
}

func TestATemporaryMountIsBoundAndItsDirectoryRemoved(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		h.useTempLocation()
		err := h.withTempMount(context.Background(), readonlyMounts([]Mount{*h.base("0")}), func(root string) error {
			h.wantBound(hcstest.Binding{Root: root, Source: h.path("layers/0/Files"), ReadOnly: true})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		h.wantAt(h.path("mnt"), "directory of []")
		h.wantClosed()
	})
}

func TestCleanupTempMountsUnbindsWhatAKilledProcessLeftAndRemovesItsDirectory(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		h.useTempLocation()
		m := h.scratch("2")
		h.mustMount(m, h.mkdir(h.target("a")))
		h.write(h.target("b/mine"), "mine")
		h.mustMount(m, h.target("b"))
		if failed, err := h.cleanupTempMounts(); len(failed) > 0 || err != nil {
			t.Fatal(failed, err)
		}
		h.wantAt(h.path("mnt"), `directory of ["b"]`)
		h.wantAt(h.target("b"), `directory of ["mine"]`)
		h.wantClosed()
	})
}

func TestALayerIsShownByALinkHereAndABindingThere(t *testing.T) {
	for _, order := range []string{"ab", "ba"} {
		inFilterPersonalities(t, func(t *testing.T, h *host) {
			h.bindsAt = "a"
			m := h.scratch("2")
			h.mustMount(m, h.target("a"))
			h.mustMount(m, h.target("b"))
			h.wantAt(h.target("b"), "link to "+h.link(m))
			h.wantBound(hcstest.Binding{Root: h.target("a"), Source: h.link(m)})
			h.mustUnmount(h.target(order[:1]))
			h.wantOpen("2")
			h.mustUnmount(h.target(order[1:]))
			h.wantClosed()
			h.wantAt(h.path("mnt"), "directory of []")
		})
	}
}

func TestABindingIsUnmountedByAProcessThatHasChosenLinks(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		h.mustMount(h.scratch("2"), h.target("a"))
		if _, err := h.binding(false).unmount(h.target("a")); err != nil {
			t.Fatal(err)
		}
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	})
}

func TestALiveBindingIsRefusedAndUntouched(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		m := h.scratch("2")
		h.mustMount(m, h.target("a"))
		want := h.model.Bound()
		wantError(t, h.mount(m, h.target("a")), "it shows layer "+m.Source, os.ErrExist)
		h.wantBound(want...)
		h.wantOpen("2")
	})
}

func TestWhatIsNoDirectoryIsNotBoundOver(t *testing.T) {
	h := bindingHost(t, hcstest.Likely)
	h.write(h.target("file"), "mine")
	symlink(t, h.path("layers"), h.target("a"))
	for _, name := range []string{"file", "a"} {
		h.bindsAt = name
		wantError(t, h.mount(h.scratch("2"), h.target(name)), "neither absent nor a directory", os.ErrExist)
	}
	h.wantClosed()
}

func TestATargetThatWouldHideTheLayerOrTheTableIsRefusedBeforeHCSIsCalled(t *testing.T) {
	h := newHost(t)
	m := h.base("2")
	if err := h.table.hold(); err != nil {
		t.Fatal(err)
	}
	h.bindsAt = "2 layers Files table"
	for target, hidden := range map[string]string{
		m.Source:                  m.Source,
		h.path("layers"):          m.Source,
		h.path("layers/2/Files"):  m.Source,
		h.path("table"):           h.path("table"),
		h.path("table", "layers"): h.path("table"),
	} {
		wantError(t, h.mount(m, target), "it would hide files of "+hidden)
	}
	h.wantCalls()
	h.wantClosed()
}

func TestATargetThatWouldHideAParentIsRefused(t *testing.T) {
	h := newHost(t)
	symlink(t, h.path("elsewhere"), h.path("link"))
	h.mkdir(h.path("elsewhere"))
	r := record{Source: h.path("layers/2"), Resolved: h.path("layers/2"), Parents: []string{h.path("layers/1"), h.path("more/layers/0"), h.path("link/layers/0")}}
	for _, path := range []string{"layers/1", "layers/1/Files", "more", "more/layers/0", "elsewhere", "link"} {
		at := target{Path: h.path(path), Resolved: h.path(path)}
		wantError(t, h.checkHides(&r, &at), "it would hide files of ")
	}
}

func TestADirectoryWithAMountInItIsNotBoundOver(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.write(h.target("a/mine"), "mine")
	h.mustMount(m, h.target("a/b"))
	h.bindsAt = "a"
	wantError(t, h.mount(h.scratch("3"), h.target("a")), "layers are mounted in it, such as at "+h.target("a/b"), os.ErrExist)
	h.wantOpen("2")
	h.mustUnmount(h.target("a/b"))
	h.wantClosed()
}

func TestAKilledMountThatHasBoundNothingIsUnmountedWithoutTheFilter(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		m := h.scratch("2")
		killedBefore(hcstest.Prepare, mountAtA)(h, m)
		others := h.bindOthers("a")
		h.model.ResetCalls()
		h.mustUnmount(h.target("a"))
		for _, call := range h.model.Calls() {
			if strings.HasPrefix(call, "Bf") {
				t.Errorf("called %s", call)
			}
		}
		h.wantBound(others)
		h.wantAt(h.target("a"), "directory of []")
		h.wantOpen()
	})
}

func TestABindingThatAnotherProgramHasMergedWithOursIsNotTakenAway(t *testing.T) {
	h := bindingHost(t, hcstest.Likely)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mounter.filter = mergedFilter{h.mounter.filter, binding{h.target("a"), h.mkdir(h.path("others"))}}
	wantError(t, h.unmount(h.target("a")), h.path("others")+" is bound there, too")
	if len(h.model.Bound()) != 1 || len(h.records()) != 1 {
		t.Errorf("bound: %+v, on record: %+v", h.model.Bound(), h.records())
	}
}

// mergedFilter lists one more binding.
type mergedFilter struct {
	bindFilter
	more binding
}

func (f mergedFilter) Bindings(path string) ([]binding, error) {
	bindings, err := f.bindFilter.Bindings(path)
	return append(bindings, f.more), err
}

func TestAnotherListOfBindingsIsAskedForWhenOneHasGoneMeanwhile(t *testing.T) {
	h := bindingHost(t, hcstest.Likely)
	others := h.bindOthers("a")
	h.failNext(hcstest.Bindings, errorFileNotFound, errorFileNotFound)
	wantError(t, h.mount(h.scratch("2"), h.target("a")), others.Source+" is bound there", os.ErrExist)
	h.wantOpen()
}

func TestATargetAtWhichAnotherProgramHasBoundSomethingIsRefusedBeforeHCSIsCalled(t *testing.T) {
	whereBindingsAreListed(t, func(t *testing.T, h *host) {
		others := h.bindOthers("a")
		wantError(t, h.mount(h.scratch("2"), h.target("a")), others.Source+" is bound there", os.ErrExist)
		h.wantBound(others)
		h.wantAt(h.target("a"), "directory of []")
		for _, call := range h.model.Calls() {
			if call != "BfGetMappings "+h.path("mnt") && call != "BfSetupFilter "+h.target("a")+" "+others.Source {
				t.Errorf("called %s", call)
			}
		}
	})
}

func (h *host) wantNoRecord() {
	h.t.Helper()
	if records := h.records(); len(records) > 0 {
		h.t.Errorf("on record: %+v", records)
	}
}

// bindOthers makes the binding of another program at a target.
func (h *host) bindOthers(target string) hcstest.Binding {
	h.t.Helper()
	if isGone(h.target(target)) {
		h.mkdir(h.target(target))
	}
	others := hcstest.Binding{Root: h.target(target), Source: h.mkdir(h.path("others"))}
	if err := h.model.Bind(others.Root, others.Source, false); err != nil {
		h.t.Fatal(err)
	}
	return others
}

func TestWhereBindingsCannotBeListedThatOfAnotherProgramIsRefusedAndStays(t *testing.T) {
	p, _ := hcstest.Named("bindings-denied")
	h := bindingHost(t, p)
	others := h.bindOthers("a")
	wantError(t, h.mount(h.scratch("2"), h.target("a")), "failed to bind layer", p.BindTwice)
	h.wantOpen()
	h.wantBound(others)
	h.wantNoRecord()
}

func TestUnmountLeavesAloneWhatAnotherProgramHasBoundSince(t *testing.T) {
	whereBindingsAreListed(t, func(t *testing.T, h *host) {
		h.mustMount(h.scratch("2"), h.target("a"))
		h.unbind("a")
		others := h.bindOthers("a")
		h.mustUnmount(h.target("a"))
		h.wantBound(others)
		h.wantAt(h.target("a"), "directory of []")
		h.wantOpen()
		h.wantNoRecord()
	})
}

func TestAfterARestartADirectoryThatAnotherProgramHasBoundSomethingToStays(t *testing.T) {
	whereBindingsAreListed(t, func(t *testing.T, h *host) {
		h.mustMount(h.scratch("2"), h.target("a"))
		h.reboot()
		others := h.bindOthers("a")
		h.mustUnmount(h.target("a"))
		h.wantBound(others)
		h.wantAt(h.target("a"), "directory of []")
		h.wantNoRecord()
	})
}

func (h *host) unbind(target string) {
	h.t.Helper()
	if err := h.model.Unbind(h.target(target)); err != nil {
		h.t.Fatal(err)
	}
}

func TestABindingThatHasGoneIsNoErrorOfUnmount(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		h.mustMount(h.scratch("2"), h.target("a"))
		h.unbind("a")
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	})
}

func TestABindingWhoseDirectoryWasRemovedIsTakenAway(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		h.mustMount(h.scratch("2"), h.target("a"))
		if err := os.Remove(h.target("a")); err != nil {
			t.Fatal(err)
		}
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	})
}

func TestABindingThatCannotBeRemovedKeepsItsRecordUntilUnmountIsRepeated(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		h.mustMount(h.scratch("2"), h.target("a"))
		h.failEvery(errorSharingViolation, hcstest.Unbind)
		wantError(t, h.unmount(h.target("a")), "failed to unbind layer "+h.path("layers/2")+" from "+h.target("a"), errorSharingViolation)
		h.model.Before = nil
		if len(h.records()) != 1 {
			t.Fatalf("on record: %+v", h.records())
		}
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "nothing")
		h.wantClosed()
	})
}

func TestABindingWhoseDirectoryIsOutOfReachKeepsItsRecordWhileTheFilterIsDenied(t *testing.T) {
	p, _ := hcstest.Named("bindings-denied")
	h := bindingHost(t, p)
	h.mkdir(h.target("dir"))
	h.mustMount(h.scratch("2"), h.target("dir/a"))
	if err := os.RemoveAll(h.target("dir")); err != nil {
		t.Fatal(err)
	}
	h.failEvery(errorAccessDenied, hcstest.Unbind)
	wantError(t, h.unmount(h.target("dir/a")), "failed to unbind layer", errorAccessDenied)
	h.model.Before = nil
	if len(h.records()) != 1 {
		t.Fatalf("on record: %+v", h.records())
	}
	h.mkdir(h.target("dir"))
	h.mustUnmount(h.target("dir/a"))
	h.wantClosed()
}

func TestADirectoryThatAUserPutInThePlaceOfOneMadeForABindingStays(t *testing.T) {
	for name, meanwhile := range map[string]func(h *host){
		"since Mount":                  func(h *host) {},
		"since a restart":              func(h *host) { h.reboot() },
		"since the binding is removed": func(h *host) { h.unbind("a") },
	} {
		t.Run(name, func(t *testing.T) {
			h := bindingHost(t, hcstest.Likely)
			h.mustMount(h.scratch("2"), h.target("a"))
			meanwhile(h)
			mine := h.mkdir(h.target("mine")) // while the other is there, or it could get the same ID
			if err := stderrors.Join(os.Remove(h.target("a")), os.Rename(mine, h.target("a"))); err != nil {
				t.Fatal(err)
			}
			h.mustUnmount(h.target("a"))
			h.wantAt(h.target("a"), "directory of []")
			h.wantClosed()
		})
	}
}

func TestAfterAMountThatCouldNotBeUndoneWhatAUserHasAtTheTargetStays(t *testing.T) {
	denied, _ := hcstest.Named("bindings-denied")
	for _, call := range []hcstest.Call{hcstest.Activate, hcstest.Prepare} {
		h := bindingHost(t, denied)
		h.model.After = failing(errorGenFailure, call)
		h.failEvery(errorSharingViolation, hcstest.Deactivate)
		wantError(t, h.mount(h.scratch("2"), h.target("a")), "undo: ", errorSharingViolation)
		h.model.Before, h.model.After = nil, nil
		h.wantNoLeak()
		others := h.bindOthers("a")
		h.mustUnmount(h.target("a"))
		h.wantBound(others)
		h.wantAt(h.target("a"), "directory of []")
		h.wantNoRecord()
	}
}

func TestABindingThatIsRemovedThoughTheFilterSaysOtherwiseIsNoError(t *testing.T) {
	h := bindingHost(t, hcstest.Likely)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.model.After = failing(errorGenFailure, hcstest.Unbind)
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestWithoutABindFilterAMountIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	h := bindingHost(t, hcstest.Likely)
	h.mounter.filter = noFilter{}
	h.mkdir(h.target("b"))
	for name, before := range map[string]string{"a": "nothing", "b": "directory of []"} {
		wantError(t, h.mount(h.scratch("2"), h.target(name)), "UseBindFilter(false)", stderrors.ErrUnsupported)
		h.wantCalls()
		h.wantAt(h.target(name), before)
		h.wantClosed()
	}
}

func TestWithoutABindFilterWhatIsOnRecordAsBoundIsUnmounted(t *testing.T) {
	h := bindingHost(t, hcstest.Likely)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.unbind("a")
	h.mounter.filter = noFilter{}
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

// noFilter is the bind filter of a system that has none.
type noFilter struct{}

func (noFilter) Find() error                              { return errNoFilter }
func (noFilter) Bind(string, string, bool) error          { return errNoFilter }
func (noFilter) Unbind(string) error                      { return errNoFilter }
func (noFilter) Bindings(string) (b []binding, err error) { return nil, errNoFilter }

func TestABindFilterThatIsDeniedFailsTheMountWhichIsUndone(t *testing.T) {
	for name, denied := range map[string][]hcstest.Call{
		"to bind":          {hcstest.Bind},
		"to bind and list": {hcstest.Bind, hcstest.Bindings},
		"altogether":       {hcstest.Bind, hcstest.Bindings, hcstest.Unbind},
	} {
		t.Run(name, func(t *testing.T) {
			h := bindingHost(t, hcstest.Likely)
			h.failEvery(errorAccessDenied, denied...)
			err := h.mount(h.scratch("2"), h.target("a"))
			wantError(t, err, "the bind filter is denied to this process", errorAccessDenied)
			h.wantAt(h.target("a"), "nothing")
			h.wantClosed()
		})
	}
}

func TestAVolumeThatIsLateForTheBindFilterIsTriedAgain(t *testing.T) {
	for _, code := range []syscall.Errno{errorFileNotFound, errorPathNotFound, errorNotReady} {
		h := bindingHost(t, hcstest.Likely)
		h.failNext(hcstest.Bind, code, code)
		h.mustMount(h.scratch("2"), h.target("a"))
		h.mustUnmount(h.target("a"))
		h.wantClosed()
	}
}

func TestADirectoryThatAUserMakesMeanwhileIsNotBoundOver(t *testing.T) {
	h := bindingHost(t, hcstest.Likely)
	m := h.scratch("2")
	h.model.Before = func(call hcstest.Call, _ string) error {
		if call == hcstest.Activate {
			h.mkdir(h.target("a"))
		}
		return nil
	}
	wantError(t, h.mount(m, h.target("a")), "failed to make directory "+h.target("a"), os.ErrExist)
	h.model.Before = nil
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestUnmountRecursiveUnbindsWhatIsBelow(t *testing.T) {
	inFilterPersonalities(t, func(t *testing.T, h *host) {
		m := h.scratch("2")
		h.bindsAt = "a"
		h.mustMount(m, h.target("a"))
		h.mustMount(m, h.target("b"))
		if err := h.unmountRecursive(h.path("mnt")); err != nil {
			t.Fatal(err)
		}
		h.wantAt(h.path("mnt"), "directory of []")
		h.wantClosed()
	})
}
