package hcstest

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// Personality is how one kind of host answers where hosts differ or are not known.
// The rest of the model is the same for all.
//
// A read-only layer has no sandbox.vhdx, or has a directory Files: a committed
// layer is read-only even when it has kept its scratch disk. All other layers are
// writable.
type Personality struct {
	Name string

	// UnprepareClosed is what UnprepareLayer gives for a writable layer that is
	// not active and for a read-only one that is not prepared; 0 is success
	// without effect.
	UnprepareClosed syscall.Errno
	// UnprepareActive is what it gives for a writable layer that is active and
	// not prepared; 0 is success without effect.
	UnprepareActive syscall.Errno
	// DeactivateClosed is what DeactivateLayer gives for a writable layer that is
	// not active and for a read-only one that is not prepared; 0 is success
	// without effect.
	DeactivateClosed syscall.Errno
	// DeactivatePrepared is what it does with a writable layer that is still
	// prepared.
	DeactivatePrepared DeactivatePrepared
	// DetachReadOnly makes it detach the filter of a read-only layer that is
	// prepared. Without it the call succeeds and does nothing.
	DetachReadOnly bool

	// ClosedPath is what GetLayerMountPath gives for a writable layer that is not
	// active.
	ClosedPath ClosedPath
	// OpenPathEmpty makes it give "" for all other layers, so that nothing names
	// the volume of a writable one.
	OpenPathEmpty bool
	// TrailingBackslash makes it name a volume with a separator at the end.
	TrailingBackslash bool

	// VolumeLate is how many calls of GetLayerMountPath after ActivateLayer are
	// answered as if the layer were not active. The directory of the volume is
	// there from the beginning.
	VolumeLate int
	// VolumeLingers is how many calls about a layer, of any of the five, still
	// find its volume in place and named by GetLayerMountPath after
	// DeactivateLayer. The volume is gone when the last of them returns. A call
	// that Before prevented does not count. ActivateLayer makes the layer active
	// in the meantime too, with the volume that is there unless NewVolume is set.
	VolumeLingers int
	// NewVolume gives each activation another GUID. What is in the volume stays.
	NewVolume bool

	// BindTwice is what BfSetupFilter gives for a root that is bound already.
	BindTwice syscall.Errno
	// UnbindAbsent is what BfRemoveMapping gives for a directory that is not bound.
	UnbindAbsent syscall.Errno
	// BindingsCode is what BfGetMappings always fails with, if not 0.
	BindingsCode syscall.Errno
	// BindingsOtherNames makes it name each root in another way than BfSetupFilter
	// was called with, one that leads to the same directory. go-winio makes the
	// usual path of it again where one comes from bindfltapi.dll.
	BindingsOtherNames bool

	// CommittedKeepsScratch asks tests to make committed layers with a
	// sandbox.vhdx beside their directory Files. The model does not look at it.
	CommittedKeepsScratch bool
}

// DeactivatePrepared is what DeactivateLayer does with a writable layer that is
// still prepared.
type DeactivatePrepared string

// The values of DeactivatePrepared.
const (
	Detaches DeactivatePrepared = "detaches" // closes the layer, filter and all
	Refuses  DeactivatePrepared = "refuses"  // fails with 0x20
	Ignores  DeactivatePrepared = "ignores"  // succeeds and does nothing
)

// ClosedPath is what GetLayerMountPath gives for a writable layer that is not
// active.
type ClosedPath string

// The values of ClosedPath.
const (
	ClosedPathNotReady  ClosedPath = "0x15"      // fails with that code
	ClosedPathDirectory ClosedPath = "directory" // succeeds with the layer's directory
	ClosedPathEmpty     ClosedPath = "empty"     // succeeds with ""
)

// Likely is what reports tell of, or else what they make likely.
var Likely = Personality{
	Name:            "likely",
	UnprepareClosed: NotActive,
	UnprepareActive: NotPrepared,
	// Assumption: success, as Windows-Containers issue 358 and containerd's
	// snapshotter suggest.
	DeactivateClosed: 0,
	// Assumption: containerd's snapshotter frees the scratch disks of a crash so.
	DeactivatePrepared: Detaches,
	// Assumption: there is no volume yet. No report tells.
	ClosedPath: ClosedPathNotReady,
	// Assumption: the call is a no-op for a read-only layer, as ActivateLayer is.
	DetachReadOnly: false,
	// Assumption: ERROR_ALREADY_EXISTS. No report tells.
	BindTwice: 0xb7,
	// ERROR_NOT_FOUND, one of the two that containerd takes for "not bound"
	// (containerd 2, core/mount/mount_windows.go).
	UnbindAbsent: 0x490,
}

