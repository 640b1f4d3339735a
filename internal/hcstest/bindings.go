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

// Binding is a binding of the bind filter: it shows the files of the directory Source at the directory Root.
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

// Bind shows the source at the root, like go-winio's ApplyFileBinding. That function adds a separator to a source
// that is the name of a volume; Bind rejects such a name without the separator.
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

// Unbind removes the binding that Bind made at the root, like go-winio's RemoveFileBinding.
func (m *Model) Unbind(root string) error {
	return m.call(Unbind, root, "", func() (syscall.Errno, error) {
		// Another process may change the bindings between here and takeBinding. That does no harm: it could have
		// changed them just before as well.
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

// Bindings returns the bindings whose roots are on the volume of path, sorted by root, like go-winio's
// GetBindMappings. That function opens every root and source to find their usual paths. If any of them is gone,
// it fails with ERROR_FILE_NOT_FOUND, and so does Bindings.
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

// RawBindings is like Bindings, but does only what the call of the bind filter does, without what go-winio adds.
// It also returns bindings whose root or source is gone.
func (m *Model) RawBindings(path string) ([]Binding, error) {
	var found []Binding
	err := m.call(Bindings, path, "", func() (syscall.Errno, error) {
		if m.Personality.BindingsCode != 0 {
			return m.Personality.BindingsCode, nil
		}
		if _, err := os.Stat(path); err != nil {
			return errPathNotFound, nil // Assumption: it is this code, and not 2, ERROR_FILE_NOT_FOUND.
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

// Bound returns all bindings, sorted by root. It panics if it cannot read the state.
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

// BoundAt returns the binding of a root, and reports whether there is one. On a real host a program finds the
// source at the root. In a test of one process the model does not show bindings, so the test has to call BoundAt
// instead. For this reason BoundAt does not add to the journal. It panics if it cannot read the state.
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

// takeBinding applies the effect of a call to a root.
func (m *Model) takeBinding(root string, effect func(b *binding, keep func() error) (syscall.Errno, error)) (code syscall.Errno, err error) {
	err = m.bindings.update(key(root), func(b *binding, keep func() error) error {
		// Assumption: a root cannot be a link, and no call can name a binding whose root is gone.
		if code = checkDir(os.Lstat(filepath.Clean(root))); code != 0 {
			return nil
		}
		b.correct()
		code, err = effect(b, keep)
		return err
	})
	return code, err
}

// isBelow reports whether path lies below dir. It compares them as text.
func isBelow(path, dir string) bool {
	return strings.HasPrefix(key(path), strings.TrimRight(key(dir), string(filepath.Separator))+string(filepath.Separator))
}

// checkDir returns a Windows code if the file is absent or is not a directory, and 0 otherwise.
// Assumption: if the file is absent, the code is 3, and not 2.
func checkDir(info os.FileInfo, err error) syscall.Errno {
	switch {
	case err != nil:
		return errPathNotFound
	case !info.IsDir():
		return errDirectory
	}
	return 0
}

// add keeps a new binding and then shows it. If the process is killed in between, correct drops the binding.
func (b *binding) add(keep func() error) error {
	if err := keep(); err != nil {
		return err
	}
	if err := linkStream(b.Binding); err != nil || !b.Shown {
		return err
	}
	if err := show(b.Binding); err != nil {
		err = fmt.Errorf("show %s: %v: %w", b.Source, err, &Error{Bind, b.Root, errNotSupported})
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

// stream is the name of the NTFS stream of a directory in which containerd keeps the source of a layer that is
// bound there. The model uses a file beside the directory in place of the stream. A bound directory also has the
// streams of its source: so the file beside the root is a link to the file beside the source.
const stream = ":containerd.io-source"

func linkStream(b Binding) error {
	unlinkStream(b.Root) // a process may have been killed while it removed an earlier binding
	return symlink(filepath.Clean(b.Source)+stream, filepath.Clean(b.Root)+stream)
}

func unlinkStream(root string) { _ = unlink(filepath.Clean(root) + stream) } // fails if there is none

// correct drops a binding that should be shown but is not. This happens if a process was killed before it showed
// the binding, or after it had hidden it.
func (b *binding) correct() {
	if b.Shown && !shown(b.Root) {
		*b = binding{}
	}
}

// isVolumeName reports whether the path names a volume, and not its root directory. The path of the root directory
// has a separator at the end.
func (m *Model) isVolumeName(path string) bool {
	if runtime.GOOS == "windows" {
		return strings.HasPrefix(path, `\\?\Volume{`) && strings.HasSuffix(path, "}")
	}
	return m.volumes != "" && filepath.Dir(path) == filepath.Clean(m.volumes)
}

// otherName returns another path of the same directory, one that is longer than necessary.
func otherName(path string) string {
	if strings.HasPrefix(path, `\\?\`) {
		return path // Windows takes it literally, so ".." would not work
	}
	dir, separator := filepath.Dir(path), string(filepath.Separator)
	return strings.Join([]string{dir, "..", filepath.Base(dir), filepath.Base(path)}, separator)
}
