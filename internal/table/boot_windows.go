package table

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"unsafe"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"
)

const bootKey = `SOFTWARE\windows-layer-mounts`

// Boot returns a random ID that is the same in all processes until Windows restarts. The ID is the class of a
// volatile registry key, which Windows discards when it shuts down. A key gets its class when it is created,
// so the first process sets the ID for all others. Only administrators can write below HKLM\SOFTWARE.
func Boot() (id string, err error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	id, err = classOf(bootKey, hex.EncodeToString(random[:]))
	return id, errors.Wrapf(err, `open HKLM\%s, the key that identifies this start of Windows`, bootKey)
}

var procRegCreateKeyExW = windows.NewLazySystemDLL("advapi32.dll").NewProc("RegCreateKeyExW")

// classOf returns the class of a key below HKLM. If the key is absent, classOf creates a volatile key with the
// given class.
func classOf(path, class string) (string, error) {
	const access = windows.KEY_READ | windows.KEY_WOW64_64KEY // 32-bit programs use the same key
	const optionVolatile = 1
	pathPtr, _ := windows.UTF16PtrFromString(path) // neither contains a NUL
	classPtr, _ := windows.UTF16PtrFromString(class)
	var key windows.Handle
	err := windows.RegOpenKeyEx(windows.HKEY_LOCAL_MACHINE, pathPtr, 0, access, &key)
	if errors.Is(err, os.ErrNotExist) {
		code, _, _ := procRegCreateKeyExW.Call(uintptr(windows.HKEY_LOCAL_MACHINE), uintptr(unsafe.Pointer(pathPtr)), 0,
			uintptr(unsafe.Pointer(classPtr)), optionVolatile, access, 0, uintptr(unsafe.Pointer(&key)), 0)
		if err = nil; code != 0 {
			err = windows.Errno(code)
		}
	}
	if err != nil {
		return "", err
	}
	defer windows.RegCloseKey(key)
	var buf [64]uint16
	length := uint32(len(buf))
	err = windows.RegQueryInfoKey(key, &buf[0], &length, nil, nil, nil, nil, nil, nil, nil, nil, nil)
	if err == nil && length == 0 {
		err = errors.New("key has no class: not created by this package")
	}
	return windows.UTF16ToString(buf[:]), err
}