// Personalities are the named sets: Likely first, then those that differ from it in
// one answer, then those that differ in many. What they are not said to be
// reported for is an assumption.
var Personalities = []Personality{
	Likely,

	// Assumption: closing what is closed may give any code that says that a thing
	// is not there, not ready, or not to be had. The first one is reported for
	// UnprepareLayer (containerd pull request 5133).
	likelyBut("closed-0x37", func(p *Personality) { p.DeactivateClosed = NotActive }),
	likelyBut("closed-0x57", func(p *Personality) { p.UnprepareClosed, p.DeactivateClosed = 0x57, 0x57 }),
	likelyBut("closed-0x15", func(p *Personality) { p.UnprepareClosed, p.DeactivateClosed = 0x15, 0x15 }),
	likelyBut("closed-0x5", func(p *Personality) { p.UnprepareClosed, p.DeactivateClosed = 0x5, 0x5 }),
	likelyBut("closed-0x490", func(p *Personality) { p.UnprepareClosed, p.DeactivateClosed = 0x490, 0x490 }),
	// Success of UnprepareLayer is reported for some builds (containerd pull
	// request 5328), for a layer that is active.
	likelyBut("not-prepared-silent", func(p *Personality) { p.UnprepareActive = 0 }),
	// Assumption: so it may be for one that is not.
	likelyBut("closed-silent", func(p *Personality) { p.UnprepareClosed, p.UnprepareActive, p.DeactivateClosed = 0, 0, 0 }),

	// Assumption: the filter may hold the volume.
	likelyBut("prepared-refused", func(p *Personality) { p.DeactivatePrepared = Refuses }),
	// Assumption: success may mean as little as it does for a read-only layer.
	likelyBut("prepared-ignored", func(p *Personality) { p.DeactivatePrepared = Ignores }),
	// Assumption: a detach may be one whatever it is a detach of.
	likelyBut("read-only-detached", func(p *Personality) { p.DetachReadOnly = true }),

	// Assumption: hcsshim's doc of GetLayerMountPath speaks of mounted layers only.
	likelyBut("closed-path-directory", func(p *Personality) { p.ClosedPath = ClosedPathDirectory }),
	likelyBut("closed-path-empty", func(p *Personality) { p.ClosedPath = ClosedPathEmpty }),
	// hcsshim allows for it (mountPathLength == 0).
	likelyBut("open-path-empty", func(p *Personality) { p.OpenPathEmpty = true }),
	// hcsshim strips one (expandscratchsize.go).
	likelyBut("trailing-backslash", func(p *Personality) { p.TrailingBackslash = true }),

	// Assumption: the volume follows the attached disk, and a disk takes its time.
	likelyBut("volume-late", func(p *Personality) { p.VolumeLate = 2 }),
	likelyBut("volume-lingers", func(p *Personality) { p.VolumeLingers = 3 }),
	// Both the same GUID and another one have been seen.
	likelyBut("new-volume", func(p *Personality) { p.NewVolume = true }),
	// containerd keeps the scratch disk in committed layers.
	likelyBut("keeps-scratch", func(p *Personality) { p.CommittedKeepsScratch = true }),

	// STATUS_INVALID_PARAMETER by go-winio's comment on the flag that it passes,
	// BINDFLT_FLAG_NO_MULTIPLE_TARGETS.
	likelyBut("bind-twice-0x57", func(p *Personality) { p.BindTwice = 0x57 }),
	// ERROR_INVALID_PARAMETER is the other one that containerd takes for "not bound".
	likelyBut("unbind-absent-0x57", func(p *Personality) { p.UnbindAbsent = 0x57 }),
	// Assumption: as all of the bind filter was to SYSTEM in a HostProcess container
	// (buildkit issue 6590).
	likelyBut("bindings-denied", func(p *Personality) { p.BindingsCode = 0x5 }),
	// Assumption: BfGetMappings names what the file system has opened, such as
	// \Device\HarddiskVolume2\dir, and not every name leads back to the caller's.
	likelyBut("bindings-other-names", func(p *Personality) { p.BindingsOtherNames = true }),

	// Assumption: what one host may do, it may do together with the rest.
	{
		Name:               "all-different-a",
		UnprepareClosed:    0x57,
		UnprepareActive:    0x57,
		DeactivateClosed:   0x57,
		DeactivatePrepared: Ignores,
		ClosedPath:         ClosedPathDirectory,
		VolumeLingers:      3,
		NewVolume:          true,
		BindTwice:          0x57,
		UnbindAbsent:       0x490,
		BindingsOtherNames: true,
	},
	{
		Name:               "all-different-b",
		UnprepareClosed:    0x15,
		UnprepareActive:    0x15,
		DeactivateClosed:   0x15,
		DeactivatePrepared: Detaches,
		ClosedPath:         ClosedPathEmpty,
		TrailingBackslash:  true,
		VolumeLate:         2,
		DetachReadOnly:     true,
		BindTwice:          0xb7,
		UnbindAbsent:       0x57,
		BindingsCode:       0x5,
	},
	{
		Name:                  "all-different-c",
		UnprepareClosed:       0x5,
		UnprepareActive:       0,
		DeactivateClosed:      0x5,
		DeactivatePrepared:    Refuses,
		ClosedPath:            ClosedPathDirectory,
		OpenPathEmpty:         true,
		NewVolume:             true,
		DetachReadOnly:        true,
		BindTwice:             0x57,
		UnbindAbsent:          0x57,
		BindingsCode:          0x7a, // Assumption: there are too many for go-winio's buffer.
		CommittedKeepsScratch: true,
	},
}

func likelyBut(name string, change func(*Personality)) Personality {
	p := Likely
	p.Name = name
	change(&p)
	return p
}

// Named returns the one of Personalities that has the name, and reports whether
// there is one.
func Named(name string) (Personality, bool) {
	for _, p := range Personalities {
		if p.Name == name {
			return p, true
		}
	}
	return Personality{}, false
}

// SetPersonality sets the personality of every model that is opened in dir from
// now on; the simulated DLLs open one for each call. It makes dir when
// needed. Layers that are open stay so.
func SetPersonality(dir string, p Personality) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return withLock(personalityPath(dir), func(file *os.File) error {
		if p == Likely {
			return file.Truncate(0)
		}
		return overwrite(file, p)
	})
}

// personality returns what SetPersonality set, or Likely.
func personality(dir string) (Personality, error) {
	path := personalityPath(dir)
	if isEmpty(path) {
		return Likely, nil
	}
	p := Likely
	err := withLock(path, func(file *os.File) error {
		if err := json.NewDecoder(file).Decode(&p); err != io.EOF {
			return err
		}
		return nil
	})
	return p, err
}

// personalityPath returns the path of the file that holds the personality as JSON,
// or nothing for Likely.
func personalityPath(dir string) string { return filepath.Join(dir, "personality") }
