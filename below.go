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

func isBelow(path, dir string) bool { return winpath.Contains(dir, path) && !winpath.Equal(dir, path) }

// search returns the mounts on record whose target has a path that matches, the deepest first, and an error for
// each file of the table that cannot be read. That does not depend on links, which may be gone. If asGiven is
// set, a path that cannot be resolved counts as Mount was given it. For example, its drive has lost the medium.
func (e *engine) search(asGiven bool, matches func(path string) bool) (found []*table.Mount, unread []error, err error) {
	all, unread, err := e.records()
	showing := map[string][]*table.Mount{} // by the directory that they show
	for _, r := range all {
		if r.Volume != "" && r.Type != bindType { // what is mounted in a plain directory is not below its bindings
			dir := winpath.Comparable(destination(r))
			showing[dir] = append(showing[dir], r)
		}
	}
	depth, paths := map[*table.Mount]int{}, map[*table.Mount][]string{}
	for _, r := range all {
		paths[r] = e.pathsOf(r, showing, nil)
		for _, path := range paths[r] {
			depth[r] = max(depth[r], len(path))
		}
		if slices.ContainsFunc(paths[r], matches) || asGiven && matches(r.Target) {
			found = append(found, r)
		}
	}
	slices.SortStableFunc(found, func(a, b *table.Mount) int { return depth[b] - depth[a] })
	return inOrder(found, paths), unread, err
}

// inOrder returns mounts so that each comes before those that it lies in, and a mount of type bind before those that
// show its source. Otherwise they stay in order.
func inOrder(mounts []*table.Mount, paths map[*table.Mount][]string) (sorted []*table.Mount) {
	isFirst := func(r, outer *table.Mount) bool {
		if slices.ContainsFunc(paths[r], func(path string) bool { return isBelow(path, outer.Resolved) }) {
			return true
		}
		return r.Type == bindType && (winpath.Contains(outer.Resolved, r.Dir) || winpath.Contains(outer.Target, r.Source) ||
			outer.Type != bindType && outer.Volume != "" && winpath.Contains(outer.Volume, r.Dir))
	}
	if !slices.ContainsFunc(mounts, func(r *table.Mount) bool { return r.Type == bindType }) {
		return mounts // the deepest first, which is the same
	}
	isDone := map[*table.Mount]bool{}
	var visit func(outer *table.Mount)
	visit = func(outer *table.Mount) {
		if isDone[outer] {
			return
		}
		isDone[outer] = true // also if they lead in a circle
		for _, r := range mounts {
			if !isDone[r] && isFirst(r, outer) {
				visit(r)
			}
		}
		sorted = append(sorted, outer)
	}
	for _, r := range mounts {
		visit(r)
	}
	return sorted
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
