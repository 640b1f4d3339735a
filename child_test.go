//go:build !windows

package mount

import (
	stderrors "errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// A child is this test binary. Its environment says what it is to do, and on which host.
const (
	childTask = "MOUNT_TEST_TASK"
	childDir  = "MOUNT_TEST_DIR"
)

func childEnv(task, dir string) []string {
	// The race detector makes a process wait for a second at its end.
	return append(os.Environ(), childTask+"="+task, childDir+"="+dir, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
}

func TestMain(m *testing.M) {
	task := os.Getenv(childTask)
	if task == "" {
		code := m.Run()
		if testing.Verbose() {
			printMatrix(os.Stdout)
		}
		os.Exit(code)
	}
	if err := runTask(os.Getenv(childDir), task); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// tasks are those of children that read orders and do them, until there are no more.
var tasks = map[string]func(orders io.Reader, answers io.Writer) error{}

func runTask(dir, task string) error {
	if serve := tasks[task]; serve != nil {
		return serve(os.Stdin, os.Stdout)
	}
	if strings.HasPrefix(task, "worker ") {
		return work(sharedHost(nil, dir), strings.TrimPrefix(task, "worker "))
	}
	return fmt.Errorf("no task %q", task)
}

// sharedHost is the host in dir, with a model that other processes share.
func sharedHost(t testing.TB, dir string) *host {
	model, err := hcstest.Open(filepath.Join(dir, "hcs"))
	if err != nil {
		panic(err)
	}
	return hostIn(t, dir, model)
}

// work mounts and unmounts layers, some of them at targets of its own and some
// at one that all workers want. The model fails a call that would open a layer
// twice or close it under somebody else.
func work(h *host, name string) error {
	for i := 0; i < 30; i++ {
		m := h.scratchMount(fmt.Sprint(i % 3))
		own := h.target(name)
		if err := h.mount(m, own); err != nil {
			return err
		}
		if text, err := os.Readlink(own); err != nil || text != h.link(m) {
			return fmt.Errorf("%s shows %s, %v, want %s", own, text, err, h.link(m))
		}
		err := h.mount(h.scratchMount(fmt.Sprint(i%2)), h.target("wanted"))
		if err != nil && !stderrors.Is(err, os.ErrExist) {
			return err
		}
		if err == nil {
			if err := h.unmount(h.target("wanted")); err != nil {
				return err
			}
		}
		if err := h.unmount(own); err != nil {
			return err
		}
	}
	return nil
}

func TestMount_InManyProcessesAtOnce(t *testing.T) {
	h := sharedHost(t, newHost(t).dir)
	for i := 0; i < 3; i++ {
		h.scratch(fmt.Sprint(i))
	}
	var all sync.WaitGroup
	for i := 0; i < 6; i++ {
		child := exec.Command(os.Args[0])
		child.Env = childEnv(fmt.Sprintf("worker %d", i), h.dir)
		all.Add(1)
		go func() {
			defer all.Done()
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}()
	}
	all.Wait()
	h.wantClosed()
	h.wantAt(h.path("mnt"), "directory of []")
}

func TestMount_InManyGoroutinesAtOnce(t *testing.T) {
	h := newHost(t)
	for i := 0; i < 3; i++ {
		h.scratch(fmt.Sprint(i))
	}
	h.atOnce(8, func(name string) error { return work(h, name) })
	h.wantClosed()
}

func TestMount_DoesNotWaitForOtherLayers(t *testing.T) {
	const n = 32
	h := newHost(t)
	var arrived sync.WaitGroup
	arrived.Add(n)
	h.model.Before = func(call hcstest.Call, _ string) error {
		if call == hcstest.Activate { // goes on once all others are here as well
			arrived.Done()
			arrived.Wait()
		}
		return nil
	}
	for i := 0; i < n; i++ {
		h.scratch(fmt.Sprint(i))
	}
	h.atOnce(n, func(name string) error { return h.mount(h.scratchMount(name), h.target(name)) })
}
