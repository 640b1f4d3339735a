package mount

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// ParentLayerPathsFlag begins the option that holds the layer's parents, a JSON
// list of their directories, nearest parent first.
const ParentLayerPathsFlag = "parentLayerPaths="

// GetParentPaths returns the directories of the layer's parents, nearest first,
// as the last option with ParentLayerPathsFlag lists them; earlier ones are not
// looked at. Without such an option it returns nil and no error.
//
// `null` (what containerd's Windows snapshotter writes for a layer without parents) and `[]`
// both mean no parents. Each path must be absolute on Windows, whatever system this runs on:
// `C:\layers\1`, `C:/layers/1`, `\\server\share\1` or a path that begins with `\\?\`.
// Everything else is an error: text that is not a JSON list of strings (the error is
// encoding/json's, wrapped), and a path that is empty, relative, the root of a volume, holds a
// NUL, ends in an element that is empty, "." or "..", or was not valid Unicode.
func (m *Mount) GetParentPaths() ([]string, error) {
	for i := len(m.Options) - 1; i >= 0; i-- {
		if list, found := strings.CutPrefix(m.Options[i], ParentLayerPathsFlag); found {
			return parsePaths(list)
		}
	}
	return nil, nil
}

func parsePaths(list string) (paths []string, err error) {
	if err := json.Unmarshal([]byte(list), &paths); err != nil {
		return nil, errors.Wrap(err, "failed to unmarshal parent layer paths from mount")
	}
	for i, path := range paths {
		if err := checkParentPath(path); err != nil {
			return nil, errors.WithMessagef(err, "invalid parent layer path %d in mount", i)
		}
	}
	return paths, nil
}

func checkParentPath(path string) error {
	if strings.ContainsRune(path, utf8.RuneError) {
		// encoding/json puts U+FFFD in place of what is not Unicode (such as a
		// lone surrogate, which NTFS allows in a name).
		return errors.Errorf("path %q is not valid Unicode", path)
	}
	if err := winpath.CheckText(path); err != nil {
		return err
	}
	if !winpath.IsAbs(path) {
		return errors.Errorf("path %q is not an absolute Windows path", path)
	}
	return winpath.CheckID(path)
}
