package mount

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/pkg/errors"
)

// containerd 2.x has these names for layers that are stored in composite images (CIMs). They are declared
// here so that code that uses them compiles and can read its options. Mount rejects mounts of these types.
const (
	// CimFSMountType is the Type of a mount whose layers are CIMs. Each CIM has files of its own.
	CimFSMountType string = "CimFS"
	// LayerCimPathFlag is the prefix of the option that holds the path of the CIM into which a layer is
	// unpacked. Only a snapshot that an image is being unpacked into has the option in its mounts.
	LayerCimPathFlag = "cimpath="
	// ParentLayerCimPathsFlag is the prefix of the option that holds the paths of the CIMs of the layer's
	// parents, as a JSON list.
	ParentLayerCimPathsFlag = "parentCimPaths="

	// BlockCIMMountType is the Type of a mount whose layers are CIMs in block format.
	BlockCIMMountType string = "BlockCIM"
	// BlockCIMTypeFlag is the prefix of the option that says what a block CIM is stored in.
	BlockCIMTypeFlag string = "blockCIMType="
	// BlockCIMTypeFile is the value of BlockCIMTypeFlag for a block CIM that is a file.
	BlockCIMTypeFile string = "file"
	// MergedCIMPathFlag is the prefix of the option that holds the path of the CIM that merges all layers.
	MergedCIMPathFlag string = "mergedCIMPath="
	// EnableLayerIntegrityFlag is the option for block CIMs whose content is protected by hashes.
	EnableLayerIntegrityFlag string = "enable_layer_integrity"
	// AppendVHDFooterFlag is the option for block CIMs that end with the footer of a VHD.
	AppendVHDFooterFlag string = "append_vhd_footer"
)

// GetParentCimPaths returns the paths of the CIMs of the layer's parents. It reads them from the first option
// that begins with ParentLayerCimPathsFlag. If there is no such option, it returns nil and no error. It
// returns an error if the type of the mount is not CimFSMountType, or if encoding/json cannot decode the list.
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

// GetCimPath returns the path of the CIM into which the layer is unpacked. It reads the path from the first
// option that begins with LayerCimPathFlag. It returns an error if there is no such option, or if the type of
// the mount is not CimFSMountType.
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

// checkType returns an error if this package does not mount mounts of the type.
func checkType(mountType string) error {
	switch mountType {
	case layerType, bindType:
		return nil
	case CimFSMountType, BlockCIMMountType:
		return errors.Errorf("invalid windows mount type: '%s' is known, but this package does not mount it", mountType)
	}
	return errors.Errorf("invalid windows mount type: '%s'", mountType)
}
