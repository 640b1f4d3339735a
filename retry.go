package mount

import (
	"context"
	"fmt"
	"time"
)

// attempts and attemptPause are those of hcsshim's own runtime (internal/layers/wcow_mount.go).
const attempts, attemptPause = 5, 100 * time.Millisecond

// pauser waits until it is time for the next attempt. It returns an error if ctx ends first.
type pauser func(ctx context.Context) error

// retry runs try until it succeeds, fails with an error that is not transient, or has failed five
// times. When ctx ends, it stops after the attempt that is running.
func (pause pauser) retry(ctx context.Context, isTransient func(error) bool, try func() error) error {
	for attempt := 1; ; attempt++ {
		err := try()
		if err == nil || !isTransient(err) || attempt == attempts {
			return err
		}
		if waitErr := pause(ctx); waitErr != nil {
			return fmt.Errorf("%w (not tried again: %w)", err, waitErr)
		}
	}
}

// until checks a condition up to five times, and reports whether it came true.
func (pause pauser) until(ctx context.Context, condition func() bool) bool {
	return nil == pause.retry(ctx, func(error) bool { return true }, func() error {
		if condition() {
			return nil
		}
		return errAgain
	})
}

// whileBusy runs try, which opens, makes, renames or removes a file, and retries it while another
// program, such as a scanner, has the file open. No context ends that: the pauses take less than
// half a second.
func (pause pauser) whileBusy(try func() error) error {
	return pause.retry(context.Background(), isBusy, try)
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(attemptPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
