package hcstest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"syscall"
)

// Binding is a directory, the source, whose files the bind filter shows at another
// one, the root.
type Binding struct {
	Root, Source string
	ReadOnly     bool
}

// binding is what the bind filter knows about a root.
type binding struct {
	Binding
	Shown bool // see Model.Show
}

func (b binding) unknown() bool { return b == binding{} }

// Bind shows the source at the root, as go-winio's ApplyFileBinding does, which adds
// the separator to the name of a volume.
func (m *Model) Bind(root, source string, readOnly bool) error {
	args := " " + source
	if readOnly {
		args += " read-only"
	}
	return m.call(Bind, root, args, func() (syscall.Errno, error) {
		return m.takeBinding(root, func(b *binding, keep func() error) (syscall.Errno, error) {
			if m.isVolumeName(source) {
				return errInvalidParameter, nil // Assumption: go-winio's comment has "an error".
			}
			if code := checkDir(os.Stat(source)); code != 0 {
				return code, nil
			}
			if !b.unknown() {
				return m.Personality.BindTwice, nil
			}
			*b = binding{Binding{filepath.Clean(root), source, readOnly}, m.Show}
			return 0, b.add(keep)
		})
	})
}

// Unbind takes away what Bind showed at the root, as go-winio's RemoveFileBinding.
func (m *Model) Unbind(root string) error {
	return m.call(Unbind, root, "", func() (syscall.Errno, error) {
		// What is bound or unbound below it in between might as well have been before.
		var all []Binding
		if m.Personality.UnbindAncestor != 0 {
			var err error
			if all, err = m.bound(); err != nil {
				return 0, err
			}
		}
		return m.takeBinding(root, func(b *binding, keep func() error) (syscall.Errno, error) {
			switch {
			case b.unknown():
				return m.Personality.UnbindAbsent, nil
			case slices.ContainsFunc(all, func(other Binding) bool { return isBelow(other.Root, root) }):
				return m.Personality.UnbindAncestor, nil
			}
			return 0, b.drop(keep)
		})
	})
}

// Bindings returns the bindings of all roots that are on the volume of path, sorted,
// as go-winio's GetBindMappings does: that opens every root and source to learn their
// usual paths, and fails with ERROR_FILE_NOT_FOUND when any of them has gone.
func (m *Model) Bindings(path string) ([]Binding, error) {
	found, err := m.RawBindings(path)
	if err != nil {
		return nil, err
	}
	for _, b := range found {
		if !isDir(b.Root) || !isDir(b.Source) {
			return nil, &Error{Call: Bindings, Layer: path, Code: errFileNotFound}
		}
	}
	return found, nil
}

