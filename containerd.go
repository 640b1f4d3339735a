package mount

import (
	"cmp"
	stderrors "errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/retry"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// sourceStream is the NTFS stream in which containerd 1.7 and 2.x keep the source of a layer that is bound to a
// directory. Their Unmount finds the layer by it, and so does the daemon of moby (daemon/oci_windows.go). It is a
// stream of the directory that is bound, so it is there at each target of the layer.
const sourceStream = ":containerd.io-source"

// streamOf returns the path of the stream of a directory. Clean keeps the separator that leads to the root directory
// of a volume, and not to its device.
func streamOf(dir string) string { return filepath.Clean(dir) + sourceStream }

// readSource returns what a stream contains, or "" if there is none.
func readSource(stream string) (string, error) {
	file, err := os.Open(stream)
	if winfs.NotExist(err) || winfs.IsAny(err, errInvalidName) {
		return "", nil
	}
	if err != nil {
		return "", errors.WithStack(err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, winpath.Max))
	return string(text), errors.WithStack(err)
}

// errInvalidName is ERROR_INVALID_NAME, which a file system without streams returns.
const errInvalidName = syscall.Errno(123)

// writeSource writes the stream of a layer that is about to be bound, unless it is there: somebody may be reading
// it at another target. It writes on the side of the layer: a read-only binding could not be written through. A read-only layer may belong to somebody who lets nobody write to it; then there is no
// stream.
func (e *engine) writeSource(r *table.Mount) error {
	if r.Type == bindType {
		return nil
	}
	stream := streamOf(destination(r))
	if text, err := readSource(stream); err == nil && text == r.Source {
		return nil
	}
	write := func() error { return os.WriteFile(stream, []byte(r.Source), 0o666) }
	if hcs.Disk(r.Disk) != hcs.OwnDisk {
		_ = write()
		return nil
	}
	return errors.Wrapf(winfs.WhileBusy(e.pause, write), "failed to record source for layer %s", r.Source)
}

// removeSource removes the stream of a layer, unless another layer has the volume now, or Windows was started since:
// then containerd may have mounted the layer. A stream that stays does no harm, since it is not believed alone.
func (e *engine) removeSource(r *table.Mount) {
	if r.Volume == "" || r.Type == bindType || e.table.IsStale(r.Name) {
		return
	}
	stream := streamOf(destination(r))
	text, err := readSource(stream)
	isOfLayer := err == nil && (text == r.Source || text == "") // the latter if a process was killed as it wrote
	if err == nil && !isOfLayer {
		name, err := winfs.Resolve(text)
		isOfLayer = err == nil && table.KeyOf(name) == r.LayerKey
	}
	if isOfLayer {
		_ = winfs.RemoveFile(stream)
	}
}

// adopt puts the layer on record that containerd's own package has bound to a target, if there is one, and reports
// whether there is. Then the target can be unmounted as one of this package. Other targets of the layer go on record
// as well, so that it is not closed under them.
func (e *engine) adopt(target winfs.Name) (bool, error) {
	p, err := e.findForeign(target.Path)
	if p == nil || err != nil {
		return false, err
	}
	isNew, err := e.record(p, table.KeyOf(target))
	if !isNew || err != nil {
		return false, err
	}
	failed := e.adoptEach(filepath.Dir(target.Path), func(_ string, layer table.Key) bool { return layer == p.LayerKey })
	return true, stderrors.Join(failed...)
}

// adoptEach puts on record what containerd's own package has bound, as far as the bindings on the volume of dir
// can be listed. It asks isWanted which ones. It goes on after a failure, and returns all errors.
func (e *engine) adoptEach(dir string, isWanted func(target string, layer table.Key) bool) (failed []error) {
	bindings, _ := e.filter.Bindings(dir)
	for _, b := range bindings {
		target, _, err := winfs.ResolveParent(b.root)
		if err != nil || e.isOnRecord(table.KeyOf(target)) {
			continue
		}
		source, _ := readSource(streamOf(target.Path))
		layer, err := winfs.Resolve(source)
		if source == "" || err != nil || !isWanted(target.Path, table.KeyOf(layer)) {
			continue
		}
		p, err := e.findForeign(target.Path)
		if p != nil {
			_, err = e.record(p, table.KeyOf(target))
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed
}

// isOnRecord reports whether there is a mount at a target since Windows was started, as far as the table tells.
func (e *engine) isOnRecord(target table.Key) bool {
	names, err := e.table.At(target)
	return err != nil || slices.ContainsFunc(names, func(n table.Name) bool { return !e.table.IsStale(n) })
}

// record puts a mount on record that containerd's own package has made, and reports whether it has done so. The
// mount may have gone, or another process may have put it on record.
func (e *engine) record(p *table.Mount, target table.Key) (bool, error) {
	unlock, err := e.table.LockLayer(p.LayerKey) // which a Mount that shows the layer there holds until it is done
	if err != nil {
		return false, err
	}
	defer unlock()
	if isThere, err := e.isBoundTo(p); !isThere || err != nil || e.isOnRecord(target) {
		return false, err
	}
	r, err := e.table.Create(p.LayerKey, target, p.Record)
	if err != nil {
		return false, err
	}
	r.Release()
	return true, nil
}

// findForeign returns what would be on record if this package had mounted what containerd's has bound to path, or
// nil if it has bound nothing there. The stream says which layer that is. It counts only if a program that opens
// path finds the layer: a copy of the directory may have the stream, too, and the layer has it itself. Whatever
// fails is tried again: opening a file through a binding may fail for an instant (Windows-Containers 635).
func (e *engine) findForeign(path string) (p *table.Mount, err error) {
	err = e.pause.Do(noContext, retry.Always, func() error {
		source, err := readSource(streamOf(path))
		if p = nil; err == nil && winpath.CheckLayer(source) == nil {
			p, err = e.planForeign(path, filepath.Clean(source))
		}
		return err
	})
	if err != nil && !e.seemsBound(path) {
		return nil, nil
	}
	return p, errors.WithMessage(err, "failed to look for a layer of containerd's")
}

// seemsBound reports whether there is a sign that something is bound to path.
func (e *engine) seemsBound(path string) bool {
	if isOther, err := e.isOtherVolume(path); err == nil && isOther {
		return true
	}
	sources, err := e.boundTo(path)
	return err == nil && len(sources) > 0
}

// planForeign is one attempt of findForeign.
func (e *engine) planForeign(path, source string) (*table.Mount, error) {
	p, err := planLayer(&Mount{Source: source})
	if err != nil {
		return nil, err
	}
	p.State, p.Target, p.Resolved, p.Directory, p.Binding = table.Shown, winpath.Plain(path), path, true, true
	if hcs.Disk(p.Disk) != hcs.NoDisk && e.seemsBound(path) { // or HCS need not be asked
		p.Volume = e.layers.VolumeOf(p.Dir)
		if p.Volume == "" && hcs.Disk(p.Disk) == hcs.OwnDisk {
			return nil, errors.Errorf("HCS names no volume for layer %s", source)
		}
	}
	p.Volume = cmp.Or(p.Volume, p.Dir)
	p.Parents, _ = hcs.ParentsOf(p.Dir) // if it has any, containerd binds the directory, and not the Files in it
	if isThere, err := e.isBoundTo(p); !isThere {
		return nil, err
	}
	return p, nil
}

// isBoundTo reports whether a program that opens the target of a plan finds there what the plan would show.
func (e *engine) isBoundTo(p *table.Mount) (bool, error) {
	source := destination(p)
	if name, err := winfs.Resolve(source); err != nil || winpath.Equal(name.Path, p.Resolved) {
		return false, err // in the second case it is the directory of the layer itself
	}
	id, err := winfs.FileID(source)
	found, foundErr := e.filter.FileID(p.Resolved)
	if winfs.NotExist(err) || winfs.NotExist(foundErr) {
		return false, nil
	}
	if err = stderrors.Join(err, foundErr); err != nil || id != found {
		return false, err
	}
	// Scratch disks are copies of one another, down to the serial number of the volume.
	if sources, err := e.boundTo(p.Resolved); err == nil && len(sources) > 0 {
		return slices.ContainsFunc(sources, func(source string) bool { return isDestination(p, source) }), nil
	}
	volume, err := e.filter.VolumeOf(source)
	foundVolume, foundErr := e.filter.VolumeOf(p.Resolved)
	return volume == foundVolume, stderrors.Join(err, foundErr)
}
