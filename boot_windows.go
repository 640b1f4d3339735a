package mount

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"sync"
	"unsafe"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"
)

const bootKey = `SOFTWARE\windows-layer-mounts`

// boot holds the ID of this start of the system once it is known.
var boot struct {
	sync.Mutex
	id string
}

// bootID returns the random name of this start of the system: the same for all processes, and another one
// after a restart. It is the class of a volatile key in the registry, which Windows forgets when it shuts down.
// A key gets its class when it is made, so the first process names the start for all. The key is below
// HKLM\SOFTWARE, where only administrators can write.
func bootID() (id string, err error) {
	boot.Lock()
	defer boot.Unlock()
	if boot.id == "" {
		var random [16]byte
		_, _ = rand.Read(random[:]) // which does not fail
		boot.id, err = classOf(bootKey, hex.EncodeToString(random[:]))
	}
	return boot.id, errors.Wrapf(err, `failed to open HKLM\%s, which tells a restart of the system`, bootKey)
}

var procRegCreateKeyExW = windows.NewLazySystemDLL("advapi32.dll").NewProc("RegCreateKeyExW")

// classOf returns the class of a key below HKLM. Where the key is absent, it makes a volatile one with the
// given class.
func classOf(path, class string) (string, error) {
	const access = windows.KEY_READ | windows.KEY_WOW64_64KEY // the same key for 32-bit programs
	const optionVolatile = 1
	var key windows.Handle
	err := withPaths("open key", path, class, func(path, class *uint16) error {
		err := windows.RegOpenKeyEx(windows.HKEY_LOCAL_MACHINE, path, 0, access, &key)
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		code, _, _ := procRegCreateKeyExW.Call(uintptr(windows.HKEY_LOCAL_MACHINE), uintptr(unsafe.Pointer(path)), 0,
			uintptr(unsafe.Pointer(class)), optionVolatile, access, 0, uintptr(unsafe.Pointer(&key)), 0)
		if code != 0 {
			return windows.Errno(code)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	defer windows.RegCloseKey(key)
	var buf [64]uint16
	length := uint32(len(buf))
	err = windows.RegQueryInfoKey(key, &buf[0], &length, nil, nil, nil, nil, nil, nil, nil, nil, nil)
	if err == nil && length == 0 {
		err = errors.New("it has no class, and was not made by this package")
	}
	if err != nil {
		return "", err
	}
	return windows.UTF16ToString(buf[:length]), nil
}
