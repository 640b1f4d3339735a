package mount

import (
	"context"
	"fmt"
	"time"
)

// attempts and attemptPause are those of hcsshim's own runtime (internal/layers/wcow_mount.go).
const attempts, attemptPause = 5, 100 * time.Millisecond

// pauser waits before something that failed is tried again, or until ctx ends.
type pauser func(ctx context.Context) error

// retry runs try until it succeeds or fails with an error that is not one for an
// instant, as many times as hcsshim's own runtime would.
func (pause pauser) retry(ctx context.Context, forAnInstant func(error) bool, try func() error) error {
	for attempt := 1; ; attempt++ {
		err := try()
		if err == nil || !forAnInstant(err) || attempt == attempts {
			return err
		}
		if waitErr := pause(ctx); waitErr != nil {
			return fmt.Errorf("%w (not tried again: %w)", err, waitErr)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(attemptPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
