package hcs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// finalCodes are codes that say nothing about whether a layer is open.
var finalCodes = []syscall.Errno{errAccessDenied, errNotReady, errGenFailure, ErrSharingViolation, errInvalidParameter, errBusy}

func TestClose_UnpreparesAndDeactivates(t *testing.T) {
	for _, disk := range disks {
		h := newHost(t)
		h.mustClose(h.open(h.layer(disk)))
		h.wantCalls(closeCalls...)
		h.wantOpen()
	}
}

func TestClose_TriesAgainWhateverFails(t *testing.T) {
	for _, disk := range disks {
		for _, code := range finalCodes {
			t.Run(fmt.Sprintf("%s 0x%x", disk, uintptr(code)), func(t *testing.T) {
				h := newHost(t)
				layer := h.open(h.layer(disk))
				fail := failing(code, hcstest.Unprepare, hcstest.Deactivate)
				h.model.Before = func(call hcstest.Call, layer string) error {
					if h.pauses == 4 {
						return nil
					}
					return fail(call, layer)
				}
				h.mustClose(layer)
				h.wantOpen()
				if h.pauses != 4 {
					t.Errorf("%d pauses", h.pauses)
				}
			})
		}
	}
}

func TestClose_FailsWhenALayerStaysOpen(t *testing.T) {
	for _, disk := range disks {
		for _, attaches := range []bool{false, true} {
			for _, code := range finalCodes {
				h := newHost(t)
				h.model.Personality.AttachesKeptDisk = attaches
				layer := h.open(h.layer(disk))
				h.model.Before = failing(code, hcstest.Unprepare, hcstest.Deactivate)
				for range 2 {
					err := h.Close(layer)
					wantError(t, err, "failed to unprepare layer "+layer.Dir, code)
					wantError(t, err, "failed to deactivate layer "+layer.Dir)
					if IsVolume(layer.Volume) {
						wantError(t, err, "is still open as "+layer.Volume)
					}
				}
				if h.pauses != 2*4 {
					t.Errorf("%d pauses", h.pauses)
				}
				h.model.Before = nil
				h.mustClose(layer)
				h.wantOpen()
			}
		}
	}
}

func TestClose_DeactivatesAlsoIfUnprepareFails(t *testing.T) {
	h := newHost(t)
	layer := h.open(h.layer(OwnDisk))
	h.model.Before = failing(errGenFailure, hcstest.Unprepare)
	h.mustClose(layer)
	h.wantCalls(closeCalls...)
	h.wantOpen()
}

func TestClose_SuccessProvesNothingWhileTheVolumeIsThere(t *testing.T) {
	h := newHost(t)
	h.model.Personality.DeactivatePrepared = hcstest.Ignores // it succeeds
	layer := h.open(h.layer(OwnDisk))
	for _, code := range []syscall.Errno{hcstest.NotActive, hcstest.NotPrepared} {
		h.model.Before = failing(code, hcstest.Unprepare)
		wantError(t, h.Close(layer), "is still open as "+layer.Volume)
		h.wantOpen("2")
	}
}

func TestClose_AVolumeThatIsGoneProvesThatTheLayerIsClosed(t *testing.T) {
	for _, code := range finalCodes {
		t.Run(fmt.Sprintf("while HCS fails with 0x%x", uintptr(code)), func(t *testing.T) {
			h := newHost(t)
			layer := h.open(h.layer(OwnDisk))
			h.model.After = failing(code, hcstest.Deactivate)
			h.mustClose(layer)
			h.wantCalls(closeCalls...)
			h.wantOpen()
		})
	}
	t.Run("before HCS is called", func(t *testing.T) {
		h := newHost(t)
		layer := h.open(h.layer(OwnDisk))
		h.closeElsewhere(layer)
		h.mustClose(layer)
		h.wantCalls()
	})
}

func TestClose_LeavesOpenWhatOtherCodeHasOpenedAgain(t *testing.T) {
	for _, late := range []int{0, 9} { // in the second case HCS does not tell
		h := newHost(t)
		h.model.Personality.NewVolume = true
		layer := h.open(h.layer(OwnDisk))
		h.model.Before = failing(ErrSharingViolation, hcstest.Deactivate)
		wantError(t, h.Close(layer), "is still open", ErrSharingViolation)
		h.model.Before = nil
		h.model.Personality.VolumeLate = late
		if err := errors.Join(h.model.DeactivateLayer(layer.Dir), h.model.ActivateLayer(layer.Dir)); err != nil {
			t.Fatal(err)
		}
		h.model.ResetCalls()
		h.mustClose(layer)
		h.wantCalls()
		h.wantOpen("2")
	}
}

