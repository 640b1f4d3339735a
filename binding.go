package mount

import (
	"context"
	stderrors "errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/pkg/errors"
)

// bindFilter is the bind filter of Windows. A binding lays the files of one directory, its
// source, over another one, its root: for all processes, and until Windows is started again.
type bindFilter interface {
	// Find returns an errNoFilter where there is no bind filter.
	Find() error
	// Bind lays source over root. A volume needs a separator at its end. Windows Server 2019
	// lays it over what another program has bound there; later ones refuse that.
	Bind(root, source string, readOnly bool) error
	// Unbind takes away what is bound at root.
	Unbind(root string) error
	// Bindings returns what is bound on the volume of path. It fails on Windows Server 2019, which
	// has no such call (go-winio pull request 274), and when the root or the source of any of
	// them has gone.
	Bindings(path string) ([]binding, error)
}

// binding is what is bound at a root.
type binding struct{ root, source string }

// errNoFilter matches the error of a call for which there is no bind filter.
var errNoFilter = errors.WithMessage(stderrors.ErrUnsupported,
	"this system has no bind filter, which came with Windows Server 2019: show layers by links, with UseBindFilter(false)")

// notBound are the codes that containerd takes for the answer of Unbind that nothing is bound. They
// count where the bindings cannot be listed.
var notBound = []syscall.Errno{errorInvalidParameter, errorNotFound}

// checkCover refuses a target whose files must not be hidden by a binding: HCS could not find the
// layer or its parents, nor other processes the table, nor Unmount a target in the directory.
func (mt *mounter) checkCover(r *record, at *target) error {
	for _, path := range append([]string{r.Resolved, mt.table.dir}, r.Parents...) {
		path, covered := bareLink(path), bareLink(at.Resolved)
		if isIn(path, covered) || isIn(covered, path) {
			return errors.Errorf("failed to mount at %s: it would hide files of %s", at.Path, path)
		}
	}
	if isEmpty(at.Resolved) {
		return nil // which most targets are, and the table may be long
	}
	below, _, err := mt.below(at.Path)
	if err == nil && len(below) > 0 {
		err = errors.Wrapf(os.ErrExist, "failed to mount at %s: layers are mounted in it, such as at %s", at.Path, below[0].Path)
	}
	return err
}

// checkUnbound refuses a target at which something is bound already: should Bind fail, what is
// there then must be known not to be of another program. That the list fails does not matter
// here, since Bind refuses what is bound, too, where Windows can.
func (mt *mounter) checkUnbound(at *target) error {
	if bound := mt.boundAt(at); len(bound) > 0 {
		return errors.Wrapf(os.ErrExist, "failed to mount at %s: %s is bound there", at.Path, bound[0])
	}
	return nil
}

// boundAt returns the sources that are bound at a target, as far as they can be known.
func (mt *mounter) boundAt(at *target) []string {
	bindings, _ := mt.listBindings(at)
	return sourcesAt(bindings, at)
}

// listBindings returns what is bound on the volume of a target. It is asked again where something
// has gone, as a directory does that another process unmounts.
func (mt *mounter) listBindings(at *target) (bindings []binding, err error) {
	hasGone := func(err error) bool { return isAny(err, errorFileNotFound, errorPathNotFound) }
	err = mt.table.pause.retry(context.Background(), hasGone, func() (err error) {
		bindings, err = mt.filter.Bindings(filepath.Dir(at.Resolved))
		return err
	})
	return bindings, err
}

// sourcesAt returns the sources of the bindings at a target.
func sourcesAt(bindings []binding, at *target) (sources []string) {
	for _, b := range bindings {
		if foldCase(filepath.Base(b.root)) != foldCase(filepath.Base(at.Resolved)) {
			continue
		}
		if root, err := newTarget(b.root); err == nil && root.Key == at.Key {
			sources = append(sources, b.source)
		}
	}
	return sources
}

// neverBound stands for a start of the system in the record of a target at which there is
// no binding of ours.
const neverBound = "never"

// bind binds the layer to a target.
func (mt *mounter) bind(r *record, at *target) error {
	if at.Made {
		if err := mt.table.whileBusy(func() error { return os.Mkdir(at.Resolved, 0o755) }); err != nil {
			at.Made, at.Bound = false, neverBound
			return errors.Wrapf(err, "failed to make directory %s", at.Path)
		}
	}
	// The volume may be late.
	isLate := func(err error) bool {
		return isAny(err, errorFileNotFound, errorPathNotFound) && !isGone(at.Resolved) || isAny(err, transient...)
	}
	err := mt.table.pause.retry(context.Background(), isLate, func() error {
		return mt.filter.Bind(at.Resolved, r.destination(), at.ReadOnly)
	})
	if err == nil {
		return nil
	}
	if _, listErr := mt.listBindings(at); listErr != nil {
		// Perhaps it was refused because another program has bound something there, which
		// must stay. Nobody can tell, and what fails has hardly had an effect.
		at.Bound = neverBound
	}
	if isAny(err, errorAccessDenied) {
		err = errors.WithMessage(err, "the bind filter is denied to this process, as in a HostProcess container: "+
			"mount outside of it, or by links, with UseBindFilter(false)")
	}
	return errors.Wrapf(err, "failed to bind layer %s to %s", r.Source, at.Path)
}

// unbind takes the binding of the layer away from a target. It leaves alone what another program
// has bound there since.
func (mt *mounter) unbind(r *record, at *target) (err error) {
	mt.until(context.Background(), func() bool {
		bindings, listErr := mt.listBindings(at)
		bound := sourcesAt(bindings, at)
		others := slices.DeleteFunc(slices.Clone(bound), r.isSource)
		if len(others) > 0 && len(others) == len(bound) {
			at.Made, err = false, nil // the directory is in use
			return true
		}
		if len(others) > 0 {
			err = errors.Errorf("%s is bound there, too, and would go with it", others[0])
			return false
		}
		if listErr != nil && isGone(at.Resolved) && os.Mkdir(at.Resolved, 0o755) == nil {
			at.Made = true // A binding whose root has gone may not be found, nor the others be listed.
		}
		// It is asked also where nothing is listed, as names may differ.
		if err = mt.filter.Unbind(at.Resolved); err == nil {
			return true
		}
		isListed := len(bound) > 0 || slices.ContainsFunc(bindings, func(b binding) bool { return r.isSource(b.source) })
		if listErr == nil && !isListed || len(bound) == 0 && isAny(err, notBound...) || !isDirectory(at.Resolved) {
			err = nil // it has gone
		}
		return err == nil
	})
	return errors.Wrapf(err, "failed to unbind layer %s from %s", r.Source, at.Path)
}

// isSource reports whether a path that the bind filter gives is what is bound of the layer. Two
// volumes are not compared by the numbers of their files: scratch disks are copies of one.
func (r *record) isSource(path string) bool {
	if sameLink(path, r.destination()) {
		return true
	}
	_, bound, boundErr := resolveSource(path)
	_, layer, layerErr := resolveSource(r.destination())
	return boundErr == nil && layerErr == nil && bound == layer
}
