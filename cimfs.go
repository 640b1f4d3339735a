package mount

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/pkg/errors"
)

// The names of containerd 2.x for layers that lie in a composite image (CIM). They are here so
// that code which uses them compiles and reads its options: a mount of these types is refused.
const (
	// CimFSMountType is the Type of a mount whose layers are CIMs, each in files of its own.
	CimFSMountType string = "CimFS"
	// LayerCimPathFlag begins the option with the path of the CIM into which a layer is
	// unpacked. Only the mounts of a snapshot that an image is unpacked into have it.
	LayerCimPathFlag = "cimpath="
	// ParentLayerCimPathsFlag begins the option with the CIMs of the layer's parents, a JSON
	// list of paths.
	ParentLayerCimPathsFlag = "parentCimPaths="

	// BlockCIMMountType is the Type of a mount whose layers are CIMs in block format.
	BlockCIMMountType string = "BlockCIM"
	// BlockCIMTypeFlag begins the option with what a block CIM is kept in.
	BlockCIMTypeFlag string = "blockCIMType="
	// BlockCIMTypeFile is the value of BlockCIMTypeFlag for a block CIM that is a file.
	BlockCIMTypeFile string = "file"
	// MergedCIMPathFlag begins the option with the path of the CIM that merges all layers.
	MergedCIMPathFlag string = "mergedCIMPath="
	// EnableLayerIntegrityFlag is the option for block CIMs whose content is protected by hashes.
	EnableLayerIntegrityFlag string = "enable_layer_integrity"
	// AppendVHDFooterFlag is the option for block CIMs that end in the footer of a VHD.
	AppendVHDFooterFlag string = "append_vhd_footer"
)

// GetParentCimPaths returns the CIMs of the layer's parents, as the first option with
// ParentLayerCimPathsFlag lists them. Without such an option it returns nil and no error. A mount
// of another type than CimFSMountType is an error, and so is a list that encoding/json refuses.
func GetParentCimPaths(m *Mount) ([]string, error) {
	if err := checkCimFS(m); err != nil {
		return nil, err
	}
	list, found := cutOption(m, ParentLayerCimPathsFlag)
	if !found {
		return nil, nil
	}
	var paths []string
	err := json.Unmarshal([]byte(list), &paths)
	return paths, err
}

// GetCimPath returns the path of the CIM into which the layer is unpacked, as the first option with
// LayerCimPathFlag has it. It is an error when there is none, and when the mount is of another type
// than CimFSMountType.
func GetCimPath(m *Mount) (string, error) {
	if err := checkCimFS(m); err != nil {
		return "", err
	}
	path, found := cutOption(m, LayerCimPathFlag)
	if !found {
		return "", errors.New("cim path not found")
	}
	return path, nil
}

// GetEnableLayerIntegrity reports whether the mount has the option EnableLayerIntegrityFlag.
func GetEnableLayerIntegrity(m *Mount) bool {
	return slices.Contains(m.Options, EnableLayerIntegrityFlag)
}

// GetAppendVHDFooter reports whether the mount has the option AppendVHDFooterFlag.
func GetAppendVHDFooter(m *Mount) bool {
	return slices.Contains(m.Options, AppendVHDFooterFlag)
}

func checkCimFS(m *Mount) error {
	if m.Type != CimFSMountType {
		return errors.Errorf("invalid mount type: '%s'", m.Type)
	}
	return nil
}

// cutOption returns what follows prefix in the first option that begins with it.
func cutOption(m *Mount, prefix string) (rest string, found bool) {
	for _, option := range m.Options {
		if rest, found = strings.CutPrefix(option, prefix); found {
			return rest, true
		}
	}
	return "", false
}

// checkType refuses every type of mount that this package does not mount.
func checkType(mountType string) error {
	switch mountType {
	case layerType, bindType:
		return nil
	case CimFSMountType, BlockCIMMountType:
		return errors.Errorf("invalid windows mount type: '%s' is known, but this package does not mount it", mountType)
	}
	return errors.Errorf("invalid windows mount type: '%s'", mountType)
}
