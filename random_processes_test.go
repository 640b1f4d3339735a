//go:build !windows

package mount

import (
	"encoding/json"
	stderrors "errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/pkg/errors"
	"pgregory.net/rapid"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// Operations of a random test in other processes. Each is this test binary, which
// does the scripts that it reads until it is killed or its input ends.

// order is what a process is told to do: a script on the host in Dir, alone or
// while others do theirs.
type order struct {
	Dir    string
	Alone  bool
	Mounts map[string]*Mount
	Script []randomWork
}

// answer is what it says then. Allowed is set if Err is an error that the operation may have.
type answer struct {
	Died    bool
	Err     string
	Allowed bool
}

// processes are those of one test, which start when they are first needed.
type processes []*process

type process struct {
	command *exec.Cmd
	orders  io.WriteCloser
	answers io.Reader
}

func newProcesses(t *testing.T, n int) processes {
	var all processes
	for i := 0; i < n; i++ {
		p := &process{}
		t.Cleanup(func() {
			if err := p.stop(); err != nil {
				t.Errorf("another process: %v", err)
			}
		})
		all = append(all, p)
	}
	return all
}

func (p *process) start() {
	p.command = exec.Command(os.Args[0])
	p.command.Env = childEnv("random", "")
	p.command.Stderr = os.Stderr
	var inErr, outErr error
	p.orders, inErr = p.command.StdinPipe()
	p.answers, outErr = p.command.StdoutPipe()
	if err := stderrors.Join(inErr, outErr, p.command.Start()); err != nil {
		panic(err)
	}
}

// stop makes the process end, unless it was killed, and returns how it has ended
// otherwise.
func (p *process) stop() error {
	if p.command == nil {
		return nil
	}
	_ = p.orders.Close() // it may be gone
	err := p.command.Wait()
	p.command = nil
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil
	}
	return err
}

// do has a process do a script on a random host. The error is one that none of its
// operations may have. If nobody else does anything at the same time, the script is one
// operation, and the error is any that the operation has.
func (p *process) do(r *random, script []randomWork) (died bool, err error) {
	if p.command == nil {
		p.start()
	}
	if err := json.NewEncoder(p.orders).Encode(order{r.dir, r.alone, r.layerMounts, script}); err != nil {
		return false, err
	}
	var a answer
	if err := json.NewDecoder(p.answers).Decode(&a); err != nil {
		return true, p.stop()
	}
	if a.Err == "" {
		return a.Died, nil
	}
	err = errors.New(a.Err)
	if a.Allowed {
		err = stderrors.Join(err, allowedErrors[script[0].Op])
	}
	return a.Died, err
}

func init() { tasks["random"] = serveRandom }

// serveRandom does what the orders say and gives the answers.
func serveRandom(orders io.Reader, answers io.Writer) error {
	decoder := json.NewDecoder(orders)
	for {
		var o order
		if err := decoder.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		r := &random{host: sharedHost(nil, o.Dir), layerMounts: o.Mounts, alone: o.Alone}
		setRandomTemp(r.path("temp"))
		var a answer
		var err error
		if o.Alone {
			a.Died, err = survive(func() error { return r.do(o.Script[0]) })
			a.Allowed = o.Script[0].allows(err)
		} else {
			err = r.workAll(o.Script)
		}
		if err != nil {
			a.Err = err.Error()
		}
		if err := json.NewEncoder(answers).Encode(a); err != nil {
			return err
		}
	}
}

// elsewhereKills are what kills another process, as hcstest.SetFaults takes it.
var elsewhereKills = killsOf(hcstest.Activate, hcstest.Prepare, hcstest.MountPath, hcstest.Unprepare, hcstest.Deactivate,
	hcstest.Bind, hcstest.Unbind, hcstest.Bindings)

// elsewhereFaults are errors for an instant and for good, and the kills.
var elsewhereFaults = append([]string{
	"ActivateLayer 0x15", "PrepareLayer 0x48f", "GetLayerMountPath 0x15", "UnprepareLayer 0x15", "DeactivateLayer 0x48f",
	"BfSetupFilter 0x20", "BfRemoveMapping 0x20", "BfGetMappings 0x20",
	"ActivateLayer 0x20", "PrepareLayer 0x57", "GetLayerMountPath 0x1f", "UnprepareLayer 0x1f", "DeactivateLayer 0x20",
}, elsewhereKills...)

func killsOf(calls ...hcstest.Call) []string {
	var kills []string
	for _, call := range calls {
		kills = append(kills, string(call)+" kill-before", string(call)+" kill-after")
	}
	return kills
}

// planElsewhere plans a fault in the next call in another process, or none if fault is
// "". What it returns reports whether the fault has happened. If it has not, it is then
// taken back.
func (r *random) planElsewhere(fault string) (happened func() bool) {
	dir := r.path("hcs")
	var plan []string
	if fault != "" {
		plan = append(plan, fault+" 1")
	}
	if err := hcstest.SetFaults(dir, plan...); err != nil {
		r.t.Fatal(err)
	}
	return func() bool {
		left, err := os.ReadFile(filepath.Join(dir, "faults"))
		if err := stderrors.Join(err, hcstest.SetFaults(dir)); err != nil {
			r.t.Fatal(err)
		}
		return fault != "" && len(left) == 0
	}
}

// elsewhere does the work in another process, and reports whether a fault has
// happened.
func (r *random) elsewhere(rt *rapid.T, work randomWork) (died, happened bool, err error) {
	fault := rapid.SampledFrom(append([]string{""}, elsewhereFaults...)).Draw(rt, "fault")
	if fault == "PrepareLayer 0x48f" && r.isLie(hcstest.Prepare, work.Layer, errorDeviceNotConnected) {
		fault = ""
	}
	planned := r.planElsewhere(fault)
	number := rapid.IntRange(0, len(r.processes)-1).Draw(rt, "number")
	died, err = r.processes[number].do(r, []randomWork{work})
	if died && err != nil {
		r.t.Fatalf("the other process ended: %v", err)
	}
	r.elsewhereOps++
	return died, planned(), err
}
