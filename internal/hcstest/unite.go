package hcstest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// unite copies the Files directories of the parents, nearest first, into the volume of a layer. The volume then shows
// what it would show with the union filter. unite makes copies because a write to the volume must not change a
// parent. It does not replace files that exist in the volume already, so a file of a nearer parent hides those of
// farther ones. It skips a parent that has no Files directory.
//
// unite copies the parents into a volume only once. So a file that is removed from the volume stays removed, and the
// next PrepareLayer takes no time. If the process is killed meanwhile, the next PrepareLayer copies the rest.
func (m *Model) unite(l *layer, parents []string) error {
	list := strings.Join(parents, "\n")
	if m.volumes == "" || l.United == list {
		return nil
	}
	volume := m.volumeDir(*l)
	for _, parent := range parents {
		files := filepath.Join(parent, "Files")
		if !isDir(files) {
			continue
		}
		l.United = list
		if err := addFiles(volume, files, volume+".copy"); err != nil {
			return err
		}
	}
	return nil
}

// addFiles copies the files and directories that are in the directory from, but not in the directory to. It writes
// each file to the path temporary first, and renames it once the file is complete.
func addFiles(to, from, temporary string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		source, target := filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())
		there, err := os.Lstat(target)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		isNew := err != nil
		switch err = nil; {
		case entry.IsDir() && isNew:
			if err = os.Mkdir(target, 0o777); err == nil {
				err = addFiles(target, source, temporary)
			}
		case entry.IsDir() && there.IsDir():
			err = addFiles(target, source, temporary)
		case entry.Type().IsRegular() && isNew:
			err = copyFile(target, source, temporary)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from, temporary string) error {
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(temporary, data, 0o666)
	}
	if err == nil {
		err = os.Rename(temporary, to)
	}
	return err
}