func TestClose_LeavesAnotherLayerOpenThatHasTheVolume(t *testing.T) {
	for _, closedPath := range closedPaths {
		for _, unprepare := range []syscall.Errno{hcstest.NotActive, hcstest.NotPrepared, 0} {
			h, a, b := guidReused(t, closedPath)
			h.model.Personality.UnprepareClosed = unprepare
			h.mustClose(a)
			h.wantOpen("b")
			if is, err := h.IsOpen(&Layer{Dir: b.Dir, Disk: OwnDisk, Volume: a.Volume}); !is || err != nil {
				t.Errorf("layer b is open: %v, %v", is, err)
			}
		}
	}
}

func TestClose_AnotherLayersVolumeIsNoProofIfHCSRefuses(t *testing.T) {
	h, a, _ := guidReused(t, errNotReady)
	h.model.Before = failing(errBusy, hcstest.Deactivate)
	wantError(t, h.Close(a), "is still open as "+a.Volume, errBusy)
	h.model.Personality.ClosedPath = 0 // HCS says that there is no volume for it
	h.mustClose(a)
}

func TestClose_ACommittedLayerWhateverHCSDoesWithItsDisk(t *testing.T) {
	for _, attaches := range []bool{false, true} {
		for _, known := range []bool{false, true} { // whether the record has the volume
			h := newHost(t)
			h.model.Personality.AttachesKeptDisk = attaches
			layer := h.open(h.layer(KeptDisk))
			if !known {
				layer.Volume = ""
			}
			h.model.Before = failing(errBusy, hcstest.Deactivate)
			if attaches || !known {
				err := h.Close(layer)
				wantError(t, err, "failed to deactivate layer", errBusy)
				if attaches {
					wantError(t, err, "is still open as ")
				}
			}
			h.model.Before = nil
			h.mustClose(layer)
			h.wantOpen()
		}
	}
}

