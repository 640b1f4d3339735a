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

// bindFilter is the bind filter of Windows. A binding shows the files of one directory, its source, at
// another one, its root: to all processes, and until Windows shuts down.
type bindFilter interface {
	// Find returns an errNoFilter where there is no bind filter.
	Find() error
	// Bind shows source at root. A source that is a volume must end in a separator. Windows Server
	// 2019 hides what another program has bound to the root; later versions refuse.
	Bind(root, source string, readOnly bool) error
	// Unbind removes what is bound to root.
	Unbind(root string) error
	// Bindings returns the bindings on the volume of path. It fails on Windows Server 2019, which
	// has no such call (go-winio pull request 274), and when the root or the source of any binding
	// is gone.
	Bindings(path string) ([]binding, error)
}

// binding is what is bound to a root.
type binding struct{ root, source string }

// errNoFilter is found, by errors.Is, in the error of a call for which there is no bind filter.
var errNoFilter = errors.WithMessage(stderrors.ErrUnsupported,
	"this system has no bind filter, which came with Windows Server 2019: show layers by links, with UseBindFilter(false)")

// notBound are the codes of Unbind that containerd takes for the answer that nothing is bound. They
// count when the list, if there is one, shows nothing at the target.
var notBound = []syscall.Errno{errorInvalidParameter, errorNotFound}

// neverBound is the value of target.Bound for a target at which there is no binding of ours, as
// after a Mount that failed before it bound the layer. No start of the system has this name.
const neverBound = "never"

// binder binds layers to targets.
type binder struct {
	filter bindFilter
	pause  pauser
}

// bind binds the layer to a target.
func (b *binder) bind(r *record, at *target) error {
	if at.Made {
		if err := b.pause.whileBusy(func() error { return os.Mkdir(at.Resolved, 0o755) }); err != nil {
			at.Made, at.Bound = false, neverBound
			return errors.Wrapf(err, "failed to make directory %s", at.Path)
		}
		var err error
		if at.MadeID, err = fileID(at.Resolved); err != nil {
			at.Bound = neverBound
			return errors.Wrapf(err, "failed to look at directory %s", at.Path)
		}
	}
	// The volume may be late.
	isLate := func(err error) bool {
		return isAny(err, errorFileNotFound, errorPathNotFound) && !isGone(at.Resolved) || isAny(err, transient...)
	}
	err := b.pause.retry(context.Background(), isLate, func() error {
		return b.filter.Bind(at.Resolved, r.destination(), at.ReadOnly)
	})
	if err == nil {
		return nil
	}
	if _, listErr := b.listBindings(at); listErr != nil {
		// Another program may have bound something there, which must stay, and without a list
		// nobody can know. That Bind failed and has still bound our layer is less likely.
		at.Bound = neverBound
	}
	if isAny(err, errorAccessDenied) {
		err = errors.WithMessage(err, "the bind filter is denied to this process, as in a HostProcess container: "+
			"mount outside of it, or by links, with UseBindFilter(false)")
	}
	return errors.Wrapf(err, "failed to bind layer %s to %s", r.Source, at.Path)
}

// unbind removes the binding of the layer from a target. It leaves alone what another program has bound
// there since, as far as bindings can be listed.
func (b *binder) unbind(r *record, at *target) (err error) {
	b.pause.until(context.Background(), func() bool {
		bindings, listErr := b.listBindings(at)
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
			at.Made = true // without its root a binding may not be found, nor the others be listed
		}
		// Unbind is called even when the list shows nothing: the root may be listed by another name.
		if err = b.filter.Unbind(at.Resolved); err == nil {
			return true
		}
		isListed := len(bound) > 0 || slices.ContainsFunc(bindings, func(listed binding) bool { return r.isSource(listed.source) })
		isAbsent := isAny(err, errorFileNotFound, errorPathNotFound) && isGone(at.Resolved)
		if listErr == nil && !isListed || len(bound) == 0 && isAny(err, notBound...) || isAbsent || isNoDirectory(at.Resolved) {
			err = nil // it is gone
		}
		return err == nil
	})
	return errors.Wrapf(err, "failed to unbind layer %s from %s", r.Source, at.Path)
}

// checkUnbound refuses a target to which something is already bound. If Bind then fails and something is
// bound there, it is ours. A failure to list the bindings is ignored: Windows versions after Server 2019
// make Bind refuse such a target.
func (b *binder) checkUnbound(at *target) error {
	if sources := b.boundTo(at); len(sources) > 0 {
		return errors.Wrapf(os.ErrExist, "failed to mount at %s: %s is bound there", at.Path, sources[0])
	}
	return nil
}

// boundTo returns the sources that are bound to a target, or none where they cannot be listed.
func (b *binder) boundTo(at *target) []string {
	bindings, _ := b.listBindings(at)
	return sourcesAt(bindings, at)
}

// listBindings returns the bindings on the volume of a target. It is retried when the root of one of them is
// gone, as happens when another process unmounts meanwhile.
func (b *binder) listBindings(at *target) (bindings []binding, err error) {
	isChange := func(err error) bool { return isAny(err, errorFileNotFound, errorPathNotFound) }
	err = b.pause.retry(context.Background(), isChange, func() (err error) {
		bindings, err = b.filter.Bindings(filepath.Dir(at.Resolved))
		return err
	})
	return bindings, err
}

// sourcesAt returns the sources of the bindings whose root is the target.
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
