package hcs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

var (
	ask        = []string{"GetLayerMountPath 2"}
	activate   = []string{"ActivateLayer 2"}
	openCalls  = []string{"ActivateLayer 2", `PrepareLayer 2 [C:\layers\1 C:\layers\0]`, "GetLayerMountPath 2"}
	prepare    = openCalls[:2]
	closeCalls = []string{"UnprepareLayer 2", "DeactivateLayer 2"}
)

func calls(lists ...[]string) (all []string) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// mustNotOpen opens a layer, which must fail and leave no doubt that it is closed.
func (h *host) mustNotOpen(ctx context.Context, layer *Layer, text string, targets ...error) {
	h.t.Helper()
	mayBeOpen, err := h.Open(ctx, layer)
	wantError(h.t, err, text, targets...)
	if mayBeOpen {
		h.t.Errorf("Open reports that the layer may be open: %v", err)
	}
}

// cancelledByAPause returns a context that is cancelled when something is to be tried again.
func (h *host) cancelledByAPause() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	h.t.Cleanup(cancel)
	h.Pause = func(ctx context.Context) error {
		cancel()
		return ctx.Err()
	}
	return ctx
}

func TestOpen_ActivatesPreparesAndAsksForTheVolume(t *testing.T) {
	for _, test := range []struct {
		disk     Disk
		prepare  string
		attaches bool // HCS attaches the disk that a committed layer has kept
		volume   bool
	}{
		{disk: OwnDisk, prepare: openCalls[1], volume: true},
		{disk: KeptDisk, prepare: openCalls[1]},
		{disk: KeptDisk, prepare: openCalls[1], attaches: true, volume: true},
		{disk: NoDisk, prepare: "PrepareLayer 2 []"},
	} {
		h := newHost(t)
		h.model.Personality.AttachesKeptDisk = test.attaches
		h.model.Personality.TrailingBackslash = true
		layer := h.layer(test.disk)
		if mayBeOpen, err := h.Open(context.Background(), layer); err != nil || !mayBeOpen {
			t.Fatalf("Open: %v, %v", mayBeOpen, err)
		}
		h.wantCalls(calls(ask, activate, []string{test.prepare}, ask)...)
		if h.pauses != 0 {
			t.Errorf("%d pauses", h.pauses)
		}
		h.wantOpen("2")
		if test.volume && (!IsVolume(layer.Volume) || !IsReachable(layer.Volume) || strings.TrimRight(layer.Volume, `\/`) != layer.Volume) ||
			!test.volume && layer.Volume != layer.Dir {
			t.Errorf("the volume of a layer with %q disk is %s", test.disk, layer.Volume)
		}
	}
}

