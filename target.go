package mount

import (
	stderrors "errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

// The types of mounts.
const (
	layerType = "windows-layer" // what a snapshotter hands out for a layer
	bindType  = "bind"          // a directory, which the bind filter shows
)

// plan returns the record of m at target before anything is done. It returns an error if m is not a valid layer
// mount, or cannot be shown at target. It changes nothing.
func (e *engine) plan(m *Mount, target string) (*table.Mount, error) {
	path, err := m.mountpoint(target)
	if err == nil {
		err = m.checkWay(target)
	}
	if err == nil {
		err = checkType(m.Type)
	}
	if err != nil {
		return nil, err
	}
	planSource := planLayer
	if m.Type == bindType {
		planSource = planBind
	}
	p, err := planSource(m)
	if err != nil {
		return nil, err
	}
	name, parent, err := winfs.ResolveParent(path)
	if err == nil {
		p.State, p.Target, p.Resolved, p.TargetKey = table.Opening, path, name.Path, table.KeyOf(name)
		p.Binding = e.binds || m.Type == bindType
		p.ReadOnly = p.Binding && m.ReadOnly()
		if m.Type == bindType {
			p.LayerKey = p.TargetKey.OfNoLayer()
		}
		err = e.checkPlace(p, parent)
	}
	return p, errors.WithMessagef(err, "failed to mount at %s", path)
}

// planLayer is plan for what the record has of the layer.
func planLayer(m *Mount) (*table.Mount, error) {
	p, err := planOf(m.Source, winpath.CheckLayer)
	if err != nil {
		return nil, errors.WithMessage(err, "invalid layer source")
	}
	p.Disk = string(hcs.DiskOf(p.Source))
	p.Parents, err = m.GetParentPaths()
	return p, err
}

// planBind is plan for what the record has of the directory that a mount of type bind shows. It needs no opening.
func planBind(m *Mount) (*table.Mount, error) {
	for _, option := range m.Options {
		if !slices.Contains([]string{"rbind", "ro", "rw"}, option) {
			return nil, errors.Errorf("invalid bind mount: option %q is not supported", option)
		}
	}
	p, err := planOf(m.Source, winpath.Check)
	if err == nil {
		err = checkDirectory(p.Source)
	}
	if err != nil {
		return nil, errors.WithMessage(err, "invalid bind mount: source")
	}
	if winpath.IsRoot(p.Dir) {
		p.Dir = strings.TrimRight(p.Dir, `\/`) + string(filepath.Separator) // the root directory, and not the device
	}
	p.Type, p.Volume = bindType, p.Dir
	return p, nil
}

// planOf returns a record that has the directory at source. It returns an error if check rejects that, or what it
// leads to.
func planOf(source string, check func(path string) error) (*table.Mount, error) {
	if err := check(source); err != nil {
		return nil, err
	}
	source = filepath.Clean(source)
	name, err := winfs.Resolve(source)
	if err != nil {
		return nil, err
	}
	p := &table.Mount{Record: table.Record{Source: source, Dir: layerDir(source, name)}, Name: table.Name{LayerKey: table.KeyOf(name)}}
	return p, check(p.Dir)
}

// checkDirectory returns an error unless path leads to a directory.
func checkDirectory(path string) error {
	name, err := winfs.Resolve(path) // os.Stat takes longer: it also asks for the serial number of the volume
	if err != nil || name.IsDir {
		return err
	}
	if _, err = os.Stat(path); err == nil {
		err = errors.Errorf("%s is not a directory", path)
	}
	return errors.WithStack(err)
}

// layerDir returns the directory of a layer for HCS, which wants a path without links (hcsshim pull request 939).
// If the caller's path leads through none, it is that path.
func layerDir(path string, name winfs.Name) string {
	if winpath.Equal(path, name.Path) {
		return filepath.Clean(path)
	}
	return winpath.Plain(name.Path)
}

// checkPlace returns an error if nothing can be mounted at the target, or if the layer would hide files that
// are needed: HCS could not find the layer or its parents, other processes could not find the table.
func (e *engine) checkPlace(p *table.Mount, parent winfs.Name) error {
	if !parent.IsDir { // Windows reports what is below a file as absent, too
		return errors.WithMessage(os.ErrNotExist, "its parent is not a directory")
	}
	tableDir, err := e.table.Resolved()
	if err != nil {
		return err
	}
	if winpath.Contains(tableDir, p.Resolved) {
		return errors.Errorf("%s is the mount table", tableDir)
	}
	if !p.Binding {
		return nil
	}
	if err := e.filter.Find(); err != nil {
		return err
	}
	needed := []string{tableDir, p.Source, p.Dir}
	for _, parent := range p.Parents {
		name, err := winfs.Resolve(parent)
		if err != nil {
			return err
		}
		needed = append(needed, parent, name.Path)
	}
	for _, path := range needed {
		if winpath.Contains(p.Resolved, path) || winpath.Contains(path, p.Resolved) {
			return errors.Errorf("it would hide files of %s", path)
		}
	}
	return nil
}

// inspectTarget returns an error that matches os.ErrExist if the target is in use: if it is anything but a
// directory, which for a link must be empty, or if something is bound or mounted there. It records whether
// there is a directory.
func (e *engine) inspectTarget(r *table.Mount) error {
	var isEmpty bool
	err := winfs.WhileBusy(e.pause, func() (err error) {
		r.Directory, isEmpty, err = inspect(r.Resolved)
		return err
	})
	if err != nil || !r.Directory {
		return err
	}
	if !r.Binding && !isEmpty {
		return errors.WithMessage(os.ErrExist, "directory is not empty")
	}
	if err := e.checkUnbound(r); err != nil || !r.Binding || isEmpty {
		return err // most targets are empty, and the whole table need not be read
	}
	inside, unread, err := e.below(r.Resolved)
	if err == nil && len(inside) > 0 {
		return errors.Wrapf(os.ErrExist, "layers are mounted in it, such as at %s", inside[0].Target)
	}
	return stderrors.Join(append(slices.DeleteFunc(unread, isDamaged), err)...)
}

// checkUnbound returns an error if something is bound to the directory at the target. To replace that by a link
// would remove the source of the binding.
func (e *engine) checkUnbound(r *table.Mount) error {
	if sources, err := e.boundTo(r.Resolved); len(sources) > 0 {
		return errors.Wrapf(os.ErrExist, "%s is bound there", sources[0])
	} else if err == nil {
		return nil
	}
	if p, err := e.findForeign(r.Resolved, r.TargetKey); p != nil || err != nil {
		if err == nil {
			err = errors.Wrapf(os.ErrExist, "layer %s is bound there", p.Source)
		}
		return err
	}
	isOther, err := e.isOtherVolume(r.Resolved)
	if err == nil && isOther {
		err = errors.WithMessage(os.ErrExist, "another volume is bound there")
	}
	return errors.Wrap(err, "failed to look at the directory")
}

// inspect reports whether there is a directory at path, and whether it is empty. What is not a directory is an
// error.
func inspect(path string) (isDir, isEmpty bool, err error) {
	info, err := os.Lstat(path)
	if winfs.NotExist(err) {
		return false, true, nil
	}
	if err != nil {
		return false, false, errors.WithStack(err)
	}
	if _, linkErr := winfs.ReadLink(path); linkErr == nil || !info.IsDir() { // the latter also for a junction
		return false, false, errors.WithMessage(os.ErrExist, "not a directory")
	}
	dir, err := os.Open(path)
	if err == nil {
		defer dir.Close()
		_, err = dir.Readdirnames(1)
	}
	if errors.Is(err, io.EOF) {
		return true, true, nil
	}
	return true, false, errors.WithStack(err)
}

// mountpoint returns where m is shown when it is mounted at target: the absolute path of target, or of the
// sub-directory of it that m.Target names. It looks at the text alone.
func (m *Mount) mountpoint(target string) (string, error) {
	path, err := winpath.Abs(target)
	if err == nil && winpath.IsRoot(path) {
		err = errors.Errorf("%q is the root of a volume", path)
	}
	if err != nil {
		return "", errors.WithMessage(err, "invalid mount target")
	}
	if m.Target == "" {
		return path, nil
	}
	err = winpath.CheckText(m.Target)
	elements := winpath.Elements(m.Target)
	for _, element := range elements {
		if element == "." || element == ".." {
			err = errors.Errorf("path contains %q", element)
		}
		if err == nil {
			err = winpath.CheckElement(element)
		}
	}
	if err != nil {
		return "", errors.WithMessagef(err, "invalid mount target: sub-directory %q", m.Target)
	}
	return filepath.Join(path, filepath.Join(elements...)), nil
}

// checkWay returns an error if a directory on the way from target to the sub-directory is missing or is a link,
// which could lead out of target. Target itself may be a link, as it is if another layer is shown there.
func (m *Mount) checkWay(target string) error {
	elements := winpath.Elements(m.Target)
	for i := 1; i < len(elements); i++ {
		path := filepath.Join(append([]string{target}, elements[:i]...)...)
		info, err := os.Lstat(path)
		if err == nil && !info.IsDir() {
			err = errors.Errorf("%s is not a directory", path)
		}
		if err != nil {
			return errors.WithMessagef(err, "invalid mount target: sub-directory %q", m.Target)
		}
	}
	return nil
}
