//go:build windows

// Command bindfltapi is a simulation of bindfltapi.dll, the library through which go-winio calls the Windows bind
// filter. It passes the calls to the model in internal/hcstest. The environment variable HCS_SIM_DIR names the
// directory with the state of the model. The simulation is for Wine, which has no bind filter; scripts/wine builds
// and installs it.
//
// It only records the mappings. But if the environment variable HCS_SIM_SHOW is 1 when a mapping is made, all
// programs see the files of the source at the root of the mapping. That takes the rights of the user root.
//
// The functions have the signatures of go-winio's pkg/bindfilter. If a function gets an argument that go-winio never
// passes, it returns an error and writes a line to standard error.
package main

// #include <windows.h>
import "C"

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unicode/utf16"
	"unsafe"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"golang.org/x/sys/windows"
)

// main is never called: the package is built as a DLL.
func main() {}

func init() { hcstest.KeepFiles() }

// HRESULTs by their names in winerror.h.
const (
	eFail       = 0x80004005
	eInvalidArg = 0x80070057
)

// Flags by their names in go-winio.
const (
	readOnlyMapping   = 0x1  // BINDFLT_FLAG_READ_ONLY_MAPPING
	noMultipleTargets = 0x40 // BINDFLT_FLAG_NO_MULTIPLE_TARGETS
	mappingsOfVolume  = 0x1  // BINDFLT_GET_MAPPINGS_FLAG_VOLUME
)

//export BfSetupFilter
func BfSetupFilter(job C.HANDLE, flags C.ULONG, root, source C.LPCWSTR, exceptions *C.LPCWSTR, count C.ULONG) C.HRESULT {
	if job != nil || flags&^readOnlyMapping != noMultipleTargets || root == nil || source == nil || exceptions != nil || count != 0 {
		return notOfGoWinio("BfSetupFilter")
	}
	return call(func(m *hcstest.Model) error {
		return m.Bind(rootPath(text(root)), text(source), flags&readOnlyMapping != 0)
	})
}

//export BfRemoveMapping
func BfRemoveMapping(job C.HANDLE, root C.LPCWSTR) C.HRESULT {
	if job != nil || root == nil {
		return notOfGoWinio("BfRemoveMapping")
	}
	return call(func(m *hcstest.Model) error { return m.Unbind(rootPath(text(root))) })
}

// BfGetMappings stores the mappings whose roots are on the volume of path in buffer, and their size in bytes in size.
//
//export BfGetMappings
func BfGetMappings(flags C.ULONG, job C.HANDLE, path C.LPCWSTR, sid unsafe.Pointer, size *C.ULONG, buffer *C.BYTE) C.HRESULT {
	if flags != mappingsOfVolume || job != nil || path == nil || sid != nil || size == nil || buffer == nil {
		return notOfGoWinio("BfGetMappings")
	}
	return call(func(m *hcstest.Model) error {
		found, err := m.RawBindings(finalPath(text(path), 0))
		if err != nil {
			return err
		}
		data := encode(found)
		room := *size
		*size = C.ULONG(len(data))
		if int(room) < len(data) {
			return &hcstest.Error{Call: hcstest.Bindings, Layer: text(path), Code: windows.ERROR_INSUFFICIENT_BUFFER}
		}
		copy(unsafe.Slice((*byte)(unsafe.Pointer(buffer)), room), data)
		return nil
	})
}

// encode lays out the mappings as go-winio reads them. The numbers come first, and then the texts in UTF-16. Each
// text is given by its length and offset in bytes.
func encode(found []hcstest.Binding) []byte {
	type text struct{ Length, Offset uint32 }
	type header struct{ Size, Status, Mappings uint32 }
	type entry struct {
		Root                          text
		Flags, Sources, SourcesOffset uint32
	}
	var texts bytes.Buffer
	entries := make([]entry, len(found))
	sources := make([]text, len(found))
	sourcesOffset := binary.Size(header{}) + binary.Size(entries)
	textsOffset := sourcesOffset + binary.Size(sources)
	add := func(s string) text {
		offset := texts.Len()
		binary.Write(&texts, binary.LittleEndian, utf16.Encode([]rune(s)))
		return text{uint32(texts.Len() - offset), uint32(textsOffset + offset)}
	}
	for i, b := range found {
		flags := uint32(noMultipleTargets)
		if b.ReadOnly {
			flags |= readOnlyMapping
		}
		entries[i] = entry{add(b.Root), flags, 1, uint32(sourcesOffset + i*binary.Size(text{}))}
		sources[i] = add(b.Source)
	}
	var data bytes.Buffer
	size := uint32(textsOffset + texts.Len())
	for _, part := range []any{header{size, 0, uint32(len(found))}, entries, sources, texts.Bytes()} {
		binary.Write(&data, binary.LittleEndian, part)
	}
	return data.Bytes()
}

// rootPath returns the path that the file system has for a root. If the root is a link, rootPath does not follow it,
// so that the model sees the link and refuses it.
func rootPath(root string) string { return finalPath(root, windows.FILE_FLAG_OPEN_REPARSE_POINT) }

// finalPath returns the path that the file system has for a file: without links and short names, and with the stored
// case. If the file does not exist, finalPath returns path unchanged.
func finalPath(path string, flags uint32) string {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return path
	}
	const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	file, err := windows.CreateFile(name, 0, shareAll, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|flags, 0)
	if err != nil {
		return path
	}
	defer windows.CloseHandle(file)
	final := make([]uint16, windows.MAX_LONG_PATH)
	n, err := windows.GetFinalPathNameByHandle(file, &final[0], uint32(len(final)), 0)
	if err != nil {
		return path
	}
	path = windows.UTF16ToString(final[:n])
	if drive, ok := strings.CutPrefix(path, `\\?\`); ok && drive[1] == ':' {
		return drive
	}
	return path
}

// call calls f with the model.
func call(f func(*hcstest.Model) error) C.HRESULT {
	dir := os.Getenv("HCS_SIM_DIR")
	if dir == "" {
		complain("HCS_SIM_DIR is not set")
		return hresult(eFail)
	}
	m, err := hcstest.Open(dir)
	if err == nil {
		m.Show = os.Getenv("HCS_SIM_SHOW") == "1"
		err = f(m)
	}
	if err == nil {
		return 0
	}
	if refused, ok := err.(*hcstest.Error); ok {
		return hresult(refused.Code)
	}
	complain("%v", err)
	var refused *hcstest.Error
	if errors.As(err, &refused) {
		return hresult(refused.Code)
	}
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
	return windows.UTF16PtrToString((*uint16)(unsafe.Pointer(s)))
}

func notOfGoWinio(name string) C.HRESULT {
	complain("%s: not the arguments that go-winio passes", name)
	return hresult(eInvalidArg)
}

func complain(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "simulated bindfltapi.dll: "+format+"\n", args...)
}
