// Package retry repeats what may succeed in a moment. It makes five attempts in all, 100 ms apart, like
// hcsshim's own runtime (internal/layers/wcow_mount.go).
package retry

import (
	"context"
	"fmt"
	"time"
)

const attempts, interval = 5, 100 * time.Millisecond

// Pause waits until it is time for the next attempt. It returns an error if ctx ends first.
type Pause func(ctx context.Context) error

// Wait is the Pause that the library uses. Tests use others.
func Wait(ctx context.Context) error {
	select {
	case <-time.After(interval):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Do calls try until it succeeds, fails with an error that is not transient, or has failed five times. If
// ctx ends, Do returns once the current attempt is over.
func (pause Pause) Do(ctx context.Context, isTransient func(error) bool, try func() error) error {
	for attempt := 1; ; attempt++ {
		err := try()
		if err == nil || !isTransient(err) || attempt == attempts {
			return err
		}
		if waitErr := pause(ctx); waitErr != nil {
			return fmt.Errorf("%w (retries stopped: %w)", err, waitErr)
		}
	}
}

// Until calls condition until it returns true, at most five times. It reports whether condition returned true.
func (pause Pause) Until(ctx context.Context, condition func() bool) bool {
	for attempt := 1; ; attempt++ {
		if condition() {
			return true
		}
		if attempt == attempts || pause(ctx) != nil {
			return false
		}
	}
}
