package hcstest

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// Personality has the answers of one kind of host, for the cases in which hosts differ or the answer is not known.
// The rest of the model is the same for all hosts.
//
// A layer is writable if it has a sandbox.vhdx and no directory Files. It is read-only if it has no sandbox.vhdx. It
// is also read-only if it has both: a committed layer may have kept its scratch disk. With AttachesKeptDisk a host
// looks at the disk alone. A layer stays writable or read-only until it is closed, whatever happens to its files.
type Personality struct {
	Name string

	// UnprepareClosed is the code that UnprepareLayer returns for a writable layer that is not active, and for a
	// read-only layer that is not prepared. If it is 0, the call succeeds and does nothing.
	UnprepareClosed syscall.Errno
	// UnprepareActive is the code that UnprepareLayer returns for a writable layer that is active but not prepared.
	// If it is 0, the call succeeds and does nothing.
	UnprepareActive syscall.Errno
	// DeactivatePrepared is what DeactivateLayer does with a writable layer that is still prepared.
	DeactivatePrepared DeactivatePrepared
	// DetachReadOnly makes DeactivateLayer detach the filter of a read-only layer that is prepared. If it is not
	// set, the call succeeds and does nothing.
	DetachReadOnly bool
	// GoneRefused makes UnprepareLayer and DeactivateLayer fail with 0x3 and do nothing if the layer's directory does
	// not exist. If it is not set, they do the same as for any other layer.
	GoneRefused bool

	// PreparedTwice is the code that PrepareLayer returns for a layer that is prepared already.
	PreparedTwice syscall.Errno

	// ClosedPath is the code that GetLayerMountPath returns for a writable layer that is not active. If it is 0, the
	// call succeeds and returns an empty path.
	ClosedPath syscall.Errno
	// OpenPath is what GetLayerMountPath returns for a writable layer that is active.
	OpenPath OpenPath
	// TrailingBackslash makes GetLayerMountPath return a volume with a separator at the end.
	TrailingBackslash bool

	// VolumeLate is how many calls of GetLayerMountPath after ActivateLayer do not return the volume yet. They fail
	// with 0x15, after which hcsshim waits (internal/layers/wcow_mount.go). If ClosedPath is 0, they return an empty
	// path instead. The directory of the volume exists from the beginning.
	VolumeLate int
	// VolumeLingers is for how many calls after DeactivateLayer the volume still exists and GetLayerMountPath still
	// returns it. All five calls for the layer count, but not a call that Before prevented. The volume is gone when
	// the last of these calls returns. ActivateLayer also works meanwhile: it uses the volume that exists, unless
	// NewVolume is set.
	VolumeLingers int
	// NewVolume gives each activation a GUID that no volume has had. The volume keeps its content.
	NewVolume bool
	// GUIDReused gives an activation the GUID that was given up last, whichever layer gave it up. If there is none,
	// the activation gets a new GUID. The volume has the layer's own content in either case.
	GUIDReused bool

	// AttachesKeptDisk makes a layer writable if it has both a sandbox.vhdx and a directory Files.
	AttachesKeptDisk bool
	// CommittedKeepsScratch asks tests to make committed layers that have a sandbox.vhdx beside their directory
	// Files. The model does not use it.
	CommittedKeepsScratch bool

	// BindTwice is the code that BfSetupFilter returns for a root that is bound already.
	BindTwice syscall.Errno
	// UnbindAbsent is the code that BfRemoveMapping returns for a directory that is not bound.
	UnbindAbsent syscall.Errno
	// UnbindAncestor is the code that BfRemoveMapping returns for a root if another root below it is bound. Both stay
	// bound then. If it is 0, the call succeeds, and only the other root stays bound.
	UnbindAncestor syscall.Errno
	// BindingsCode, if not 0, is the code with which BfGetMappings always fails.
	BindingsCode syscall.Errno
	// BindingsOtherNames makes BfGetMappings return each root as another path than the one that BfSetupFilter was
	// called with. The other path leads to the same directory. If the path comes from bindfltapi.dll, go-winio turns
	// it back into the usual path.
	BindingsOtherNames bool
}

// DeactivatePrepared is what DeactivateLayer does with a writable layer that is still prepared.
type DeactivatePrepared string

