package mount

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	// attempts and attemptPause are those of hcsshim's own runtime
	// (internal/layers/wcow_mount.go).
	attempts     = 5
	attemptPause = 100 * time.Millisecond
)

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
	timer := time.NewTimer(attemptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// whileBusy runs try, which opens, makes, renames or removes a file, and runs it
// again when something else has the file open, such as a scanner. No context ends
// that: the pauses take less than half a second.
func (t table) whileBusy(try func() error) error {
	return t.pause.retry(context.Background(), isBusy, try)
}

func (t table) rename(from, to string) error {
	return t.whileBusy(func() error { return os.Rename(from, to) })
}

func (t table) remove(path string) error {
	return t.whileBusy(func() error { return os.Remove(path) })
}

func (t table) open(path string, open func(path string) (*os.File, error)) (file *os.File, err error) {
	err = t.whileBusy(func() error {
		file, err = open(path)
		return err
	})
	return file, err
}

func (t table) readDir(path string) (entries []os.DirEntry, err error) {
	err = t.whileBusy(func() error {
		entries, err = os.ReadDir(path)
		return err
	})
	return entries, err
}
