package mount

import (
	"path/filepath"
	"slices"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// below returns the mounts on record below dir, the deepest first, and an error for each file of the table that
// cannot be read.
func (e *engine) below(dir string) (mounts []*table.Mount, unread []error, err error) {
	dir, err = winpath.Abs(dir)
	if err != nil {
		return nil, nil, errors.WithMessage(err, "failed to look for mounts")
	}
	target, _, _ := winfs.ResolveParent(dir) // where dir is a target itself
	name, err := winfs.Resolve(dir)
	return e.search(err != nil || !name.IsDir, func(path string) bool {
		return isBelow(path, name.Path) || isBelow(path, target.Path) || isBelow(path, dir)
	})
}

// adoptBelow puts on record what containerd's own package has bound below dir.
func (e *engine) adoptBelow(dir string) error {
	name, err := winfs.Resolve(dir)
	if err != nil {
		return nil // nothing can be bound there
	}
	return e.adoptEach(name.Path, func(p *plan) bool { return isBelow(p.Resolved, name.Path) })
}

func isBelow(path, dir string) bool { return winpath.Contains(dir, path) && !winpath.Equal(dir, path) }

// at is below for the mounts at path, if path does not tell where that is: a link on its way is gone. For
// example, a layer was shown by a link, a second one was mounted in it, and somebody has removed the link.
func (e *engine) at(path string) ([]*table.Mount, error) {
	target, parent, err := winfs.ResolveParent(path)
	mounts, _, err := e.search(err != nil || !parent.IsDir, func(p string) bool {
		return winpath.Equal(p, target.Path) || winpath.Equal(p, path)
	})
	return mounts, err
}

// search returns the mounts on record whose target has a path that matches, the deepest first, and an error for
// each file of the table that cannot be read. That does not depend on links, which may be gone. If asGiven is
// set, paths that cannot be resolved, as on a drive without its medium, count as Mount was given them.
func (e *engine) search(asGiven bool, matches func(path string) bool) (found []*table.Mount, unread []error, err error) {
	all, unread, err := e.records()
	showing := map[string][]*table.Mount{} // by the directory that they show
	for _, r := range all {
		if r.Volume != "" && r.Type != bindType { // what is mounted in a plain directory is not below its bindings
			dir := winpath.Comparable(destination(&r.Record))
			showing[dir] = append(showing[dir], r)
		}
	}
	depth := map[*table.Mount]int{}
	for _, r := range all {
		paths := e.pathsOf(r, showing, nil)
		for _, path := range paths {
			depth[r] = max(depth[r], len(path))
		}
		if slices.ContainsFunc(paths, matches) || asGiven && matches(r.Target) {
			found = append(found, r)
		}
	}
	for range found { // a chain of them has at most so many links
		for _, r := range found {
			for _, outer := range found {
				if r.Type == bindType && outer != r && isShownBy(outer, r) {
					depth[r] = max(depth[r], depth[outer]+1)
				}
			}
		}
	}
	slices.SortStableFunc(found, func(a, b *table.Mount) int { return depth[b] - depth[a] })
	return found, unread, err
}

// isShownBy reports whether the directory that a mount of type bind shows is in what another mount shows, which must
// stay until then.
func isShownBy(outer, r *table.Mount) bool {
	return winpath.Contains(outer.Resolved, r.Dir) || winpath.Contains(outer.Target, r.Source) ||
		outer.Volume != "" && winpath.Contains(outer.Volume, r.Dir)
}

// pathsOf returns the paths of a mount's target: the resolved one, and if that lies in what other mounts show,
// those by which it can be reached through them. Their links may be gone. Without those that lead through the
// mounts in via, which would lead in a circle.
func (e *engine) pathsOf(r *table.Mount, showing map[string][]*table.Mount, via []*table.Mount) []string {
	paths := []string{r.Resolved}
	via = append(slices.Clone(via), r)
	for dir, last := filepath.Dir(r.Resolved), r.Resolved; dir != last; dir, last = filepath.Dir(dir), dir {
		for _, outer := range showing[winpath.Comparable(dir)] {
			// The volume of an earlier start of Windows may be that of another layer now.
			isThere := !hcs.IsVolume(outer.Volume) || e.table.IsStale(outer.Name) == e.table.IsStale(r.Name)
			if !isThere || slices.Contains(via, outer) {
				continue
			}
			for _, path := range e.pathsOf(outer, showing, via) {
				paths = append(paths, filepath.Join(path, r.Resolved[len(dir):]))
			}
		}
	}
	return paths
}

// records returns all mounts on record, and an error for each file of the table that cannot be read.
func (e *engine) records() (mounts []*table.Mount, unread []error, err error) {
	names, err := e.table.All()
	for _, name := range names {
		r, err := e.table.Load(name)
		if err == nil {
			r.Release()
			mounts = append(mounts, r)
		} else if !winfs.NotExist(err) { // which means that it was unmounted meanwhile
			unread = append(unread, err)
		}
	}
	return mounts, unread, err
}
