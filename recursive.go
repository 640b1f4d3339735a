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
// deepest first, and then what UnmountAll would. It is nil for "", and flags are
// not used.
//
// It reads the whole mount table, and waits for no Mount or Unmount elsewhere. It
// goes on after a failure and returns all errors, which are those of [Unmount]. Of
// damaged records it reports only that of mount itself: nobody can tell the target
// of another, which may be below mount and stays mounted. Mount and Unmount of that
// target report it, and CleanupTempMounts all.
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
	records, unread, err := mt.below(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, err := range unread {
		if !errors.Is(err, errDamaged) {
			errs = append(errs, err)
		}
	}
	for _, r := range records {
		_, err := mt.unmountTarget(ctx, r.TargetKey, "")
		errs = append(errs, err)
	}
	return stderrors.Join(append(errs, mt.unmountAll(ctx, path))...)
}

// below returns the records of the mounts below dir, the deepest first, and an
// error for each file of the table that cannot be read as a record. It takes no
// lock, so as not to wait for what goes on at other targets: a record is written
// whole.
func (mt *mounter) below(dir string) (records []record, unread []error, err error) {
	dir, err = absolute(dir)
	if err != nil {
		return nil, nil, errors.WithMessage(err, "failed to look for mounts")
	}
	keys, unread, err := mt.table.list()
	if err != nil || len(keys) == 0 {
		return nil, unread, err
	}
	if err := mt.table.prepare(); err != nil {
		return nil, nil, err
	}
	for _, target := range keys {
		r, err := mt.table.peek(target)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			unread = append(unread, err)
			continue
		}
		r = r.reachable()
		if isBelow(r.Target, dir) {
			records = append(records, r)
		}
	}
	sort.Slice(records, func(i, j int) bool { return len(records[i].Target) > len(records[j].Target) })
	return records, unread, nil
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
