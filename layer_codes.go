package mount

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/pkg/errors"
)

// Codes that HCS, the bind filter and Windows report. hcsshim cuts 0x8007xxxx down to the Windows code
// and passes other HRESULTs on whole. The same situation has other codes on other builds of Windows, and
// no list of them is known to be complete. So a code never decides whether a layer with a volume is open.
const (
	errorFileNotFound, errorPathNotFound    = syscall.Errno(2), syscall.Errno(3)
	errorAccessDenied                       = syscall.Errno(5)
	errorNotReady, errorSharingViolation    = syscall.Errno(21), syscall.Errno(32)
	errorDevNotExist, errorInvalidParameter = syscall.Errno(55), syscall.Errno(87)
	errorDeviceNotConnected, errorNotFound  = syscall.Errno(1167), syscall.Errno(1168)
	errorTimeout, errorFilterNotFound       = syscall.Errno(1460), syscall.Errno(0x801f0015)
)

// A call that fails with one of these codes is retried. hcsshim's own runtime takes those of transient
// for a volume that is not there yet (internal/layers/wcow_mount.go). PrepareLayer times out on a machine
// under load (moby 27588). ActivateLayer reports a sharing violation for an instant after somebody has
// closed the layer (buildkit 5807).
var (
	transient         = []syscall.Errno{errorNotReady, errorDeviceNotConnected}
	transientPrepare  = append([]syscall.Errno{errorTimeout}, transient...)
	transientActivate = append([]syscall.Errno{errorSharingViolation}, transient...)
)

// notPrepared are the codes with which UnprepareLayer says that there is nothing to undo
// (containerd pull requests 5133 and 5328), or that the directory of the layer is gone. They count only
// for a layer without a volume, of which nothing else can be known.
var notPrepared = []syscall.Errno{errorDevNotExist, errorFilterNotFound, errorInvalidParameter,
	errorNotFound, errorFileNotFound, errorPathNotFound}

// deviceGone are the codes of Windows, and not of HCS, for a device or share that no longer exists.
var deviceGone = []syscall.Errno{errorDevNotExist, 67, 433, errorDeviceNotConnected, 1617}

func isAny(err error, codes ...syscall.Errno) bool {
	return slices.ContainsFunc(codes, func(code syscall.Errno) bool { return errors.Is(err, code) })
}

// What an error means for a layer, for errors.Is. They have no text of their own.
var (
	errAgain    = errors.New("") // what was done is undone, as far as HCS tells, and the call may succeed in a moment
	errLeftOpen = errors.New("") // the undo failed too, and the layer is or may be open
	errDoubtful = errors.New("") // HCS refused to close the layer, and nothing tells whether it is open
)

func mark(err, meaning error) error { return fmt.Errorf("%w%w", err, meaning) }

// withUndo adds to err the error of its undo, if there is one.
func withUndo(err, undo error) error {
	if undo == nil {
		return err
	}
	return fmt.Errorf("%w; undo: %w", err, undo)
}
