package mount

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"golang.org/x/sys/windows"
)

func TestAllProcessesKnowTheStartOfTheSystemByOneName(t *testing.T) {
	id, err := bootID()
	if err != nil || len(id) != 32 {
		t.Fatalf("%q, %v", id, err)
	}
	h := &winHost{t: t, dir: t.TempDir()}
	for i := 0; i < 2; i++ {
		if out, err := h.child("boot").CombinedOutput(); err != nil || string(out) != id {
			t.Errorf("another process calls it %q, %v, want %q", out, err, id)
		}
	}
}

const testKey = `SOFTWARE\windows-layer-mounts-test`

// deleteTestKey removes the key, and fails the test unless it was there.
func deleteTestKey(t *testing.T) {
	t.Helper()
	path, err := windows.UTF16PtrFromString(testKey)
	if err != nil {
		t.Fatal(err)
	}
	const wow64Key = windows.KEY_WOW64_64KEY
	code, _, _ := windows.NewLazySystemDLL("advapi32.dll").NewProc("RegDeleteKeyExW").Call(
		uintptr(windows.HKEY_LOCAL_MACHINE), uintptr(unsafe.Pointer(path)), wow64Key, 0)
	if code != 0 {
		t.Errorf("failed to remove HKLM\\%s: %v", testKey, windows.Errno(code))
	}
}

func TestOfThoseWhoMakeTheKeyOneNamesTheStartForAll(t *testing.T) {
	needWindows(t, "Wine gives a key that is there the class with which it is to be made")
	defer deleteTestKey(t)
	var all sync.WaitGroup
	classes := make([]string, 8)
	for i := range classes {
		i := i
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
			t.Errorf("the names are %q", classes)
		}
	}
}

func TestTheKeyOfTheStartIsVolatileAndKeepsItsClass(t *testing.T) {
	for _, class := range []string{"a", "b"} {
		if got, err := classOf(testKey, class); err != nil || got != "a" {
			t.Errorf("got %q, %v, want a", got, err)
		}
	}
	defer deleteTestKey(t)
	// Below a volatile key Windows makes no other.
	if code := makeKey(t, testKey+`\sub`); code != windows.ERROR_CHILD_MUST_BE_VOLATILE {
		t.Errorf("a key that stays was made below it: %v", code)
	}
}

func TestAKeyThatSomethingElseMadeTellsNoStart(t *testing.T) {
	if code := makeKey(t, testKey); code != 0 {
		t.Fatal(code)
	}
	defer deleteTestKey(t)
	_, err := classOf(testKey, "a")
	wantError(t, err, "it has no class")
}

// makeKey makes a key of no class that is not volatile.
func makeKey(t *testing.T, path string) windows.Errno {
	t.Helper()
	pathPtr, err := windows.UTF16PtrFromString(path)
	if err != nil {
		t.Fatal(err)
	}
	var key windows.Handle
	code, _, _ := procRegCreateKeyExW.Call(uintptr(windows.HKEY_LOCAL_MACHINE), uintptr(unsafe.Pointer(pathPtr)), 0, 0, 0,
		windows.KEY_READ|windows.KEY_WOW64_64KEY, 0, uintptr(unsafe.Pointer(&key)), 0)
	if code == 0 {
		_ = windows.RegCloseKey(key)
	}
	return windows.Errno(code)
}

// phaseEnv is "before" or "after": scripts/wine restart runs the test in two
// processes, and ends Wine's server in between. With that the volatile keys go.
const phaseEnv = "MOUNT_TEST_RESTART"

func TestWhatWasMountedBeforeARestartIsCleanedUpWithoutACallOfHCS(t *testing.T) {
	phase := os.Getenv(phaseEnv)
	if phase == "" {
		t.Skip("needs a restart: run scripts/wine restart on Linux")
	}
	h := newWinHostIn(t, os.Getenv(childDir), hcstest.Likely)
	id, err := bootID()
	h.must(err)
	if phase == "before" {
		h.must(os.WriteFile(h.path("boot"), []byte(id), 0o666))
		h.mkdir(h.path("directory"))
		h.mkdir(h.path("again"))
		h.must(h.scratch().Mount(h.path("directory")))
		h.must(h.scratch().Mount(h.path("absent")))
		h.must(h.mountOf("0").Mount(h.path("again")))
		h.wantOpen("0", "2")
		return
	}
	if before, err := os.ReadFile(h.path("boot")); err != nil || string(before) == id {
		t.Fatalf("the system has the same name before and after: %s, %v", before, err)
	}
	if infos, err := List(); err != nil || len(infos) != 3 {
		t.Errorf("on record are %v, %v", infos, err)
	}
	_, err = Lookup(h.path("directory"))
	wantError(t, err, "look up mount", os.ErrNotExist)
	h.openElsewhere(h.scratch()) // a container runtime has the layer now
	h.must(Unmount(h.path("directory"), 0))
	h.must(Unmount(h.path("absent"), 0))
	h.wantCalls()
	h.wantOpen("2")
	h.wantDirectory(h.path("directory"))
	if _, err := os.Lstat(h.path("absent")); !os.IsNotExist(err) {
		t.Errorf("at the other target: %v", err)
	}
	h.must(Unmount(h.layer("2"), 0)) // which no record names: it closes what other code has opened
	h.ResetCalls()
	h.must(h.mountOf("0").Mount(h.path("again")))
	h.wantCalls("GetLayerMountPath 0", "ActivateLayer 0", "PrepareLayer 0 []", "GetLayerMountPath 0")
	h.must(Unmount(h.path("again"), 0))
	h.wantNothing()
	h.must(os.RemoveAll(filepath.Join(h.dir, "layers")))
}
