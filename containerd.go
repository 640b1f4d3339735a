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
// it at another target. It writes on the side of the layer: a read-only binding could not be written through. A
// read-only layer may belong to somebody who lets nobody write to it; then there is no stream.
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
// whether there is. Then the target can be unmounted as one of this package.
func (e *engine) adopt(path string, key table.Key) (bool, error) {
	p, err := e.findForeign(path, key)
	if p == nil || err != nil {
		return false, err
	}
	failed := e.adoptEach(filepath.Dir(path), func(target string, _ table.Key) bool { return winpath.Equal(target, path) })
	return true, stderrors.Join(append(failed, e.record(p))...) // if bindings cannot be listed, it is not there yet
}

// adoptEach puts on record what foreign returns. It goes on after a failure, and returns all errors.
func (e *engine) adoptEach(dir string, isWanted func(target string, layer table.Key) bool) (failed []error) {
	found, failed := e.foreign(dir, isWanted)
	for _, p := range found {
		if err := e.record(p); err != nil {
			failed = append(failed, err)
		}
	}
	return failed
}

// foreign returns a record for each mount of containerd's own package that is not on record yet. It finds those on
// the volume of dir, if bindings can be listed. isWanted selects mounts. The other mounts of the same layers are
// returned, too. They come first: if this process is killed before all are on record, no layer is closed under one
// of them.
func (e *engine) foreign(dir string, isWanted func(target string, layer table.Key) bool) (found []*table.Mount, failed []error) {
	var wanted, others []*table.Mount // of which only the names and the target are known
	bindings, _ := e.filter.Bindings(dir)
	for _, b := range bindings {
		target, _, err := winfs.ResolveParent(b.root)
		if err != nil {
			continue
		}
		var source string
		_ = e.pause.Do(noContext, retry.Always, func() (err error) { // see findForeign
			source, err = readSource(streamOf(target.Path))
			return err
		})
		layer, err := winfs.Resolve(source)
		if source == "" || err != nil {
			continue
		}
		p := &table.Mount{Name: table.Name{LayerKey: table.KeyOf(layer), TargetKey: table.KeyOf(target)}}
		p.Resolved = target.Path
		if isWanted(p.Resolved, p.LayerKey) {
			wanted = append(wanted, p)
		} else {
			others = append(others, p)
		}
	}
	others = slices.DeleteFunc(others, func(p *table.Mount) bool {
		return !slices.ContainsFunc(wanted, func(w *table.Mount) bool { return w.LayerKey == p.LayerKey })
	})
	for _, p := range append(others, wanted...) {
		if e.isOnRecord(p.TargetKey) {
			continue
		}
		p, err := e.findForeign(p.Resolved, p.TargetKey)
		if err != nil {
			failed = append(failed, err)
		} else if p != nil {
			found = append(found, p)
		}
	}
	return found, failed
}

// isOnRecord reports whether a mount on record is at its target now. What a killed process has left does not count:
// containerd's own package may have mounted since. A Mount in progress does not count either, unless it is of type
// bind: record waits for its lock.
func (e *engine) isOnRecord(target table.Key) bool {
	names, err := e.table.At(target)
	return err != nil || slices.ContainsFunc(names, func(name table.Name) bool {
		if e.table.IsStale(name) {
			return false
		}
		r, err := e.table.Load(name)
		if err != nil {
			return !winfs.NotExist(err)
		}
		r.Release()
		return (r.State == table.Shown || r.Type == bindType) && e.mayBeShown(r)
	})
}

// record puts a mount on record that containerd's own package has made. It does nothing if the mount has gone, or if
// another process has put it on record.
func (e *engine) record(p *table.Mount) error {
	l, err := e.lockLayer(p.LayerKey) // a Mount of the layer holds the lock until it is done
	if err != nil {
		return err
	}
	defer l.unlock()
	if isThere, err := e.isBoundTo(p); !isThere || err != nil || e.isOnRecord(p.TargetKey) {
		return err
	}
	return e.addForeign(l, p)
}

