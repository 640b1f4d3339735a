//go:build windows

package main

import (
	"fmt"
	"os"
)

// undoList holds how to take away what was made, in the order in which it was made.
type undoList struct {
	entries []*undo
	failed  int
}

type undo struct {
	what string
	do   func() error // nil once it was done
}

// add adds how to take away what is made next. The function that it returns does it at once;
// else undoAll does.
func (l *undoList) add(what string, do func() error) (now func()) {
	u := &undo{what, do}
	l.entries = append(l.entries, u)
	return func() { l.run(u) }
}

func (l *undoList) run(u *undo) {
	if u.do == nil {
		return
	}
	do := u.do
	u.do = nil
	if err := do(); err != nil {
		l.failed++
		fmt.Fprintf(os.Stderr, "probe: failed to %s: %v\n", u.what, err)
	}
}

// undoAll takes away what is left, the last thing first.
func (l *undoList) undoAll() error {
	for i := len(l.entries) - 1; i >= 0; i-- {
		l.run(l.entries[i])
	}
	if l.failed > 0 {
		return fmt.Errorf("%d things that were made could not be taken away", l.failed)
	}
	return nil
}
