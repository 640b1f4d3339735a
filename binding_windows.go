package mount

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/Microsoft/go-winio/pkg/bindfilter"
	"golang.org/x/sys/windows"
)

// bindsLayers is whether this process shows layers through the bind filter, see UseBindFilter.
var bindsLayers atomic.Bool

// UseBindFilter chooses how this process shows layers from now on: through the bind filter of Windows, or
// by links, which is the default. A mount that is there already stays as it is. Any process can unmount
// it, whatever it has chosen.
//
// With the bind filter the target is a directory, which programs can walk, and "ro" is enforced. The
// directory may hold files, which are out of sight until Unmount. Where it is absent, Mount makes it, and
// Unmount removes it. A target is refused when it would hide files of the layer, its parents or the mount
// table, and when a layer is mounted in it.
//
// Where there is no bindfltapi.dll, which came with Windows Server 2019, Mount fails with an error that
// matches errors.ErrUnsupported. Where the filter is denied, as in a HostProcess container, the error
// matches windows.ERROR_ACCESS_DENIED. Mount never makes a link instead.
func UseBindFilter(on bool) { bindsLayers.Store(on) }

// bindflt is the bind filter of this machine.
type bindflt struct{}

var procBfSetupFilter = windows.NewLazySystemDLL("bindfltapi.dll").NewProc("BfSetupFilter")

func (bindflt) Find() error {
	if err := procBfSetupFilter.Find(); err != nil {
		return fmt.Errorf("%w: %w", errNoFilter, err)
	}
	return nil
}

func (bindflt) Bind(root, source string, readOnly bool) error {
	return bindfilter.ApplyFileBinding(plain(root), source, readOnly)
}

func (bindflt) Unbind(root string) error { return bindfilter.RemoveFileBinding(plain(root)) }

// plain returns a path on a drive without `\\?\` before it, as other programs give it to the filter. A long
// path keeps it.
func plain(path string) string {
	if bare, is := strings.CutPrefix(path, `\\?\`); is && len(bare) < windows.MAX_PATH && len(bare) > 1 && bare[1] == ':' {
		return bare
	}
	return path
}

func (bindflt) Bindings(path string) (bindings []binding, err error) {
	mappings, err := bindfilter.GetBindMappings(path)
	for _, mapping := range mappings {
		for _, source := range mapping.Targets {
			bindings = append(bindings, binding{mapping.MountPoint, source})
		}
	}
	return bindings, err
}
