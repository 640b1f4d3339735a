package mount

import (
	"context"
	stderrors "errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/Microsoft/go-winio/pkg/bindfilter"
	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/hcs"
)

// The tests here bind layers with the real go-winio. Under Wine bindfltapi.dll is the
// simulation. Some tests look at what is shown: on Windows these use real layers, and under
// Wine those of the simulation, which are shown if it may mount.

// useBindings chooses how this process shows layers until the test ends.
func useBindings(t *testing.T, on bool) {
	t.Helper()
	before := bindsLayers.Load()
	UseBindFilter(on)
	t.Cleanup(func() { UseBindFilter(before) })
}

// bindHost is a winHost that really shows what is bound. On Windows its layers are real and
// it has no Model.
type bindHost struct {
	*winHost
	writable, base *Mount
}

func newBindHost(t *testing.T) *bindHost {
	t.Helper()
	if os.Getenv(simDir) != "" {
		t.Setenv("HCS_SIM_SHOW", "1")
	}
	h := &bindHost{}
	h.winHost, h.writable = newLayerHost(t)
	parents, err := h.writable.GetParentPaths()
	h.must(err)
	h.base = &Mount{Type: layerType, Source: parents[len(parents)-1]}
	h.needFilter()
	useBindings(t, true)
	t.Cleanup(func() { // or else all in the layer would be removed with the directory of the test
		if t.Failed() {
			_ = Unmount(h.base.Source, 0)
		}
	})
	return h
}

// needFilter skips the rest of a test where nothing can be bound and shown. In CI Windows
// must do it.
func (h *winHost) needFilter() {
	h.t.Helper()
	h.mkdir(h.path("probe"))
	err := bindOther(h, h.path("probe"))
	switch {
	case err == nil:
		h.must(bindfilter.RemoveFileBinding(h.path("probe")))
	case os.Getenv(simDir) != "" && stderrors.Is(err, windows.ERROR_NOT_SUPPORTED):
		h.t.Skip("Wine shows what is bound only where this user may mount on Linux")
	case os.Getenv(simDir) != "" || os.Getenv("CI") != "":
		h.t.Fatal(err)
	default:
		h.t.Skipf("the bind filter is not there, or not for this user: %v", err)
	}
}

// bindOther binds a directory with the file other.txt to root, as another program does, until
// the test ends.
func bindOther(h *winHost, root string) error {
	h.t.Helper()
	source := h.path("other of " + filepath.Base(root))
	h.write(filepath.Join(source, "other.txt"))
	err := bindfilter.ApplyFileBinding(root, source, false)
	if err == nil {
		h.t.Cleanup(func() { _ = bindfilter.RemoveFileBinding(root) })
	}
	return err
}

// bind mounts a layer at a target and returns what it shows.
func (h *bindHost) bind(m *Mount, target string) (root string) {
	h.t.Helper()
	h.must(m.Mount(target))
	info, err := Lookup(target)
	h.must(err)
	return info.Root
}

// wantVolume fails the test unless the volume of the writable layer is there, or has gone.
func (h *bindHost) wantVolume(root string, there bool) {
	h.t.Helper()
	if _, err := os.Stat(root); (err == nil) != there || err != nil && !os.IsNotExist(err) {
		h.t.Errorf("the volume: %v, want it there: %t", err, there)
	}
}

// wantClosed fails the test unless the writable layer, which showed root, is closed and
// nothing is on record.
func (h *bindHost) wantClosed(root string) {
	h.t.Helper()
	h.wantVolume(root, false)
	h.wantEmptyTable()
}

