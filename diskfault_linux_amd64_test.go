package mount

import (
	"reflect"
	"strings"
	"syscall"
	"testing"
)

// diskFaults are the ways in which changes of files fail, other than those of
// the model of HCS. Nothing asks for the code, but for that of a busy file; what
// counts is whether the undo fails too.
var diskFaults = []struct {
	name   string
	errno  syscall.Errno
	onward bool // all later changes fail too
}{
	{"the disk is full", syscall.ENOSPC, true},
	{"permission is denied for an instant", syscall.EACCES, false},
	{"a file is busy for an instant", syscall.EBUSY, false},
}

func TestNoFailedChangeOfAFileLeaksALayerOrTouchesAFile(t *testing.T) {
	for _, scenario := range scenarios {
		for _, fault := range diskFaults {
			t.Run(scenario.name+"/"+fault.name, func(t *testing.T) {
				t.Parallel()
				happened, at := true, 1
				for ; happened; at++ {
					h := sharedHost(t, newHost(t).dir)
					m := scenario.host(h)
					scenario.prepare(h, m)
					layers := tree(t, h.path("layers"))
					table := h.tableFiles()

					child := startChild(t, scenario, h.dir)
					changes, cured := 0, false
					child.run(func(c change) {
						if strings.HasPrefix(c.path, h.path("hcs")) || strings.HasPrefix(c.path, h.path("volumes")) {
							return
						}
						if changes++; changes == at || fault.onward && changes > at {
							child.fail(fault.errno)
							cured = fault.errno == syscall.EBUSY && c.number != syscall.SYS_WRITE && c.number != syscall.SYS_FSYNC
						}
					})
					happened = changes >= at
					if (cured || !happened) && child.status != 0 {
						t.Fatalf("the child failed: %s", child.output)
					}
					if child.status == 0 {
						h.wantDone(scenario)
					}
					if child.status != 0 && child.output == "" {
						t.Error("a failure without an error")
					}
					if !scenario.foreign {
						h.wantNoLeak()
					}
					if child.status != 0 && strings.HasPrefix(scenario.name, "mount") && !fault.onward && scenario.name != "mount over a stale link" {
						if after := h.tableFiles(); !reflect.DeepEqual(after, table) {
							t.Errorf("the failed mount left the table with %q, where there was %q", after, table)
						}
					}
					scenario.wantRecovered(h, m)
					if after := tree(t, h.path("layers")); after != layers {
						t.Errorf("the layers have changed to\n%sfrom\n%s", after, layers)
					}
					if t.Failed() {
						t.Fatalf("change %d failed; the child said: %s", at, child.output)
					}
				}
				t.Logf("each of %d changes failed", at-2)
			})
		}
	}
}

// fail makes the system call fail at whose entry the child is stopped.
func (c *tracee) fail(errno syscall.Errno) {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(c.pid, &regs); err != nil {
		c.t.Fatal(err)
	}
	regs.Orig_rax = ^uint64(0) // no such system call: the kernel does nothing
	if err := syscall.PtraceSetRegs(c.pid, &regs); err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.PtraceSyscall(c.pid, 0); err != nil {
		c.t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(c.pid, &status, syscall.WALL, nil); err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.PtraceGetRegs(c.pid, &regs); err != nil {
		c.t.Fatal(err)
	}
	regs.Rax = uint64(-int64(errno))
	if err := syscall.PtraceSetRegs(c.pid, &regs); err != nil {
		c.t.Fatal(err)
	}
}
