//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
)

// useTempLocation puts temporary mounts in the directory mnt until the test ends.
func (h *host) useTempLocation() *host {
	tempLocation.Store(h.path("mnt"))
	h.t.Cleanup(func() { tempLocation.Store("") })
	return h
}

// underLinksAndFilters runs a test of temporary mounts for links and for each way of the bind filter.
func underLinksAndFilters(t *testing.T, test func(t *testing.T, h *host)) {
	t.Run("links", func(t *testing.T) { test(t, newHost(t).useTempLocation()) })
	underFilters(t, func(t *testing.T, h *host, _ way) {
		h.bindsAt = "abc0123456789" // with the targets that withTempMount makes
		test(t, h.useTempLocation())
	})
}

// mustCleanUp calls cleanupTempMounts, which must succeed.
func (h *host) mustCleanUp() {
	h.t.Helper()
	if failed, err := h.cleanupTempMounts(); err != nil || len(failed) != 0 {
		h.t.Fatalf("%q, %v", failed, err)
	}
}

// wantNoTemp fails the test if a temporary mount or its directory is left.
func (h *host) wantNoTemp() {
	h.t.Helper()
	h.wantAt(h.path("mnt"), "directory of []")
	h.wantClosed()
}

// inside returns the mounts of two layers, of which the second is shown in the first.
func inside(h *host) []Mount {
	outer, inner := *h.scratch("2"), *h.base("3")
	inner.Target = "sub"
	return []Mount{outer, inner}
}

var (
	errCallback = stderrors.New("callback")
	noCallback  = func(string) error { return stderrors.New("called") }
)

