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
// A layer is writable when it has a sandbox.vhdx and no directory Files. It is read-only
// without the one, or with both: a committed layer may have kept its scratch disk. See
// AttachesKeptDisk for a host that looks at the disk alone. What a layer was opened as it
// stays until it is closed, whatever becomes of its files.
type Personality struct {
	Name string

	// UnprepareClosed is what UnprepareLayer gives for a writable layer that is
	// not active and for a read-only one that is not prepared; 0 is success
	// without effect.
	UnprepareClosed syscall.Errno
	// UnprepareActive is what it gives for a writable layer that is active and
	// not prepared; 0 is success without effect.
	UnprepareActive syscall.Errno
	// DeactivatePrepared is what DeactivateLayer does with a writable layer that is
	// still prepared.
	DeactivatePrepared DeactivatePrepared
	// DetachReadOnly makes it detach the filter of a read-only layer that is
	// prepared. Without it the call succeeds and does nothing.
	DetachReadOnly bool
	// GoneRefused makes both fail with 0x3 and do nothing when the layer's directory
	// is not there. Without it they do what they do for any other layer.
	GoneRefused bool

	// PreparedTwice is what PrepareLayer gives for a layer that is prepared.
	PreparedTwice syscall.Errno

	// ClosedPath is what GetLayerMountPath gives for a writable layer that is not
	// active; 0 is success with an empty path.
	ClosedPath syscall.Errno
	// OpenPath is what it names for a writable layer that is active.
	OpenPath OpenPath
	// TrailingBackslash makes it name a volume with a separator at the end.
	TrailingBackslash bool

	// VolumeLate is how many calls of GetLayerMountPath after ActivateLayer do not
	// name the volume yet. They fail with 0x15, for which hcsshim waits
	// (internal/layers/wcow_mount.go), or give an empty path where ClosedPath is 0.
	// The directory of the volume is there from the beginning.
	VolumeLate int
	// VolumeLingers is how many calls about a layer, of any of the five, still
	// find its volume in place and named by GetLayerMountPath after
	// DeactivateLayer. The volume is gone when the last of them returns. A call
	// that Before prevented does not count. ActivateLayer makes the layer active
	// in the meantime too, with the volume that is there unless NewVolume is set.
	VolumeLingers int
	// NewVolume gives each activation a GUID that no volume has had. What is in the
	// volume stays.
	NewVolume bool
	// GUIDReused gives an activation the GUID that was given up last, by whichever
	// layer, and a new one when there is none. What is in the volume is the layer's
	// own all the same.
	GUIDReused bool

	// AttachesKeptDisk makes a layer writable that has both a sandbox.vhdx and a
	// directory Files.
	AttachesKeptDisk bool
	// CommittedKeepsScratch asks tests to make committed layers with a
	// sandbox.vhdx beside their directory Files. The model does not look at it.
	CommittedKeepsScratch bool

	// BindTwice is what BfSetupFilter gives for a root that is bound already.
	BindTwice syscall.Errno
	// UnbindAbsent is what BfRemoveMapping gives for a directory that is not bound.
	UnbindAbsent syscall.Errno
	// UnbindAncestor is what it gives for a root below which another one is bound,
	// while both stay bound; 0 is success, and only the other one stays.
	UnbindAncestor syscall.Errno
	// BindingsCode is what BfGetMappings always fails with, if not 0.
	BindingsCode syscall.Errno
	// BindingsOtherNames makes it name each root in another way than BfSetupFilter
	// was called with, one that leads to the same directory. go-winio makes the
	// usual path of it again where one comes from bindfltapi.dll.
	BindingsOtherNames bool
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

// OpenPath is what GetLayerMountPath names for a writable layer that is active.
type OpenPath string

// The values of OpenPath. Only the first is known of any host: the others, with which
// nothing can be mounted, are in none of Personalities.
const (
	OpenPathVolume    OpenPath = ""          // its volume
	OpenPathEmpty     OpenPath = "empty"     // nothing; hcsshim allows for it (mountPathLength == 0)
	OpenPathDirectory OpenPath = "directory" // its directory
)

// Likely is what the evidence says, or else what it makes likely.
var Likely = Personality{
	Name: "likely",
	// cloudfoundry's winc passes over these two and no other code, on Server 2016, and
	// so do the helpers of containerd's integration tests, on Server 2022. Which is for
	// which state: containerd pull request 5328.
	UnprepareClosed: NotActive,
	UnprepareActive: NotPrepared,
	// Inferred: containerd's snapshotter frees the scratch disks of a crash so
	// (containerd pull request 5422; moby pull request 37712).
	DeactivatePrepared: Detaches,
	// Assumption: the call is a no-op for a read-only layer, as ActivateLayer is.
	DetachReadOnly: false,
	// Assumption: HCS knows what is attached by the layer's path alone.
	GoneRefused: false,
	// moby issue 36831, containerd issue 8891.
	PreparedTwice: errInvalidParameter,
	// Inferred: what UnprepareLayer says of such a layer.
	ClosedPath: NotActive,
	// Assumption: a layer that has been committed is read-only for HCS, too.
	AttachesKeptDisk: false,
	// Measured on Server 2025; STATUS_INVALID_PARAMETER by go-winio's comment on the
	// flag that it passes, BINDFLT_FLAG_NO_MULTIPLE_TARGETS.
	BindTwice: errInvalidParameter,
	// ERROR_NOT_FOUND, one of the two that containerd takes for "not bound"
	// (containerd 2, core/mount/mount_windows.go).
	UnbindAbsent: 0x490,
	// Assumption: what is documented is of a later interface; see below.
	UnbindAncestor: 0,
}

// Personalities are the named sets: Likely first, then those that differ from it in
// one answer, then those that differ in many. Each has its source, or after "Doubt:"
// what leaves the answer open.
var Personalities = []Personality{
	Likely,

	// winc and containerd's helpers pass over this code as well as over 0x37, and do
	// not say for which state. Doubt: a read-only layer is never active, so it may be
	// "not prepared" that is said of one.
	likelyBut("closed-0x801f0015", func(p *Personality) { p.UnprepareClosed = NotPrepared }),
	// Doubt: success is reported for an active layer (next line), and none of the
	// reports that have a code says that every build has one.
	likelyBut("closed-silent", func(p *Personality) { p.UnprepareClosed = 0 }),
	// Windows 10 20H2: containerd pull request 5328.
	likelyBut("not-prepared-silent", func(p *Personality) { p.UnprepareActive = 0 }),

	// Doubt: that DeactivateLayer detaches the filter too is only inferred. It may hold
	// the volume,
	likelyBut("prepared-refused", func(p *Personality) { p.DeactivatePrepared = Refuses }),
	// or the disk may stay although the call succeeds, as in containerd pull request
	// 4419, whose author may have looked at another directory.
	likelyBut("prepared-ignored", func(p *Personality) { p.DeactivatePrepared = Ignores }),
	// Doubt: of a read-only layer it is known that the call succeeds (docker/for-win
	// issue 1546), and not what it does.
	likelyBut("read-only-detached", func(p *Personality) { p.DetachReadOnly = true }),
	// Doubt: HCS opens the layer's disk, or its directory, for some of what it does.
	likelyBut("gone-refused", func(p *Personality) { p.GoneRefused = true }),

	// Server 2016: HRESULT_FROM_NT(STATUS_NOT_SUPPORTED).
	likelyBut("prepared-0xd00000bb", func(p *Personality) { p.PreparedTwice = 0xd00000bb }),

	// Doubt: no report has the call for a layer that is not active. ERROR_NOT_READY is
	// what a disk says that is not there,
	likelyBut("closed-path-not-ready", func(p *Personality) { p.ClosedPath = errNotReady }),
	// and hcsshim allows for a path of no length (mountPathLength == 0).
	likelyBut("closed-path-empty", func(p *Personality) { p.ClosedPath = 0 }),
	// hcsshim strips one (expandscratchsize.go).
	likelyBut("trailing-backslash", func(p *Personality) { p.TrailingBackslash = true }),

	// hcsshim pull request 1122 suspects that on Server 2019 the events of Plug and
	// Play come late. Doubt: for how long, and whether that goes for both.
	likelyBut("volume-late", func(p *Personality) { p.VolumeLate = 2 }),
	likelyBut("volume-lingers", func(p *Personality) { p.VolumeLingers = 3 }),
	// Doubt: nothing says which GUID the next activation gets, nor that one that was
	// given up is not given to another layer.
	likelyBut("new-volume", func(p *Personality) { p.NewVolume = true }),
	likelyBut("guid-reused", func(p *Personality) { p.GUIDReused = true }),

	// containerd's snapshotter keeps the scratch disk in committed layers.
	likelyBut("keeps-scratch", func(p *Personality) { p.CommittedKeepsScratch = true }),
	// Doubt: nothing says that HCS looks at more than the disk.
	likelyBut("kept-disk-attached", func(p *Personality) { p.AttachesKeptDisk, p.CommittedKeepsScratch = true, true }),

	// Doubt: ERROR_ALREADY_EXISTS, as 0x57 is measured on one build.
	likelyBut("bind-twice-0xb7", func(p *Personality) { p.BindTwice = 0xb7 }),
	// ERROR_INVALID_PARAMETER is the other one that containerd takes for "not bound".
	likelyBut("unbind-absent-0x57", func(p *Personality) { p.UnbindAbsent = errInvalidParameter }),
	// RemoveBindLink fails for the ancestor of another link, as its documentation
	// (bindlink.h, Windows 11 24H2) says; it is the same filter. Doubt: the code.
	likelyBut("unbind-ancestor-refused", func(p *Personality) { p.UnbindAncestor = errInvalidParameter }),
	// All of the bind filter was denied in a HostProcess container (buildkit issue
	// 6590), and Server 2019 lacks this call. Doubt: that the others work then.
	likelyBut("bindings-denied", func(p *Personality) { p.BindingsCode = 0x5 }),
	// BfGetMappings names what the file system has opened, such as
	// \Device\HarddiskVolume2\dir (go-winio pull request 274). Doubt: whether every name
	// leads back to the caller's.
	likelyBut("bindings-other-names", func(p *Personality) { p.BindingsOtherNames = true }),

	// Doubt: what one host may do, it may do together with the rest. Each field is
	// turned in one of these three.
	{
		Name:               "all-different-a",
		UnprepareClosed:    0,
		UnprepareActive:    0,
		DeactivatePrepared: Ignores,
		PreparedTwice:      0xd00000bb,
		ClosedPath:         errNotReady,
		VolumeLingers:      3,
		NewVolume:          true,
		BindTwice:          0xb7,
		UnbindAbsent:       0x490,
		UnbindAncestor:     errInvalidParameter,
		BindingsOtherNames: true,
	},
	{
		Name:               "all-different-b",
		UnprepareClosed:    NotPrepared,
		UnprepareActive:    NotPrepared,
		DeactivatePrepared: Detaches,
		DetachReadOnly:     true,
		GoneRefused:        true,
		PreparedTwice:      errInvalidParameter,
		ClosedPath:         0,
		TrailingBackslash:  true,
		VolumeLate:         2,
		BindTwice:          errInvalidParameter,
		UnbindAbsent:       errInvalidParameter,
		BindingsCode:       0x5,
	},
	{
		Name:                  "all-different-c",
		UnprepareClosed:       NotActive,
		UnprepareActive:       0,
		DeactivatePrepared:    Refuses,
		DetachReadOnly:        true,
		PreparedTwice:         0xd00000bb,
		ClosedPath:            errNotReady,
		GUIDReused:            true,
		AttachesKeptDisk:      true,
		CommittedKeepsScratch: true,
		BindTwice:             0xb7,
		UnbindAbsent:          errInvalidParameter,
		UnbindAncestor:        errInvalidParameter,
		BindingsCode:          0x7a, // Doubt: there are too many for go-winio's buffer.
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
