package mount

import (
	stderrors "errors"
	"os"

	"github.com/pkg/errors"
)

func (r *record) info(at *target) Info {
	info := Info{Mountpoint: at.Path, Source: r.Source, FSType: layerType}
	if r.Volume != "" {
		info.Root = r.destination()
	}
	if at.ReadOnly {
		info.Options = "ro"
	}
	return info
}

// lookup returns what the table knows of the mount at dir. It waits for nobody.
func (mt *mounter) lookup(dir string) (Info, error) {
	dir, err := absolute(dir)
	if err != nil {
		return Info{}, errors.WithMessage(err, "failed to look up mount")
	}
	at, err := newTarget(dir)
	if err != nil {
		return Info{}, err
	}
	r, err := mt.recordAt(at.Key)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Info{}, err
	}
	if recorded := r.at(at.Key); recorded != nil && recorded.Shown && r.Boot == mt.boot {
		return r.info(recorded), nil
	}
	return Info{}, errors.WithStack(&os.PathError{Op: "look up mount", Path: dir, Err: os.ErrNotExist})
}

// recordAt returns the record of the layer that the index has for a target.
func (mt *mounter) recordAt(target key) (r record, err error) {
	there, err := mt.table.isThere()
	if err == nil && !there {
		err = os.ErrNotExist
	}
	if err != nil {
		return r, err
	}
	layer, err := mt.table.layerAt(target)
	if err == nil {
		r, err = mt.table.read(layer)
	}
	return r, err
}

func (mt *mounter) list() (infos []Info, err error) {
	if there, err := mt.table.isThere(); !there || err != nil {
		return nil, err
	}
	unread, err := mt.table.each(func(r record) {
		for i := range r.Targets {
			infos = append(infos, r.info(&r.Targets[i]))
		}
	})
	return infos, stderrors.Join(append(unread, err)...)
}
