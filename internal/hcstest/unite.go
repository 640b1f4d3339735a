package hcstest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// unite lays what is in the directories Files of the parents, nearest first, into the volume
// of a layer, which so shows what the union filter does. It makes copies, as what is written
// in the volume must change no parent. What is there already hides what would come later.
// The parents of a volume are laid into it once: what is removed from it stays removed, and
// the next PrepareLayer costs nothing. A parent without the directory is passed over.
//
// A kill leaves a part of it, which the next PrepareLayer completes.
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

// addFiles copies what is in the directory from and not in the directory to, files and
// directories. A file is at the path temporary until it is there as a whole.
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
