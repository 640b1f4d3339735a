//go:build windows

// Command probe asks Windows what it does with container layers, and prints the answers as
// Markdown. It makes layers of its own on a base layer that is named or found, and no other
// layer is touched. Build and run it as an administrator:
//
//	probe [-base LAYER] [-work DIR] > probe.md
//	probe -sample                          with the simulated HCS, see scripts/probe
//
// It leaves the host as it was, also when it is interrupted. What cannot be taken away is
// printed on standard error, and the exit code is 1 then. A second interrupt ends it at once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	var o options
	flag.StringVar(&o.base, "base", "", "the `layer` to make others on, with its layerchain.json if it has parents; else one of Docker's or containerd's is found")
	flag.StringVar(&o.work, "work", os.Getenv("ProgramData"), "the `directory` in which layers and links are made")
	flag.BoolVar(&o.sample, "sample", false, "make sample layers, which have no disk; for the simulated HCS")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

type options struct {
	base, work string
	sample     bool
}

// probe is one run of the program. All it does is done by one goroutine, which looks for an
// interrupt between two steps.
type probe struct {
	ctx    context.Context
	report *report
	made   undoList
	work   string   // the directory of all that is made
	chain  []string // the base layer and its parents
	noBase error    // why there is none
	sample bool
	layers int // how many have been made
}

// run writes the report. Everything that was made has been taken away when it returns, or panics.
func run(ctx context.Context, out io.Writer, o options) (err error) {
	p := &probe{ctx: ctx, report: &report{w: out}, sample: o.sample}
	defer func() { err = errors.Join(err, p.made.undoAll()) }()
	if err := p.makeWork(o.work); err != nil {
		return err
	}
	p.chain, p.noBase = p.findBase(o.base)
	for _, section := range []func(){p.host, p.callsInEveryState, p.volumes, p.afterClose, p.paths, p.rights} {
		if section(); p.interrupted() {
			p.report.text("Interrupted.")
			return errors.New("interrupted")
		}
	}
	return p.report.err
}

func (p *probe) interrupted() bool { return p.ctx.Err() != nil }

func (p *probe) makeWork(in string) (err error) {
	if p.work, err = os.MkdirTemp(in, "layer-probe-"); err != nil {
		return err
	}
	p.made.add("remove "+p.work, func() error { return removePaths(p.work) })
	p.work, err = filepath.Abs(p.work)
	return err
}