func TestOpen_TriesATransientFailureAgain(t *testing.T) {
	undo := calls(ask, closeCalls)
	for _, test := range []struct {
		call hcstest.Call
		code syscall.Errno
		disk Disk
		fail []string // calls of an attempt that fails
	}{
		{hcstest.Activate, errNotReady, OwnDisk, calls(activate, undo)},
		{hcstest.Activate, errDeviceNotConnected, OwnDisk, calls(activate, undo)},
		// Other code may have the layer open, so nothing is undone.
		{hcstest.Activate, ErrSharingViolation, OwnDisk, activate},
		// HCS is asked whether it has attached the disk.
		{hcstest.Activate, errNotReady, KeptDisk, calls(activate, repeat(ask, 5))},
		{hcstest.Prepare, errNotReady, OwnDisk, calls(prepare, undo)},
		{hcstest.Prepare, errDeviceNotConnected, OwnDisk, calls(prepare, undo)},
		{hcstest.Prepare, errTimeout, OwnDisk, calls(prepare, undo)},
		{hcstest.Prepare, errTimeout, KeptDisk, calls(prepare, undo)},
		// Only the question is asked again.
		{hcstest.MountPath, errNotReady, OwnDisk, ask},
		{hcstest.MountPath, errDeviceNotConnected, OwnDisk, ask},
	} {
		first, last := ask, openCalls
		codes := []syscall.Errno{test.code, test.code, test.code, test.code}
		if test.call == hcstest.MountPath {
			first, last = calls(ask, prepare), ask
		}
		failOpening := func(h *host, codes ...syscall.Errno) {
			if test.call == hcstest.MountPath { // the first asks whether the layer is open already
				codes = append([]syscall.Errno{errNotReady}, codes...)
			}
			h.failNext(test.call, codes...)
		}
		name := fmt.Sprintf("%s 0x%x %s", test.call, uintptr(test.code), test.disk)
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			failOpening(h, codes...)
			if mayBeOpen, err := h.Open(context.Background(), h.layer(test.disk)); err != nil || !mayBeOpen {
				t.Errorf("Open: %v, %v", mayBeOpen, err)
			}
			h.wantCalls(calls(first, repeat(test.fail, 4), last)...)
			h.wantOpen("2")
		})
		t.Run(name+" five times in all", func(t *testing.T) {
			h := newHost(t)
			failOpening(h, append(codes, test.code)...)
			h.mustNotOpen(context.Background(), h.layer(test.disk), "layer "+h.layer(test.disk).Dir, test.code)
			want := calls(first, repeat(test.fail, 5))
			if test.call == hcstest.MountPath {
				want = calls(want, undo)
			}
			h.wantCalls(want...)
			h.wantOpen()
		})
	}
}

func TestOpen_DoesNotTryAFinalFailureAgain(t *testing.T) {
	for _, call := range []hcstest.Call{hcstest.Activate, hcstest.Prepare, hcstest.MountPath} {
		for _, code := range []syscall.Errno{errGenFailure, errInvalidParameter, errAccessDenied} {
			for _, disk := range disks {
				h := newHost(t)
				codes := []syscall.Errno{code}
				if call == hcstest.MountPath { // the first asks whether the layer is open already
					codes = append(codes, code)
				}
				h.failNext(call, codes...)
				h.mustNotOpen(context.Background(), h.layer(disk), "layer "+h.layer(disk).Dir, code)
				if n := strings.Count(strings.Join(h.model.Calls(), "\n"), string(hcstest.Activate)); n != 1 {
					t.Errorf("%s 0x%x: %d attempts", call, uintptr(code), n)
				}
				h.wantOpen()
			}
		}
	}
}

func TestOpen_ErrorsUnwrapToThatOfHCS(t *testing.T) {
	h := newHost(t)
	h.failNext(hcstest.Activate, errGenFailure)
	_, err := h.Open(context.Background(), h.layer(OwnDisk))
	var hcsErr *hcstest.Error
	if !errors.As(err, &hcsErr) || hcsErr.Code != errGenFailure {
		t.Errorf("error %v", err)
	}
}

func TestOpen_StopsWhenItsContextEnds(t *testing.T) {
	t.Run("between attempts", func(t *testing.T) {
		h := newHost(t)
		h.failNext(hcstest.Prepare, errNotReady)
		h.mustNotOpen(h.cancelledByAPause(), h.layer(OwnDisk), "failed to prepare layer", errNotReady, context.Canceled)
		h.wantOpen()
	})
	t.Run("waiting for the volume", func(t *testing.T) {
		for _, closedPath := range closedPaths {
			h := newHost(t)
			h.model.Personality.VolumeLate, h.model.Personality.ClosedPath = 2, closedPath
			h.mustNotOpen(h.cancelledByAPause(), h.layer(OwnDisk), "failed to get mount path of layer", context.Canceled)
			h.wantOpen()
		}
	})
	t.Run("asking whether other code has the layer open", func(t *testing.T) {
		h := newHost(t)
		layer := h.layer(OwnDisk)
		h.openElsewhere(layer)
		h.mustNotOpen(h.cancelledByAPause(), layer, "it is open already", ErrSharingViolation)
		h.wantCalls(ask...)
		h.wantOpen("2")
	})
}

