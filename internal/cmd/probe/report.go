//go:build windows

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/Microsoft/hcsshim"
)

// report writes Markdown, line by line, so that what is known can be read when a later step hangs.
type report struct {
	w   io.Writer
	err error // the first one
}

func (r *report) line(line string) {
	if r.err == nil {
		_, r.err = fmt.Fprintln(r.w, line)
	}
}

func (r *report) title(title string) { r.line("\n## " + title) }

func (r *report) text(text string) { r.line("\n" + text) }

// table begins a table.
func (r *report) table(columns ...string) {
	r.line("")
	r.row(columns...)
	r.line("|" + strings.Repeat(" --- |", len(columns)))
}

func (r *report) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = strings.NewReplacer("|", `\|`, "\r", "", "\n", " ").Replace(cell)
	}
	r.line("| " + strings.Join(cells, " | ") + " |")
}

// code shows a text exactly as it is; an empty one as two quotes.
func code(text string) string {
	if text == "" {
		text = `""`
	}
	return "`" + text + "`"
}

// result shows what a call returned: nil, or its code, or the text of an error that has none.
func result(err error) string {
	var hcsErr *hcsshim.HcsError
	if errors.As(err, &hcsErr) {
		err = hcsErr.Err // it has no Unwrap
	}
	var errno syscall.Errno
	switch {
	case err == nil:
		return "nil"
	case errors.As(err, &errno):
		return fmt.Sprintf("0x%x", uint32(errno))
	}
	return err.Error()
}

// pathResult shows a path, or why there is none.
func pathResult(path string, err error) string {
	if err != nil {
		return result(err)
	}
	return code(path)
}

// notHere says why a host could not do a step.
func notHere(err error) string { return "not possible here: " + err.Error() }

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
