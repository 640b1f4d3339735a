//go:build windows

package main

import (
	"fmt"
	"time"
)

// state is how a layer can be found.
type state struct {
	name  string
	layer func(*probe) (*layer, error)
	steps []step // that bring the layer into the state
}

type step struct {
	name string
	do   func(*layer) error
}

var (
	activate   = step{"ActivateLayer", (*layer).activate}
	prepare    = step{"PrepareLayer", (*layer).prepare}
	unprepare  = step{"UnprepareLayer", (*layer).unprepare}
	deactivate = step{"DeactivateLayer", (*layer).deactivate}
	attach     = step{"attaching sandbox.vhdx", (*layer).attach}
	remove     = step{"removing the directory", (*layer).remove}
	// prepareAgain may be refused, which the row of a prepared layer shows.
	prepareAgain = step{"PrepareLayer", func(l *layer) error { _ = l.prepare(); return nil }}
)

var (
	writable       = (*probe).newScratch
	readOnly       = (*probe).newReadOnlyAlone
	readOnlyOnBase = (*probe).newReadOnlyOnBase
	states         = []state{
		{"never active", writable, nil},
		{"active", writable, []step{activate}},
		{"prepared", writable, []step{activate, prepare}},
		{"prepared twice", writable, []step{activate, prepare, prepareAgain}},
		{"active after Unprepare", writable, []step{activate, prepare, unprepare}},
		{"deactivated while prepared", writable, []step{activate, prepare, deactivate}},
		{"closed", writable, []step{activate, prepare, unprepare, deactivate}},
		{"its directory gone", writable, []step{remove}},
		{"disk attached by other code", writable, []step{attach}},
		{"read-only without parents", readOnly, nil},
		{"read-only without parents, prepared", readOnly, []step{activate, prepare}},
		{"read-only with parents", readOnlyOnBase, nil},
		{"read-only with parents, prepared", readOnlyOnBase, []step{activate, prepare}},
		{"read-only with parents, deactivated while prepared", readOnlyOnBase, []step{activate, prepare, deactivate}},
	}
)

// calls are the five calls, each with what it returned.
var calls = []struct {
	name string
	do   func(*layer) string
}{
	{"ActivateLayer", func(l *layer) string { return result(l.activate()) }},
	{"PrepareLayer", func(l *layer) string { return result(l.prepare()) }},
	{"GetLayerMountPath", func(l *layer) string { return pathResult(l.mountPath()) }},
	{"UnprepareLayer", func(l *layer) string { return result(l.unprepare()) }},
	{"DeactivateLayer", func(l *layer) string { return result(l.deactivate()) }},
}

func (p *probe) callsInEveryState() {
	p.report.title("The five calls, in every state of a layer")
	p.report.text("For each cell a layer is made and brought into the state; then the call is made, once. " +
		"nil is success; a code is what hcsshim returns, which cuts 0x8007xxxx down to xxxx. " +
		"A read-only layer here is a directory with an empty folder Files and without sandbox.vhdx. " +
		"Where the layer has a volume before the call, as GetLayerMountPath tells, the cell says whether it is there after it.")
	columns := []string{"state"}
	for _, call := range calls {
		columns = append(columns, call.name)
	}
	p.report.table(columns...)
	for _, s := range states {
		cells := []string{s.name}
		for _, call := range calls {
			if p.interrupted() {
				return
			}
			cells = append(cells, p.cell(s, call.do))
		}
		p.report.row(cells...)
	}
}

// cell makes a call on a layer in a state, and returns what came of it.
func (p *probe) cell(s state, call func(*layer) string) string {
	l, err := s.layer(p)
	if l != nil {
		defer l.discard()
	}
	if err != nil {
		return notHere(err)
	}
	for _, step := range s.steps {
		if err := step.do(l); err != nil {
			return notHere(fmt.Errorf("%s: %s", step.name, result(err)))
		}
	}
	volume := l.volume()
	start := time.Now()
	cell := call(l)
	cell = fmt.Sprintf("%s, %.1f ms", cell, float64(time.Since(start).Microseconds())/1000)
	switch {
	case volume == "":
		return cell
	case isThere(rootOf(volume)):
		return cell + ", volume there"
	}
	return cell + ", volume gone"
}