// The values of DeactivatePrepared.
const (
	Detaches DeactivatePrepared = "detaches" // it detaches the filter and closes the layer
	Refuses  DeactivatePrepared = "refuses"  // it fails with 0x20
	Ignores  DeactivatePrepared = "ignores"  // it succeeds and does nothing
)

// OpenPath is what GetLayerMountPath returns for a writable layer that is active.
type OpenPath string

// The values of OpenPath. Only the first is known of any host. With the other two nothing can be mounted, so none of
// Personalities has them.
const (
	OpenPathVolume    OpenPath = ""          // the volume of the layer
	OpenPathEmpty     OpenPath = "empty"     // an empty path; hcsshim allows for it (mountPathLength == 0)
	OpenPathDirectory OpenPath = "directory" // the directory of the layer
)

// Likely has the answers that the evidence shows, or at least makes likely.
var Likely = Personality{
	Name: "likely",
	// cloudfoundry's winc ignores these two codes and no others, on Server 2016. The helpers of containerd's
	// integration tests do the same, on Server 2022. containerd pull request 5328 tells which code is for which
	// state.
	UnprepareClosed: NotActive,
	UnprepareActive: NotPrepared,
	// Inferred: after a crash containerd's snapshotter frees the scratch disks in this way (containerd pull request
	// 5422; moby pull request 37712).
	DeactivatePrepared: Detaches,
	// Assumption: DeactivateLayer does nothing for a read-only layer, like ActivateLayer.
	DetachReadOnly: false,
	// Assumption: HCS finds what is attached by the path of the layer alone.
	GoneRefused: false,
	// moby issue 36831, containerd issue 8891.
	PreparedTwice: errInvalidParameter,
	// Inferred: UnprepareLayer returns this code for such a layer.
	ClosedPath: NotActive,
	// Assumption: HCS also takes a committed layer as read-only.
	AttachesKeptDisk: false,
	// Measured on Server 2025. go-winio's comment on the flag that it passes, BINDFLT_FLAG_NO_MULTIPLE_TARGETS, says
	// STATUS_INVALID_PARAMETER.
	BindTwice: errInvalidParameter,
	// ERROR_NOT_FOUND is one of the two codes that containerd takes as "not bound" (containerd 2,
	// core/mount/mount_windows.go).
	UnbindAbsent: 0x490,
	// Assumption: the documentation is of a later interface; see unbind-ancestor-refused.
	UnbindAncestor: 0,
}

