package mount

import (
	"cmp"
	stderrors "errors"
	"os"

	"github.com/moby/sys/mountinfo"
	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// Info is what [Lookup] and [List] return of a mount. Mountpoint is its target, and Source the directory of the
// layer. Root is what the target shows: the volume of a writable layer, the directory of a read-only one, or
// the Files directory of one without parents. Root is empty if a killed process had not opened the layer yet.
// FSType is "windows-layer". For a mount of type "bind" it is "bind", and Root is its Source. Options is "ro" if
// the bind filter refuses writes. The other fields are zero.
type Info = mountinfo.Info

// Lookup returns which layer is mounted at dir, which must be a target itself. It does not wait for a Mount or
// Unmount, and does not look at the target: somebody may have removed the link. The error matches
// os.ErrNotExist if nothing is mounted there, as after a restart of Windows. Any other error says why dir or
// the mount table cannot be read. On other systems it returns [ErrNotImplementOnUnix].
func Lookup(dir string) (info Info, err error) {
	err = withEngine(func(e *engine) (err error) {
		info, err = e.lookup(dir)
		return err
	})
	return info, err
}

// List returns every mount on record. It includes those that a killed process or a restart of Windows has left,
// and those whose Unmount has failed. If other code has closed a layer, List clears its record away. For
// example, containerd's own package has unmounted the target. Otherwise List does not wait for a Mount or
// Unmount. If it cannot read some files of the mount table, it returns what it could read, and an error that
// names each of these files. On other systems it returns [ErrNotImplementOnUnix].
func List() (infos []Info, err error) {
	err = withEngine(func(e *engine) (err error) {
		infos, err = e.list()
		return err
	})
	return infos, err
}

func (e *engine) lookup(dir string) (Info, error) {
	dir, err := winpath.Abs(dir)
	var names []table.Name
	if err == nil {
		names, err = e.namesAt(dir)
	}
	if err != nil {
		return Info{}, errors.WithMessage(err, "failed to look up mount")
	}
	for _, name := range names {
		r, err := e.table.Load(name)
		if winfs.NotExist(err) {
			continue
		}
		if err != nil {
			return Info{}, err
		}
		r.Release()
		if r.State == table.Shown && !e.table.IsStale(name) {
			return infoOf(r), nil
		}
	}
	return Info{}, errors.WithStack(&os.PathError{Op: "look up mount", Path: dir, Err: os.ErrNotExist})
}

// namesAt returns the names of the mounts at a target.
func (e *engine) namesAt(path string) ([]table.Name, error) {
	target, _, err := winfs.ResolveParent(path)
	if err != nil {
		return nil, err
	}
	return e.table.At(table.KeyOf(target))
}

func (e *engine) list() (infos []Info, err error) {
	mounts, unread, err := e.records()
	for _, r := range mounts {
		if e.isClosedByOthers(r) && e.unmountOne(r.Name, e.checkNotLive) == nil {
			continue
		}
		if r.Target != "" { // or a process was killed before it recorded anything
			infos = append(infos, infoOf(r))
		}
	}
	return infos, stderrors.Join(append(unread, err)...)
}

// isClosedByOthers reports whether a mount is gone though nobody has called Unmount. For example, containerd's own
// package has unmounted it. It does not ask HCS.
func (e *engine) isClosedByOthers(r *table.Mount) bool {
	switch {
	case r.State != table.Shown, e.table.IsStale(r.Name):
		return false
	case hcs.IsVolume(r.Volume) && r.Type != bindType:
		return !hcs.IsReachable(r.Volume)
	}
	return r.Binding && !e.mayBeShown(r)
}

func infoOf(r *table.Mount) Info {
	info := Info{Mountpoint: r.Target, Source: r.Source, FSType: cmp.Or(r.Type, layerType)}
	if r.Volume != "" {
		info.Root = destination(r)
	}
	if r.ReadOnly {
		info.Options = "ro"
	}
	return info
}
