package mount

import (
	stderrors "errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"golang.org/x/sys/windows"
)

// winCase is something that may happen to the layers of a host, which is to be as
// before in the end.
type winCase struct {
	name string
	run  func(h *winHost)
	// bound says that it can happen only where layers are shown by bindings.
	bound bool
}

// winLayers are a layer that was committed, which is read-only, and a writable one.
var winLayers = []string{"1", "2"}

// underAll runs the cases with every personality of HCS and the bind filter. Those that differ in one
// answer run with a third of the cases, and with the way to show layers that the answer is about, unless
// MOUNT_TEST_ALL is set. With -short it runs all cases with the likely personality alone, and a sixth of
// them with those that differ in every answer.
func underAll(t *testing.T, all []winCase) {
	for i, personality := range hcstest.Personalities {
		isLikely, isDifferent := personality.Name == "likely", strings.HasPrefix(personality.Name, "all-")
		both := isLikely || isDifferent || os.Getenv("MOUNT_TEST_ALL") != ""
		every := 1
		switch {
		case testing.Short() && !isLikely && !isDifferent:
			continue
		case testing.Short() && isDifferent:
			every = 6
		case !both:
			every = 3
		}
		var cases []winCase
		for j := i % every; j < len(all); j += every {
			cases = append(cases, all[j])
		}
		links := slices.DeleteFunc(slices.Clone(cases), func(c winCase) bool { return c.bound })
		ofFilter := strings.Contains(personality.Name, "bind")
		if both || !ofFilter {
			t.Run(personality.Name, func(t *testing.T) { under(t, personality, links) })
		}
		if both || ofFilter {
			t.Run(personality.Name+" with bindings", func(t *testing.T) {
				useBindings(t, true)
				under(t, personality, cases)
			})
		}
	}
}

// under runs the cases with a personality, and tells how many passed.
func under(t *testing.T, personality hcstest.Personality, cases []winCase) {
	passed := 0
	var h *winHost
	for _, c := range cases {
		if h == nil {
			h = newWinHostIn(t, t.TempDir(), personality)
		}
		if t.Run(c.name, func(t *testing.T) {
			h.t = t
			h.faults()
			h.ResetCalls()
			_ = os.Remove(h.path("target")) // of the case before
			c.run(h)
		}) {
			passed++
		} else {
			h = nil // what is left there would fail other cases
		}
	}
	t.Logf("%d of %d cases", passed, len(cases))
}

// wantShown fails the test unless a layer is bound to these targets and no others, where
// layers are shown by bindings.
func (h *winHost) wantShown(targets ...string) {
	h.t.Helper()
	if bindsLayers.Load() {
		h.wantBound(targets...)
	}
}

// wantRecovered unmounts the target as a process would that comes after, and fails
// the test unless the layer is closed then and can be mounted as ever.
func (h *winHost) wantRecovered(layer string) {
	h.t.Helper()
	h.faults()
	h.must(UnmountAll(h.path("target"), 0))
	h.wantNothing()
	h.must(h.mountOf(layer).Mount(h.path("target")))
	h.wantOpen(layer)
	h.must(Unmount(h.path("target"), 0))
	h.wantNothing()
}

func TestUnmount_WhateverHCSAnswers(t *testing.T) {
	var cases []winCase
	for _, layer := range winLayers {
		cases = append(cases,
			winCase{name: "by target " + layer, run: func(h *winHost) {
				h.mkdir(h.path("target"))
				h.must(h.mountOf(layer).Mount(h.path("target")))
				h.wantOpen(layer)
				h.wantShown("target")
				h.must(Unmount(h.path("target"), 0))
				h.wantNothing()
				h.wantDirectory(h.path("target"))
			}},
			winCase{name: "by source " + layer, run: func(h *winHost) {
				for _, target := range []string{"target", "second"} {
					h.must(h.mountOf(layer).Mount(h.path(target)))
				}
				h.wantShown("second", "target")
				h.must(Unmount(h.path("second"), 0))
				h.wantOpen(layer)
				h.wantShown("target")
				h.must(Unmount(h.layer(layer), 0))
				h.wantNothing()
				h.wantAbsent(h.path("target"))
			}},
			winCase{name: "a link and a binding " + layer, run: func(h *winHost) {
				h.must(h.mountOf(layer).Mount(h.path("target")))
				useBindings(h.t, false)
				h.must(h.mountOf(layer).Mount(h.path("second")))
				h.must(Unmount(h.path("target"), 0))
				h.wantOpen(layer)
				h.wantBound()
				h.must(Unmount(h.path("second"), 0))
				h.wantNothing()
			}, bound: true},
			winCase{name: "a layer that is closed " + layer, run: func(h *winHost) {
				h.must(UnmountAll(h.layer(layer), 0))
				h.wantNothing()
			}})
	}
	underAll(t, cases)
}

