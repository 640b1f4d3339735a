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
// source, over another one, its root: for all processes, and until the system ends.
type bindFilter interface {
	// Bind lays source over root, where nothing may be bound yet. A volume needs a separator
	// at its end.
	Bind(root, source string, readOnly bool) error
	// Unbind takes the binding away that has this root.
	Unbind(root string) error
	// Bindings returns what is bound at directories of the volume that path is on. It fails
	// when any of them has gone, or any that is bound.
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

// checkUnbound refuses a target at which something is bound already: should Bind fail, what is
// there then must be known not to be of another program. A list that cannot be had does not
// matter yet, as Bind refuses what is bound, too.
func (mt *mounter) checkUnbound(at *target) error {
	bound, err := mt.boundAt(at)
	if errors.Is(err, errNoFilter) {
		return err
	}
	if len(bound) > 0 {
		return errors.Wrapf(os.ErrExist, "failed to mount at %s: %s is bound there", at.Path, bound[0])
	}
	return nil
}

// boundAt returns what is bound at a target.
func (mt *mounter) boundAt(at *target) (sources []string, err error) {
	bindings, err := mt.filter.Bindings(filepath.Dir(at.Resolved))
	for _, b := range bindings {
		if foldCase(filepath.Base(b.root)) != foldCase(filepath.Base(at.Resolved)) {
			continue
		}
		if root, err := newTarget(b.root); err == nil && root.Key == at.Key {
			sources = append(sources, b.source)
		}
	}
	return sources, errors.Wrap(err, "failed to list what is bound")
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
	if _, listErr := mt.boundAt(at); listErr != nil {
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
		bound, listErr := mt.boundAt(at)
		if len(bound) > 0 && !slices.ContainsFunc(bound, r.isSource) {
			at.Made, err = false, nil // the directory is in use
			return true
		}
		if listErr != nil && isGone(at.Resolved) && os.Mkdir(at.Resolved, 0o755) == nil {
			at.Made = true // A binding whose root has gone may not be found, nor the others be listed.
		}
		// It is asked also where nothing is listed, as names may differ.
		err = mt.filter.Unbind(at.Resolved)
		if listErr == nil && len(bound) == 0 || listErr != nil && isAny(err, notBound...) || !isDirectory(at.Resolved) {
			err = nil // it has gone
		}
		return err == nil
	})
	return errors.Wrapf(err, "failed to unbind layer %s from %s", r.Source, at.Path)
}

// isSource reports whether a path that the bind filter gives is what is bound of the layer.
func (r *record) isSource(path string) bool {
	if sameLink(path, r.destination()) {
		return true
	}
	bound, err := os.Stat(path)
	if err != nil {
		return false
	}
	layer, err := os.Stat(r.destination())
	return err == nil && os.SameFile(bound, layer)
}
