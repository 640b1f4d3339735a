//go:build windows

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/Microsoft/go-winio/vhd"
	"github.com/Microsoft/hcsshim"
	"golang.org/x/sys/windows"
)

// layer is a layer that the probe has made.
type layer struct {
	dir     string
	parents []string
	sample  bool
	// prepared is that a call has prepared it and none has undone that.
	prepared bool
	disk     syscall.Handle // keeps it attached, see attach; or 0
	discard  func()         // closes and removes it, once
}

// findBase returns the layer that is given, or else one of Docker's or containerd's, and its
// parents.
func (p *probe) findBase(given string) ([]string, error) {
	if p.sample {
		return p.makeSampleBase()
	}
	if given != "" {
		return chainOf(filepath.Clean(given))
	}
	programData := os.Getenv("ProgramData")
	for _, pattern := range []string{
		`docker\windowsfilter\*\layerchain.json`,
		// containerd keeps the parents of a layer elsewhere. This file is in layers without any.
		`containerd\root\io.containerd.snapshotter.v1.windows\snapshots\*\blank-base.vhdx`,
	} {
		found, err := filepath.Glob(filepath.Join(programData, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range found {
			if dir := filepath.Dir(file); isThere(filepath.Join(dir, "Files")) { // or else a container's
				return chainOf(dir)
			}
		}
	}
	return nil, errors.New("no base layer: name one with -base, or docker pull mcr.microsoft.com/windows/nanoserver")
}

// chainOf returns a layer and its parents.
func chainOf(dir string) ([]string, error) {
	var parents []string
	data, err := os.ReadFile(filepath.Join(dir, "layerchain.json"))
	if err == nil {
		err = json.Unmarshal(data, &parents)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the parents of %s: %w", dir, err)
	}
	return append([]string{dir}, parents...), nil
}

func (p *probe) makeSampleBase() ([]string, error) {
	dir := filepath.Join(p.work, "base")
	files := filepath.Join(dir, "Files")
	p.made.add("remove "+dir, func() error { return removePaths(files, dir) })
	return []string{dir}, os.MkdirAll(files, 0o777)
}

// newScratch makes a writable layer on the base layer.
func (p *probe) newScratch() (*layer, error) {
	if p.noBase != nil {
		return nil, p.noBase
	}
	l := p.newLayer(p.chain)
	if p.sample {
		return l, errors.Join(os.Mkdir(l.dir, 0o777), os.WriteFile(l.scratchDisk(), nil, 0o666))
	}
	home, id := l.split()
	if err := hcsshim.CreateScratchLayer(home, id, "", l.parents); err != nil {
		return l, fmt.Errorf("CreateScratchLayer gave %s", result(err))
	}
	return l, nil
}

// newReadOnly makes a layer of an empty folder Files, as a layer that was committed has one. It
// has no scratch disk.
func (p *probe) newReadOnly(parents []string) (*layer, error) {
	l := p.newLayer(parents)
	return l, os.MkdirAll(filepath.Join(l.dir, "Files"), 0o777)
}

func (p *probe) newReadOnlyOnBase() (*layer, error) {
	if p.noBase != nil {
		return nil, p.noBase
	}
	return p.newReadOnly(p.chain)
}

func (p *probe) newReadOnlyAlone() (*layer, error) { return p.newReadOnly(nil) }

// newClone makes a layer with a copy of the scratch disk of another one.
func (p *probe) newClone(of *layer) (*layer, error) {
	l := p.newLayer(of.parents)
	if err := os.Mkdir(l.dir, 0o777); err != nil {
		return l, err
	}
	return l, copyFile(l.scratchDisk(), of.scratchDisk())
}

// newLayer returns a layer that is to be made next. HCS takes layers of one name for one
// (NameToGuid), so each has another.
func (p *probe) newLayer(parents []string) *layer {
	p.layers++
	l := &layer{
		dir:     filepath.Join(p.work, fmt.Sprintf("%s-%d", filepath.Base(p.work), p.layers)),
		parents: parents,
		sample:  p.sample,
	}
	l.discard = p.made.add("close and remove layer "+l.dir, func() error {
		if err := l.close(); err != nil {
			return err
		}
		return l.remove()
	})
	return l
}

func (l *layer) scratchDisk() string { return filepath.Join(l.dir, "sandbox.vhdx") }

func (l *layer) split() (home hcsshim.DriverInfo, id string) {
	return hcsshim.DriverInfo{HomeDir: filepath.Dir(l.dir)}, filepath.Base(l.dir)
}

func (l *layer) activate() error {
	home, id := l.split()
	return hcsshim.ActivateLayer(home, id)
}

func (l *layer) prepare() error {
	home, id := l.split()
	err := hcsshim.PrepareLayer(home, id, l.parents)
	l.prepared = l.prepared || err == nil
	return err
}

func (l *layer) mountPath() (string, error) {
	home, id := l.split()
	return hcsshim.GetLayerMountPath(home, id)
}

func (l *layer) unprepare() error {
	home, id := l.split()
	err := hcsshim.UnprepareLayer(home, id)
	l.prepared = l.prepared && err != nil
	return err
}

func (l *layer) deactivate() error {
	home, id := l.split()
	err := hcsshim.DeactivateLayer(home, id)
	l.prepared = l.prepared && err != nil
	return err
}

// open activates and prepares the layer and returns its mount path.
func (l *layer) open() (string, error) {
	if err := l.activate(); err != nil {
		return "", fmt.Errorf("ActivateLayer gave %s", result(err))
	}
	if err := l.prepare(); err != nil {
		return "", fmt.Errorf("PrepareLayer gave %s", result(err))
	}
	path, err := l.mountPath()
	if err != nil {
		return "", fmt.Errorf("GetLayerMountPath gave %s", result(err))
	}
	return path, nil
}

// attach attaches the scratch disk without HCS. It is detached with the last handle of it, and so
// when this process ends in whatever way.
func (l *layer) attach() error {
	if l.sample {
		return errors.New("a sample layer has an empty file for a disk")
	}
	if err := windows.NewLazySystemDLL("virtdisk.dll").NewProc("AttachVirtualDisk").Find(); err != nil {
		return err
	}
	disk, err := vhd.OpenVirtualDisk(l.scratchDisk(), vhd.VirtualDiskAccessNone, vhd.OpenVirtualDiskFlagNone)
	if err != nil {
		return err
	}
	err = vhd.AttachVirtualDisk(disk, vhd.AttachVirtualDiskFlagNoDriveLetter, &vhd.AttachVirtualDiskParameters{Version: 1})
	if err != nil {
		return errors.Join(err, syscall.CloseHandle(disk))
	}
	l.disk = disk
	for i := 0; i < 20 && l.volume() == ""; i++ { // it comes after a moment, or not at all
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

func (l *layer) detach() error {
	if l.disk == 0 {
		return nil
	}
	_ = vhd.DetachVirtualDisk(l.disk) // HCS may have done it; close looks whether the volume has gone
	disk := l.disk
	l.disk = 0
	return syscall.CloseHandle(disk)
}

// volume returns the volume of the layer, when there is one that can be reached, or "".
func (l *layer) volume() string {
	path, err := l.mountPath()
	if err != nil || !strings.Contains(path, "Volume{") || !isThere(rootOf(path)) {
		return ""
	}
	return path
}

// close closes the layer, whatever its state is. What the calls say is no proof that a writable
// layer is closed: it is when its volume has gone. Of a read-only one nothing else is known.
func (l *layer) close() error {
	if err := l.detach(); err != nil {
		return err
	}
	volume, prepared := l.volume(), l.prepared
	isReadOnly := !isThere(l.scratchDisk())
	var unprepareErr, deactivateErr error
	for i := 0; i < 20; i++ {
		unprepareErr = l.unprepare()
		prepared = prepared && unprepareErr != nil
		deactivateErr = l.deactivate()
		if isReadOnly && !prepared || !isReadOnly && l.volume() == "" && (volume == "" || !isThere(rootOf(volume))) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("it is still open: UnprepareLayer gave %s, DeactivateLayer %s", result(unprepareErr), result(deactivateErr))
}

// remove removes the layer, which is closed. HCS is asked only where it has put more in it than the
// probe has: DestroyLayer has been seen to end its caller (hcsshim issue 961).
func (l *layer) remove() error {
	err := removePaths(l.scratchDisk(), filepath.Join(l.dir, "Files"), l.dir)
	if err == nil || l.sample {
		return err
	}
	home, id := l.split()
	if destroyErr := hcsshim.DestroyLayer(home, id); destroyErr != nil {
		return errors.Join(err, destroyErr)
	}
	if isThere(l.dir) {
		return err
	}
	return nil
}

// removePaths removes files and empty directories that are there. Nothing is removed with what is
// in it, and so nothing through a link or a binding.
func removePaths(paths ...string) error {
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// rootOf returns the root directory of what a mount path names: without the separator a volume's
// is the path of its device.
func rootOf(path string) string { return strings.TrimRight(path, `\`) + `\` }

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