// Personalities has all personalities: first Likely, then those that differ from it in one answer, then those that
// differ in many. Each has a comment with its source. If the answer is not certain, "Doubt:" says why.
var Personalities = []Personality{
	Likely,

	// winc and containerd's helpers ignore this code as well as 0x37, and do not say for which state. Doubt: a
	// read-only layer is never active, so HCS may return "not prepared" for it.
	likelyBut("closed-0x801f0015", func(p *Personality) { p.UnprepareClosed = NotPrepared }),
	// Doubt: there is a report of success for an active layer (next line), and no report of a code says that every
	// build returns a code.
	likelyBut("closed-silent", func(p *Personality) { p.UnprepareClosed = 0 }),
	// Windows 10 20H2: containerd pull request 5328.
	likelyBut("not-prepared-silent", func(p *Personality) { p.UnprepareActive = 0 }),

	// Doubt: that DeactivateLayer also detaches the filter is only inferred. The filter may hold the volume, so that
	// the call fails.
	likelyBut("prepared-refused", func(p *Personality) { p.DeactivatePrepared = Refuses }),
	// Doubt: the disk may also stay attached although the call succeeds. containerd pull request 4419 reports that,
	// but its author may have looked at another directory.
	likelyBut("prepared-ignored", func(p *Personality) { p.DeactivatePrepared = Ignores }),
	// Doubt: the call is known to succeed for a read-only layer (docker/for-win issue 1546). What it does is not
	// known.
	likelyBut("read-only-detached", func(p *Personality) { p.DetachReadOnly = true }),
	// Doubt: HCS opens the layer's disk or its directory for some of its work.
	likelyBut("gone-refused", func(p *Personality) { p.GoneRefused = true }),

	// Server 2016: HRESULT_FROM_NT(STATUS_NOT_SUPPORTED).
	likelyBut("prepared-0xd00000bb", func(p *Personality) { p.PreparedTwice = 0xd00000bb }),

	// Doubt: no report shows the call for a layer that is not active. ERROR_NOT_READY is the code of a disk that is
	// not there.
	likelyBut("closed-path-not-ready", func(p *Personality) { p.ClosedPath = errNotReady }),
	// Doubt: hcsshim allows for an empty path (mountPathLength == 0).
	likelyBut("closed-path-empty", func(p *Personality) { p.ClosedPath = 0 }),
	// hcsshim removes a separator at the end (expandscratchsize.go).
	likelyBut("trailing-backslash", func(p *Personality) { p.TrailingBackslash = true }),

	// hcsshim pull request 1122 suspects that the events of Plug and Play are late on Server 2019. Doubt: it is not
	// known how late they are, and whether both a volume that comes and one that goes are late.
	likelyBut("volume-late", func(p *Personality) { p.VolumeLate = 2 }),
	likelyBut("volume-lingers", func(p *Personality) { p.VolumeLingers = 3 }),
	// Doubt: it is not known which GUID the next activation gets, and whether another layer may get a GUID that was
	// given up.
	likelyBut("new-volume", func(p *Personality) { p.NewVolume = true }),
	likelyBut("guid-reused", func(p *Personality) { p.GUIDReused = true }),

	// containerd's snapshotter keeps the scratch disk in committed layers.
	likelyBut("keeps-scratch", func(p *Personality) { p.CommittedKeepsScratch = true }),
	// Doubt: there is no evidence that HCS looks at anything but the disk.
	likelyBut("kept-disk-attached", func(p *Personality) { p.AttachesKeptDisk, p.CommittedKeepsScratch = true, true }),

	// Doubt: 0x57 was measured on one build only. Another build may return ERROR_ALREADY_EXISTS.
	likelyBut("bind-twice-0xb7", func(p *Personality) { p.BindTwice = 0xb7 }),
	// ERROR_INVALID_PARAMETER is the other code that containerd takes as "not bound".
	likelyBut("unbind-absent-0x57", func(p *Personality) { p.UnbindAbsent = errInvalidParameter }),
	// The documentation of RemoveBindLink says that it fails for the ancestor of another link (bindlink.h, Windows 11
	// 24H2). It uses the same filter. Doubt: the code is not known.
	likelyBut("unbind-ancestor-refused", func(p *Personality) { p.UnbindAncestor = errInvalidParameter }),
	// In a HostProcess container all calls of the bind filter were denied (buildkit issue 6590), and Server 2019
	// lacks this call. Doubt: it is not known whether the other calls work if this one fails.
	likelyBut("bindings-denied", func(p *Personality) { p.BindingsCode = 0x5 }),
	// BfGetMappings returns the path that the file system has opened, such as \Device\HarddiskVolume2\dir (go-winio
	// pull request 274). Doubt: it is not known whether each such path leads back to the path of the caller.
	likelyBut("bindings-other-names", func(p *Personality) { p.BindingsOtherNames = true }),

	// Doubt: a host may have several of these answers together. Each field but OpenPath differs from Likely in at
	// least one of the next three.
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
		BindingsCode:          0x7a, // Doubt: there may be too many bindings for go-winio's buffer.
	},
}

func likelyBut(name string, change func(*Personality)) Personality {
	p := Likely
	p.Name = name
	change(&p)
	return p
}

// Named returns the element of Personalities that has the name, and reports whether there is one.
func Named(name string) (Personality, bool) {
	for _, p := range Personalities {
		if p.Name == name {
			return p, true
		}
	}
	return Personality{}, false
}

// SetPersonality sets the personality of every model that is opened in dir from now on. The simulated DLLs open a
// model for each call. SetPersonality creates dir if it does not exist. Open layers stay open.
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

// personality returns the personality that SetPersonality has set, or Likely if it has set none.
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

// personalityPath returns the path of the file that holds the personality as JSON. For Likely the file is empty.
func personalityPath(dir string) string { return filepath.Join(dir, "personality") }