func TestClose_ALayerWithoutAVolumeIsClosedOnceHCSSaysSo(t *testing.T) {
	for _, test := range []struct {
		disk                  Disk
		unprepare, deactivate syscall.Errno
		isClosed              bool
	}{
		{NoDisk, 0, 0, true},
		{NoDisk, hcstest.NotActive, 0, true},
		{NoDisk, hcstest.NotPrepared, 0, true},
		{NoDisk, 0, errBusy, true}, // DeactivateLayer has nothing to do
		{NoDisk, errNotReady, 0, false},
		{NoDisk, errInvalidParameter, 0, false},
		{NoDisk, errAccessDenied, 0, false},
		{NoDisk, errGenFailure, errGenFailure, false},
		{KeptDisk, hcstest.NotActive, 0, true},
		{KeptDisk, 0, errBusy, false},
		{KeptDisk, errInvalidParameter, 0, false},
		{OwnDisk, hcstest.NotActive, 0, true},
		{OwnDisk, hcstest.NotPrepared, 0, true},
		{OwnDisk, 0, errBusy, false},
		{OwnDisk, errInvalidParameter, 0, false},
	} {
		h := newHost(t)
		layer := h.layer(test.disk)
		h.model.Before = func(call hcstest.Call, layer string) error {
			code := map[hcstest.Call]syscall.Errno{hcstest.Unprepare: test.unprepare, hcstest.Deactivate: test.deactivate}[call]
			if code != 0 {
				return &hcstest.Error{Call: call, Layer: layer, Code: code}
			}
			return nil
		}
		h.model.Personality.UnprepareClosed = 0
		if err := h.CloseUnknown(layer); (err == nil) != test.isClosed {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// After the close HCS may no longer name the volume. Then nothing could be looked at to see that the layer is
// closed.
func TestClose_AsksForTheVolumeBeforehandIfItIsNotKnown(t *testing.T) {
	h := newHost(t)
	layer := h.open(h.layer(OwnDisk))
	volume := layer.Volume
	layer.Volume = ""
	h.model.Before = failing(errNotReady, hcstest.Unprepare)
	h.mustClose(layer)
	h.wantCalls(calls(ask, closeCalls)...)
	if layer.Volume != volume {
		t.Errorf("the volume is %q, want %q", layer.Volume, volume)
	}
}

func TestClose_OpensALayerOnceMoreIfInDoubt(t *testing.T) {
	refusing := func(h *host) { h.model.Personality.UnprepareClosed = errAccessDenied }
	five := repeat(calls(ask, closeCalls), 5)
	t.Run("", func(t *testing.T) {
		h := newHost(t)
		refusing(h)
		h.mustClose(h.layer(OwnDisk))
		h.wantCalls(calls(five, activate, ask, closeCalls)...)
		h.wantOpen()
	})
	t.Run("whose volume is late", func(t *testing.T) {
		h := newHost(t)
		refusing(h)
		h.model.Personality.VolumeLate = 2
		h.mustClose(h.layer(OwnDisk))
		h.wantOpen()
	})
	t.Run("which fails", func(t *testing.T) {
		h := newHost(t)
		refusing(h)
		layer := h.layer(OwnDisk)
		h.model.Before = failing(ErrSharingViolation, hcstest.Activate)
		wantError(t, h.Close(layer), "failed to unprepare layer", errAccessDenied)
		h.wantCalls(calls(five, activate)...)
	})
	t.Run("but not without a disk", func(t *testing.T) {
		h := newHost(t)
		refusing(h)
		wantError(t, h.Close(h.layer(NoDisk)), "failed to unprepare layer", errAccessDenied)
		h.wantCalls(five...)
	})
	t.Run("but not if other code may have opened it", func(t *testing.T) {
		h := newHost(t)
		refusing(h)
		wantError(t, h.CloseUnknown(h.layer(OwnDisk)), "failed to unprepare layer", errAccessDenied)
		h.wantCalls(five...)
	})
}

func TestCloseUnknown_ClosesWhatOtherCodeHasOpened(t *testing.T) {
	for _, disk := range disks {
		for _, attaches := range []bool{false, true} {
			h := newHost(t)
			h.model.Personality.AttachesKeptDisk = attaches
			layer := h.layer(disk)
			h.openElsewhere(layer)
			if err := h.CloseUnknown(layer); err != nil {
				t.Error(err)
			}
			h.wantCalls(calls(ask, closeCalls)...)
			h.wantOpen()
		}
	}
}

func TestClose_ALayerIsWhatItWasOpenedAs(t *testing.T) {
	t.Run("a writable layer whose disk is missing now", func(t *testing.T) {
		h := newHost(t)
		layer := h.open(h.layer(OwnDisk))
		if err := os.Remove(filepath.Join(layer.Dir, "sandbox.vhdx")); err != nil {
			t.Fatal(err)
		}
		h.model.Before = failing(ErrSharingViolation, hcstest.Deactivate)
		wantError(t, h.Close(layer), "is still open as", ErrSharingViolation)
		h.model.Before = nil
		h.mustClose(layer)
		h.wantOpen()
	})
	t.Run("in an undo", func(t *testing.T) {
		h := newHost(t)
		layer := h.layer(OwnDisk)
		h.model.Before = func(call hcstest.Call, _ string) error {
			if call != hcstest.Prepare {
				return nil
			}
			return errors.Join(os.Remove(filepath.Join(layer.Dir, "sandbox.vhdx")), errGenFailure)
		}
		h.mustNotOpen(context.Background(), layer, "failed to prepare layer", errGenFailure)
		h.wantCalls(calls(ask, prepare, ask, closeCalls)...)
		h.wantOpen()
	})
	t.Run("a committed layer whose disk is missing now", func(t *testing.T) {
		h := newHost(t)
		layer := h.open(h.layer(KeptDisk))
		if err := os.Remove(filepath.Join(layer.Dir, "sandbox.vhdx")); err != nil {
			t.Fatal(err)
		}
		h.model.Before = failing(ErrSharingViolation, hcstest.Unprepare)
		wantError(t, h.Close(layer), "failed to unprepare layer", ErrSharingViolation)
		h.model.Before = nil
		h.mustClose(layer)
		h.wantOpen()
	})
}

func TestClose_ALayerWhoseDirectoryIsGone(t *testing.T) {
	for _, refused := range []bool{false, true} {
		for _, disk := range disks {
			t.Run(fmt.Sprintf("%s refused %v", disk, refused), func(t *testing.T) {
				h := newHost(t)
				h.model.Personality.GoneRefused = refused
				h.model.Personality.UnprepareClosed = errAccessDenied
				layer := h.layer(disk)
				if err := os.RemoveAll(layer.Dir); err != nil {
					t.Fatal(err)
				}
				// HCS refuses, as it may if a layer is open. But the directory of an open layer cannot be
				// removed.
				h.mustClose(layer)
				h.wantOpen()
			})
		}
		t.Run(fmt.Sprintf("and whose volume is there, refused %v", refused), func(t *testing.T) {
			h := newHost(t)
			h.model.Personality.GoneRefused = refused
			layer := h.open(h.layer(OwnDisk))
			if err := os.Rename(layer.Dir, layer.Dir+" aside"); err != nil {
				t.Fatal(err)
			}
			if err := h.Close(layer); refused {
				wantError(t, err, "is still open as "+layer.Volume)
			} else if err != nil {
				t.Error(err)
			}
			if err := os.Rename(layer.Dir+" aside", layer.Dir); err != nil {
				t.Fatal(err)
			}
			h.mustClose(layer)
			h.wantOpen()
		})
	}
}
