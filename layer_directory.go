package mount

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/pkg/errors"
)

// isLayer reports whether path is the directory of a layer: it holds a scratch disk, the chain of
// its parents, or both files and registry hives.
func isLayer(path string) bool {
	if !isDirectory(path) {
		return false
	}
	holds := func(name string) bool { return !isGone(filepath.Join(path, name)) }
	return holds("sandbox.vhdx") || holds("layerchain.json") || holds("Files") && holds("Hives")
}

// isReadOnly reports whether HCS has no disk to attach for a layer. A committed layer has its files
// in a folder, and may have kept its scratch disk. Ask before the layer is opened: what is missing
// later may have been removed since.
func isReadOnly(source string) bool {
	return !isGone(filepath.Join(source, "Files")) || isGone(filepath.Join(source, "sandbox.vhdx"))
}

// isVolume reports whether a mount path is a volume, `\\?\Volume{GUID}`, and not the directory of
// the layer.
func isVolume(path string) bool {
	name := strings.ToLower(lastElement(strings.TrimRight(path, `\/`)))
	return strings.HasPrefix(name, "volume{") && strings.HasSuffix(name, "}")
}

// isReachable reports whether a volume is there, which it is while its disk is attached. A volume
// that cannot be looked at for another reason, such as access denied, counts as there.
func isReachable(volume string) bool {
	// The separator leads to the root directory of the volume, and not to the device.
	_, err := os.Stat(volume + string(filepath.Separator))
	return !isVolumeGone(err)
}

// isVolumeGone reports whether an error of looking at a volume says that it is not there.
func isVolumeGone(err error) bool { return errors.Is(err, os.ErrNotExist) || isAny(err, deviceGone...) }

func isGone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist)
}

// isDirectory reports whether path is a directory, and not a link to one.
func isDirectory(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// isNoDirectory reports whether something other than a directory is at path.
func isNoDirectory(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && !info.IsDir()
}
