package hcs

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/winfs"
)

// fault makes one call of HCS fail, and perhaps all later ones.
type fault struct {
	at    int // which call, counted from 0
	code  syscall.Errno
	after bool // the call fails once it has had its effect
	later bool // so do all later calls, which have none
}

func (f fault) String() string {
	s := fmt.Sprintf("call %d fails with 0x%x", f.at, uintptr(f.code))
	if f.after {
		s += " after its effect"
	}
	if f.later {
		s += ", and all later ones fail"
	}
	return s
}

// inject makes the fault happen, and returns what reports which call it hit, or "".
func (f fault) inject(m *hcstest.Model) (hit func() hcstest.Call) {
	n, call := -1, hcstest.Call("")
	m.Before = func(c hcstest.Call, layer string) error {
		n++
		if n == f.at {
			call = c
		}
		if n == f.at && !f.after || n > f.at && f.later {
			return &hcstest.Error{Call: c, Layer: layer, Code: f.code}
		}
		return nil
	}
	m.After = func(c hcstest.Call, layer string) error {
		if n == f.at && f.after {
			return &hcstest.Error{Call: c, Layer: layer, Code: f.code}
		}
		return nil
	}
	return func() hcstest.Call { return call }
}

// faultCase is a fault under a personality.
type faultCase struct {
	*host
	fault
	hit     hcstest.Call // which call failed, or ""
	layer   *Layer
	foreign bool // other code has opened the layer
}

// writable reports whether HCS attaches a disk for the layer.
func (c *faultCase) writable() bool {
	return c.layer.Disk == OwnDisk || c.layer.Disk == KeptDisk && c.model.Personality.AttachesKeptDisk
}

// guessesWrong reports whether Open is known to be wrong: nothing tells what the call that failed has done. Then
// it leaves the layer open and does not report that, or closes the layer of other code. See docs/limits.md.
func (c *faultCase) guessesWrong() bool {
	switch {
	case c.foreign && (c.after || c.later):
		return false
	case c.foreign && c.hit == hcstest.Prepare:
		// What may succeed in a moment is undone first, in case it has had an effect.
		return !c.writable() && winfs.IsAny(c.code, transientPrepare...)
	case c.foreign:
		// HCS names the volume of the other code only now.
		return c.hit == hcstest.Activate && c.writable() && c.model.Personality.VolumeLate > 0 && c.code != ErrSharingViolation
	case !c.after:
		return false
	case c.hit == hcstest.Activate && c.writable():
		// A sharing violation means that other code has the layer open.
		return c.code == ErrSharingViolation || c.layer.Disk == OwnDisk && c.later && !winfs.IsAny(c.code, transient...)
	case c.hit == hcstest.Prepare && !c.writable():
		return !winfs.IsAny(c.code, transientPrepare...) && (c.layer.Disk == NoDisk || !c.later)
	}
	return false
}

// faultScenarios are what a fault can happen in.
var faultScenarios = []struct {
	name    string
	foreign bool // the layer is that of other code
	prepare func(c *faultCase)
	do      func(c *faultCase) (mayBeOpen bool, err error)
}{
	{name: "open", prepare: func(*faultCase) {}, do: openIt},
	{name: "open what other code has prepared", foreign: true, prepare: func(c *faultCase) { c.openElsewhere(c.layer) }, do: openIt},
	{name: "close", prepare: func(c *faultCase) { c.open(c.layer) }, do: closeIt},
	{name: "close without a volume on record", prepare: func(c *faultCase) { c.open(c.layer); c.layer.Volume = "" }, do: closeIt},
	{name: "close after ActivateLayer", prepare: func(c *faultCase) {
		if err := c.model.ActivateLayer(c.layer.Dir); err != nil {
			c.t.Fatal(err)
		}
	}, do: closeIt},
	{name: "close what was never opened", prepare: func(*faultCase) {}, do: closeIt},
}

func openIt(c *faultCase) (bool, error) { return c.Open(context.Background(), c.layer) }

func closeIt(c *faultCase) (bool, error) {
	err := c.Close(c.layer)
	return err != nil, err
}

var faultCodes = []syscall.Errno{ErrSharingViolation, errInvalidParameter, errAccessDenied, errNotReady, errDeviceNotConnected}

// TestLayers_NoFaultLeavesALayerOpenUnnoticed makes each call of HCS fail. Afterwards the layer is closed, or
// Open or Close has reported that it may be open, and a layer that other code has opened is still open.
func TestLayers_NoFaultLeavesALayerOpenUnnoticed(t *testing.T) {
	var cases, guesses atomic.Int64
	t.Cleanup(func() { t.Logf("%d cases, with %d wrong guesses", cases.Load(), guesses.Load()) })
	for _, p := range hcstest.Personalities {
		if strings.Contains(p.Name, "bind") || runtime.GOOS == "windows" && p.Name != hcstest.Likely.Name {
			continue // HCS has nothing to do with bindings, and Wine is slow
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			n := 0
			for _, disk := range disks {
				h := newHostIn(t, t.TempDir(), p)
				dir := h.layer(disk)
				for _, scenario := range faultScenarios {
					for _, code := range faultCodes {
						for kind := range 4 {
							f := fault{code: code, after: kind&1 != 0, later: kind&2 != 0}
							for hit := true; hit; f.at++ {
								layer := *dir
								c := &faultCase{host: h, fault: f, layer: &layer}
								scenario.prepare(c)
								c.foreign = scenario.foreign && len(h.model.OpenLayers()) > 0
								c.run(scenario.name, scenario.do)
								hit = c.hit != ""
								if n++; c.guessesWrong() {
									guesses.Add(1)
								}
								if err := h.model.Reboot(); err != nil {
									t.Fatal(err)
								}
								h.model.ResetCalls()
							}
						}
					}
				}
			}
			cases.Add(int64(n))
		})
	}
}

// run does what a scenario does, and checks what the fault has led to.
func (c *faultCase) run(scenario string, do func(c *faultCase) (mayBeOpen bool, err error)) {
	isOpen := func() bool { return len(c.model.OpenLayers()) > 0 }
	hit := c.inject(c.model)
	mayBeOpen, err := do(c)
	c.hit = hit()
	c.model.Before, c.model.After = nil, nil
	complain := func(what string, err error) {
		c.t.Errorf("%s, %q disk: %s (%s): %s: %v\n%s", scenario, c.layer.Disk, c.fault, c.hit, what, err, strings.Join(c.model.Calls(), "\n"))
	}
	if c.foreign {
		isKept := isOpen() && err != nil // or it was closed, and perhaps opened once more
		if isKept == c.guessesWrong() {
			complain(fmt.Sprintf("the layer of other code is kept: %v", isKept), err)
		}
		return
	}
	if isUnnoticed := isOpen() && !mayBeOpen; isUnnoticed != c.guessesWrong() {
		complain(fmt.Sprintf("the layer is open unnoticed: %v", isUnnoticed), err)
	}
	if !mayBeOpen {
		return
	}
	if err == nil {
		if is, err := c.IsOpen(c.layer); !is || err != nil {
			complain("IsOpen is false after Open", err)
		}
	}
	if err := c.Close(c.layer); err != nil || isOpen() {
		complain("Close does not close it", err)
	}
}
