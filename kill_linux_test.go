//go:build amd64 || arm64

package mount

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The tests here run a scenario in a child process and stop it before each of
// the system calls with which it changes a file. The child runs on its first
// thread, which is the one that is traced.

func init() {
	if os.Getenv(childTask) != "" {
		runtime.LockOSThread()
	}
}

func TestAProcessKilledAtAnyStepLeavesNothingThatUnmountAllDoesNotCleanUp(t *testing.T) {
	for _, scenario := range scenarios {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			killed, at := true, 1
			for ; killed; at++ {
				h := sharedHost(t, newHost(t).dir)
				m := scenario.host(h)
				scenario.prepare(h, m)
				child := startChild(t, scenario, h.dir)
				changes := 0
				child.run(func(change) {
					if changes++; changes == at {
						child.kill()
					}
				})
				killed = child.killed
				if !killed && child.status != 0 {
					t.Fatalf("the child failed: %s", child.output)
				}
				if !scenario.foreign {
					h.wantNoLeak()
				}
				scenario.wantRecovered(h, m)
				if t.Failed() {
					t.Fatalf("killed before change %d", at)
				}
			}
			t.Logf("killed before each of %d changes", at-2)
		})
	}
}

func TestARecordIsOnTheDiskBeforeItGetsItsName(t *testing.T) {
	for _, scenario := range scenarios {
		h := sharedHost(t, newHost(t).dir)
		m := scenario.host(h)
		scenario.prepare(h, m)
		written := map[string]bool{} // and not yet on the disk
		startChild(t, scenario, h.dir).run(func(c change) {
			switch c.number {
			case unix.SYS_WRITE:
				written[c.path] = true
			case unix.SYS_FSYNC:
				delete(written, c.path)
			case unix.SYS_RENAMEAT:
				if written[c.path] && strings.HasPrefix(c.path, h.path("table")) {
					t.Errorf("%s: %s is renamed before it is on the disk", scenario.name, c.path)
				}
			}
		})
	}
}

// tracee is a child process that is stopped at its system calls.
type tracee struct {
	t      *testing.T
	pid    int
	stderr *os.File
	killed bool
	status int
	output string
}

// change is a system call that is about to change a file.
type change struct {
	number uint64
	path   string
}

// startChild starts the scenario in a child. The goroutine keeps its thread,
// which is the tracer, until run returns.
func startChild(t *testing.T, s scenario, dir string) *tracee {
	runtime.LockOSThread()
	stderr, err := os.Create(dir + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	child, err := os.StartProcess("/proc/self/exe", []string{os.Args[0]}, &os.ProcAttr{
		Env:   childEnv("scenario "+s.name, dir),
		Files: []*os.File{nil, nil, stderr},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &tracee{t: t, pid: child.Pid, stderr: stderr}
	if err := child.Release(); err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs the child to its end and calls f before each change.
func (c *tracee) run(f func(change)) {
	defer runtime.UnlockOSThread()
	defer c.stderr.Close()
	for first := true; ; first = false {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(c.pid, &status, syscall.WALL, nil); err != nil {
			c.t.Fatal(err)
		}
		if status.Exited() || status.Signaled() {
			c.status = status.ExitStatus()
			output, err := os.ReadFile(c.stderr.Name())
			if err != nil {
				c.t.Fatal(err)
			}
			c.output = string(output)
			return
		}
		signal := syscall.Signal(0)
		switch stop := status.StopSignal(); {
		case first:
			if err := syscall.PtraceSetOptions(c.pid, syscall.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
				c.t.Fatal(err)
			}
		case stop == syscall.SIGTRAP|0x80:
			if next, is := c.change(); is {
				f(next)
			}
		case stop != syscall.SIGTRAP:
			signal = stop
		}
		if err := syscall.PtraceSyscall(c.pid, int(signal)); err != nil && err != syscall.ESRCH {
			c.t.Fatal(err)
		}
	}
}

func (c *tracee) kill() {
	if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	c.killed = true
}

// change returns the change that the child is about to make, if it is.
func (c *tracee) change() (change, bool) {
	// struct ptrace_syscall_info, at the entry of a system call.
	var info struct {
		op                         uint8
		arch                       uint32
		instruction, stack, number uint64
		args                       [6]uint64
	}
	const getSyscallInfo, entry = 0x420e, 1
	if _, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, getSyscallInfo, uintptr(c.pid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0); errno != 0 {
		c.t.Fatalf("ptrace: %v", errno)
	}
	if info.op != entry {
		return change{}, false
	}
	switch info.number {
	case unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return change{info.number, c.text(info.args[1])}, true
	case unix.SYS_SYMLINKAT:
		return change{info.number, c.text(info.args[2])}, true
	case unix.SYS_OPENAT:
		return change{info.number, c.text(info.args[1])}, info.args[2]&unix.O_CREAT != 0
	case unix.SYS_WRITE, unix.SYS_FSYNC:
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.pid, info.args[0]))
		if err != nil {
			c.t.Fatal(err)
		}
		isFile := strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/dev/null") && path != c.stderr.Name()
		return change{info.number, path}, isFile
	}
	return change{}, false
}

// text returns a string in the memory of the child.
func (c *tracee) text(address uint64) string {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", c.pid))
	if err != nil {
		c.t.Fatal(err)
	}
	defer memory.Close()
	data := make([]byte, unix.PathMax)
	n, err := memory.ReadAt(data, int64(address))
	if n == 0 && err != nil && err != io.EOF {
		c.t.Fatal(err)
	}
	text, _, _ := bytes.Cut(data[:n], []byte{0})
	return string(text)
}