// addSince looks for mounts of containerd's own package if a mount of the layer on record is over, and puts them on
// record. It does nothing if another mount than the one that is leaving keeps the layer open.
func (e *engine) addSince(l *lockedLayer, leaving table.Name) error {
	if slices.ContainsFunc(l.mounts, func(r *table.Mount) bool { return r.Name != leaving && e.mayBeOpen(r) && e.needsLayer(r) }) {
		return nil
	}
	var failed []error
	for _, r := range slices.Clone(l.mounts) {
		if r.Type == bindType || e.table.IsStale(r.Name) || e.needsLayer(r) {
			continue
		}
		found, errs := e.foreign(filepath.Dir(r.Resolved), func(_ string, layer table.Key) bool { return layer == r.LayerKey })
		failed = append(failed, errs...)
		for _, p := range found {
			if p.LayerKey == r.LayerKey {
				failed = append(failed, e.addForeign(l, p))
			}
		}
	}
	return stderrors.Join(failed...)
}

// addForeign puts a mount on record that containerd's own package has made of a layer. If a record for the target is
// over, p takes its place. addForeign does nothing if the binding may be what a killed process of ours has left.
func (e *engine) addForeign(l *lockedLayer, p *table.Mount) error {
	for _, r := range l.mounts {
		switch {
		case r.TargetKey != p.TargetKey || e.table.IsStale(r.Name):
		case r.Binding && r.State != table.Opening && r.State != table.Closed && r.Volume == p.Volume:
			return nil // the binding may be our own
		default:
			r.Record = p.Record // what was on record is over
			return r.Save(false)
		}
	}
	r, err := e.table.Create(p.LayerKey, p.TargetKey, p.Record)
	if err == nil {
		l.mounts = append(l.mounts, r)
	}
	return err
}

// findForeign returns what would be on record if this package had mounted what containerd's has bound to path, or
// nil if it has bound nothing there. The stream says which layer that is. It counts only if a program that opens
// path finds the layer: a copy of the directory may have the stream, too, and the layer has it itself. Whatever
// fails is tried again: opening a file through a binding may fail for an instant (Windows-Containers 635).
func (e *engine) findForeign(path string, key table.Key) (p *table.Mount, err error) {
	err = e.pause.Do(noContext, retry.Always, func() error {
		source, err := readSource(streamOf(path))
		if p = nil; err == nil && winpath.CheckLayer(source) == nil {
			p, err = e.planForeign(path, key, source)
		}
		return err
	})
	if err != nil {
		if isBound, _ := e.seemsBound(path); !isBound {
			return nil, nil
		}
	}
	return p, errors.WithMessage(err, "failed to look for a layer of containerd's")
}

// isTheirs reports whether containerd's own package has bound another layer to the target of a mount. If that layer
// has got the volume of the mount, the binding may be the old one.
func (e *engine) isTheirs(r *table.Mount) bool {
	source, err := readSource(streamOf(r.Resolved))
	if err != nil || source == "" || source == r.Source || r.Type == bindType {
		return false // a mount of type bind shows the stream of the layer that its source is in
	}
	p, err := e.findForeign(r.Resolved, r.TargetKey)
	return err == nil && p != nil && p.LayerKey != r.LayerKey && p.Volume != r.Volume
}

// seemsBound reports whether there is a sign that something is bound to path.
func (e *engine) seemsBound(path string) (bool, error) {
	if sources, err := e.boundTo(path); err == nil {
		return len(sources) > 0, nil
	}
	return e.isOtherVolume(path)
}

// planForeign is one attempt of findForeign.
func (e *engine) planForeign(path string, key table.Key, source string) (*table.Mount, error) {
	p, err := planLayer(&Mount{Source: source})
	if err != nil {
		return nil, err
	}
	p.State, p.Target, p.Resolved, p.Directory, p.Binding = table.Shown, winpath.Plain(path), path, true, true
	p.TargetKey = key
	if hcs.Disk(p.Disk) != hcs.NoDisk { // or HCS need not be asked
		isBound, err := e.seemsBound(path)
		if err != nil {
			return nil, err
		}
		if isBound {
			p.Volume = e.layers.VolumeOf(p.Dir)
		}
		if isBound && p.Volume == "" && hcs.Disk(p.Disk) == hcs.OwnDisk {
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
