package wine_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/hcstest/wine"
	"github.com/seed-941ae793/mount/internal/winfs"
	"github.com/seed-941ae793/mount/internal/winpath"
)

const guid = "{01234567-89AB-cdef-0123-456789abcdef}"

// makeVolume makes a volume as the simulation does, and returns its path and what removes it.
func makeVolume(t *testing.T) (volume string, remove func()) {
	devices := os.Getenv("HCS_SIM_VOLUMES")
	if devices == "" {
		t.Skip("not under Wine: HCS_SIM_VOLUMES is not set")
	}
	dir := filepath.Join(devices, "volume{01234567-89ab-cdef-0123-456789abcdef}")
	mkdir(t, filepath.Join(dir, "Inner"))
	remove = func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(remove)
	return `\\?\Volume` + guid + `\`, remove
}

// unlinkAtEnd lets t.TempDir be removed: through a link, os.RemoveAll would remove what it leads to.
func unlinkAtEnd(t *testing.T, link string) { t.Cleanup(func() { wine.Unlink(link) }) }

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o777); err != nil {
		t.Fatal(err)
	}
}

func TestSymlink_IsFollowedAndReadBack(t *testing.T) {
	volume, _ := makeVolume(t)
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "Files"))
	texts := []string{volume, volume + "Inner", filepath.Join(dir, "Files"), filepath.Join(dir, "FILES"), `\\?\` + filepath.Join(dir, "Files")}
	for i, text := range texts {
		link := filepath.Join(dir, string(rune('a'+i)))
		if err := wine.Symlink(text, link); err != nil {
			t.Fatal(text, err)
		}
		unlinkAtEnd(t, link)
		if err := os.WriteFile(filepath.Join(link, "through"), []byte(text), 0o666); err != nil {
			t.Error(err)
		}
		if data, err := os.ReadFile(filepath.Join(text, "through")); string(data) != text {
			t.Errorf("%s has %q, %v", text, data, err)
		}
		if back, err := wine.Readlink(link); err != nil || !winpath.Equal(back, text) {
			t.Errorf("Readlink = %q, %v, want %q", back, err, text)
		}
		if err := wine.Symlink(text, link); !errors.Is(err, os.ErrExist) {
			t.Errorf("a second link: %v", err)
		}
	}
}

func TestUnlink_RemovesALinkOfWhichTheVolumeIsGone(t *testing.T) {
	volume, removeVolume := makeVolume(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := wine.Symlink(volume, link); err != nil {
		t.Fatal(err)
	}
	removeVolume()
	if _, err := os.Stat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat of a link to nothing: %v", err)
	}
	if text, err := wine.Readlink(link); err != nil || !winpath.Equal(text, volume) {
		t.Errorf("Readlink = %q, %v", text, err)
	}
	if err := wine.Unlink(link); err != nil {
		t.Error(err)
	}
	if _, err := wine.Readlink(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Readlink after Unlink: %v", err)
	}
}

func TestReadlink_OfADirectoryOrAMissingVolume(t *testing.T) {
	volume, removeVolume := makeVolume(t)
	if _, err := wine.Readlink(volume); err != windows.ERROR_NOT_A_REPARSE_POINT {
		t.Errorf("Readlink of a volume: %v", err)
	}
	removeVolume()
	if _, err := wine.Readlink(volume + "link"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Readlink on a volume that is gone: %v", err)
	}
}

// What the build for Wine makes of internal/winfs: see the directory _winfs.
func TestOverlay_GivesWinfsLinksUnderWine(t *testing.T) {
	volume, _ := makeVolume(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := winfs.Link(volume, link); err != nil {
		t.Fatal(err)
	}
	unlinkAtEnd(t, link)
	for path, want := range map[string]string{
		link:                                volume,
		filepath.Join(link, "inner"):        volume + "Inner",
		filepath.Join(link, "inner", "new"): volume + `Inner\new`,
		volume:                              volume,
	} {
		if name, err := winfs.Resolve(path); err != nil || !winpath.Equal(name.Path, want) {
			t.Errorf("Resolve(%s) = %q, %v, want %q", path, name.Path, err, want)
		}
	}
	inner := filepath.Join(filepath.Dir(link), "inner")
	if err := winfs.Link(volume+"Inner", inner); err != nil {
		t.Fatal(err)
	}
	if err := winfs.RemoveDir(inner); !errors.Is(err, windows.ERROR_DIRECTORY) {
		t.Errorf("RemoveDir of a link to an empty directory: %v", err)
	}
	if _, err := os.Stat(volume + "Inner"); err != nil {
		t.Error(err)
	}
	if err := winfs.RemoveLink(inner, volume+"other"); err != nil {
		t.Error(err)
	}
	if _, err := winfs.ReadLink(inner); err != nil {
		t.Errorf("RemoveLink has removed a link with another text: %v", err)
	}
	if err := winfs.RemoveLink(inner, volume+"Inner"); err != nil {
		t.Error(err)
	}
	if _, err := winfs.ReadLink(inner); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadLink after RemoveLink: %v", err)
	}
}