// RawBindings is Bindings without what go-winio adds to the call: it returns those as
// well whose root or source has gone.
func (m *Model) RawBindings(path string) ([]Binding, error) {
	var found []Binding
	err := m.call(Bindings, path, "", func() (syscall.Errno, error) {
		if m.Personality.BindingsCode != 0 {
			return m.Personality.BindingsCode, nil
		}
		if _, err := os.Stat(path); err != nil {
			return errPathNotFound, nil // Assumption: and not 2, ERROR_FILE_NOT_FOUND.
		}
		all, err := m.bound()
		for _, b := range all {
			if !strings.EqualFold(filepath.VolumeName(b.Root), filepath.VolumeName(path)) {
				continue
			}
			if m.Personality.BindingsOtherNames {
				b.Root = otherName(b.Root)
			}
			found = append(found, b)
		}
		return 0, err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Bound returns all bindings, sorted by root. It panics when it cannot read the state.
func (m *Model) Bound() []Binding {
	all, err := m.bound()
	if err != nil {
		panic(err)
	}
	return all
}

func (m *Model) bound() ([]Binding, error) {
	var all []Binding
	err := m.bindings.each(func(b *binding, _ func() error) error {
		if b.correct(); !b.unknown() {
			all = append(all, b.Binding)
		}
		return nil
	})
	sort.Slice(all, func(i, j int) bool { return all[i].Root < all[j].Root })
	return all, err
}

// BoundAt returns the binding of a root, of which a program finds the source there, and
// reports whether there is one. For a test of one process, to which no binding is shown,
// it is the only way to look, and so it is in no journal. It panics when it cannot read
// the state.
func (m *Model) BoundAt(root string) (Binding, bool) {
	var found binding
	err := m.bindings.update(key(root), func(b *binding, _ func() error) error {
		b.correct()
		found = *b
		return nil
	})
	if err != nil {
		panic(err)
	}
	return found.Binding, !found.unknown()
}

// takeBinding lets a call take effect on a root.
func (m *Model) takeBinding(root string, effect func(b *binding, keep func() error) (syscall.Errno, error)) (code syscall.Errno, err error) {
	err = m.bindings.update(key(root), func(b *binding, keep func() error) error {
		// Assumption: a link is no root, and what is bound cannot be named once
		// its root has gone.
		if code = checkDir(os.Lstat(filepath.Clean(root))); code != 0 {
			return nil
		}
		b.correct()
		code, err = effect(b, keep)
		return err
	})
	return code, err
}

// isBelow reports whether a path is one of a directory's inner ones, as a text.
func isBelow(path, dir string) bool {
	return strings.HasPrefix(key(path), strings.TrimRight(key(dir), string(filepath.Separator))+string(filepath.Separator))
}

// checkDir returns the code for what is no directory, or 0.
// Assumption: it is 3, and not 2, for what is absent.
func checkDir(info os.FileInfo, err error) syscall.Errno {
	switch {
	case err != nil:
		return errPathNotFound
	case !info.IsDir():
		return errDirectory
	}
	return 0
}

// add keeps a new binding, and shows it. If the process is killed in between there is
// none: see correct.
func (b *binding) add(keep func() error) error {
	if err := keep(); err != nil {
		return err
	}
	if err := linkStream(b.Binding); err != nil || !b.Shown {
		return err
	}
	if err := show(b.Binding); err != nil {
		err = fmt.Errorf("failed to show %s: %v: %w", b.Source, err, &Error{Bind, b.Root, errNotSupported})
		*b = binding{}
		return errors.Join(err, keep())
	}
	return nil
}

// drop removes a binding.
func (b *binding) drop(keep func() error) error {
	if b.Shown && shown(b.Root) {
		if err := hide(b.Root); err != nil {
			return err
		}
	}
	unlinkStream(b.Root)
	*b = binding{}
	return keep()
}

// stream is the stream of a directory in which containerd keeps the source of a layer that is bound there. NTFS has
// streams; here it is a file beside the directory, of which a link at the root of a binding leads to that of the
// source: what is bound has the streams of the source, too.
const stream = ":containerd.io-source"

func linkStream(b Binding) error {
	unlinkStream(b.Root) // of a binding that a process was killed while it removed
	return symlink(filepath.Clean(b.Source)+stream, filepath.Clean(b.Root)+stream)
}

func unlinkStream(root string) { _ = unlink(filepath.Clean(root) + stream) } // or there is none

// correct drops a binding that is not shown but was to be: a process was killed before
// it was, or when it no longer was.
func (b *binding) correct() {
	if b.Shown && !shown(b.Root) {
		*b = binding{}
	}
}

// isVolumeName reports whether the path names a volume and not its root directory,
// for which it takes a separator at the end.
func (m *Model) isVolumeName(path string) bool {
	if runtime.GOOS == "windows" {
		return strings.HasPrefix(path, `\\?\Volume{`) && strings.HasSuffix(path, "}")
	}
	return m.volumes != "" && filepath.Dir(path) == filepath.Clean(m.volumes)
}

// otherName returns another path of a directory, which is longer than it has to be.
func otherName(path string) string {
	if strings.HasPrefix(path, `\\?\`) {
		return path // it is taken literally
	}
	dir, separator := filepath.Dir(path), string(filepath.Separator)
	return strings.Join([]string{dir, "..", filepath.Base(dir), filepath.Base(path)}, separator)
}
