// Package peer tests this library side by side with containerd's own package mount, on one simulated HCS and one
// simulated bind filter:
//
//	cd internal/cmd/bench && ../../../scripts/wine test -v ./peer
//
// NTFS has streams, and Wine has none: there the stream containerd.io-source is a file beside the directory, and the
// simulated bind filter links the one of the root to that of the source.
package peer

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount"
	"github.com/seed-941ae793/mount/internal/hcstest"
)

const (
	taskOf = "PEER_TASK" // what a child process does
	dirOf  = "PEER_DIR"  // on which host
)

func TestMain(m *testing.M) {
	task := os.Getenv(taskOf)
	if task == "" {
		os.Exit(m.Run())
	}
	if err := run(os.Getenv(dirOf), task); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run does a task, such as "theirs mount base", on a host.
func run(dir, task string) error {
	if err := mount.SetTableDir(filepath.Join(dir, "table")); err != nil {
		return err
	}
	mount.UseBindFilter(true)
	words := strings.Fields(task)
	who, what, kind := words[0], words[1], words[2]
	target := filepath.Join(dir, "mnt")
	m := mount.Mount{Type: "windows-layer", Source: filepath.Join(dir, "scratch")}
	if kind == "sub" {
		m.Target = "sub"
	}
	if kind == "read-only" {
		m.Options = append(m.Options, "ro")
	}
	if kind == "base" {
		m.Source = filepath.Join(dir, "base")
	} else {
		parents, err := json.Marshal([]string{filepath.Join(dir, "base")})
		if err != nil {
			return err
		}
		m.Options = append(m.Options, mount.ParentLayerPathsFlag+string(parents))
	}
	theirs := containerd.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	switch who + " " + what {
	case "theirs mount":
		return theirs.Mount(target)
	case "theirs unmount":
		return containerd.UnmountMounts([]containerd.Mount{theirs}, target, 0)
	case "ours mount":
		return m.Mount(target)
	case "ours unmount":
		return mount.UnmountMounts([]mount.Mount{m}, target, 0)
	case "ours unmount-source":
		return mount.Unmount(m.Source, 0)
	case "ours unmount-recursive":
		return mount.UnmountRecursive(dir, 0)
	case "ours list":
		infos, err := mount.List()
		if err == nil && len(infos) > 0 {
			err = fmt.Errorf("listed: %+v", infos)
		}
		return err
	}
	return fmt.Errorf("no task %q", task)
}

type host struct {
	t    *testing.T
	dir  string
	kind string
	hcs  *hcstest.Model
}

var kinds = []string{"scratch", "read-only", "base", "sub"}

// onHosts runs a test for each kind of layer, each on a host of its own.
func onHosts(t *testing.T, test func(h *host)) {
	sim := os.Getenv("HCS_SIM_DIR")
	if sim == "" {
		t.Skip("needs the simulated HCS: run scripts/wine test on Linux")
	}
	t.Setenv("HCS_SIM_SHOW", "1") // the bind filter shows what is bound, which takes root
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			model, err := hcstest.Open(sim)
			if err != nil {
				t.Fatal(err)
			}
			h := &host{t, t.TempDir(), kind, model}
			for _, name := range []string{"base/Files/of base", "base/Hives/System_Base", "scratch/sandbox.vhdx", "mnt/sub/mine"} {
				path := filepath.Join(h.dir, name)
				h.must(os.MkdirAll(filepath.Dir(path), 0o777))
				h.must(os.WriteFile(path, []byte("x"), 0o666))
			}
			t.Cleanup(func() { _ = h.restart() })
			test(h)
		})
	}
}

// restart lets the simulation forget all bindings and layers, as a restart of the system does.
func (h *host) restart() error {
	for _, b := range h.hcs.Bound() {
		_ = h.hcs.Unbind(b.Root)
	}
	return h.hcs.Reboot()
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// do does something in another process, in which a call of HCS or the bind filter may go wrong.
func (h *host) do(task string, faults ...string) error {
	h.t.Helper()
	h.must(hcstest.SetFaults(os.Getenv("HCS_SIM_DIR"), faults...))
	defer hcstest.SetFaults(os.Getenv("HCS_SIM_DIR"))
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), taskOf+"="+task+" "+h.kind, dirOf+"="+h.dir)
	if out, err := child.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", task, err, out)
	}
	return nil
}

func (h *host) mustDo(task string) {
	h.t.Helper()
	h.must(h.do(task))
}

// mustKill does something in a process that a planned fault kills.
func (h *host) mustKill(task, fault string) {
	h.t.Helper()
	if err := h.do(task, fault); err == nil {
		h.t.Fatal(fault, "has not killed it")
	}
}

// afterKills runs a test on hosts on which each process has been killed that who has started: in Mount, or in
// Unmount.
func afterKills(t *testing.T, who string, mounts, unmounts []string, test func(h *host)) {
	for _, fault := range mounts {
		onHosts(t, func(h *host) {
			h.mustKill(who+" mount", fault)
			test(h)
		})
	}
	for _, fault := range unmounts {
		onHosts(t, func(h *host) {
			h.mustDo(who + " mount")
			h.mustKill(who+" unmount", fault)
			test(h)
		})
	}
}

