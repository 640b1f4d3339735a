package hcstest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// unitedModel returns a model in files that has volumes on every system, and a layer
// that is active.
func unitedModel(t *testing.T) (m *Model, layer string) {
	t.Helper()
	m, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m.volumes = filepath.Join(t.TempDir(), "volumes")
	layer = makeLayer(t, true)
	must(t, m, layer, Activate)
	return m, layer
}

// write makes a file with the text, and the directory for it.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, []byte(text), 0o666)); err != nil {
		t.Fatal(err)
	}
}

// wantText fails the test unless the file holds the text, or, with "", is not there.
func wantText(t *testing.T, path, text string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if text == "" && !errors.Is(err, os.ErrNotExist) || text != "" && (string(data) != text || err != nil) {
		t.Errorf("%s holds %q, %v, want %q", path, data, err, text)
	}
}

func prepare(t *testing.T, m *Model, layer string, parents ...string) {
	t.Helper()
	if err := m.PrepareLayer(layer, parents); err != nil {
		t.Fatal(err)
	}
}

func TestPrepareLayer_ShowsTheFilesOfTheNearestParentFirst(t *testing.T) {
	m, layer := unitedModel(t)
	volume, dir := volumeOf(m, layer, 0), t.TempDir()
	near, far := filepath.Join(dir, "near"), filepath.Join(dir, "far")
	write(t, filepath.Join(near, "Files", "both"), "near")
	write(t, filepath.Join(near, "Files", "file here"), "near")
	write(t, filepath.Join(near, "Files", "sub", "near"), "near")
	write(t, filepath.Join(far, "Files", "both"), "far")
	write(t, filepath.Join(far, "Files", "file here", "directory there"), "far")
	write(t, filepath.Join(far, "Files", "sub", "far"), "far")
	write(t, filepath.Join(far, "Hives", "hive"), "far")
	write(t, filepath.Join(far, "Files", "written"), "far")
	write(t, filepath.Join(volume, "written"), "layer")
	prepare(t, m, layer, near, filepath.Join(dir, "absent"), far)
	for name, text := range map[string]string{
		"both": "near", "file here": "near", "sub/near": "near", "sub/far": "far", "written": "layer", "hive": "",
	} {
		wantText(t, filepath.Join(volume, filepath.FromSlash(name)), text)
	}
	if entries, err := os.ReadDir(m.volumes); len(entries) != 1 || err != nil {
		t.Errorf("beside the volume is %v, %v", entries, err)
	}
}

func TestModel_WritingInAVolumeChangesNoParent(t *testing.T) {
	m, layer := unitedModel(t)
	parent := t.TempDir()
	write(t, filepath.Join(parent, "Files", "file"), "parent")
	prepare(t, m, layer, parent)
	write(t, filepath.Join(volumeOf(m, layer, 0), "file"), "layer")
	wantText(t, filepath.Join(parent, "Files", "file"), "parent")
}

func TestPrepareLayer_BringsNoRemovedFileBack(t *testing.T) {
	m, layer := unitedModel(t)
	parent, file := t.TempDir(), filepath.Join(volumeOf(m, layer, 0), "file")
	write(t, filepath.Join(parent, "Files", "file"), "parent")
	prepare(t, m, layer, parent)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	must(t, m, layer, Unprepare, Deactivate, Activate)
	prepare(t, m, layer, parent)
	wantText(t, file, "")
	if err := m.Reboot(); err != nil {
		t.Fatal(err)
	}
	must(t, m, layer, Activate)
	prepare(t, m, layer, parent)
	wantText(t, file, "")
}

func TestPrepareLayer_CopiesAFileThatAKillCutShort(t *testing.T) {
	m, layer := unitedModel(t)
	parent, volume := t.TempDir(), volumeOf(m, layer, 0)
	write(t, filepath.Join(parent, "Files", "file"), "parent")
	write(t, volume+".copy", "part")
	prepare(t, m, layer, parent)
	wantText(t, filepath.Join(volume, "file"), "parent")
	wantText(t, volume+".copy", "")
}

func TestPrepareLayer_AddsNoFilesToAReadOnlyLayer(t *testing.T) {
	m, writable := unitedModel(t)
	layer, parent := makeLayer(t, false), t.TempDir()
	write(t, filepath.Join(parent, "Files", "file"), "parent")
	prepare(t, m, layer, parent)
	wantPath(t, m, layer, layer)
	for _, path := range []string{layer, volumeOf(m, writable, 0), m.volumes} {
		wantText(t, filepath.Join(path, "file"), "")
	}
}
