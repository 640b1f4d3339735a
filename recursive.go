package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/pkg/errors"
)

// UnmountRecursive unmounts every mount whose target is mount or below it, the
// deepest first, and then what UnmountAll would. It reads the whole mount table.
// It goes on after a failure, and returns all errors, which are those of
// [Unmount].
func UnmountRecursive(mount string, flags int) error {
	mt, err := newMounter()
	if err != nil {
		return err
	}
	return mt.unmountRecursive(context.Background(), mount)
}

func (mt *mounter) unmountRecursive(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	records, errs, err := mt.below(ctx, path)
	if err != nil {
		return err
	}
	for _, r := range records {
		_, err := mt.unmountTarget(ctx, record{TargetKey: r.TargetKey})
		errs = append(errs, err)
	}
	return stderrors.Join(append(errs, mt.unmountAll(ctx, path))...)
}

// below returns the records of the mounts below dir, the deepest first, and an
// error for each record that cannot be read.
func (mt *mounter) below(ctx context.Context, dir string) (records []record, failed []error, err error) {
	dir, err = absolute(dir)
	if err != nil {
		return nil, nil, errors.WithMessage(err, "failed to look for mounts")
	}
	keys, err := mt.table.list()
	if err != nil || len(keys) == 0 {
		return nil, nil, err
	}
	if err := mt.table.prepare(); err != nil {
		return nil, nil, err
	}
	for _, target := range keys {
		r, err := mt.peek(ctx, target)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if isBelow(r.Target, dir) {
			records = append(records, r)
		}
	}
	sort.Slice(records, func(i, j int) bool { return len(records[i].Target) > len(records[j].Target) })
	return records, failed, nil
}

// peek returns the record of a target, or else the pending one.
func (mt *mounter) peek(ctx context.Context, target key) (record, error) {
	unlock, err := mt.table.lockTarget(ctx, target)
	if err != nil {
		return record{}, err
	}
	defer unlock()
	r, err := mt.table.read(target)
	if errors.Is(err, os.ErrNotExist) {
		return mt.table.readPending(target)
	}
	return r, err
}

// isBelow tells whether path is below dir, as they are written or as the system
// knows them.
func isBelow(path, dir string) bool {
	if hasPrefixDir(foldCase(path), foldCase(dir)) {
		return true
	}
	path, err := canonical(filepath.Dir(path))
	if err != nil {
		return false
	}
	dir, err = canonical(dir)
	return err == nil && hasPrefixDir(foldCase(filepath.Join(path, "x")), foldCase(dir))
}

func hasPrefixDir(path, dir string) bool {
	separator := string(filepath.Separator)
	return strings.HasPrefix(path, strings.TrimSuffix(dir, separator)+separator)
}
