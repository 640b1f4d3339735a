package mount

import (
	stderrors "errors"
	"os"

	"github.com/pkg/errors"
)

// lookup returns what the table knows of the mount at dir. It waits for nobody.
func lookup(mt *mounter, dir string) (Info, error) {
	dir, err := absolute(dir)
	if err != nil {
		return Info{}, errors.WithMessage(err, "failed to look up mount")
	}
	at, err := newTarget(dir)
	if err != nil {
		return Info{}, err
	}
	r, err := mt.table.recordAt(at.Key)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Info{}, err
	}
	if recorded := r.targetAt(at.Key); recorded != nil && recorded.Shown && r.Boot == mt.boot {
		return r.info(recorded), nil
	}
	return Info{}, errors.WithStack(&os.PathError{Op: "look up mount", Path: dir, Err: os.ErrNotExist})
}

// list returns every mount on record, and an error for what it cannot read.
func list(mt *mounter) (infos []Info, err error) {
	if exists, err := mt.table.holdIfThere(); !exists || err != nil {
		return nil, err
	}
	unread, err := mt.table.each(func(r record) {
		for i := range r.Targets {
			infos = append(infos, r.info(&r.Targets[i]))
		}
	})
	return infos, stderrors.Join(append(unread, err)...)
}
