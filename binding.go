package mount

import (
	stderrors "errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// bindFilter is the bind filter of Windows. A binding shows the files of one directory, its source, at
// another one, its root: to all processes, and until Windows shuts down.
type bindFilter interface {
	// Find returns an error that matches errNoFilter where Windows has no bind filter.
	Find() error
	// Bind shows source at root. A source that is a volume must end in a separator. Windows Server
	// 2019 hides what another program has bound to the root; later versions refuse.
	Bind(root, source string, readOnly bool) error
	// Unbind removes what is bound to root. It fails while another binding lies below root.
	Unbind(root string) error
	// Bindings returns the bindings on the volume of path. It fails on Windows Server 2019, which
	// has no such call (go-winio pull request 274), and if the root or the source of any binding
	// is gone.
	Bindings(path string) ([]binding, error)
	// FileID and VolumeOf return what those of winfs do for what a program finds at path, which is the source
	// if path is bound.
	FileID(path string) (string, error)
	VolumeOf(path string) (uint64, error)
}

// binding is what is bound to a root.
type binding struct{ root, source string }

// errNoFilter is returned, wrapped, where Windows has no bind filter.
var errNoFilter = errors.WithMessage(stderrors.ErrUnsupported,
	"this system has no bind filter, which came with Windows Server 2019: show layers by links, with UseBindFilter(false)")

// bind binds the layer to the target.
func (e *engine) bind(r *table.Mount) error {
	r.State, r.Unseen = table.Linked, true
	err := e.makeRoot(r)
	if err == nil {
		err = r.Save(false) // Windows forgets the binding if the power fails
	}
	if err == nil {
		err = e.writeSource(r)
	}
	if err != nil {
		r.State = table.Opening
		return err
	}
	err = e.pause.Do(noContext, isLate, func() error { // the volume may be late
		return e.filter.Bind(r.Resolved, destination(r), r.ReadOnly)
	})
	found, lookErr := e.filter.FileID(r.Resolved)
	if err == nil {
		r.Unseen = lookErr != nil || found == r.Hidden
		return nil
	}
	// Bind may have failed because of what another program has bound there, which must stay.
	if lookErr == nil && found == r.Hidden && !e.isListed(r) {
		r.State = table.Opening // nothing of ours is bound there
	}
	if errors.Is(err, os.ErrPermission) {
		err = errors.WithMessage(err, "the bind filter is denied to this process, as in a HostProcess container: "+
			"mount outside of it, or by links, with UseBindFilter(false)")
	}
	return errors.Wrapf(err, "failed to bind %s to %s", nameOf(r), r.Target)
}

// makeRoot makes the directory at the target, if there is none, and records which directory the binding hides.
func (e *engine) makeRoot(r *table.Mount) (err error) {
	if !r.Directory {
		if err := r.Save(false); err != nil {
			return err
		}
		if err := winfs.WhileBusy(e.pause, func() error { return os.Mkdir(r.Resolved, 0o755) }); err != nil {
			return errors.Wrapf(err, "failed to make directory %s", r.Target)
		}
	}
	if r.Hidden, err = e.filter.FileID(r.Resolved); err != nil && !r.Directory {
		err = withUndo(err, winfs.RemoveDir(r.Resolved))
	}
	return errors.Wrapf(err, "failed to look at directory %s", r.Target)
}

// isOtherVolume reports whether what a program finds at path is on another volume than the directory that path
// is in. Then something is bound to path.
func (e *engine) isOtherVolume(path string) (bool, error) {
	volume, err := e.filter.VolumeOf(path)
	if err != nil {
		return false, err
	}
	parent, err := e.filter.VolumeOf(filepath.Dir(path)) // which fails if that is bound to what is gone
	return err == nil && volume != parent, nil
}

// findsLayer reports whether a program that opens the target of a binding finds the source of the binding. No code of
// the bind filter proves as much, and a list cannot always be had. If the source is a volume, any other volume at the
// target looks the same: root directories have the same ID.
func (e *engine) findsLayer(r *table.Mount) (bool, error) {
	found, err := e.filter.FileID(r.Resolved)
	if err != nil || found == r.Hidden {
		return false, err // in the second case it is the directory that the binding would hide
	}
	source, err := winfs.FileID(destination(r))
	if winfs.NotExist(err) {
		return false, nil // something else is there: a binding to a missing source cannot be opened
	}
	return err == nil && found == source, err
}

// unbind removes the binding of the layer from the target, and the directory that was made for it. It leaves
// alone what another program has bound there since, as far as bindings can be listed.
func (e *engine) unbind(r *table.Mount) error {
	sources, listErr := e.boundTo(r.Resolved)
	others := slices.DeleteFunc(slices.Clone(sources), func(source string) bool { return isDestination(r, source) })
	switch {
	case len(others) > 0 && len(others) < len(sources):
		return errors.Errorf("failed to unbind %s from %s: %s is also bound there: unbinding would remove it too", nameOf(r), r.Target, others[0])
	case len(others) > 0:
		return nil // another program uses the directory
	case e.table.IsStale(r.Name), e.filter.Find() != nil:
		return e.removeMade(r) // nothing is bound
	case listErr != nil && !r.Unseen:
		if isThere, err := e.findsLayer(r); err == nil && !isThere || e.isTheirs(r) {
			return e.removeMade(r) // Unbind could remove what another program has bound
		}
	}
	var rootErr error
	if missing := missingDirs(r.Resolved); len(missing) > 0 {
		// Without its root, Windows may not find the binding, and may list no bindings at all. What a program then
		// finds there may be the source, so the new directory has no ID.
		r.Directory, r.Hidden = false, ""
		rootErr = stderrors.Join(r.Save(false), winfs.WhileBusy(e.pause, func() error { return os.MkdirAll(r.Resolved, 0o755) }))
		defer func() {
			for _, dir := range missing[1:] { // the first is removed by removeMade, or may be bound
				_ = winfs.RemoveDir(dir) // or it is in use again
			}
		}()
	}
	var err, lookErr error
	isThere := false
	isUnbound := e.pause.Until(noContext, func() bool {
		err = e.filter.Unbind(r.Resolved)
		isThere, lookErr = e.findsLayer(r)
		return !isThere && (err == nil || lookErr == nil && !r.Unseen)
	})
	_, parentErr := os.Lstat(filepath.Dir(r.Resolved))
	switch {
	case isThere:
		err = stderrors.Join(err, errors.New("it is still bound"))
	case isUnbound, isNotBound(err) && (winfs.NotExist(parentErr) || r.Unseen && !e.isListed(r)):
		return e.removeMade(r)
	}
	return errors.Wrapf(stderrors.Join(err, rootErr), "failed to unbind %s from %s", nameOf(r), r.Target)
}

// nameOf returns what errors call the thing that a mount shows.
func nameOf(r *table.Mount) string {
	if r.Type == bindType {
		return "directory " + r.Source
	}
	return "layer " + r.Source
}

// isNotBound reports whether Unbind says that nothing is bound: with ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND,
// ERROR_DIRECTORY if somebody has put a file there, or one of the codes that containerd tolerates,
// ERROR_INVALID_PARAMETER and ERROR_NOT_FOUND. They count only where looking at the target tells nothing, and once
// they are the answer to the last attempt: one answer may be false.
func isNotBound(err error) bool { return winfs.IsAny(err, 2, 3, 87, 267, 1168) }

// hasName reports whether a path is a name in its directory. If the source of a binding is gone, its root cannot be
// opened until the source is back, and is still a name.
func hasName(path string) (bool, error) {
	names, err := winfs.Match(filepath.Split(path))
	if winfs.NotExist(err) {
		err = nil
	}
	return len(names) > 0, err
}

// missingDirs returns path and the directories that it is in, as far as they are not there, the deepest first.
func missingDirs(path string) (missing []string) {
	for ; path != filepath.Dir(path); path = filepath.Dir(path) {
		if isThere, err := hasName(path); isThere || err != nil {
			break
		}
		missing = append(missing, path)
	}
	return missing
}

// removeMade removes the directory that Mount made for a binding. It leaves alone one that somebody has put in
// its place, and one that is not empty any more.
func (e *engine) removeMade(r *table.Mount) error {
	if r.Directory || !r.Binding || r.State == table.Opening && r.Hidden == "" {
		return nil
	}
	found, err := e.filter.FileID(r.Resolved)
	isOther := found != r.Hidden
	if err == nil && r.Hidden == "" {
		isOther, err = e.isOtherVolume(r.Resolved)
	}
	if err == nil {
		if isOther {
			return nil // to remove the directory would remove what another program has bound there
		}
		err = winfs.WhileBusy(e.pause, func() error { return winfs.RemoveDir(r.Resolved) })
	}
	if err == nil || winfs.NotExist(err) {
		return nil
	}
	if _, isEmpty, inspectErr := inspect(r.Resolved); inspectErr != nil || !isEmpty {
		return nil
	}
	return errors.Wrap(err, "failed to remove the directory that was made for a binding")
}

// isListed reports whether the list of bindings has the layer at the target.
func (e *engine) isListed(r *table.Mount) bool {
	sources, _ := e.boundTo(r.Resolved)
	return slices.ContainsFunc(sources, func(source string) bool { return isDestination(r, source) })
}

// boundTo returns the sources of the bindings whose root is a target. The list tells whose a binding is. It
// is not waited for: it fails as long as one dead binding of anybody is on the volume.
func (e *engine) boundTo(target string) (sources []string, err error) {
	bindings, err := e.filter.Bindings(filepath.Dir(target))
	if err != nil {
		return nil, err
	}
	for _, b := range bindings {
		isTarget := winpath.Equal(b.root, target)
		if !isTarget && winpath.Equal(filepath.Base(b.root), filepath.Base(target)) {
			root, _, err := winfs.ResolveParent(b.root)
			isTarget = err == nil && winpath.Equal(root.Path, target)
		}
		if isTarget {
			sources = append(sources, b.source)
		}
	}
	return sources, nil
}

// isDestination reports whether a path, as the bind filter lists it, is the source of a binding of the layer.
// Volumes are not compared by their serial numbers: scratch disks are copies of one another.
func isDestination(r *table.Mount, path string) bool {
	if winpath.Equal(path, destination(r)) {
		return true
	}
	bound, boundErr := winfs.Resolve(path)
	source, sourceErr := winfs.Resolve(destination(r))
	return boundErr == nil && sourceErr == nil && bound.Folded() == source.Folded()
}
