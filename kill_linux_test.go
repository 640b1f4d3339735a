package mount

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A kill test runs a scenario in a child process and kills it before one of the
// system calls with which it changes a file. The child runs on its first thread,
// which is the one that is traced.

func init() {
	if os.Getenv(childTask) != "" {
		runtime.LockOSThread()
	}
}

func TestAProcessKilledAtAnyStepLeavesNothingThatUnmountAllDoesNotCleanUp(t *testing.T) {
	for _, scenario := range scenarios {
		t.Run(scenario.name, func(t *testing.T) {
			killed, at := true, 1
			for ; killed; at++ {
				h := sharedHost(t, newHost(t).dir)
				m := scenario.host(h)
				scenario.prepare(h, m)
				killed = runUntil(t, scenario, h.dir, at)
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

// runUntil runs the scenario in a child and kills it before change number at. It
// returns false when the child came to its end before.
func runUntil(t *testing.T, s scenario, dir string, at int) (killed bool) {
	runtime.LockOSThread() // the thread that starts a child is its tracer
	defer runtime.UnlockOSThread()
	child, err := os.StartProcess("/proc/self/exe", []string{os.Args[0]}, &os.ProcAttr{
		Env:   childEnv("scenario "+s.name, dir),
		Files: []*os.File{nil, nil, os.Stderr},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer child.Release()
	changes, signal := 0, syscall.Signal(0)
	for first := true; ; first = false {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(child.Pid, &status, syscall.WALL, nil); err != nil {
			t.Fatal(err)
		}
		if status.Signaled() && status.Signal() == syscall.SIGKILL {
			return true
		}
		if status.Exited() || status.Signaled() {
			if status.ExitStatus() != 0 {
				t.Fatalf("the child ended with %v", status)
			}
			return false
		}
		signal = 0
		switch stop := status.StopSignal(); {
		case first:
			if err := syscall.PtraceSetOptions(child.Pid, syscall.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
				t.Fatal(err)
			}
		case stop == syscall.SIGTRAP|0x80:
			if isChange(t, child.Pid) {
				if changes++; changes == at {
					if err := syscall.Kill(child.Pid, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
			}
		case stop != syscall.SIGTRAP:
			signal = stop
		}
		if err := syscall.PtraceSyscall(child.Pid, int(signal)); err != nil && err != syscall.ESRCH {
			t.Fatal(err)
		}
	}
}

// isChange tells whether a traced process is about to change a file.
func isChange(t *testing.T, pid int) bool {
	// struct ptrace_syscall_info, at the entry of a system call.
	var info struct {
		op                           uint8
		arch                         uint32
		instruction, stack, number   uint64
		arg0, arg1, arg2, arg3, arg4 uint64
		arg5                         uint64
	}
	const getSyscallInfo, entry = 0x420e, 1
	if _, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, getSyscallInfo, uintptr(pid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0); errno != 0 {
		t.Fatalf("ptrace: %v", errno)
	}
	if info.op != entry {
		return false
	}
	switch info.number {
	case unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_SYMLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_FSYNC:
		return true
	case unix.SYS_OPENAT:
		return info.arg2&unix.O_CREAT != 0
	case unix.SYS_WRITE:
		return isFile(fmt.Sprintf("/proc/%d/fd/%d", pid, info.arg0))
	}
	return false
}

func isFile(path string) bool {
	text, err := os.Readlink(path)
	return err == nil && strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "/dev/null")
}