// killed lets a child begin a task in which it is killed.
func (h *winHost) killed(task string, plan ...string) {
	h.t.Helper()
	h.faults(plan...)
	out, err := h.child(task).CombinedOutput()
	if stderrors.Is(err, windows.ERROR_INTERNAL_ERROR) { // Wine did not start it, as happens once in thousands of times
		out, err = h.child(task).CombinedOutput()
	}
	left, readErr := os.ReadFile(filepath.Join(os.Getenv(simDir), "faults"))
	h.faults() // what is left would kill this process
	if err == nil || len(out) != 0 || readErr != nil || len(left) != 0 {
		h.t.Errorf("the child was not killed: %v, %s; left of the plan: %q, %v", err, out, left, readErr)
	}
}

func TestUnmount_AfterAKillInAnyCallWhateverHCSAnswers(t *testing.T) {
	var cases []winCase
	for _, layer := range winLayers {
		for _, kill := range []struct {
			task  string
			calls []string
		}{
			{"mount", []string{"GetLayerMountPath", "ActivateLayer", "PrepareLayer", "GetLayerMountPath again", "BfGetMappings", "BfSetupFilter"}},
			{"unmount", []string{"BfGetMappings", "BfRemoveMapping", "UnprepareLayer", "DeactivateLayer"}},
		} {
			for _, call := range kill.calls {
				for _, when := range []string{"kill-before", "kill-after"} {
					name, again, _ := strings.Cut(call, " ")
					plan := []string{name + " " + when + " 1"}
					if again != "" { // and not the call that asks whether the layer is open
						plan = []string{name + " 0x15 1", plan[0]}
					}
					cases = append(cases, winCase{fmt.Sprintf("%s %s %s %s", kill.task, layer, call, when), func(h *winHost) {
						refused := call == "BfGetMappings" && h.Personality.BindingsCode != 0
						if refused && when == "kill-after" {
							return // nothing is after its effect
						}
						h.mkdir(h.path("target"))
						if kill.task == "unmount" {
							h.must(h.mountOf(layer).Mount(h.path("target")))
						}
						h.killed(kill.task+" "+layer, plan...)
						h.wantRecovered(layer)
						h.wantDirectory(h.path("target"))
					}, strings.HasPrefix(call, "Bf")})
				}
			}
		}
	}
	underAll(t, cases)
}

func TestMount_ACallThatFailsLeavesNothingWhateverHCSAnswers(t *testing.T) {
	var cases []winCase
	for _, layer := range winLayers {
		for _, fault := range []string{
			"GetLayerMountPath 0x5", "ActivateLayer 0x5", "PrepareLayer 0x5", "UnprepareLayer 0x5", "DeactivateLayer 0x5",
			"GetLayerMountPath 0x15", "ActivateLayer 0x15", "PrepareLayer 0x15", "UnprepareLayer 0x15", "DeactivateLayer 0x15",
			"ActivateLayer 0x20", "PrepareLayer 0x48f", "PrepareLayer 0x5b4",
			"BfSetupFilter 0x5", "BfRemoveMapping 0x5", "BfGetMappings 0x5",
			"BfSetupFilter 0x15", "BfSetupFilter 0x3", "BfRemoveMapping 0x20",
		} {
			for _, count := range []int{1, 20} { // once, and more often than anything is tried
				plan := fmt.Sprintf("%s %d", fault, count)
				cases = append(cases, winCase{layer + " " + plan, func(h *winHost) {
					h.mkdir(h.path("target"))
					h.faults(plan)
					err := h.mountOf(layer).Mount(h.path("target"))
					h.wantOnRecord("Mount", err)
					if open := h.OpenLayers(); err == nil && len(open) != 1 {
						h.t.Errorf("Mount has succeeded, and open are %q", open)
					}
					err = Unmount(h.path("target"), 0)
					h.wantOnRecord("Unmount", err)
					if open := h.OpenLayers(); err == nil && len(open) != 0 {
						h.t.Errorf("Unmount has succeeded, and open are %q", open)
					}
					h.wantRecovered(layer)
				}, strings.HasPrefix(fault, "Bf")})
			}
		}
	}
	underAll(t, cases)
}

// wantOnRecord fails the test when a layer is open or bound that is not on record.
func (h *winHost) wantOnRecord(what string, err error) {
	h.t.Helper()
	if open, bound, left := h.OpenLayers(), h.Bound(), h.tableFiles(); len(open)+len(bound) > 0 && len(left) == 0 {
		h.t.Errorf("%s has returned %v, and %q is open, and %v bound, without a record", what, err, open, bound)
	}
}

