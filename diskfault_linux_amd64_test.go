package mount

import (
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
)

// diskFaults are the ways in which changes of files fail. Files of the model of
// HCS do not fail. The code matters only if a file is busy. What counts
// otherwise is whether the undo fails, too.
var diskFaults = []struct {
	name   string
	errno  syscall.Errno
	onward bool // all later changes fail too
	space  bool // only those fail that need space
}{
	{"the disk is full", syscall.ENOSPC, true, true},
	{"permission is denied", syscall.EACCES, true, false},
	{"permission is denied for an instant", syscall.EACCES, false, false},
	{"a file is busy for an instant", syscall.EBUSY, false, false},
}

func TestMount_NoFailedChangeDoesHarm(t *testing.T) {
	underPersonalities(t, true, func(t *testing.T, p hcstest.Personality) {
		for i, s := range scenarios {
			for j, fault := range diskFaults {
				if !chosen(p, i+j, 64) {
					continue
				}
				t.Run(s.name+"/"+fault.name, func(t *testing.T) {
					t.Parallel()
					child := startChild(t)
					// First nothing fails, and then each change.
					open := 0 // layers, in the end
					for at, happened := 0, true; happened; at++ {
						h := newSharedHost(t, p)
						m := s.begin(h)
						layers := h.layerFiles()
						table, records := h.tableFiles(), h.onRecord()
						changes, cured := 0, at == 0
						err := child.run(s, h.dir, func(c change) {
							isStream := strings.HasSuffix(c.path, sourceStream) // in mnt the model makes it
							isTarget := strings.HasPrefix(c.path, h.path("mnt"))
							if !strings.HasPrefix(c.path, h.path("table")) && isTarget == isStream || fault.space && !c.needsSpace() {
								return
							}
							if changes++; at > 0 && (changes == at || fault.onward && changes > at) {
								child.fail(fault.errno)
								cured = cured || fault.errno == syscall.EBUSY && !c.isWrite()
							}
						})
						happened = at == 0 || changes >= at

						h.wantNoHarm(s)
						if err == nil {
							h.wantDone(s, m)
						} else if cured || !happened {
							t.Error(err)
						}
						if at == 0 {
							open = len(h.model.OpenLayers())
						}
						if now := h.model.OpenLayers(); !s.isMount() && !s.foreign && len(now) != open {
							t.Errorf("open layers: %q, want %d", now, open)
						}
						if err != nil && s.isMount() && !fault.onward && !s.clears() {
							if after := h.tableFiles(); !reflect.DeepEqual(after, table) {
								t.Errorf("the failed mount left the table with %q, where there was %q", after, table)
							}
							if after := h.onRecord(); !reflect.DeepEqual(after, records) {
								t.Errorf("the failed mount left on record %+v, where there was %+v", after, records)
							}
						}
						for _, r := range h.mounts() {
							if s.kept && h.mayBeOpen(r) && !fault.onward {
								t.Errorf("the layer that other code has open is on record as ours: %+v", r)
							}
						}
						// On a full disk nothing can be put on record. The error says so.
						mayLack := fault.space && err != nil && (strings.Contains(err.Error(), "failed to put the directory back") ||
							strings.Contains(err.Error(), "failed to remove the link"))
						s.wantRecovered(h, m, mayLack)
						if after := h.layerFiles(); after != layers {

							t.Errorf("the layers have changed to\n%sfrom\n%s", after, layers)
						}
						if t.Failed() {
							t.Fatalf("change %d failed, and the child said: %v", at, err)
						}
						count("faults of the disk", p, 1)
					}
				})
			}
		}
	})
}

// onRecord returns the mounts on record, without their files.
func (h *host) onRecord() (records []table.Record) {
	for _, r := range h.mounts() {
		records = append(records, r.Record)
	}
	return records
}

// isWrite reports whether a change is of the content of a file.
func (c change) isWrite() bool {
	return c.number == syscall.SYS_WRITE || c.number == syscall.SYS_PWRITE64 || c.number == syscall.SYS_FSYNC
}

// needsSpace reports whether a change can fail because the disk is full.
func (c change) needsSpace() bool {
	return c.number != syscall.SYS_UNLINKAT && c.number != syscall.SYS_RENAMEAT && c.number != syscall.SYS_FTRUNCATE
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
	c.goOn(0)
	if stop := c.wait(); stop != syscall.SIGTRAP|0x80 {
		c.t.Fatalf("stopped by %v", stop)
	}
	if err := syscall.PtraceGetRegs(c.pid, &regs); err != nil {
		c.t.Fatal(err)
	}
	regs.Rax = uint64(-int64(errno))
	if err := syscall.PtraceSetRegs(c.pid, &regs); err != nil {
		c.t.Fatal(err)
	}
}
