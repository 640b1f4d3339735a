package mount

import (
	"context"
	"os"

	"github.com/pkg/errors"
)

// lookup returns what the table knows of the mount at dir.
func (mt *mounter) lookup(ctx context.Context, dir string) (Info, error) {
	dir, err := absolute(dir)
	if err != nil {
		return Info{}, errors.WithMessage(err, "failed to look up mount")
	}
	target, err := targetKey(dir)
	if err != nil {
		return Info{}, err
	}
	none := errors.WithStack(&os.PathError{Op: "look up mount", Path: dir, Err: os.ErrNotExist})
	if !mt.table.has(target) {
		return Info{}, none
	}
	if err := mt.table.prepare(); err != nil {
		return Info{}, err
	}
	unlock, err := mt.table.lockTarget(ctx, target)
	if err != nil {
		return Info{}, err
	}
	defer unlock()
	r, err := mt.table.read(target)
	if errors.Is(err, os.ErrNotExist) || err == nil && r.Volume == "" {
		return Info{}, none
	}
	if err != nil {
		return Info{}, err
	}
	return Info{Mountpoint: r.Target, Source: r.Source, Root: r.link(), FSType: layerType}, nil
}