func TestMount_ABindingIsListedByAWalkOfTheTarget(t *testing.T) {
	for name, walk := range map[string]func(target string, visit func(path string, err error)){
		"WalkDir": func(target string, visit func(string, error)) {
			_ = filepath.WalkDir(target, func(path string, _ fs.DirEntry, err error) error { visit(path, err); return nil })
		},
		"Walk": func(target string, visit func(string, error)) {
			_ = filepath.Walk(target, func(path string, _ fs.FileInfo, err error) error { visit(path, err); return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newBindHost(t)
			root := h.bind(h.writable, h.path("target"))
			h.write(root + `new\deep\file.txt`)
			missing := map[string]bool{`.`: true, `new`: true, `new\deep`: true, `new\deep\file.txt`: true}
			walk(h.path("target"), func(path string, err error) {
				relative, _ := filepath.Rel(h.path("target"), path)
				if missing[relative] && err != nil { // other files of a real layer may be out of reach
					t.Error(err)
				}
				delete(missing, relative)
			})
			if len(missing) != 0 {
				t.Errorf("not listed: %v", missing)
			}
			h.must(Unmount(h.path("target"), 0))
		})
	}
}

func TestMount_ATargetWithABindingIsADirectory(t *testing.T) {
	for _, was := range []string{"absent", "directory"} {
		t.Run(was, func(t *testing.T) {
			h := newBindHost(t)
			if was == "directory" {
				h.mkdir(h.path("target"))
			}
			h.bind(h.writable, h.path("target"))
			if info, err := os.Lstat(h.path("target")); err != nil || info.Mode().Type() != fs.ModeDir {
				t.Errorf("%v, %v", info, err)
			}
			h.must(Unmount(h.path("target"), 0))
		})
	}
}

func TestMount_WhatIsWrittenThroughABindingIsInTheVolume(t *testing.T) {
	h := newBindHost(t)
	h.mkdir(h.path("target"))
	root := h.bind(h.writable, h.path("target"))
	if !hcs.IsVolume(root) {
		t.Errorf("bound is %s", root)
	}
	h.write(h.path(`target\new\file.txt`))
	h.wantFile(root+`new\file.txt`, "data")
	h.must(Unmount(h.path("target"), 0))
	h.wantDirectory(h.path("target"))
	h.bind(h.writable, h.path("second"))
	h.wantFile(h.path(`second\new\file.txt`), "data")
	h.must(Unmount(h.path("second"), 0))
}

func TestUnmount_OfABindingLeavesTheTargetAsItWas(t *testing.T) {
	for _, by := range []string{"target", "source"} {
		t.Run("by "+by, func(t *testing.T) {
			h := newBindHost(t)
			h.write(h.path(`full\mine.txt`))
			h.mkdir(h.path("empty"))
			var root string
			for _, target := range []string{"full", "empty", "absent"} {
				root = h.bind(h.writable, h.path(target))
			}
			h.wantAbsent(h.path(`full\mine.txt`)) // it is out of sight
			if by == "target" {
				for _, target := range []string{"full", "empty", "absent"} {
					h.must(Unmount(h.path(target), 0))
				}
			} else {
				h.must(Unmount(h.writable.Source, 0))
			}
			h.wantEntries(h.path("full"), "mine.txt")
			h.wantEntries(h.path("empty"))
			h.wantAbsent(h.path("absent"))
			h.wantClosed(root)
		})
	}
}

// wantReadOnly fails the test unless nothing can be written at a target where there is a
// file old.txt.
func (h *bindHost) wantReadOnly(target string) {
	h.t.Helper()
	oldFile, newFile := filepath.Join(target, "old.txt"), filepath.Join(target, "new.txt")
	for what, err := range map[string]error{
		"made a file":      os.WriteFile(newFile, []byte("new"), 0o666),
		"overwrote a file": os.WriteFile(oldFile, []byte("new"), 0o666),
		"made a directory": os.Mkdir(newFile, 0o777),
		"renamed a file":   os.Rename(oldFile, newFile),
	} {
		if err == nil {
			h.t.Error(what)
		}
	}
	_ = os.Remove(oldFile) // under Wine it reports success, and removes nothing
	if data, err := os.ReadFile(oldFile); err != nil || string(data) != "data" {
		h.t.Errorf("the file now has %q, %v", data, err)
	}
}

func TestMount_AReadOnlyBindingRefusesWrites(t *testing.T) {
	h := newBindHost(t)
	root := h.bind(h.writable, h.path("target"))
	h.write(h.path(`target\old.txt`))
	m := *h.writable
	m.Options = append(slices.Clone(m.Options), "ro")
	h.bind(&m, h.path("read-only"))
	h.wantReadOnly(h.path("read-only"))
	h.write(root + "volume.txt") // so it is the binding that refuses
	h.write(h.path(`target\target.txt`))
	h.must(Unmount(h.writable.Source, 0))
	h.wantClosed(root)
}

func TestWithReadonlyTempMount_ByABindingRefusesWrites(t *testing.T) {
	h := newBindHost(t)
	setTempDir(t, h.path("tmp"))
	mounts := []Mount{*h.writable}
	h.must(WithTempMount(context.Background(), mounts, func(root string) error {
		h.write(filepath.Join(root, "old.txt"))
		return nil
	}))
	h.must(WithReadonlyTempMount(context.Background(), mounts, func(root string) error {
		h.wantReadOnly(root)
		return nil
	}))
	h.wantEntries(h.path("tmp"))
}

func TestList_SaysWhichBindingsAreReadOnly(t *testing.T) {
	h := newBindHost(t)
	m := *h.writable
	m.Options = append(slices.Clone(m.Options), "ro")
	h.bind(h.writable, h.path("target"))
	h.bind(&m, h.path("read-only"))
	UseBindFilter(false)
	h.must(m.Mount(h.path("link"))) // which does not keep anybody from writing
	want := map[string]string{"target": "", "read-only": "ro", "link": ""}
	infos, err := List()
	if err != nil || len(infos) != len(want) {
		t.Errorf("listed are %v, %v", infos, err)
	}
	for _, info := range infos {
		name := filepath.Base(info.Mountpoint)
		looked, err := Lookup(info.Mountpoint)
		if err != nil || looked != info || info.Options != want[name] {
			t.Errorf("%s is listed as %+v and looked up as %+v, %v, want options %q", name, info, looked, err, want[name])
		}
	}
	h.must(Unmount(h.writable.Source, 0))
}

func TestMount_BindsTheFilesOfABaseLayer(t *testing.T) {
	h := newBindHost(t)
	h.bind(h.base, h.path("target"))
	h.wantEntries(h.path("target"), h.entries(filepath.Join(h.base.Source, "Files"))...)
	h.must(Unmount(h.path("target"), 0))
	h.wantAbsent(h.path("target"))
	h.wantEmptyTable()
}

func TestUnmount_ClosesALayerWithItsLastLinkOrBinding(t *testing.T) {
	for _, order := range [][]string{{"link", "binding"}, {"binding", "link"}} {
		t.Run("first the "+order[0], func(t *testing.T) {
			h := newBindHost(t)
			root := h.bind(h.writable, h.path("binding"))
			UseBindFilter(false)
			if linked := h.bind(h.writable, h.path("link")); linked != root {
				t.Errorf("the link shows %s, and the binding %s", linked, root)
			}
			h.write(root + "file.txt")
			h.must(Unmount(h.path(order[0]), 0))
			h.wantAbsent(h.path(order[0]))
			h.wantVolume(root, true)
			h.wantFile(h.path(order[1], "file.txt"), "data")
			h.must(Unmount(h.path(order[1]), 0))
			h.wantAbsent(h.path(order[1]))
			h.wantClosed(root)
		})
	}
}

func TestUnmount_OfWhatAnotherProcessShowsInTheOtherWay(t *testing.T) {
	for _, binds := range []bool{true, false} {
		t.Run(fmt.Sprintf("bound %t", binds), func(t *testing.T) {
			h := newBindHost(t)
			UseBindFilter(binds)
			h.mkdir(h.path("target"))
			root := h.bind(h.writable, h.path("target"))
			h.write(root + "file.txt")
			UseBindFilter(!binds)
			if out, err := h.child("unmount").CombinedOutput(); err != nil || len(out) != 0 {
				t.Errorf("the other process: %v, %s", err, out)
			}
			h.wantDirectory(h.path("target"))
			h.wantClosed(root)
		})
	}
}

func TestMount_RefusesATargetToWhichSomethingIsBound(t *testing.T) {
	h := newBindHost(t)
	h.mkdir(h.path("target"))
	h.must(bindOther(h.winHost, h.path("target")))
	wantError(t, h.writable.Mount(h.path("target")), "is bound there", os.ErrExist)
	h.wantEntries(h.path("target"), "other.txt")
	h.wantEmptyTable()
	if h.Model != nil {
		h.wantOpen()
	}
	h.must(bindfilter.RemoveFileBinding(h.path("target")))
	h.wantDirectory(h.path("target"))
}

func TestMount_RefusesATargetThatShowsALayerInEitherWay(t *testing.T) {
	for _, binds := range []bool{true, false} {
		t.Run(fmt.Sprintf("bound %t", binds), func(t *testing.T) {
			h := newBindHost(t)
			UseBindFilter(binds)
			root := h.bind(h.writable, h.path("target"))
			for _, again := range []bool{true, false} {
				UseBindFilter(again)
				wantError(t, h.writable.Mount(h.path("target")), "it shows layer", os.ErrExist)
			}
			h.wantVolume(root, true)
			h.must(Unmount(h.path("target"), 0))
			h.wantClosed(root)
		})
	}
}

func TestUnmount_LeavesABindingPutInThePlaceOfOurs(t *testing.T) {
	for _, was := range []string{"absent", "directory"} {
		t.Run(was, func(t *testing.T) {
			h := newBindHost(t)
			if was == "directory" {
				h.mkdir(h.path("target"))
			}
			root := h.bind(h.writable, h.path("target"))
			h.must(bindfilter.RemoveFileBinding(h.path("target")))
			h.must(bindOther(h.winHost, h.path("target")))
			h.must(Unmount(h.path("target"), 0))
			h.wantEntries(h.path("target"), "other.txt")
			h.wantClosed(root)
		})
	}
}

func TestUnmount_LeavesAnEmptyDirectoryThatSomebodyBound(t *testing.T) {
	h := newBindHost(t)
	root := h.bind(h.writable, h.path("target"))
	h.must(bindfilter.RemoveFileBinding(h.path("target")))
	h.must(bindOther(h.winHost, h.path("target")))
	h.must(os.Remove(h.path("other of target", "other.txt")))
	h.must(Unmount(h.path("target"), 0))
	h.write(h.path("other of target", "other.txt"))
	h.wantEntries(h.path("target"), "other.txt")
	h.wantClosed(root)
}

func TestUnmount_OfABindingThatSomebodyHasRemoved(t *testing.T) {
	h := newBindHost(t)
	h.write(h.path(`full\mine.txt`))
	var root string
	for _, target := range []string{"full", "absent"} {
		root = h.bind(h.writable, h.path(target))
		h.must(bindfilter.RemoveFileBinding(h.path(target)))
	}
	h.must(Unmount(h.path("full"), 0))
	h.must(Unmount(h.path("absent"), 0))
	h.wantEntries(h.path("full"), "mine.txt")
	h.wantAbsent(h.path("absent"))
	h.wantClosed(root)
}

// The tests from here on look into the simulation, and not at what it shows.

func newSimBindHost(t *testing.T) *winHost {
	t.Helper()
	h := newWinHost(t)
	useBindings(t, true)
	return h
}

// wantBound fails the test unless something is bound at these targets and nowhere else.
func (h *winHost) wantBound(targets ...string) {
	h.t.Helper()
	var got []string
	for _, b := range h.Bound() {
		name, err := filepath.Rel(h.dir, b.Root)
		h.must(err)
		got = append(got, name)
	}
	if slices.Sort(targets); !slices.Equal(got, targets) {
		h.t.Errorf("bound are %q, want %q", got, targets)
	}
}

func TestMount_CallsTheBindFilterInOrder(t *testing.T) {
	h := newSimBindHost(t)
	target := h.path("target")
	h.must(h.scratch().Mount(target))
	h.wantBound("target")
	bound := h.Bound()[0]
	h.wantCalls(calls(winOpen, []string{"BfSetupFilter " + target + " " + bound.Source})...)
	if !strings.HasSuffix(bound.Source, `}\`) {
		t.Errorf("bound is %s", bound.Source)
	}
	h.must(Unmount(target, 0))
	h.wantCalls(calls([]string{"BfGetMappings " + h.dir, "BfRemoveMapping " + target}, winClose)...)
	h.wantNothing()
}

func TestUnmount_LeavesADirectoryToWhichSomebodyHasBoundSomething(t *testing.T) {
	h := newSimBindHost(t)
	h.must(h.scratch().Mount(h.path("target")))
	h.must(bindfilter.RemoveFileBinding(h.path("target")))
	h.must(bindOther(h, h.path("target")))
	h.must(Unmount(h.path("target"), 0))
	h.wantDirectory(h.path("target"))
	h.wantBound("target")
	h.must(bindfilter.RemoveFileBinding(h.path("target")))
	h.wantNothing()
}

func TestMount_WithoutABindFilterIsUnsupported(t *testing.T) {
	for _, was := range []string{"absent", "directory"} {
		t.Run(was, func(t *testing.T) {
			h := newSimBindHost(t)
			if was == "directory" {
				h.write(h.path(`target\mine.txt`))
			}
			hideFilter(h)
			if out, err := h.child("mount-unsupported 2").CombinedOutput(); err != nil || len(out) != 0 {
				t.Errorf("the other process: %v, %s", err, out)
			}
			h.wantNothing()
			if was == "directory" {
				h.wantEntries(h.path("target"), "mine.txt")
			} else {
				h.wantAbsent(h.path("target"))
			}
		})
	}
}

// hideFilter keeps processes from loading bindfltapi.dll until the test ends.
func hideFilter(h *winHost) {
	h.t.Helper()
	system, err := windows.GetSystemDirectory()
	h.must(err)
	dll := filepath.Join(system, "bindfltapi.dll")
	h.must(os.Rename(dll, dll+".hidden"))
	h.t.Cleanup(func() { h.must(os.Rename(dll+".hidden", dll)) })
}

// mountUnsupported returns an error unless Mount finds that there is no bind filter.
func mountUnsupported(m *Mount, target string) error {
	err := m.Mount(target)
	if !stderrors.Is(err, stderrors.ErrUnsupported) || !strings.Contains(err.Error(), "UseBindFilter(false)") {
		return fmt.Errorf("Mount has returned %v", err)
	}
	return nil
}

func TestMount_WhereTheBindFilterIsDenied(t *testing.T) {
	for name, plan := range map[string][]string{
		"BfSetupFilter": {"BfSetupFilter 0x5 99"},
		"all":           {"BfSetupFilter 0x5 99", "BfRemoveMapping 0x5 99", "BfGetMappings 0x5 99"},
	} {
		for _, was := range []string{"absent", "directory"} {
			t.Run(name+", "+was, func(t *testing.T) {
				h := newSimBindHost(t)
				if was == "directory" {
					h.write(h.path(`target\mine.txt`))
				}
				h.faults(plan...)
				err := h.scratch().Mount(h.path("target"))
				wantError(t, err, "UseBindFilter(false)", windows.ERROR_ACCESS_DENIED)
				h.wantNothing()
				if was == "directory" {
					h.wantEntries(h.path("target"), "mine.txt")
				} else {
					h.wantAbsent(h.path("target"))
				}
			})
		}
	}
}

func TestUnmount_KeepsTheRecordOfABindingThatCannotBeRemoved(t *testing.T) {
	for _, by := range []string{"target", "source"} {
		t.Run("by "+by, func(t *testing.T) {
			h := newSimBindHost(t)
			path := h.path("target")
			h.must(h.scratch().Mount(path))
			if by == "source" {
				path = h.layer("2")
			}
			h.faults("BfRemoveMapping 0x20 99")
			for i := 0; i < 2; i++ {
				err := Unmount(path, 0)
				wantError(t, err, "failed to unbind layer "+h.layer("2")+" from "+h.path("target"), windows.ERROR_SHARING_VIOLATION)
				h.wantBound("target")
				if infos, err := List(); err != nil || len(infos) != 1 {
					t.Errorf("listed are %v, %v", infos, err)
				}
			}
			h.faults()
			h.must(Unmount(path, 0))
			h.wantNothing()
			h.wantAbsent(h.path("target"))
		})
	}
}

func TestUnmount_OfABindingAfterARestart(t *testing.T) {
	for _, by := range []string{"target", "source"} {
		t.Run("by "+by, func(t *testing.T) {
			h := newSimBindHost(t)
			h.write(h.path(`full\mine.txt`))
			h.must(h.scratch().Mount(h.path("full")))
			h.must(h.scratch().Mount(h.path("absent")))
			h.wantBound("absent", "full")
			h.restart()
			h.ResetCalls()
			if by == "target" {
				h.must(Unmount(h.path("full"), 0))
				h.must(Unmount(h.path("absent"), 0))
			} else {
				h.must(Unmount(h.layer("2"), 0))
			}
			h.wantNoChange()
			h.wantNothing()
			h.wantEntries(h.path("full"), "mine.txt")
			h.wantAbsent(h.path("absent"))
		})
	}
}

func TestUnmount_LeavesWhatSomebodyHasBoundAfterARestart(t *testing.T) {
	for _, was := range []string{"absent", "directory"} {
		t.Run(was, func(t *testing.T) {
			h := newBindHost(t)
			if h.Model == nil {
				t.Skip("needs a restart, which only the simulation has")
			}
			if was == "directory" {
				h.mkdir(h.path("target"))
			}
			root := h.bind(h.writable, h.path("target"))
			h.restart()
			h.must(bindOther(h.winHost, h.path("target")))
			h.ResetCalls()
			h.must(Unmount(h.path("target"), 0))
			h.wantNoChange()
			h.wantEntries(h.path("target"), "other.txt")
			h.wantClosed(root)
		})
	}
}

// Windows does not care how the path is spelled.
func TestUnmount_LeavesALayerThatContainerdShowsElsewhereHoweverThePathIsSpelled(t *testing.T) {
	for _, spell := range []func(string) string{strings.ToLower, strings.ToUpper} {
		h := newBindHost(t)
		m := h.writable
		h.openElsewhere(m)
		volume, err := vmcompute{}.GetLayerMountPath(m.Source)
		h.must(err)
		for _, name := range []string{"a", "b"} {
			h.mkdir(h.path(name))
			h.must(bindfilter.ApplyFileBinding(h.path(name), volume, false))
		}
		h.must(os.WriteFile(h.path("a")+sourceStream, []byte(m.Source), 0o666))
		h.must(Unmount(spell(h.path("b")), 0))
		h.wantOpen("2")
		h.must(Unmount(h.path("a"), 0))
		h.wantNothing()
	}
}
