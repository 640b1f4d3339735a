//go:build windows

package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// volumes shows whether a scratch disk keeps the GUID of its volume.
func (p *probe) volumes() {
	p.report.title("The volume of a scratch layer")
	p.report.text("Ten activations of one layer, each closed again; then two layers with a copy of its disk, open at once.")
	p.report.table("layer", "GetLayerMountPath", "the volume is there")
	scratch, err := p.newScratch()
	if scratch != nil {
		defer scratch.discard()
	}
	if err != nil {
		p.report.row("original", notHere(err), "")
		return
	}
	for i := 1; i <= 10 && !p.interrupted(); i++ {
		p.volumeRow(fmt.Sprintf("activation %d", i), scratch)
		if err := scratch.close(); err != nil {
			p.report.row("closing it", notHere(err), "")
			return
		}
	}
	for _, name := range []string{"first clone", "second clone"} {
		if p.interrupted() {
			return
		}
		clone, err := p.newClone(scratch)
		defer clone.discard()
		if err != nil {
			p.report.row(name, notHere(err), "")
			continue
		}
		p.volumeRow(name, clone)
	}
}

// volumeRow opens a layer and shows its volume.
func (p *probe) volumeRow(name string, l *layer) {
	path, err := l.open()
	if err != nil {
		p.report.row(name, notHere(err), "")
		return
	}
	p.report.row(name, code(path), yesNo(isThere(rootOf(path))))
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// afterClose shows for how long a volume lingers that belonged to a layer.
func (p *probe) afterClose() {
	p.report.title("After a close")
	p.report.text("What GetLayerMountPath says, and whether the volume of before is there still, so many milliseconds after DeactivateLayer returned.")
	p.report.table("close", "ms", "GetLayerMountPath", "the volume is there")
	for i := 1; i <= 3 && !p.interrupted(); i++ {
		if err := p.closeAndLook(fmt.Sprint(i)); err != nil {
			p.report.row(fmt.Sprint(i), "", notHere(err), "")
		}
	}
}

func (p *probe) closeAndLook(name string) error {
	l, err := p.newScratch()
	if l != nil {
		defer l.discard()
	}
	if err != nil {
		return err
	}
	path, err := l.open()
	if err != nil {
		return err
	}
	unprepareErr, deactivateErr := l.unprepare(), l.deactivate()
	if unprepareErr != nil || deactivateErr != nil {
		return fmt.Errorf("UnprepareLayer gave %s, DeactivateLayer %s", result(unprepareErr), result(deactivateErr))
	}
	closed := time.Now()
	for _, ms := range []int{0, 10, 20, 50, 100, 200, 500} {
		time.Sleep(time.Until(closed.Add(time.Duration(ms) * time.Millisecond)))
		now, err := l.mountPath()
		p.report.row(name, fmt.Sprint(ms), pathResult(now, err), yesNo(isThere(rootOf(path))))
	}
	return nil
}
