//go:build windows

// Command vmcompute is a simulation of vmcompute.dll, the library through which hcsshim calls HCS. It passes the
// layer calls to the model in internal/hcstest. The environment variable HCS_SIM_DIR names the directory with the
// state of the model. The simulation is for Wine, which has no HCS; scripts/wine builds and installs it.
//
// The functions have the signatures of hcsshim's internal/wclayer. If a function gets an argument that hcsshim never
// passes, it returns an error and writes a line to standard error.
package main

/*
#include <windows.h>

typedef struct {
	int Flavour;
	LPCWSTR HomeDir;
} DriverInfo;

typedef struct {
	GUID LayerId;
	ULONG Flags;
	LPCWSTR Path;
} LayerDescriptor;
*/
import "C"

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"unicode/utf16"
	"unsafe"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// main is never called: the package is built as a DLL.
func main() {}

func init() { hcstest.KeepFiles() }

// HRESULTs by their names in winerror.h.
const (
	eFail       = 0x80004005
	eInvalidArg = 0x80070057
)

var errInvalidArg = &hcstest.Error{Code: eInvalidArg}

// filterDriver is the GraphDriverType that hcsshim always passes.
const filterDriver = 1

//export ActivateLayer
func ActivateLayer(info *C.DriverInfo, id C.LPCWSTR) C.HRESULT {
	return call("ActivateLayer", info, id, (*hcstest.Model).ActivateLayer)
}

//export PrepareLayer
func PrepareLayer(info *C.DriverInfo, id C.LPCWSTR, descriptors *C.LayerDescriptor, length C.size_t) C.HRESULT {
	return call("PrepareLayer", info, id, func(m *hcstest.Model, layer string) error {
		var parents []string
		for _, d := range unsafe.Slice(descriptors, int(length)) {
			parent := text(d.Path)
			// hcsshim makes the ID from the last element of the path. For `C:\layers\0\` that is "".
			_, name := filepath.Split(parent)
			if name == "" || d.Flags != 0 || guidBytes(d.LayerId) != nameToGUID(name) {
				complain("PrepareLayer %s: parent %q has flags %#x and ID %x", layer, parent, d.Flags, guidBytes(d.LayerId))
				return errInvalidArg
			}
			parents = append(parents, parent)
		}
		return m.PrepareLayer(layer, parents)
	})
}

// mountPaths holds the mount path of every layer whose length hcsshim has asked for. So the two calls of hcsshim make
// one call of the model.
var mountPaths sync.Map

// GetLayerMountPath is called twice. Without a buffer, it stores the length that a buffer must have, in UTF-16 units
// with the NUL at the end. With a buffer, it writes the path to the buffer.
//
//export GetLayerMountPath
func GetLayerMountPath(info *C.DriverInfo, id C.LPCWSTR, length *C.size_t, buffer *C.WCHAR) C.HRESULT {
	if buffer == nil {
		return call("GetLayerMountPath", info, id, func(m *hcstest.Model, layer string) error {
			path, err := m.GetLayerMountPath(layer)
			if err != nil {
				return err
			}
			units := utf16.Encode([]rune(path + "\x00"))
			mountPaths.Store(layer, units)
			*length = C.size_t(len(units))
			return nil
		})
	}
	return call("GetLayerMountPath", info, id, func(_ *hcstest.Model, layer string) error {
		units, ok := mountPaths.Load(layer)
		if !ok {
			complain("GetLayerMountPath %s: hcsshim has not asked for the length first", layer)
			return errInvalidArg
		}
		path := units.([]uint16)
		if int(*length) < len(path) {
			complain("GetLayerMountPath %s: the buffer has %d units, but the path needs %d", layer, *length, len(path))
			return errInvalidArg
		}
		copy(unsafe.Slice((*uint16)(unsafe.Pointer(buffer)), len(path)), path)
		return nil
	})
}

//export UnprepareLayer
func UnprepareLayer(info *C.DriverInfo, id C.LPCWSTR) C.HRESULT {
	return call("UnprepareLayer", info, id, (*hcstest.Model).UnprepareLayer)
}

//export DeactivateLayer
func DeactivateLayer(info *C.DriverInfo, id C.LPCWSTR) C.HRESULT {
	return call("DeactivateLayer", info, id, (*hcstest.Model).DeactivateLayer)
}

//export LayerExists
func LayerExists(info *C.DriverInfo, id C.LPCWSTR, exists *C.ULONG) C.HRESULT {
	return call("LayerExists", info, id, func(_ *hcstest.Model, layer string) error {
		*exists = 0
		if stat, err := os.Stat(layer); err == nil && stat.IsDir() {
			*exists = 1
		}
		return nil
	})
}

//export NameToGuid
func NameToGuid(name C.LPCWSTR, guid *C.GUID) C.HRESULT {
	*(*[16]byte)(unsafe.Pointer(guid)) = nameToGUID(text(name))
	return 0
}

// nameToGUID derives an ID from a layer's name.
// Assumption: any ID will do, as long as equal names have equal IDs.
func nameToGUID(name string) [16]byte {
	var guid [16]byte
	sum := sha256.Sum256([]byte(name))
	copy(guid[:], sum[:])
	return guid
}

func guidBytes(guid C.GUID) [16]byte { return *(*[16]byte)(unsafe.Pointer(&guid)) }

// call checks the arguments that all functions have in common, and calls f with the model and the layer.
func call(name string, info *C.DriverInfo, id C.LPCWSTR, f func(*hcstest.Model, string) error) C.HRESULT {
	if info == nil || info.Flavour != filterDriver || info.HomeDir == nil || *info.HomeDir != 0 || id == nil {
		complain("%s: not the DriverInfo and ID that hcsshim passes", name)
		return hresult(eInvalidArg)
	}
	layer := text(id)
	if layer == "" || os.IsPathSeparator(layer[len(layer)-1]) {
		complain("%s %q: the layer ID is empty; HCS would act on the directory of all layers", name, layer)
		return hresult(eInvalidArg)
	}
	dir := os.Getenv("HCS_SIM_DIR")
	if dir == "" {
		complain("%s %s: HCS_SIM_DIR is not set", name, layer)
		return hresult(eFail)
	}
	m, err := hcstest.Open(dir)
	if err == nil {
		err = f(m, layer)
	}
	if err == nil {
		return 0
	}
	var refused *hcstest.Error
	if errors.As(err, &refused) {
		return hresult(refused.Code)
	}
	complain("%s %s: %v", name, layer, err)
	return hresult(eFail)
}

// hresult converts a Windows code to an HRESULT, as HRESULT_FROM_WIN32 does. If code is an HRESULT already, hresult
// does not change it.
func hresult(code syscall.Errno) C.HRESULT {
	if code <= 0xffff {
		code |= 0x80070000
	}
	return C.HRESULT(int32(code))
}

func text(s C.LPCWSTR) string {
	n := 0
	for *(*uint16)(unsafe.Add(unsafe.Pointer(s), 2*n)) != 0 {
		n++
	}
	return string(utf16.Decode(unsafe.Slice((*uint16)(unsafe.Pointer(s)), n)))
}

func complain(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "simulated vmcompute.dll: "+format+"\n", args...)
}
