//go:build windows

// Command bindfltapi is a simulation of bindfltapi.dll, the library that go-winio
// reaches the Windows bind filter through. It is for Wine, which has no such filter;
// scripts/wine builds and installs it.
//
// It only keeps account of the mappings: a directory shows the same files whether it
// is mapped or not. Each mapping is a file in the directory that the environment
// variable HCS_SIM_DIR names. The file is moved into place whole, and only if there is
// none, so that processes may share the directory and be killed at any instant.
//
// The signatures are those of go-winio's pkg/bindfilter. An argument that it never
// passes is refused, with a line on standard error.
package main

// #include <windows.h>
import "C"

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"
	"unsafe"

	"golang.org/x/sys/windows"
)

// main is never called: the package is built as a DLL.
func main() {}

const eFail = 0x80004005 // by its name in winerror.h

// Flags by their names in go-winio.
const (
	readOnlyMapping   = 0x1  // BINDFLT_FLAG_READ_ONLY_MAPPING
	noMultipleTargets = 0x40 // BINDFLT_FLAG_NO_MULTIPLE_TARGETS
	mappingsOfVolume  = 0x1  // BINDFLT_GET_MAPPINGS_FLAG_VOLUME
)

// mapping is what the file of a mapping holds, as JSON.
type mapping struct {
	Root   string // the final path of the directory
	Source string // as given
	Flags  uint32
}

//export BfSetupFilter
func BfSetupFilter(job C.HANDLE, flags C.ULONG, root, source C.LPCWSTR, exceptions *C.LPCWSTR, count C.ULONG) C.HRESULT {
	if job != nil || flags&^readOnlyMapping != noMultipleTargets || root == nil || source == nil || exceptions != nil || count != 0 {
		complain("BfSetupFilter: not the arguments that go-winio passes")
		return hresult(windows.ERROR_INVALID_PARAMETER)
	}
	return hresult(setup(text(root), text(source), uint32(flags)))
}

func setup(root, source string, flags uint32) error {
	if strings.HasPrefix(source, `\\?\Volume{`) && strings.HasSuffix(source, "}") {
		return windows.ERROR_INVALID_PARAMETER // the volume, not its root directory
	}
	if info, err := os.Stat(source); err != nil {
		return err
	} else if !info.IsDir() {
		return windows.ERROR_DIRECTORY
	}
	root, err := finalPath(root)
	if err != nil {
		return err
	}
	path, err := mappingPath(root)
	if err != nil {
		return err
	}
	data, err := json.Marshal(mapping{root, source, flags})
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "mapping")
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = move(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}

// move renames a file. If there is one of the new name, it fails with
// ERROR_ALREADY_EXISTS.
// Assumption: that is what a second mapping of one root gives. By go-winio's comment
// on its flag it is ERROR_INVALID_PARAMETER.
func move(from, to string) error {
	old, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	path, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	return windows.MoveFile(old, path)
}

//export BfRemoveMapping
func BfRemoveMapping(job C.HANDLE, root C.LPCWSTR) C.HRESULT {
	if job != nil || root == nil {
		complain("BfRemoveMapping: not the arguments that go-winio passes")
		return hresult(windows.ERROR_INVALID_PARAMETER)
	}
	return hresult(remove(text(root)))
}

func remove(root string) error {
	root, err := finalPath(root)
	if err != nil {
		return err
	}
	path, err := mappingPath(root)
	if err != nil {
		return err
	}
	err = os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return windows.ERROR_NOT_FOUND
	}
	return err
}

// BfGetMappings stores the mappings whose roots are on the volume of path, and how
// many bytes they take.
//
//export BfGetMappings
func BfGetMappings(flags C.ULONG, job C.HANDLE, path C.LPCWSTR, sid unsafe.Pointer, size *C.ULONG, buffer *C.BYTE) C.HRESULT {
	if flags != mappingsOfVolume || job != nil || path == nil || sid != nil || size == nil || buffer == nil {
		complain("BfGetMappings: not the arguments that go-winio passes")
		return hresult(windows.ERROR_INVALID_PARAMETER)
	}
	found, err := mappings(text(path))
	if err != nil {
		return hresult(err)
	}
	data := encode(found)
	room := *size
	*size = C.ULONG(len(data))
	if int(room) < len(data) {
		return hresult(windows.ERROR_INSUFFICIENT_BUFFER)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(buffer)), room), data)
	return 0
}

func mappings(path string) ([]mapping, error) {
	path, err := finalPath(path)
	if err != nil {
		return nil, err
	}
	pattern, err := simPath("*.mapping")
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var found []mapping
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		var m mapping
		if err := json.Unmarshal(data, &m); err != nil {
			return nil, err
		}
		if strings.EqualFold(filepath.VolumeName(m.Root), filepath.VolumeName(path)) {
			found = append(found, m)
		}
	}
	return found, nil
}

// encode lays the mappings out as go-winio reads them: numbers first, each text, in
// UTF-16, by its length and offset in bytes.
func encode(found []mapping) []byte {
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
	for i, m := range found {
		entries[i] = entry{add(m.Root), m.Flags, 1, uint32(sourcesOffset + i*binary.Size(text{}))}
		sources[i] = add(m.Source)
	}
	var data bytes.Buffer
	size := uint32(textsOffset + texts.Len())
	for _, part := range []any{header{size, 0, uint32(len(found))}, entries, sources, texts.Bytes()} {
		binary.Write(&data, binary.LittleEndian, part)
	}
	return data.Bytes()
}

// finalPath returns the path of a directory as the file system has it: without links,
// short names and another case.
// Assumption: a mapping whose root was removed cannot be named any more.
func finalPath(dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", windows.ERROR_DIRECTORY
	}
	file, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer file.Close()
	path := make([]uint16, windows.MAX_LONG_PATH)
	n, err := windows.GetFinalPathNameByHandle(windows.Handle(file.Fd()), &path[0], uint32(len(path)), 0)
	return windows.UTF16ToString(path[:n]), err
}

// mappingPath returns the path of the file of the mapping of a root.
func mappingPath(root string) (string, error) {
	return simPath(fmt.Sprintf("%x.mapping", sha256.Sum256([]byte(strings.ToLower(root)))))
}

func simPath(name string) (string, error) {
	dir := os.Getenv("HCS_SIM_DIR")
	if dir == "" {
		return "", errors.New("HCS_SIM_DIR is not set")
	}
	return filepath.Join(dir, name), nil
}

// hresult makes an HRESULT of an error's Windows code, as HRESULT_FROM_WIN32 does.
func hresult(err error) C.HRESULT {
	var code windows.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return C.HRESULT(int32(code | 0x80070000))
	}
	complain("%v", err)
	failed := uint32(eFail)
	return C.HRESULT(int32(failed))
}

func text(s C.LPCWSTR) string {
	return windows.UTF16PtrToString((*uint16)(unsafe.Pointer(s)))
}

func complain(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "simulated bindfltapi.dll: "+format+"\n", args...)
}