func TestOpen_LeavesOpenWhatOtherCodeHasOpened(t *testing.T) {
	for _, test := range []struct {
		name     string
		disk     Disk
		attaches bool
		hidden   bool // HCS does not name the volume at first
		prepared bool
		want     []string
		code     syscall.Errno
	}{
		{name: "active", disk: OwnDisk, want: repeat(ask, 5), code: ErrSharingViolation},
		{name: "active, which HCS does not tell", disk: OwnDisk, hidden: true, want: calls(ask, repeat(activate, 5)), code: ErrSharingViolation},
		{name: "prepared", disk: OwnDisk, prepared: true, want: repeat(ask, 5), code: ErrSharingViolation},
		{name: "prepared, which HCS does not tell", disk: OwnDisk, hidden: true, prepared: true, want: calls(ask, repeat(activate, 5)), code: ErrSharingViolation},
		{name: "read-only", disk: NoDisk, prepared: true, want: calls(ask, activate, []string{"PrepareLayer 2 []"}), code: errInvalidParameter},
		{name: "committed", disk: KeptDisk, prepared: true, want: calls(ask, prepare, repeat(ask, 5)), code: errInvalidParameter},
		{name: "committed, with its disk attached", disk: KeptDisk, attaches: true, prepared: true, want: repeat(ask, 5), code: ErrSharingViolation},
		{name: "committed, with its disk attached, which HCS does not tell", disk: KeptDisk, attaches: true, prepared: true, hidden: true,
			want: calls(ask, repeat(activate, 5)), code: ErrSharingViolation},
	} {
		for _, preparedTwice := range []syscall.Errno{errInvalidParameter, 0xd00000bb} {
			t.Run(fmt.Sprintf("%s 0x%x", test.name, uintptr(preparedTwice)), func(t *testing.T) {
				h := newHost(t)
				h.model.Personality.AttachesKeptDisk, h.model.Personality.PreparedTwice = test.attaches, preparedTwice
				layer := h.layer(test.disk)
				if test.prepared {
					h.openElsewhere(layer)
				} else if err := h.model.ActivateLayer(layer.Dir); err != nil {
					t.Fatal(err)
				}
				h.model.ResetCalls()
				if test.hidden {
					h.failNext(hcstest.MountPath, errNotReady)
				}
				code := test.code
				if code == errInvalidParameter {
					code = preparedTwice
				}
				h.mustNotOpen(context.Background(), layer, "layer "+layer.Dir, code)
				h.wantCalls(test.want...)
				h.wantOpen("2")
			})
		}
	}
}

func TestOpen_WaitsForALateVolume(t *testing.T) {
	for _, disk := range []Disk{OwnDisk, KeptDisk} {
		for _, closedPath := range closedPaths {
			for late := range 6 {
				h := newHost(t)
				h.model.Personality.VolumeLate, h.model.Personality.ClosedPath = late, closedPath
				h.model.Personality.AttachesKeptDisk = true
				layer := h.layer(disk)
				mayBeOpen, err := h.Open(context.Background(), layer)
				if late < 5 {
					if err != nil || !mayBeOpen || !IsVolume(layer.Volume) {
						t.Errorf("late by %d: %v, %v, volume %q", late, mayBeOpen, err, layer.Volume)
					}
					h.mustClose(layer)
				} else if err == nil || mayBeOpen {
					t.Errorf("late by %d: %v, %v", late, mayBeOpen, err)
				}
				h.wantOpen()
			}
		}
	}
}

func TestOpen_AVolumeThatLingersAfterACloseDoesNotCount(t *testing.T) {
	for _, newVolume := range []bool{false, true} {
		h := newHost(t)
		h.model.Personality.VolumeLingers, h.model.Personality.NewVolume = 3, newVolume
		layer := h.layer(OwnDisk)
		h.openElsewhere(layer)
		h.closeElsewhere(layer)
		for range 3 {
			h.open(layer)
			h.mustClose(layer)
			h.wantOpen()
		}
		h.openElsewhere(layer)
		h.mustNotOpen(context.Background(), layer, "it is open already", ErrSharingViolation)
		h.wantOpen("2")
	}
}

