package mount

import (
	stderrors "errors"
	"strings"
	"testing"
)

// wantError fails the test unless err is there, holds the text, and matches the
// targets.
func wantError(t testing.TB, err error, text string, targets ...error) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", text)
		return
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q, want one with %q", err, text)
	}
	for _, target := range targets {
		if !stderrors.Is(err, target) {
			t.Errorf("error %q does not match %v", err, target)
		}
	}
}
