//go:build amd64 || arm64

package mount

import (
	"bufio"
	stderrors "errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// A tracee is a child process that does scenarios and is stopped before each of the
// system calls with which it changes a file. It does them on its first thread, which is
// the one that is traced. Another one opens and locks the files under lock, which are
// never removed and hold nothing.
type tracee struct {
	t      *testing.T
	pid    int
	orders io.WriteCloser
	// answers are errors as Go strings, a line each.
	answers *bufio.Reader
	stderr  *os.File
	dir     string // of the host on which the child does a scenario
	killed  bool
}

// change is a system call that is about to change a file.
type change struct {
	number uint64
	path   string
	to     string // the new name
	data   string // what is written
}

func init() {
	tasks["traced"] = serveTraced
	if os.Getenv(childTask) == "traced" {
		runtime.LockOSThread()
	}
}

// serveTraced does scenarios, in the child.
func serveTraced(orders io.Reader, answers io.Writer) error {
	if err := unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP); err != nil { // where the tracer begins
		return err
	}
	reader := bufio.NewReader(orders)
	for {
		order, err := reader.ReadString('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name, dir, _ := strings.Cut(strings.TrimSuffix(order, "\n"), "\t")
		for _, s := range scenarios {
			if s.name != name {
				continue
			}
			text := ""
			h := sharedHost(nil, dir)
			if err := s.do(h, s.mount(h)); err != nil {
				text = err.Error()
			}
			if _, err := fmt.Fprintln(answers, strconv.Quote(text)); err != nil {
				return err
			}
		}
	}
}

// startChild starts a child, which ends with the test. The goroutine keeps its thread,
// which is the tracer.
func startChild(t *testing.T) *tracee {
	t.Helper()
	runtime.LockOSThread()
	stdin, orders, inErr := os.Pipe()
	answers, stdout, outErr := os.Pipe()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err := stderrors.Join(inErr, outErr, err); err != nil {
		t.Fatal(err)
	}
	child, err := os.StartProcess("/proc/self/exe", []string{os.Args[0]}, &os.ProcAttr{
		Env:   childEnv("traced", ""),
		Files: []*os.File{stdin, stdout, stderr},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if err := stderrors.Join(err, stdin.Close(), stdout.Close()); err != nil {
		t.Fatal(err)
	}
	c := &tracee{t: t, pid: child.Pid, orders: orders, answers: bufio.NewReader(answers), stderr: stderr}
	if err := child.Release(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !c.killed {
			c.kill()
			c.wait()
		}
		orders.Close()
		answers.Close()
		stderr.Close()
		runtime.UnlockOSThread()
	})
	for started := false; ; {
		stop := c.wait()
		switch {
		case c.killed:
			t.Fatal(c.ended())
		case !started: // by execve
			if err := syscall.PtraceSetOptions(c.pid, syscall.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
				t.Fatal(err)
			}
			started, stop = true, 0
		case stop == syscall.SIGSTOP:
			c.goOn(0)
			c.runToOrder(nil)
			return c
		}
		if err := syscall.PtraceCont(c.pid, int(stop)); err != nil {
			t.Fatal(err)
		}
	}
}

// run does a scenario in the child on the host in dir, and calls f before each change of
// a file of that host. The error is that of the scenario, or how the child has ended.
func (c *tracee) run(s scenario, dir string, f func(change)) error {
	c.t.Helper()
	c.dir = dir
	if _, err := fmt.Fprintf(c.orders, "%s\t%s\n", s.name, dir); err != nil {
		c.t.Fatal(err)
	}
	c.goOn(0)
	c.runToOrder(f)
	if c.killed {
		return c.ended()
	}
	answer, err := c.answers.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := strconv.Unquote(strings.TrimSuffix(answer, "\n"))
	if err != nil {
		c.t.Fatal(err)
	}
	if text == "" {
		return nil
	}
	return stderrors.New(text)
}

// runToOrder runs the child until it is about to read an order, or has ended.
func (c *tracee) runToOrder(f func(change)) {
	for {
		stop := c.wait()
		if c.killed {
			return
		}
		switch stop {
		case syscall.SIGTRAP | 0x80:
			stop = 0
			call, isEntry := c.call()
			if isEntry && call.number == unix.SYS_READ && call.args[0] == 0 {
				return
			}
			if isEntry && f != nil {
				if next, is := c.change(call); is {
					f(next)
				}
			}
		case syscall.SIGTRAP:
			stop = 0
		}
		c.goOn(stop)
	}
}

// wait waits until the child is stopped and returns the signal that it has got.
func (c *tracee) wait() syscall.Signal {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(c.pid, &status, syscall.WALL, nil)
		if err == nil {
			break
		}
		if err != syscall.EINTR {
			c.t.Fatal(err)
		}
	}
	if status.Exited() || status.Signaled() {
		c.killed = true
		return 0
	}
	return status.StopSignal()
}

// goOn lets the child go on to the next system call.
func (c *tracee) goOn(signal syscall.Signal) {
	if err := syscall.PtraceSyscall(c.pid, int(signal)); err != nil && err != syscall.ESRCH {
		c.t.Fatal(err)
	}
}

// kill kills the child, which has ended when run returns.
func (c *tracee) kill() {
	if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
}

func (c *tracee) ended() error {
	output, err := os.ReadFile(c.stderr.Name())
	return stderrors.Join(fmt.Errorf("the child has ended: %s", output), err)
}

// systemCall is a system call at its entry.
type systemCall struct {
	number uint64
	args   [6]uint64
}

// call returns the system call at which the child is stopped, and reports whether it is
// at its entry.
func (c *tracee) call() (systemCall, bool) {
	// struct ptrace_syscall_info
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
	return systemCall{info.number, info.args}, info.op == entry
}

// change returns the change that a system call makes to a file of the host, and whether it
// makes one. It makes none if it is to make a directory that is there already, or to remove
// what is not there.
func (c *tracee) change(call systemCall) (change, bool) {
	next := change{number: call.number}
	is := true
	switch call.number {
	case unix.SYS_MKDIRAT:
		next.path = c.text(call.args[1])
		is = isAbsent(next.path)
	case unix.SYS_UNLINKAT:
		next.path = c.text(call.args[1])
		is = !isAbsent(next.path)
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		next.path, next.to = c.text(call.args[1]), c.text(call.args[3])
		is = !isAbsent(next.path)
	case unix.SYS_SYMLINKAT:
		next.path = c.text(call.args[2])
	case unix.SYS_OPENAT:
		if call.args[2]&unix.O_CREAT == 0 {
			return change{}, false
		}
		next.path = c.text(call.args[1])
		is = isAbsent(next.path) || call.args[2]&unix.O_TRUNC != 0
	case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_FSYNC, unix.SYS_FTRUNCATE:
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.pid, call.args[0]))
		if err != nil {
			c.t.Fatal(err)
		}
		next.path = path
		if call.number == unix.SYS_WRITE || call.number == unix.SYS_PWRITE64 {
			next.data = string(c.memory(call.args[1], int(call.args[2])))
		}
	}
	return next, is && strings.HasPrefix(next.path, c.dir+"/")
}

// memory returns what is in the memory of the child, n bytes or what there is of them.
func (c *tracee) memory(address uint64, n int) []byte {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", c.pid))
	if err != nil {
		c.t.Fatal(err)
	}
	defer memory.Close()
	data := make([]byte, n)
	n, err = memory.ReadAt(data, int64(address))
	if n == 0 && err != nil && err != io.EOF {
		c.t.Fatal(err)
	}
	return data[:n]
}

// text returns a string in the memory of the child.
func (c *tracee) text(address uint64) string {
	text, _, _ := strings.Cut(string(c.memory(address, unix.PathMax)), "\x00")
	return text
}

// newSharedHost returns a host of that personality which processes share.
func newSharedHost(t testing.TB, p hcstest.Personality) *host {
	dir := newHost(t).dir
	if err := hcstest.SetPersonality(filepath.Join(dir, "hcs"), p); err != nil {
		t.Fatal(err)
	}
	return sharedHost(t, dir)
}

func isAbsent(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}