// staleNames is an HCS that names the volume of an earlier activation for some calls.
type staleNames struct {
	Calls
	volume string
	calls  int
}

func (s *staleNames) GetLayerMountPath(layer string) (string, error) {
	path, err := s.Calls.GetLayerMountPath(layer)
	if err == nil && IsVolume(path) && s.calls > 0 {
		s.calls--
		return s.volume, nil
	}
	return path, err
}

// activatedEarlier returns a host with a layer that had another volume, and what makes HCS name that for some
// calls.
func activatedEarlier(t *testing.T) (h *host, layer *Layer, nameEarlier func(calls int)) {
	t.Helper()
	h = newHost(t)
	h.model.Personality.NewVolume = true
	earlier := h.open(h.layer(OwnDisk))
	h.mustClose(earlier)
	return h, h.layer(OwnDisk), func(calls int) { h.Calls = &staleNames{h.model, earlier.Volume, calls} }
}

func TestOpen_TheVolumeOfAnEarlierActivationDoesNotCount(t *testing.T) {
	h, layer, nameEarlier := activatedEarlier(t)
	for calls := range 13 {
		nameEarlier(calls)
		mayBeOpen, err := h.Open(context.Background(), layer)
		if calls >= 5 {
			wantError(t, err, "failed to get mount path of layer", os.ErrNotExist)
			if mayBeOpen {
				t.Errorf("%d calls: the layer may be open: %v", calls, err)
			}
		} else if err != nil || !IsReachable(layer.Volume) {
			t.Errorf("%d calls: volume %s, %v", calls, layer.Volume, err)
		}
		if err == nil {
			h.mustClose(layer)
		}
		h.wantOpen()
	}
}

func TestOpen_TheVolumeOfAnEarlierActivationProvesNoUndo(t *testing.T) {
	h, layer, nameEarlier := activatedEarlier(t)
	nameEarlier(2)
	refused := false
	h.model.Before = func(call hcstest.Call, _ string) error {
		switch {
		case call == hcstest.Prepare:
			return errTimeout
		case call == hcstest.Deactivate && !refused:
			refused = true
			return errNotReady
		}
		return nil
	}
	h.mustNotOpen(context.Background(), layer, "failed to prepare layer", errTimeout)
	h.wantOpen()
}

func TestOpen_UndoesAnActivationThatFailedAndAttachedTheDisk(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // which ends no undo
	for _, disk := range []Disk{OwnDisk, KeptDisk} {
		for _, code := range []syscall.Errno{errGenFailure, errNotReady} {
			for late := range 5 { // calls until HCS names the volume
				h := newHost(t)
				h.model.Personality.VolumeLate, h.model.Personality.AttachesKeptDisk = late, true
				h.model.After = failing(code, hcstest.Activate)
				h.mustNotOpen(ctx, h.layer(disk), "failed to activate layer", code)
				h.wantOpen()
			}
		}
	}
}

func TestOpen_ReportsAnUndoThatFailed(t *testing.T) {
	for _, test := range []struct {
		name  string
		codes map[hcstest.Call]syscall.Errno
		texts []string
	}{
		{"Prepare", map[hcstest.Call]syscall.Errno{hcstest.Prepare: errInvalidParameter, hcstest.Deactivate: ErrSharingViolation},
			[]string{"failed to prepare layer", "undo: failed to unprepare layer", "failed to deactivate layer", "is still open as"}},
		{"Prepare, which may succeed in a moment", map[hcstest.Call]syscall.Errno{hcstest.Prepare: errNotReady, hcstest.Deactivate: ErrSharingViolation},
			[]string{"failed to prepare layer", "undo: failed to unprepare layer", "failed to deactivate layer", "is still open as"}},
		{"GetLayerMountPath", map[hcstest.Call]syscall.Errno{hcstest.MountPath: errInvalidParameter, hcstest.Unprepare: errGenFailure, hcstest.Deactivate: ErrSharingViolation},
			[]string{"failed to get mount path of layer", "undo: failed to unprepare layer", "failed to deactivate layer"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			layer := h.layer(OwnDisk)
			h.model.Before = func(call hcstest.Call, layer string) error {
				if code := test.codes[call]; code != 0 {
					return &hcstest.Error{Call: call, Layer: layer, Code: code}
				}
				return nil
			}
			mayBeOpen, err := h.Open(context.Background(), layer)
			if !mayBeOpen {
				t.Errorf("the layer counts as closed: %v", err)
			}
			for _, text := range test.texts {
				wantError(t, err, text)
			}
			for _, code := range test.codes {
				wantError(t, err, "", code)
			}
			if n := strings.Count(strings.Join(h.model.Calls(), "\n"), string(hcstest.Prepare)); n != 1 {
				t.Errorf("a layer that may be open was opened %d times", n)
			}
			h.wantOpen("2")
			h.model.Before = nil
			h.mustClose(layer)
			h.wantOpen()
		})
	}
}

