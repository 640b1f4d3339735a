package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// The tests here run the probe on sample layers, in the simulated HCS. In the real one the
// workflow runs it.

// asProgram in the environment makes this binary the probe.
const asProgram = "PROBE_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// simulation is the simulated HCS, with a directory for the probe to work in.
type simulation struct {
	*hcstest.Model
	t         *testing.T
	dir, work string
}

func newSimulation(t *testing.T, personality hcstest.Personality) *simulation {
	t.Helper()
	s := &simulation{t: t, dir: os.Getenv("HCS_SIM_DIR"), work: t.TempDir()}
	if s.dir == "" {
		t.Skip("needs the simulated vmcompute.dll: run scripts/wine test on Linux")
	}
	s.must(hcstest.SetPersonality(s.dir, personality))
	t.Cleanup(func() { s.must(hcstest.SetPersonality(s.dir, hcstest.Likely)) })
	model, err := hcstest.Open(s.dir)
	s.must(err)
	model.Before, model.After = nil, nil // only the DLL counts the faults down
	s.Model = model
	return s
}

func (s *simulation) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// wantNothing fails the test when anything is left that the probe made.
func (s *simulation) wantNothing() {
	s.t.Helper()
	if open, bound := s.OpenLayers(), s.Bound(); len(open)+len(bound) > 0 {
		s.t.Errorf("open are %q, bound %v", open, bound)
	}
	if left, err := os.ReadDir(s.work); err != nil || len(left) > 0 {
		s.t.Errorf("left in the work directory: %v, %v", left, err)
	}
}

func TestProbe_FillsEveryCellAndLeavesNothing(t *testing.T) {
	for _, personality := range hcstest.Personalities {
		if personality.Name != "likely" && (testing.Short() || !strings.HasPrefix(personality.Name, "all-")) {
			continue
		}
		t.Run(personality.Name, func(t *testing.T) {
			s := newSimulation(t, personality)
			probe := exec.Command(os.Args[0], "-sample", "-work", s.work)
			probe.Env = append(os.Environ(), asProgram+"=1")
			var stderr bytes.Buffer
			probe.Stderr = &stderr
			out, err := probe.Output()
			if err != nil || stderr.Len() > 0 {
				t.Errorf("%v, %s", err, &stderr)
			}
			for _, state := range states {
				wantRow(t, string(out), state.name)
			}
			s.wantNothing()
		})
	}
}

// wantRow fails the test unless the table has a row for the state, with a cell for each call.
func wantRow(t *testing.T, report, state string) {
	t.Helper()
	_, row, found := strings.Cut(report, "\n| "+state+" | ")
	row, _, _ = strings.Cut(row, " |\n")
	cells := strings.Split(row, " | ")
	if !found || len(cells) != len(calls) {
		t.Errorf("in the row of %q are %q", state, cells)
	}
	for _, cell := range cells {
		if !strings.Contains(cell, " ms") && !strings.Contains(cell, "not possible here: ") {
			t.Errorf("a cell of %q is %q", state, cell)
		}
	}
}

// at is a writer that calls do when a text comes.
type at struct {
	text string
	do   func()
}

func (w at) Write(data []byte) (int, error) {
	if strings.Contains(string(data), w.text) {
		w.do()
	}
	return len(data), nil
}

func TestRun_LeavesNothingIfItIsInterrupted(t *testing.T) {
	for _, row := range []string{"| never active", "| activation 3", "| first clone", "| a binding"} {
		t.Run(row, func(t *testing.T) {
			s := newSimulation(t, hcstest.Likely)
			ctx, interrupt := context.WithCancel(context.Background())
			defer interrupt()
			err := run(ctx, at{row, interrupt}, options{work: s.work, sample: true})
			if err == nil || err.Error() != "interrupted" {
				t.Errorf("the error is %v", err)
			}
			s.wantNothing()
		})
	}
}

func TestRun_LeavesNothingIfItPanics(t *testing.T) {
	s := newSimulation(t, hcstest.Likely)
	defer func() {
		if recover() == nil {
			t.Error("it did not panic")
		}
		s.wantNothing()
	}()
	_ = run(context.Background(), at{"| activation 3", func() { panic("as planned") }}, options{work: s.work, sample: true})
}

func TestRun_ReportsWhatCannotBeTakenAway(t *testing.T) {
	s := newSimulation(t, hcstest.Likely)
	s.must(hcstest.SetFaults(s.dir, "DeactivateLayer 0x5 1000"))
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	err := run(ctx, at{"| never active", interrupt}, options{work: s.work, sample: true})
	if err == nil || !strings.Contains(err.Error(), "could not be taken away") {
		t.Errorf("the error is %v", err)
	}
	s.must(hcstest.SetFaults(s.dir))
	s.must(s.Reboot())
}
