package mount

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// sourceStream is the NTFS stream in which containerd 1.7 and 2.x keep the source of a layer that is bound to a
// directory. Their Unmount finds the layer by it, and so does the daemon of moby (daemon/oci_windows.go). It is a
// stream of the directory that is bound, so it is there at each target of the layer.
const sourceStream = ":containerd.io-source"

// streamOf returns the path of the stream on the side of the layer: a read-only binding could not be written
// through. Clean keeps the separator that leads to the root directory of a volume, and not to its device.
func streamOf(r *table.Record) string { return filepath.Clean(destination(r)) + sourceStream }

// writeSource writes the stream of a layer that is about to be bound. A read-only layer may belong to somebody who
// lets nobody write to it; then there is no stream.
func (e *engine) writeSource(r *table.Record) error {
	if r.Type == bindType {
		return nil
	}
	err := e.whileBusy(func() error { return os.WriteFile(streamOf(r), []byte(r.Source), 0o666) })
	if hcs.Disk(r.Disk) != hcs.OwnDisk {
		return nil
	}
	return errors.Wrapf(err, "failed to record source for layer %s", r.Source)
}

// removeSource removes the stream of a layer, unless another layer has the volume now.
func (e *engine) removeSource(r *table.Mount) error {
	if r.Volume == "" || r.Type == bindType {
		return nil
	}
	stream := streamOf(&r.Record)
	err := e.whileBusy(func() error {
		text, err := os.ReadFile(stream)
		if err != nil {
			return err
		}
		if name, err := winfs.Resolve(string(text)); err != nil || table.KeyOf(name) != r.LayerKey {
			return nil
		}
		return os.Remove(stream)
	})
	if winfs.NotExist(err) {
		return nil
	}
	return errors.Wrapf(err, "failed to remove the source of layer %s", r.Source)
}

// adopt puts the layer on record that containerd's own package has bound to a target, if there is one, and reports
// whether there is. Then the target can be unmounted as one of this package.
func (e *engine) adopt(target winfs.Name) (bool, error) {
	p := e.findForeign(target.Path)
	if p == nil {
		return false, nil
	}
	p.target = table.KeyOf(target)
	unlockTarget, err := e.table.LockTarget(p.target)
	if err != nil {
		return false, err
	}
	defer unlockTarget()
	unlockLayer, err := e.table.LockLayer(p.layer)
	if err != nil {
		return false, err
	}
	defer unlockLayer()
	names, err := e.table.At(p.target)
	if err != nil || len(names) > 0 {
		return err == nil, err // another process has been faster
	}
	r, err := e.table.Create(p.layer, p.target, p.Record)
	if err != nil {
		return false, err
	}
	r.Release()
	return true, nil
}

// findForeign returns what would be on record if this package had mounted what containerd's has bound to path, or
// nil if it has bound nothing there. The stream says which layer that is. It counts only if a program that opens
// path finds the layer: a copy of the directory may have the stream, too, and the layer has it itself.
func (e *engine) findForeign(path string) *plan {
	text, err := os.ReadFile(filepath.Clean(path) + sourceStream)
	source := string(text)
	if err != nil || winpath.CheckLayer(source) != nil {
		return nil
	}
	name, err := winfs.Resolve(source)
	if err != nil || !name.IsDir {
		return nil
	}
	p := &plan{layer: table.KeyOf(name), Record: table.Record{
		State: table.Shown, Source: filepath.Clean(source), Dir: layerDir(filepath.Clean(source), name), Disk: string(hcs.DiskOf(source)),
		Target: path, Resolved: path, Directory: true, Binding: true,
	}}
	if p.Volume = p.Dir; hcs.Disk(p.Disk) != hcs.NoDisk {
		e.pause.Until(noContext, func() bool {
			volume := e.layers.VolumeOf(p.Dir)
			if volume != "" {
				p.Volume = volume
			}
			return volume != "" || hcs.Disk(p.Disk) == hcs.KeptDisk
		})
	}
	if e.isBoundTo(p) {
		return p
	}
	// Of a layer with parents containerd binds the directory, and not the Files in it.
	if p.Parents, _ = hcs.ParentsOf(p.Dir); len(p.Parents) > 0 && e.isBoundTo(p) {
		return p
	}
	return nil
}

// isBoundTo reports whether a program that opens the target of a plan finds there what the plan would show.
func (e *engine) isBoundTo(p *plan) bool {
	source := destination(&p.Record)
	if name, err := winfs.Resolve(source); err != nil || winpath.Equal(name.Path, p.Resolved) {
		return false // path is the directory of the layer itself
	}
	id, err := winfs.FileID(source)
	found, foundErr := e.filter.FileID(p.Resolved)
	if err != nil || foundErr != nil || id != found {
		return false
	}
	// Scratch disks are copies of one another, down to the serial number of the volume.
	if sources, err := e.boundTo(&p.Record); err == nil {
		return slices.ContainsFunc(sources, func(source string) bool { return isDestination(&p.Record, source) })
	}
	volume, err := e.filter.VolumeOf(source)
	foundVolume, foundErr := e.filter.VolumeOf(p.Resolved)
	return err == nil && foundErr == nil && volume == foundVolume
}

// adoptBelow is adopt for all targets below a directory, as far as bindings can be listed.
func (e *engine) adoptBelow(dir string) error {
	name, err := winfs.Resolve(dir)
	if err != nil {
		return nil // nothing can be bound there
	}
	bindings, _ := e.filter.Bindings(name.Path)
	for _, b := range bindings {
		target, _, err := winfs.ResolveParent(b.root)
		if err != nil || !isBelow(target.Path, name.Path) {
			continue
		}
		names, err := e.table.At(table.KeyOf(target))
		if err == nil && len(names) == 0 {
			_, err = e.adopt(target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