func TestMount_LeavesOthersLayersOpenWhateverHCSAnswers(t *testing.T) {
	var cases []winCase
	for _, layer := range winLayers {
		cases = append(cases, winCase{name: "layer " + layer, run: func(h *winHost) {
			h.openElsewhere(h.mountOf(layer))
			if err := h.mountOf(layer).Mount(h.path("target")); err == nil {
				h.t.Error("it was mounted")
			}
			h.wantOnlyOpen(layer)
		}})
	}
	underAll(t, cases)
}

// wantOnlyOpen fails the test unless the layer is open and not on record. It closes it.
func (h *winHost) wantOnlyOpen(layer string) {
	h.t.Helper()
	h.wantOpen(layer)
	h.wantEmptyTable()
	h.must(Unmount(h.layer(layer), 0))
	h.wantNothing()
}

func TestUnmount_AfterARestartWhateverHCSAnswers(t *testing.T) {
	var cases []winCase
	for _, layer := range winLayers {
		for name, path := range map[string]func(h *winHost) string{
			"target": func(h *winHost) string { return h.path("target") },
			"source": func(h *winHost) string { return h.layer(layer) },
		} {
			cases = append(cases,
				winCase{name: "what was mounted, by " + name + " " + layer, run: func(h *winHost) {
					h.mkdir(h.path("target"))
					h.must(h.mountOf(layer).Mount(h.path("target")))
					h.restart()
					h.ResetCalls()
					h.faults("UnprepareLayer 0x15 99", "DeactivateLayer 0x15 99") // moby 40723
					h.must(Unmount(path(h), 0))
					h.wantNoChange()
					h.wantNothing()
					h.wantDirectory(h.path("target"))
				}},
				winCase{name: "what other code has open now, by " + name + " " + layer, run: func(h *winHost) {
					h.must(h.mountOf(layer).Mount(h.path("target")))
					h.restart()
					h.openElsewhere(h.mountOf(layer))
					h.must(Unmount(path(h), 0))
					h.wantNoChange()
					h.wantOnlyOpen(layer)
				}})
		}
		cases = append(cases, winCase{name: "what a killed process had half open and other code has open now " + layer, run: func(h *winHost) {
			h.mkdir(h.path("target"))
			h.killed("mount "+layer, "PrepareLayer kill-after 1")
			h.restart()
			h.openElsewhere(h.mountOf(layer))
			h.must(Unmount(h.path("target"), 0))
			h.wantNoChange()
			h.wantDirectory(h.path("target"))
			h.wantOnlyOpen(layer)
		}})
		cases = append(cases, winCase{"what a process was to bind that was killed " + layer, func(h *winHost) {
			h.killed("mount "+layer, "BfSetupFilter kill-before 1")
			h.restart()
			h.ResetCalls()
			h.must(Unmount(h.path("target"), 0))
			h.wantNoChange()
			h.wantNothing()
			h.wantAbsent(h.path("target"))
		}, true})
		cases = append(cases, winCase{name: "what is mounted again " + layer, run: func(h *winHost) {
			h.must(h.mountOf(layer).Mount(h.path("target")))
			h.must(h.mountOf(layer).Mount(h.path("second")))
			h.restart()
			h.must(h.mountOf(layer).Mount(h.path("target")))
			h.wantOpen(layer)
			h.must(Unmount(h.path("target"), 0))
			h.wantNothing()
		}})
	}
	underAll(t, cases)
}

func TestUnmount_KeepsTheRecordUntilTheFilterIsDetached(t *testing.T) {
	var cases []winCase
	for _, code := range []windows.Errno{windows.ERROR_NOT_READY, windows.ERROR_SHARING_VIOLATION, windows.ERROR_BUSY, windows.ERROR_ACCESS_DENIED} {
		for _, count := range []int{1, 20} {
			plan := fmt.Sprintf("UnprepareLayer 0x%x %d", uint32(code), count)
			cases = append(cases, winCase{name: plan, run: func(h *winHost) {
				h.must(h.mountOf("1").Mount(h.path("target")))
				h.faults(plan)
				if err := Unmount(h.path("target"), 0); err == nil {
					h.wantNothing()
				} else {
					wantError(h.t, err, "failed to unprepare layer "+h.layer("1"), code)
					if len(h.tableFiles()) != 1 {
						h.t.Error("it is not on record")
					}
				}
				h.wantRecovered("1")
			}})
		}
	}
	underAll(t, cases)
}

func TestUnmount_WaitsForAVolumeThatLingers(t *testing.T) {
	lingers, _ := hcstest.Named("volume-lingers")
	h := newWinHostIn(t, t.TempDir(), lingers)
	for i := 0; i < 3; i++ {
		h.must(h.scratch().Mount(h.path("target")))
		info, err := Lookup(h.path("target"))
		h.must(err)
		h.must(Unmount(h.path("target"), 0))
		if _, err := os.Stat(info.Root); !os.IsNotExist(err) {
			t.Errorf("Unmount has returned while the volume was there: %v", err)
		}
	}
	h.wantNothing()
}