func TestWithTempMount_ShowsTheMountsMeanwhile(t *testing.T) {
	underLinksAndFilters(t, func(t *testing.T, h *host) {
		var root string
		err := h.withTempMount(context.Background(), inside(h), func(dir string) error {
			root = dir
			h.wantOpen("2", "3")
			for _, path := range []string{dir, filepath.Join(dir, "sub")} {
				if _, err := h.lookup(path); err != nil {
					t.Error(err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(root) != h.path("mnt") {
			t.Errorf("mounted at %s", root)
		}
		h.wantNoTemp()
	})
}

func TestWithTempMount_ReturnsTheErrorOfTheCallback(t *testing.T) {
	underLinksAndFilters(t, func(t *testing.T, h *host) {
		err := h.withTempMount(context.Background(), inside(h), func(string) error { return errCallback })
		wantError(t, err, "mount callback failed on "+h.path("mnt"), errCallback)
		h.wantNoTemp()
	})
}

func TestWithTempMount_UnmountsIfTheCallbackPanics(t *testing.T) {
	underLinksAndFilters(t, func(t *testing.T, h *host) {
		died, _ := survive(func() error {
			return h.withTempMount(context.Background(), inside(h), func(string) error { panic(errKilled) })
		})
		if !died {
			t.Error("the panic was swallowed")
		}
		h.wantNoTemp()
	})
}

// os.RemoveAll removes a link and nothing behind it.
func TestWithTempMount_UnmountsWhatIsBehindALinkThatIsGone(t *testing.T) {
	for name, do := range map[string]func(h *host) error{
		"mounted by WithTempMount": func(h *host) error {
			return h.withTempMount(context.Background(), inside(h), os.RemoveAll)
		},
		"mounted by the callback": func(h *host) error {
			mounts := inside(h)
			return h.withTempMount(context.Background(), mounts[:1], func(root string) error {
				h.mustMount(&mounts[1], root)
				return os.RemoveAll(root)
			})
		},
		"replaced by a directory": func(h *host) error {
			return h.withTempMount(context.Background(), inside(h), func(root string) error {
				h.t.Cleanup(func() { h.wantAt(h.path("mnt"), "directory of []") })
				return stderrors.Join(os.Remove(root), os.Mkdir(root, 0o755))
			})
		},
		"killed, and cleaned up": func(h *host) error {
			survive(func() error {
				return h.withTempMount(context.Background(), inside(h), func(root string) error {
					h.model.Before = func(hcstest.Call, string) error { panic(errKilled) }
					os.RemoveAll(root)
					panic(errKilled)
				})
			})
			h.model.Before = nil
			failed, err := h.cleanupTempMounts()
			return stderrors.Join(append(failed, err)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t).useTempLocation()
			if err := do(h); err != nil {
				t.Error(err)
			}
			h.wantNoTemp()
		})
	}
}

func TestWithTempMount_UnmountsWhenTheCallbackRemovesWhatIsBound(t *testing.T) {
	underFilters(t, func(t *testing.T, h *host, w way) {
		h.useTempLocation()
		if err := h.withTempMount(context.Background(), inside(h), os.RemoveAll); err != nil {
			// If a root is gone, nothing below it can be unbound.
			wantError(t, err, "failed to unmount")
			h.wantNoLeak()
			h.mustCleanUp()
		}
		h.wantOpen()
		h.wantNoRecord()
	})
}

func TestWithTempMount_ReturnsAllErrorsAndKeepsWhatIsMounted(t *testing.T) {
	underLinksAndFilters(t, func(t *testing.T, h *host) {
		var root string
		h.failEvery(errorSharingViolation, hcstest.Unprepare, hcstest.Deactivate)
		err := h.withTempMount(context.Background(), []Mount{*h.scratch("2")}, func(dir string) error {
			root = dir
			return errCallback
		})
		wantError(t, err, "mount callback failed", errCallback)
		wantError(t, err, "failed to unmount "+root, errorSharingViolation)
		h.wantOpen("2")
		h.wantNoLeak()
		h.model.Before = nil
		h.mustCleanUp()
		h.wantNoTemp()
	})
}

func TestWithTempMount_RemovesNothingOfALayerThatStaysOpen(t *testing.T) {
	h := newHost(t).useTempLocation()
	h.failEvery(errorSharingViolation, hcstest.Unprepare, hcstest.Deactivate)
	var volume string
	err := h.withTempMount(context.Background(), []Mount{*h.scratch("2")}, func(root string) error {
		h.write(filepath.Join(root, "data"), "mine")
		volume = h.record(root).Volume
		return nil
	})
	wantError(t, err, "failed to unmount", errorSharingViolation)
	h.wantAt(volume, `directory of ["data"]`)
}

func TestWithTempMount_KeepsADirectoryThatIsNotEmpty(t *testing.T) {
	h := newHost(t).useTempLocation()
	var root string
	err := h.withTempMount(context.Background(), []Mount{*h.scratch("2")}, func(dir string) error {
		root = dir
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
		h.write(filepath.Join(dir, "data"), "mine")
		return errCallback
	})
	wantError(t, err, "temporary directory "+root+" was not removed", errCallback, syscall.ENOTEMPTY)
	h.wantAt(root, `directory of ["data"]`)
	h.wantClosed()
}

func TestWithTempMount_LeavesNothingIfAMountFails(t *testing.T) {
	underLinksAndFilters(t, func(t *testing.T, h *host) {
		mounts := inside(h)
		h.model.Before = func(call hcstest.Call, layer string) error {
			if call == hcstest.Prepare && layer == mounts[1].Source {
				return errorGenFailure
			}
			return nil
		}
		wantError(t, h.withTempMount(context.Background(), mounts, noCallback), "failed to mount at "+h.path("mnt"), errorGenFailure)
		wantError(t, h.withTempMount(context.Background(), []Mount{{Type: "other"}}, noCallback), "failed to mount at")
		h.wantNoTemp()
	})
}

func TestWithTempMount_OfAContextThatHasEnded(t *testing.T) {
	h := newHost(t).useTempLocation()
	ctx, cancel := context.WithCancel(context.Background())
	err := h.withTempMount(ctx, []Mount{*h.scratch("2")}, func(string) error {
		cancel()
		return nil
	})
	if err != nil {
		t.Errorf("ended while it was mounted: %v", err)
	}
	h.wantNoTemp()
	h.model.ResetCalls()
	wantError(t, h.withTempMount(ctx, []Mount{*h.scratch("2")}, noCallback), "", context.Canceled)
	h.wantCalls()
	h.wantNoTemp()
}

func TestWithTempMount_UnmountsTheFirstIfTheContextEndsTheSecond(t *testing.T) {
	underLinksAndFilters(t, func(t *testing.T, h *host) {
		ctx, cancel := context.WithCancel(context.Background())
		mounts := inside(h)
		h.model.Before = func(call hcstest.Call, layer string) error {
			if call == hcstest.Prepare && layer == mounts[1].Source {
				cancel()
				return errorNotReady // which is tried again
			}
			return nil
		}
		wantError(t, h.withTempMount(ctx, mounts, noCallback), "failed to prepare layer", errorNotReady, context.Canceled)
		h.wantNoTemp()
	})
}

func TestWithTempMount_NeedsItsLocation(t *testing.T) {
	h := newHost(t).useTempLocation()
	tempLocation.Store(h.path("none"))
	wantError(t, h.withTempMount(context.Background(), nil, noCallback), "failed to make a temporary directory", os.ErrNotExist)
	tempLocation.Store("")
	if got := getTempLocation(); got != os.TempDir() {
		t.Errorf("by default it is %s", got)
	}
}

func TestWithTempMount_NeedsNoTableForNoMounts(t *testing.T) {
	h := newHost(t).useTempLocation()
	if err := h.withTempMount(context.Background(), nil, func(string) error { return nil }); err != nil {
		t.Error(err)
	}
	h.wantNoTemp()
}

func TestWithTempMount_NamesADirectoryThatStays(t *testing.T) {
	h := newHost(t).useTempLocation()
	h.write(h.path("table"), "no table")
	for _, mounts := range [][]Mount{nil, {*h.scratch("2")}} {
		err := h.withTempMount(context.Background(), mounts, func(string) error { return nil })
		wantError(t, err, "temporary directory "+h.path("mnt", "containerd-mount"))
	}
}

func TestCleanupTempMounts_RemovesWhatKilledProcessesLeft(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, reboots := range []bool{false, true} {
			underLinksAndFilters(t, func(t *testing.T, h *host) {
				_, isVolume := h.filter.(volumeFilter)
				if isVolume && reboots {
					return // in the model, what was in a volume is still at its path then
				}
				if name := h.model.Personality.Name; name != "likely" && name != "bindings-denied" {
					return
				}
				for at := 0; h.kill(at, after, func() error {
					return h.withTempMount(context.Background(), inside(h), func(string) error { return nil })
				}); at++ {
					if reboots {
						h.reboot()
					}
					h.mustCleanUp()
					h.wantNoTemp()
					if t.Failed() {
						t.Fatal("killed in call ", at)
					}
				}
			})
		}
	}
}

func TestCleanupTempMounts_KeepsWhatIsNotATemporaryMount(t *testing.T) {
	h := newHost(t).useTempLocation()
	h.write(h.target("data"), "mine")
	h.mkdir(h.target("dir"))
	h.mustMount(h.scratch("2"), h.mkdir(h.path("elsewhere"))+"/a")
	h.mustCleanUp()
	h.wantAt(h.path("mnt"), `directory of ["data" "dir"]`)
	h.wantOpen("2")
}

func TestCleanupTempMounts_KeepsADirectoryThatAUserMade(t *testing.T) {
	for _, before := range []string{"nothing", "directory of []"} {
		h := newHost(t).useTempLocation()
		if before != "nothing" {
			h.mkdir(h.target("a"))
		}
		h.mustMount(h.scratch("2"), h.target("a"))
		if err := os.Remove(h.target("a")); err != nil {
			t.Fatal(err)
		}
		want := "directory of []"
		if before != "nothing" { // what is empty could be the one that was there
			h.write(h.target("a/mine"), "mine")
			want = `directory of ["mine"]`
			failed, err := h.cleanupTempMounts()
			if err != nil || len(failed) != 1 {
				t.Errorf("%q, %v", failed, err)
			}
		} else {
			h.mkdir(h.target("a"))
			h.mustCleanUp()
		}
		h.wantAt(h.target("a"), want)
		h.wantClosed()
	}
}

func TestCleanupTempMounts_KeepsABoundDirectoryThatIsNotEmpty(t *testing.T) {
	underFilters(t, func(t *testing.T, h *host, w way) {
		h.useTempLocation()
		m := h.scratch("2")
		h.mustMount(m, h.mkdir(h.target("a")))
		h.write(h.target("b/mine"), "mine")
		h.mustMount(m, h.target("b"))
		failed, err := h.cleanupTempMounts()
		if err != nil || len(failed) != 1 {
			t.Fatalf("%q, %v", failed, err)
		}
		wantError(t, failed[0], "temporary directory "+h.target("b")+" was not removed", syscall.ENOTEMPTY)
		h.wantAt(h.path("mnt"), `directory of ["b"]`)
		h.wantAt(h.target("b"), `directory of ["mine"]`)
		h.wantClosed()
	})
}

func TestCleanupTempMounts_KeepsADirectoryThatAnotherProgramHasBound(t *testing.T) {
	for _, reboots := range []bool{false, true} {
		underFilters(t, func(t *testing.T, h *host, w way) {
			if !w.lists {
				return // nothing tells whose binding it is
			}
			h.useTempLocation()
			h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
			if reboots {
				h.reboot()
			} else {
				h.mustUnbind(h.target("a"))
			}
			others := h.bindOthers(h.target("a"))
			h.mustCleanUp()
			h.wantBound(others)
			h.wantAt(h.target("a"), "directory of []")
			h.wantOpen()
			h.wantNoRecord()
		})
	}
}

func TestCleanupTempMounts_ReturnsAnErrorForEachThatIsLeft(t *testing.T) {
	underLinksAndFilters(t, func(t *testing.T, h *host) {
		for _, name := range []string{"0", "1", "2"} {
			h.mustMount(h.scratch(name), h.mkdir(h.target(name)))
		}
		h.model.Before = func(call hcstest.Call, layer string) error {
			if (call == hcstest.Unprepare || call == hcstest.Deactivate) && filepath.Base(layer) != "1" {
				return errorSharingViolation
			}
			return nil
		}
		failed, err := h.cleanupTempMounts()
		if err != nil || len(failed) != 2 {
			t.Fatalf("%q, %v", failed, err)
		}
		for _, err := range failed {
			wantError(t, err, "failed to deactivate layer", errorSharingViolation)
		}
		h.wantNoLeak()
		h.wantOpen("0", "2")
		h.model.Before = nil
		h.mustCleanUp()
		h.wantNoTemp()
	})
}

func TestCleanupTempMounts_ReportsDamagedFiles(t *testing.T) {
	h := newHost(t).useTempLocation()
	for _, name := range []string{"0", "1"} {
		h.mustMount(h.scratch(name), h.mkdir(h.target(name)))
	}
	path := h.recordFile(h.target("0"))
	h.write(path, "torn\n")
	failed, err := h.cleanupTempMounts()
	if err != nil || len(failed) != 1 {
		t.Fatalf("%q, %v", failed, err)
	}
	wantError(t, failed[0], "damaged file "+path, table.ErrDamaged)
	h.wantAt(h.target("1"), "nothing")
	h.wantOpen("0")
}

func TestCleanupTempMounts_UnmountsEveryTargetOfALayer(t *testing.T) {
	for _, reboots := range []bool{false, true} {
		underLinksAndFilters(t, func(t *testing.T, h *host) {
			m := h.scratch("2")
			h.mustMount(m, h.mkdir(h.target("a")))
			h.mustMount(m, h.mkdir(h.target("b")))
			if reboots {
				h.reboot()
			}
			h.mustCleanUp()
			h.wantNoTemp()
		})
	}
}

func TestCleanupTempMounts_IsNilWithoutATable(t *testing.T) {
	h := newHost(t).useTempLocation()
	if failed, err := h.cleanupTempMounts(); err != nil || failed != nil {
		t.Error(failed, err)
	}
	h.wantAt(h.path("table"), "nothing")
}

func TestCleanupTempMounts_FailsIfTheTableCannotBeRead(t *testing.T) {
	h := newHost(t).useTempLocation()
	h.mustMount(h.scratch("2"), h.target("a"))
	mounts := h.path("table", "mounts")
	if err := os.Rename(mounts, h.path("aside")); err != nil {
		t.Fatal(err)
	}
	h.write(mounts, "a file")
	failed, err := h.cleanupTempMounts()
	wantError(t, err, "mount table", syscall.ENOTDIR)
	if failed != nil {
		t.Errorf("%q", failed)
	}
	h.wantOpen("2")
}

func TestWithReadonlyTempMount_AndRemoveVolatileOptionChangeCopies(t *testing.T) {
	mounts := func() []Mount {
		return []Mount{
			{Type: "windows-layer", Options: []string{"rw", "x", "ro", "volatile"}},
			{Type: "overlay", Options: []string{"volatile", "lowerdir=a", "fsync=volatile", "upperdir=b"}},
		}
	}
	for _, test := range []struct {
		name   string
		change func([]Mount) []Mount
		want   string
	}{
		{"readonly", readonly, "x,volatile,ro;volatile,lowerdir=a,fsync=volatile,upperdir=b,ro"},
		{"RemoveVolatileOption", RemoveVolatileOption, "rw,x,ro,volatile;lowerdir=a,upperdir=b"},
	} {
		given := mounts()
		var got []string
		for _, m := range test.change(given) {
			got = append(got, strings.Join(m.Options, ","))
		}
		if strings.Join(got, ";") != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if !reflect.DeepEqual(given, mounts()) {
			t.Errorf("%s has changed its argument to %q", test.name, given)
		}
	}
}

// What was mounted in a temporary mount is in no temporary directory of its own.
func TestCleanupTempMounts_KeepsTheDirectoriesOfALayer(t *testing.T) {
	for _, content := range []string{"", "mine"} {
		h := newHost(t).useTempLocation()
		outer, inner := *h.scratch("2"), *h.base("3")
		want := "directory of []"
		h.inVolume(&outer, func(volume string) {
			sub := h.mkdir(filepath.Join(volume, "sub"))
			if content != "" {
				h.write(filepath.Join(sub, content), "")
				h.bindsAt = "sub"
				want = fmt.Sprintf("directory of [%q]", content)
			}
		})
		_, _ = survive(func() error {
			return h.withTempMount(context.Background(), []Mount{outer}, func(root string) error {
				h.mustMount(&inner, filepath.Join(root, "sub"))
				h.model.Before = func(hcstest.Call, string) error { panic(errKilled) }
				return nil
			})
		})
		h.model.Before = nil
		if failed, err := h.cleanupTempMounts(); err != nil || len(failed) > 0 {
			t.Errorf("failed %q, %v", failed, err)
		}
		h.wantNoTemp()
		h.inVolume(&outer, func(volume string) { h.wantAt(filepath.Join(volume, "sub"), want) })
	}
}
