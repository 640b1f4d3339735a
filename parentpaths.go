package mount

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// ParentLayerPathsFlag is the prefix of the option that holds the directories of the layer's parents, as a
// JSON list with the nearest parent first.
const ParentLayerPathsFlag = "parentLayerPaths="

// GetParentPaths returns the directories of the layer's parents, nearest first. It reads them from the last
// option that begins with ParentLayerPathsFlag, and ignores earlier ones. If there is no such option, it
// returns nil and no error.
//
// `null` and `[]` both mean that the layer has no parents; containerd's Windows snapshotter writes `null`. Each
// path must be absolute on Windows, whatever system the program runs on: `C:\layers\1`, `C:/layers/1`,
// `\\server\share\1`, or a path that begins with `\\?\`.
//
// GetParentPaths returns an error if the option does not hold a JSON list of strings; that error wraps the one
// of encoding/json. It also returns an error if a path is empty or relative, is the root of a volume, contains
// a NUL, was not valid Unicode, or has a last element that is empty, "." or "..".
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
		// encoding/json replaces what is not valid Unicode with U+FFFD. An example is a lone surrogate, which
		// NTFS allows in a name.
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
