package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount"
)

func TestRun_WrongArguments(t *testing.T) {
	for _, test := range []struct {
		args  string
		code  int
		words string
	}{
		{"", 2, "layermount mount"},
		{"frob", 2, "layermount mount"},
		{"-h", 0, ""},
		{"mount", 2, "usage: layermount mount"},
		{"mount a", 2, "usage: layermount mount"},
		{"mount a b c", 2, "usage: layermount mount"},
		{"mount -frob a b", 2, "flag provided but not defined: -frob"},
		{"mount -ro a b", 2, "usage: layermount mount"},
		{"mount -base -parent a b c", 2, "usage: layermount mount"},
		{"mount -h", 0, "the nearest first"},
		{"unmount", 2, "usage: layermount unmount"},
		{"unmount -h", 0, "usage: layermount unmount"},
		{"list a", 2, "usage: layermount list"},
		{"list -h", 0, "print JSON"},
		{"cleanup", 2, "usage: layermount cleanup"},
		{"cleanup -h", 0, "usage: layermount cleanup"},
	} {
		var out, errOut bytes.Buffer
		if code := run(strings.Fields(test.args), &out, &errOut); code != test.code || !strings.Contains(errOut.String(), test.words) {
			t.Errorf("%q: %d, %s%s", test.args, code, &out, &errOut)
		}
	}
}

func TestRun_MountWithoutAChainOfParents(t *testing.T) {
	layer := t.TempDir()
	for _, chain := range []string{"", "{", `"C:\\layers\\1"`} {
		if chain != "" {
			if err := os.WriteFile(filepath.Join(layer, "layerchain.json"), []byte(chain), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		var out, errOut bytes.Buffer
		code := run([]string{"mount", layer, filepath.Join(layer, "target")}, &out, &errOut)
		if code != 1 || !strings.Contains(errOut.String(), "layerchain.json") || !strings.Contains(errOut.String(), "-parent") {
			t.Errorf("%q: %d, %s", chain, code, &errOut)
		}
	}
}

func TestRun_SaysWhatIsNotImplementedOnUnix(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("this is Windows")
	}
	for _, args := range []string{"mount -base /layer /target", "unmount /target", "list", "list -json", "cleanup /temp"} {
		var out, errOut bytes.Buffer
		if code := run(strings.Fields(args), &out, &errOut); code != 1 || !strings.Contains(errOut.String(), "scripts/example") {
			t.Errorf("%q: %d, %s", args, code, &errOut)
		}
	}
}

func TestRun_MountsListsAndUnmounts(t *testing.T) {
	if os.Getenv("HCS_SIM_DIR") == "" {
		t.Skip("needs the simulated HCS: run scripts/wine test on Linux")
	}
	dir := t.TempDir()
	table, err := os.MkdirTemp("", "table") // the process holds it until its end
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.SetTableDir(table); err != nil {
		t.Fatal(err)
	}
	base, layer, target, temp := filepath.Join(dir, "base"), filepath.Join(dir, "2"), filepath.Join(dir, "target"), filepath.Join(dir, "temp")
	chain, err := json.Marshal([]string{base})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{filepath.Join(base, "Files", "hello"): "hello", filepath.Join(layer, "sandbox.vhdx"): "", filepath.Join(layer, "layerchain.json"): string(chain)} {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		args       []string
		code       int
		out, error string
	}{
		{args: []string{"mount", layer, target}, out: target + " shows " + layer},
		{args: []string{"list"}, out: target},
		{args: []string{"list", "-json"}, out: `"Type": "windows-layer"`},
		{args: []string{"mount", "-parent", base, layer, target}, code: 1, error: "layermount unmount TARGET"},
		{args: []string{"unmount", target}},
		{args: []string{"list", "-json"}, out: "[]"},
		{args: []string{"mount", "-bind", "-ro", layer, target}, out: target + " shows " + layer},
		{args: []string{"list"}, out: "ro"},
		{args: []string{"unmount", layer}},
		{args: []string{"mount", "-base", base, filepath.Join(temp, "a")}, code: 1, error: "temp"},
		{args: []string{"cleanup", temp}},
		{args: []string{"mount", "-base", base, filepath.Join(temp, "a")}, out: "shows"},
		{args: []string{"cleanup", temp}},
		{args: []string{"list", "-json"}, out: "[]"},
		{args: []string{"mount", "relative\x00", target}, code: 1, error: "layermount:"},
		{args: []string{"unmount", `C:\`, "", target}},
	} {
		var out, errOut bytes.Buffer
		code := run(step.args, &out, &errOut)
		if code != step.code || !strings.Contains(out.String(), step.out) || !strings.Contains(errOut.String(), step.error) {
			t.Errorf("%q: %d, %s%s", step.args, code, &out, &errOut)
		}
	}
}

func TestDescribe_SaysTheCodeAndWhatToDo(t *testing.T) {
	for code, words := range map[syscall.Errno]string{0x20: "(code 0x20)\nAnother program has the layer open", 0x5: "(code 0x5)\nRun this as administrator", 0x57: "(code 0x57)"} {
		if text := describe(fmt.Errorf("failed: %w", code)); !strings.Contains(text, words) {
			t.Error(text)
		}
	}
}
