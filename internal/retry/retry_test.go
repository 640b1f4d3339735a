package retry

import (
	"context"
	"errors"
	"testing"
	"time"
)

var errTry, errFinal = errors.New("try failed"), errors.New("final")

func isTransient(err error) bool { return !errors.Is(err, errFinal) }

// counted returns a Pause that counts, and ends ctx in pause number end.
func counted(end int) (pause Pause, ctx context.Context, pauses *int) {
	ctx, cancel := context.WithCancel(context.Background())
	pauses = new(int)
	return func(ctx context.Context) error {
		if *pauses++; *pauses == end {
			cancel()
		}
		return ctx.Err()
	}, ctx, pauses
}

func TestDo_MakesFiveAttempts(t *testing.T) {
	for _, test := range []struct {
		name            string
		errs            []error // of the attempts; the last one is that of all others
		end             int     // in which pause the context ends
		tries, pauses   int
		want, isStopped error
	}{
		{name: "success", errs: []error{nil}, tries: 1},
		{name: "success in the end", errs: []error{errTry, errTry, errTry, errTry, nil}, tries: 5, pauses: 4},
		{name: "five attempts", errs: []error{errTry}, tries: 5, pauses: 4, want: errTry},
		{name: "a final error", errs: []error{errTry, errFinal}, tries: 2, pauses: 1, want: errFinal},
		{name: "end of the context", errs: []error{errTry}, end: 2, tries: 2, pauses: 2, want: errTry, isStopped: context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			pause, ctx, pauses := counted(test.end)
			tries := 0
			err := pause.Do(ctx, isTransient, func() error {
				tries++
				return test.errs[min(tries, len(test.errs))-1]
			})
			if tries != test.tries || *pauses != test.pauses {
				t.Errorf("%d attempts, %d pauses", tries, *pauses)
			}
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || test.isStopped == nil && err != test.want {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if test.isStopped != nil && !errors.Is(err, test.isStopped) {
				t.Errorf("error %v does not match %v", err, test.isStopped)
			}
		})
	}
}

func TestUntil_MakesFiveAttempts(t *testing.T) {
	for _, test := range []struct {
		name          string
		from          int // which attempt reports true
		end           int // in which pause the context ends
		tries, pauses int
		want          bool
	}{
		{name: "at once", from: 1, tries: 1, want: true},
		{name: "in the end", from: 5, tries: 5, pauses: 4, want: true},
		{name: "never", from: 6, tries: 5, pauses: 4},
		{name: "end of the context", from: 4, end: 2, tries: 2, pauses: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			pause, ctx, pauses := counted(test.end)
			tries := 0
			got := pause.Until(ctx, func() bool { tries++; return tries == test.from })
			if got != test.want || tries != test.tries || *pauses != test.pauses {
				t.Errorf("%v, %d attempts, %d pauses", got, tries, *pauses)
			}
		})
	}
}

func TestWait_LastsAnIntervalOrUntilTheContextEnds(t *testing.T) {
	start := time.Now()
	if err := Wait(context.Background()); err != nil || time.Since(start) < interval { // never early, however busy the machine
		t.Errorf("%v, after %s", err, time.Since(start))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v once the context has ended", err)
	}
}
