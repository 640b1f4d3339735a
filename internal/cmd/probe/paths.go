//go:build windows

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/Microsoft/go-winio/pkg/bindfilter"
	"golang.org/x/sys/windows"
)

// maxWalked is where a walk ends: a whole system may be in the layer.
const maxWalked = 1000

// godebugs are the ways in which programs resolve links, by the go directive of their main
// modules: the first is that of Go 1.22, and the last that of Go 1.23 and later.
var godebugs = []string{
	"winsymlink=0,winreadlinkvolume=0",
	"winsymlink=0,winreadlinkvolume=1",
	"winsymlink=1,winreadlinkvolume=0",
	"winsymlink=1,winreadlinkvolume=1",
}

// paths shows what a program finds at a link, and at a binding, to the volume of an open layer.
func (p *probe) paths() {
	p.report.title("A link and a binding to the volume")
	p.report.text(fmt.Sprintf("Stat is asked for a file in the root of the volume. A walk ends after %d entries, and the root is one of them.", maxWalked))
	p.report.table("path", "GODEBUG", "Lstat", "Stat", "WalkDir", "EvalSymlinks", "Readlink")
	l, err := p.newScratch()
	if l != nil {
		defer l.discard()
	}
	path := ""
	if err == nil {
		path, err = l.open()
	}
	if err == nil {
		err = os.WriteFile(rootOf(path)+"probe.txt", nil, 0o666)
	}
	if err != nil {
		p.report.row("the volume", notHere(err), "", "", "", "", "")
		return
	}
	p.look("the volume", rootOf(path))
	link := filepath.Join(p.work, "link")
	unlink, err := p.makeLink(rootOf(path), link)
	if err != nil {
		p.report.row("a link", notHere(err), "", "", "", "", "")
	} else {
		p.look("a link", link)
		p.look("a link, with a separator", link+`\`)
	}
	unlink()
	root := filepath.Join(p.work, "bound")
	unbind, err := p.bind(path, root)
	if err != nil {
		p.report.row("a binding", notHere(err), "", "", "", "", "")
	} else {
		p.look("a binding", root)
		p.report.text("GetBindMappings names:")
		p.bindings(root)
	}
	unbind()
}

// makeLink makes a directory link. What it returns removes it, or what there is of it.
func (p *probe) makeLink(to, link string) (unlink func(), err error) {
	unlink = p.made.add("remove "+link, func() error { return removePaths(link) })
	linkPtr, err := windows.UTF16PtrFromString(link)
	if err != nil {
		return unlink, err
	}
	toPtr, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return unlink, err
	}
	if err := windows.CreateSymbolicLink(linkPtr, toPtr, windows.SYMBOLIC_LINK_FLAG_DIRECTORY); err != nil {
		return unlink, fmt.Errorf("CreateSymbolicLink gave %s", result(err))
	}
	if _, err := os.Lstat(link); err != nil {
		return unlink, errors.New("CreateSymbolicLink reported success and made no link")
	}
	return unlink, nil
}

// bind binds what a mount path names to a directory that it makes. What it returns takes both away.
func (p *probe) bind(path, root string) (unbind func(), err error) {
	bound := false
	unbind = p.made.add("remove the binding at "+root, func() error {
		if bound {
			if err := bindfilter.RemoveFileBinding(root); err != nil {
				return err
			}
		}
		return removePaths(root)
	})
	if err := os.Mkdir(root, 0o777); err != nil {
		return unbind, err
	}
	if err := bindfilter.ApplyFileBinding(root, path, false); err != nil {
		return unbind, fmt.Errorf("BfSetupFilter gave %s", result(err))
	}
	bound = true
	return unbind, nil
}

// look shows what a path is to programs, one row for each of the ways in which they resolve links.
func (p *probe) look(name, path string) {
	before, was := os.LookupEnv("GODEBUG")
	defer func() {
		if was {
			_ = os.Setenv("GODEBUG", before)
		} else {
			_ = os.Unsetenv("GODEBUG")
		}
	}()
	for _, godebug := range godebugs {
		if err := os.Setenv("GODEBUG", godebug); err != nil { // package os heeds it at once
			p.report.row(name, notHere(err), "", "", "", "", "")
			continue
		}
		lstat := ""
		if info, err := os.Lstat(path); err != nil {
			lstat = result(err)
		} else {
			lstat = info.Mode().String()
		}
		_, statErr := os.Stat(filepath.Join(path, "probe.txt"))
		p.report.row(name, code(godebug), lstat, result(statErr), walk(path),
			pathResult(filepath.EvalSymlinks(path)), pathResult(os.Readlink(path)))
	}
}

// walk counts what filepath.WalkDir visits, and its errors.
func walk(path string) string {
	entries, failures := 0, 0
	_ = filepath.WalkDir(path, func(_ string, _ fs.DirEntry, err error) error {
		if err != nil {
			failures++
			return nil
		}
		if entries++; entries == maxWalked {
			return filepath.SkipAll
		}
		return nil
	})
	return fmt.Sprintf("%d entries, %d errors", entries, failures)
}

// bindings shows how the bind filter names what is bound below a directory.
func (p *probe) bindings(root string) {
	p.report.table("mount point", "sources", "flags")
	mappings, err := bindfilter.GetBindMappings(root)
	if err != nil {
		p.report.row(notHere(err), "", "")
		return
	}
	for _, mapping := range mappings {
		if filepath.Base(mapping.MountPoint) == filepath.Base(root) { // and not those of others
			p.report.row(code(mapping.MountPoint), code(fmt.Sprintf("%q", mapping.Targets)), fmt.Sprintf("0x%x", mapping.Flags))
		}
	}
}
