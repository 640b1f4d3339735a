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
	p, err := e.findForeign(target.Path)
	if p == nil {
		return false, err
	}
	return true, e.record(p, table.KeyOf(target))
}

// adoptEach is adopt for all targets for which isWanted reports true, as far as the bindings on the volume of a path
// can be listed.
func (e *engine) adoptEach(path string, isWanted func(p *plan) bool) error {
	bindings, _ := e.filter.Bindings(path)
	for _, b := range bindings {
		target, _, err := winfs.ResolveParent(b.root)
		if err != nil {
			continue
		}
		names, err := e.table.At(table.KeyOf(target))
		if err != nil {
			return err
		}
		if len(names) > 0 {
			continue
		}
		p, err := e.findForeign(target.Path)
		if p != nil && isWanted(p) {
			err = e.record(p, table.KeyOf(target))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// record puts a mount on record that is there already, unless it is on record.
func (e *engine) record(p *plan, target table.Key) error {
	unlockTarget, err := e.table.LockTarget(target)
	if err != nil {
		return err
	}
	defer unlockTarget()
	unlockLayer, err := e.table.LockLayer(p.layer)
	if err != nil {
		return err
	}
	defer unlockLayer()
	if names, err := e.table.At(target); err != nil || len(names) > 0 {
		return err
	}
	r, err := e.table.Create(p.layer, target, p.Record)
	if err != nil {
		return err
	}
	r.Release()
	return nil
}

// findForeign returns what would be on record if this package had mounted what containerd's has bound to path, or
// nil if it has bound nothing there. The stream says which layer that is. It counts only if a program that opens
// path finds the layer: a copy of the directory may have the stream, too, and the layer has it itself.
func (e *engine) findForeign(path string) (*plan, error) {
	text, err := os.ReadFile(filepath.Clean(path) + sourceStream)
	source := string(text)
	if err != nil || winpath.CheckLayer(source) != nil {
		return nil, nil
	}
	name, err := winfs.Resolve(source)
	if err != nil || !name.IsDir {
		return nil, nil
	}
	p := &plan{layer: table.KeyOf(name), Record: table.Record{
		State: table.Shown, Source: filepath.Clean(source), Dir: layerDir(filepath.Clean(source), name), Disk: string(hcs.DiskOf(source)),
		Target: winpath.Plain(path), Resolved: path, Directory: true, Binding: true,
	}}
	if hcs.Disk(p.Disk) != hcs.NoDisk {
		e.pause.Until(noContext, func() bool {
			p.Volume = e.layers.VolumeOf(p.Dir)
			return p.Volume != "" || hcs.Disk(p.Disk) == hcs.KeptDisk
		})
	}
	if p.Volume == "" {
		p.Volume = p.Dir
	}
	if e.isBoundTo(p) {
		return p, nil
	}
	// Of a layer with parents containerd binds the directory, and not the Files in it.
	if p.Parents, _ = hcs.ParentsOf(p.Dir); len(p.Parents) > 0 && e.isBoundTo(p) {
		return p, nil
	}
	if isOther, _ := e.isOtherVolume(path); isOther && hcs.Disk(p.Disk) == hcs.OwnDisk && p.Volume == p.Dir {
		return nil, errors.Errorf("a volume is bound to %s for layer %s, of which HCS names none", path, source)
	}
	return nil, nil
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
