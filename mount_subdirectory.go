package mount

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/pkg/errors"
)

// mountpoint returns where m is shown when it is mounted at target: the absolute path of target, or of the
// sub-directory of it that m.Target names.
func (m *Mount) mountpoint(target string) (string, error) {
	path, err := absoluteTarget(target)
	if err != nil || m.Target == "" {
		return path, err
	}
	path, err = subDirectory(path, m.Target)
	return path, errors.WithMessagef(err, "invalid mount target: sub-directory %q", m.Target)
}

// subDirectory returns the path of sub in dir. It refuses a link on the way, which could lead out of dir.
// Dir itself may be a link, as it is when another layer is shown there.
func subDirectory(dir, sub string) (string, error) {
	if err := checkText(sub); err != nil {
		return "", err
	}
	path := dir
	for _, element := range strings.FieldsFunc(sub, func(r rune) bool { return r == '\\' || r == '/' }) {
		if element == "." || element == ".." {
			return "", errors.Errorf("it has the element %q", element)
		}
		if err := checkElement(element); err != nil {
			return "", err
		}
		if path != dir {
			if info, err := os.Lstat(path); err != nil {
				return "", errors.WithStack(err)
			} else if !info.IsDir() {
				return "", errors.Errorf("it passes through %s, which is no directory", path)
			}
		}
		path = filepath.Join(path, element)
	}
	return path, nil
}
