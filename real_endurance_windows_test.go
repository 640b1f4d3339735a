package mount

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/seed-941ae793/mount/internal/hcs"
)

// The tests here are for the real HCS. There they run for hours when endurance is in the environment.
// Elsewhere they run a few rounds, which shows that they would notice what they are to notice.

const endurance = "MOUNT_TEST_ENDURANCE"

// rounds returns how many rounds a test runs: all of them, or few.
func rounds(all, few int) int {
	n := few
	if os.Getenv(endurance) != "" {
		n = all
	}
	if testing.Short() {
		n = (n + 9) / 10
	}
	return n
}

// byLinksAndByBindings runs a test on a host with a writable layer and a directory for a target,
// with either way to show the layer.
func byLinksAndByBindings(t *testing.T, test func(h *winHost, m *Mount)) {
	for _, binds := range []bool{false, true} {
		t.Run(fmt.Sprintf("bound %t", binds), func(t *testing.T) {
			h, m := newLayerHost(t)
			if binds {
				h.needFilter()
			}
			useBindings(t, binds)
			h.mkdir(h.path("target"))
			test(h, m)
		})
	}
}

func TestUnmount_AfterManyKilledMounts(t *testing.T) {
	byLinksAndByBindings(t, func(h *winHost, m *Mount) {
		wasKilled, whole := h.mountAndKill(m, time.Hour)
		if wasKilled {
			h.t.Fatal("a Mount took an hour")
		}
		h.must(Unmount(h.path("target"), 0))

		seed, killed := time.Now().UnixNano(), 0
		random := rand.New(rand.NewSource(seed))
		n := rounds(500, 6)
		for i := 0; i < n; i++ {
			after := time.Duration(random.Int63n(whole.Milliseconds()+1)) * time.Millisecond
			if wasKilled, took := h.mountAndKill(m, after); wasKilled {
				killed++
			} else {
				whole = min(whole, took)
			}
			if err := Unmount(h.path("target"), 0); err != nil {
				h.t.Fatalf("seed %d, round %d, killed %v after it began: %v", seed, i, after, err)
			}
		}
		h.t.Logf("seed %d: %d of %d processes were killed in the %v that a Mount takes", seed, killed, n, whole)
		if killed == 0 && h.Model == nil { // of a few rounds it may be so
			h.t.Error("all had ended before they were to be killed")
		}
		h.wantClosedForGood(m)
	})
}

// mountAndKill mounts a layer in another process, which it kills some time after the Mount began.
// It reports whether the process was killed, and how long it ran then. A process that fails by
// itself fails the test.
func (h *winHost) mountAndKill(m *Mount, after time.Duration) (wasKilled bool, took time.Duration) {
	h.t.Helper()
	data, err := json.Marshal(m)
	h.must(err)
	var failure bytes.Buffer
	child := h.child("mount-given")
	child.Env = append(child.Env, childM+"="+string(data))
	child.Stderr = &failure
	began, err := child.StdoutPipe()
	h.must(err)
	h.must(child.Start())
	if _, err := io.ReadFull(began, make([]byte, 1)); err != nil {
		h.t.Errorf("the process that mounts did not begin: %v", err)
	}
	start := time.Now()
	kill := time.AfterFunc(after, func() { _ = child.Process.Kill() })
	err = child.Wait()
	if ended := kill.Stop(); err != nil && (ended || failure.Len() > 0) {
		h.t.Fatalf("the process that mounts: %v, %s", err, &failure)
	}
	return err != nil, time.Since(start)
}

// wantClosedForGood fails the test unless, within 10 seconds, nothing is on record and the layer
// has no volume. In the real HCS it must stay so for a while: the service may still be at work for
// a process that was killed.
func (h *winHost) wantClosedForGood(m *Mount) {
	h.t.Helper()
	quiet := 3 * time.Second
	if h.Model != nil {
		h.wantNothing()
		quiet = 0
	}
	start := time.Now()
	closed := start
	for {
		infos, err := List()
		volume := openVolume(m)
		now := time.Now()
		if err != nil || len(infos) > 0 || volume != "" {
			closed = now
		} else if now.Sub(closed) >= quiet {
			return
		}
		if now.Sub(start) > 10*time.Second {
			h.t.Fatalf("on record are %v, %v, and the layer is open as %q", infos, err, volume)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// openVolume returns the volume of a layer, if it can be reached, or "".
func openVolume(m *Mount) string {
	volume, err := vmcompute{}.GetLayerMountPath(m.Source)
	if err != nil || !hcs.IsVolume(volume) {
		return ""
	}
	if _, err := os.Stat(strings.TrimSuffix(volume, `\`) + `\`); err != nil {
		return ""
	}
	return volume
}

func TestMount_ManyTimes(t *testing.T) {
	byLinksAndByBindings(t, func(h *winHost, m *Mount) {
		for i := 0; i < rounds(1000, 20); i++ {
			if err := m.Mount(h.path("target")); err != nil {
				h.t.Fatalf("round %d: %v", i, err)
			}
			if openVolume(m) == "" {
				h.t.Errorf("round %d: it is mounted and has no volume", i)
			}
			if err := Unmount(h.path("target"), 0); err != nil {
				h.t.Fatalf("round %d: %v", i, err)
			}
		}
		h.wantDirectory(h.path("target"))
		h.wantClosedForGood(m)
	})
}

// restartHCS in the environment allows a test to restart the service, which disturbs all
// containers of the host.
const restartHCS = "MOUNT_TEST_RESTART_HCS"

func TestUnmount_AfterTheServiceOfHCSWasRestarted(t *testing.T) {
	if os.Getenv(restartHCS) == "" {
		t.Skipf("restarts a service of this host: set %s=1", restartHCS)
	}
	needWindows(t, "the simulation is no service")
	byLinksAndByBindings(t, func(h *winHost, m *Mount) {
		h.must(m.Mount(h.path("target")))
		restart := exec.Command("powershell", "-NoProfile", "-NonInteractive", "-Command",
			"$ErrorActionPreference = 'Stop'; Restart-Service -Force vmcompute")
		if out, err := restart.CombinedOutput(); err != nil {
			h.t.Fatalf("failed to restart the service: %v, %s", err, out)
		}
		h.must(Unmount(h.path("target"), 0))
		h.wantDirectory(h.path("target"))
		h.wantClosedForGood(m)
	})
}
