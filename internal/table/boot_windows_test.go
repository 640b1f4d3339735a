package table

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

func init() {
	tasks["boot"] = func(string) error {
		id, err := Boot()
		fmt.Print(id)
		return err
	}
}

func TestBoot_IsTheSameInAllProcesses(t *testing.T) {
	id, err := Boot()
	if err != nil || len(id) != 32 {
		t.Fatalf("%q, %v", id, err)
	}
	for range 2 {
		if out, err := child("boot", "").CombinedOutput(); err != nil || string(out) != id {
			t.Errorf("another process says %q, %v, want %q", out, err, id)
		}
	}
}

const testKey = `SOFTWARE\windows-layer-mounts-test`

// deleteTestKey removes the key, and fails the test unless it was there.
func deleteTestKey(t *testing.T) {
	t.Helper()
	path, err := windows.UTF16PtrFromString(testKey)
	must(t, err)
	code, _, _ := windows.NewLazySystemDLL("advapi32.dll").NewProc("RegDeleteKeyExW").Call(
		uintptr(windows.HKEY_LOCAL_MACHINE), uintptr(unsafe.Pointer(path)), windows.KEY_WOW64_64KEY, 0)
	if code != 0 {
		t.Errorf("remove HKLM\\%s: %v", testKey, windows.Errno(code))
	}
}

func TestClassOf_OneProcessNamesItForAll(t *testing.T) {
	needWindows(t, "Wine gives a key that is there the class with which it is to be made")
	defer deleteTestKey(t)
	var all sync.WaitGroup
	classes := make([]string, 8)
	for i := range classes {
		all.Add(1)
		go func() {
			defer all.Done()
			var err error
			if classes[i], err = classOf(testKey, string(rune('a'+i))); err != nil {
				t.Error(err)
			}
		}()
	}
	all.Wait()
	for _, class := range classes {
		if class == "" || class != classes[0] {
			t.Errorf("the classes are %q", classes)
		}
	}
}

func TestClassOf_KeyIsVolatileAndKeepsItsClass(t *testing.T) {
	for _, class := range []string{"a", "b"} {
		if got, err := classOf(testKey, class); err != nil || got != "a" {
			t.Errorf("got %q, %v, want a", got, err)
		}
	}
	defer deleteTestKey(t)
	// Windows makes no other key below a volatile one.
	if code := makeKey(t, testKey+`\sub`); code != windows.ERROR_CHILD_MUST_BE_VOLATILE {
		t.Errorf("a key below it that is not volatile: %v", code)
	}
}

func TestClassOf_KeyWithoutAClassIsAnError(t *testing.T) {
	if code := makeKey(t, testKey); code != 0 {
		t.Fatal(code)
	}
	defer deleteTestKey(t)
	_, err := classOf(testKey, "a")
	wantError(t, err, "key has no class")
}

// makeKey makes a key that has no class and is not volatile.
func makeKey(t *testing.T, path string) windows.Errno {
	t.Helper()
	pathPtr, err := windows.UTF16PtrFromString(path)
	must(t, err)
	var key windows.Handle
	code, _, _ := procRegCreateKeyExW.Call(uintptr(windows.HKEY_LOCAL_MACHINE), uintptr(unsafe.Pointer(pathPtr)), 0, 0, 0,
		windows.KEY_READ|windows.KEY_WOW64_64KEY, 0, uintptr(unsafe.Pointer(&key)), 0)
	if code == 0 {
		_ = windows.RegCloseKey(key)
	}
	return windows.Errno(code)
}

// needWindows skips a test under Wine.
func needWindows(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("HCS_SIM_DIR") != "" {
		t.Skip("needs Windows: " + why)
	}
}
