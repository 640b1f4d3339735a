package hcstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// SetFaults plans which of the next calls go wrong, in all processes that have opened dir. It replaces the previous
// plan. A line has the name of a call, what happens in it, and in how many calls it happens:
//
//	PrepareLayer 0x15 2            fails with that Windows code or HRESULT
//	ActivateLayer kill-before 1    the process is killed before the effect
//	ActivateLayer kill-after 1     the process is killed after the effect
func SetFaults(dir string, lines ...string) error {
	for _, line := range lines {
		if _, err := parseFault(line); err != nil {
			return err
		}
	}
	f := faults{dir}
	return withLock(f.lockPath(), func(*os.File) error { return f.replace(lines) })
}

// faults is the plan, which is in the file faults in dir.
type faults struct{ dir string }

func (f faults) path() string { return filepath.Join(f.dir, "faults") }

// lockPath returns the path of the file that a process locks while it reads or changes the plan.
func (f faults) lockPath() string { return f.path() + ".lock" }

// replace makes the lines the new plan. If the process is killed meanwhile, either the new plan or the previous one
// remains. The caller must hold the lock.
func (f faults) replace(lines []string) error {
	temporary := f.path() + ".tmp"
	if err := os.WriteFile(temporary, []byte(strings.Join(lines, "\n")), 0o666); err != nil {
		return err
	}
	return os.Rename(temporary, f.path())
}

func (f faults) before(call Call, layer string) error {
	fault, err := f.take(call, func(f fault) bool { return f.kind != "kill-after" })
	switch {
	case err != nil:
		return err
	case fault.kind == "kill-before":
		return killSelf()
	case fault.code != 0:
		return &Error{Call: call, Layer: layer, Code: fault.code}
	}
	return nil
}

func (f faults) after(call Call, _ string) error {
	fault, err := f.take(call, func(f fault) bool { return f.kind == "kill-after" })
	if err == nil && fault.kind != "" {
		return killSelf()
	}
	return err
}

// take returns the first planned fault of the call for which match returns true, and reduces its count by one. It
// returns the zero fault if there is none.
func (f faults) take(call Call, match func(fault) bool) (fault, error) {
	// Nothing is planned for nearly all calls. Then take does not need the lock.
	if isEmpty(f.path()) {
		return fault{}, nil
	}
	var found fault
	err := withLock(f.lockPath(), func(*os.File) error {
		data, err := os.ReadFile(f.path())
		if errors.Is(err, fs.ErrNotExist) {
			return f.replace(nil)
		}
		if err != nil {
			return err
		}
		lines := splitLines(data)
		for i, line := range lines {
			fault, err := parseFault(line)
			if err != nil {
				return err
			}
			if fault.call != call || fault.count == 0 || !match(fault) {
				continue
			}
			found = fault
			if fault.count == 1 {
				lines = append(lines[:i], lines[i+1:]...)
			} else {
				lines[i] = fmt.Sprintf("%s %s %d", fault.call, fault.kind, fault.count-1)
			}
			return f.replace(lines)
		}
		return nil
	})
	return found, err
}

type fault struct {
	call  Call
	kind  string // "kill-before", "kill-after", or the text of the code
	code  syscall.Errno
	count int
}

func parseFault(line string) (fault, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return fault{}, fmt.Errorf("fault %q: want a call, what happens and a count", line)
	}
	f := fault{call: Call(fields[0]), kind: fields[1]}
	switch f.call {
	case Activate, Prepare, MountPath, Unprepare, Deactivate, Bind, Unbind, Bindings:
	default:
		return fault{}, fmt.Errorf("fault %q: no such call", line)
	}
	if f.kind != "kill-before" && f.kind != "kill-after" {
		code, err := strconv.ParseUint(f.kind, 0, 32)
		if err != nil || code == 0 {
			return fault{}, fmt.Errorf("fault %q: want kill-before, kill-after or a code", line)
		}
		f.code = syscall.Errno(code)
	}
	var err error
	if f.count, err = strconv.Atoi(fields[2]); err != nil || f.count < 0 {
		return fault{}, fmt.Errorf("fault %q: bad count", line)
	}
	return f, nil
}

// killSelf ends the process as SIGKILL and TerminateProcess do: no deferred function runs. If killSelf returns, it
// returns an error.
func killSelf() error {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		return err
	}
	select {}
}