var killedUnmounts = []string{"BfRemoveMapping kill-before 1", "BfRemoveMapping kill-after 1", "UnprepareLayer kill-after 1", "DeactivateLayer kill-after 1"}

func (h *host) target() string {
	if h.kind == "sub" {
		return filepath.Join(h.dir, "mnt", "sub")
	}
	return filepath.Join(h.dir, "mnt")
}

func (h *host) source() string {
	if h.kind == "base" {
		return filepath.Join(h.dir, "base")
	}
	return filepath.Join(h.dir, "scratch")
}

// wantMounted fails the test unless the target shows the layer, and has its source in the stream, which moby reads
// (daemon/oci_windows.go).
func (h *host) wantMounted() {
	h.t.Helper()
	if _, err := os.Stat(filepath.Join(h.target(), "of base")); err != nil {
		h.t.Error(err)
	}
	text, err := os.ReadFile(h.target() + ":containerd.io-source")
	if err != nil || string(text) != h.source() {
		h.t.Errorf("the stream is %q, %v, want %q", text, err, h.source())
	}
}

// wantClosed fails the test unless nothing is open, bound or on record, and both can mount again.
func (h *host) wantClosed() {
	h.t.Helper()
	h.wantNothing()
	if _, err := os.Stat(filepath.Join(h.dir, "mnt", "sub", "mine")); err != nil {
		h.t.Error(err)
	}
	for _, who := range []string{"ours", "theirs", "ours"} {
		h.mustDo(who + " mount")
		h.wantMounted()
		h.mustDo(who + " unmount")
		h.wantNothing()
	}
}

func (h *host) wantNothing() {
	h.t.Helper()
	if open, bound := h.hcs.OpenLayers(), h.hcs.Bound(); len(open)+len(bound) > 0 {
		h.t.Errorf("open are %q, bound is %+v", open, bound)
	}
	if left, _ := filepath.Glob(filepath.Join(h.dir, "table", "mounts", "*")); len(left) > 0 {
		h.t.Errorf("in the table are %q", left)
	}
}

func TestUnmount_TakesOverContainerdsMount(t *testing.T) {
	for _, unmount := range []string{"unmount", "unmount-recursive"} {
		onHosts(t, func(h *host) {
			h.mustDo("theirs mount")
			h.wantMounted()
			if err := h.do("ours mount"); err == nil || !strings.Contains(err.Error(), windows.ERROR_FILE_EXISTS.Error()) && !strings.Contains(err.Error(), "already exists") {
				h.t.Errorf("our Mount there: %v", err)
			}
			h.mustDo("ours " + unmount)
			h.wantClosed()
		})
	}
}

func TestUnmount_AfterContainerdWasKilled(t *testing.T) {
	mounts := []string{"PrepareLayer kill-before 1", "PrepareLayer kill-after 1", "BfSetupFilter kill-before 1"}
	afterKills(t, "theirs", mounts, killedUnmounts, func(h *host) {
		h.mustDo("ours unmount")        // what is still bound
		h.mustDo("ours unmount-source") // without a binding nothing tells which layer was at the target
		h.wantClosed()
	})
}

func TestUnmount_OfContainerdsMountIsKilled(t *testing.T) {
	for _, fault := range []string{"BfRemoveMapping kill-before 1", "BfRemoveMapping kill-after 1", "UnprepareLayer kill-before 1", "DeactivateLayer kill-after 1"} {
		onHosts(t, func(h *host) {
			h.mustDo("theirs mount")
			h.mustKill("ours unmount", fault)
			h.mustDo("ours unmount")
			h.wantClosed()
		})
	}
}

func TestEngine_ClearsWhatContainerdUnmounts(t *testing.T) {
	for _, clear := range []string{"list", "unmount", "unmount-source", "unmount-recursive"} {
		onHosts(t, func(h *host) {
			h.mustDo("ours mount")
			h.wantMounted()
			h.mustDo("theirs unmount")
			h.mustDo("ours " + clear)
			h.wantClosed()
		})
	}
}

func TestMount_AfterContainerdHasUnmountedWhatWasKilled(t *testing.T) {
	mounts := []string{"PrepareLayer kill-after 1", "BfSetupFilter kill-before 1", "BfSetupFilter kill-after 1"}
	afterKills(t, "ours", mounts, killedUnmounts, func(h *host) {
		h.mustDo("theirs unmount")
		h.mustDo("ours mount")
		h.wantMounted()
		h.mustDo("ours unmount")
		h.wantClosed()
	})
}

func TestUnmount_AfterARestartFindsNothingOfContainerds(t *testing.T) {
	onHosts(t, func(h *host) {
		h.mustDo("theirs mount")
		h.must(h.restart())
		h.mustDo("ours unmount")
		h.wantClosed()
	})
}
