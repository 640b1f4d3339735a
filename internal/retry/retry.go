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
func (pause Pause) Do(ctx context.Context, isTransient func(error) bool, try func() error) (err error) {
	isOver := pause.Until(ctx, func() bool {
		err = try()
		return err == nil || !isTransient(err)
	})
	if !isOver && ctx.Err() != nil {
		err = fmt.Errorf("%w (retries stopped: %w)", err, ctx.Err())
	}
	return err
}

// Always is for Do: all errors are transient.
func Always(error) bool { return true }

// Until calls condition until it returns true, at most five times. It reports whether condition returned true.
func (pause Pause) Until(ctx context.Context, condition func() bool) bool {
	for attempt := 1; !condition(); attempt++ {
		if attempt == attempts || pause(ctx) != nil {
			return false
		}
	}
	return true
}