func TestOpen_TriesItsUndoAgain(t *testing.T) {
	h := newHost(t)
	h.model.Before = func(call hcstest.Call, layer string) error {
		switch {
		case call == hcstest.Prepare:
			return &hcstest.Error{Call: call, Layer: layer, Code: errGenFailure}
		case call == hcstest.Deactivate && h.pauses < 4:
			return &hcstest.Error{Call: call, Layer: layer, Code: errAccessDenied}
		}
		return nil
	}
	h.mustNotOpen(context.Background(), h.layer(OwnDisk), "failed to prepare layer", errGenFailure)
	h.wantOpen()
}

func TestOpen_TheUndoOfAFailedActivationMayBeInDoubt(t *testing.T) {
	t.Run("and HCS says nothing more", func(t *testing.T) {
		h := newHost(t)
		layer := h.layer(OwnDisk)
		h.model.After = func(call hcstest.Call, layer string) error {
			if call != hcstest.Activate {
				return nil
			}
			h.model.Before = failing(errNotReady, hcstest.Activate, hcstest.Prepare, hcstest.MountPath, hcstest.Unprepare, hcstest.Deactivate)
			return &hcstest.Error{Call: call, Layer: layer, Code: errNotReady}
		}
		mayBeOpen, err := h.Open(context.Background(), layer)
		wantError(t, err, "failed to activate layer", errNotReady)
		wantError(t, err, "undo: failed to unprepare layer")
		if !mayBeOpen {
			t.Error("the layer counts as closed")
		}
		h.model.Before, h.model.After = nil, nil
		h.mustClose(layer)
		h.wantOpen()
	})
	t.Run("until it is opened once more", func(t *testing.T) {
		h := newHost(t)
		h.model.Personality.UnprepareClosed = errNotReady // which does not say that there is nothing to undo
		h.failNext(hcstest.Activate, errNotReady)
		layer := h.open(h.layer(OwnDisk))
		h.wantOpen("2")
		h.mustClose(layer)
		h.wantOpen()
	})
}

func TestOpen_RefusesAWritableLayerWithoutAVolume(t *testing.T) {
	for _, path := range []hcstest.OpenPath{hcstest.OpenPathEmpty, hcstest.OpenPathDirectory} {
		h := newHost(t)
		h.model.Personality.OpenPath = path
		layer := h.layer(OwnDisk)
		h.mustNotOpen(context.Background(), layer, "failed to get mount path of layer "+layer.Dir+": HCS names no volume")
		h.wantCalls(calls(ask, prepare, repeat(ask, 5), ask, closeCalls)...)
		h.wantOpen()
	}
}

func TestOpen_AReadOnlyLayerMayHaveNoMountPath(t *testing.T) {
	h := newHost(t)
	h.Calls = emptyPath{h.model}
	if layer := h.open(h.layer(NoDisk)); layer.Volume != layer.Dir {
		t.Errorf("the volume is %q", layer.Volume)
	}
}

// emptyPath is an HCS that returns no mount path.
type emptyPath struct{ Calls }

func (emptyPath) GetLayerMountPath(string) (string, error) { return "", nil }
