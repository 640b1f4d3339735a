package mount

import (
	"fmt"
	"sync/atomic"

	"github.com/Microsoft/go-winio/pkg/bindfilter"
	"github.com/pkg/errors"
	"golang.org/x/sys/windows"
)

// bindsLayers says how this process shows layers, see UseBindFilter.
var bindsLayers atomic.Bool

// UseBindFilter chooses how this process shows layers from now on: through the bind filter of
// Windows, or by links as in the beginning. What is mounted already stays as it is, and is
// unmounted as it was mounted, by any process.
//
// With the bind filter the target is a directory, which programs can walk, and "ro" is enforced.
// It may hold files, which are out of sight until Unmount; where it is absent, Mount makes it and
// Unmount removes it again.
//
// Without bindfltapi.dll, which came with Windows Server 2019, Mount then fails with an error that
// matches errors.ErrUnsupported, and with one that matches windows.ERROR_ACCESS_DENIED where the
// filter is denied, as in a HostProcess container. It never makes a link instead.
func UseBindFilter(on bool) { bindsLayers.Store(on) }

// bindflt is the bind filter of this machine.
type bindflt struct{}

func (bindflt) Bind(root, source string, readOnly bool) error {
	return withoutFilter(bindfilter.ApplyFileBinding(root, source, readOnly))
}

func (bindflt) Unbind(root string) error {
	return withoutFilter(bindfilter.RemoveFileBinding(root))
}

func (bindflt) Bindings(path string) (bindings []binding, err error) {
	mappings, err := bindfilter.GetBindMappings(path)
	for _, mapping := range mappings {
		for _, source := range mapping.Targets {
			bindings = append(bindings, binding{mapping.MountPoint, source})
		}
	}
	return bindings, withoutFilter(err)
}

// withoutFilter makes the error of a library that is missing, or too old, an errNoFilter.
func withoutFilter(err error) error {
	var tooOld *windows.DLLError
	if errors.As(err, &tooOld) || errors.Is(err, windows.ERROR_MOD_NOT_FOUND) {
		return fmt.Errorf("%w: %w", errNoFilter, err)
	}
	return err
}
