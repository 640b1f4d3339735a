//go:build windows

// Command example mounts a layer, lists its root and unmounts it, printing each
// step. The layer is one that the user names or, for the simulated HCS, a sample
// that it makes: of that it also reads a file of the base layer, and writes one.
//
//	example [-target DIR] LAYER [PARENT...]
//	example -sample
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-941ae793/mount"
)

func main() {
	sample := flag.Bool("sample", false, "make a sample layer and mount it; for the simulated HCS")
	target := flag.String("target", `C:\mount-example`, "where to show the layer")
	flag.Parse()
	if *sample {
		scratch, base := makeSample()
		check(run(*target, scratch, []string{base}, useFiles))
		check(run(*target, base, nil, list))
		return
	}
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	check(run(*target, flag.Arg(0), flag.Args()[1:], list))
}

// run mounts the layer at target, calls use with target, and unmounts the layer.
func run(target, layer string, parents []string, use func(target string) error) error {
	m := mount.Mount{Type: "windows-layer", Source: layer}
	if len(parents) > 0 {
		list, err := json.Marshal(parents)
		if err != nil {
			return err
		}
		m.Options = []string{mount.ParentLayerPathsFlag + string(list)}
	}
	fmt.Printf("\nmounting %s\n  at      %s\n  parents %q\n", layer, target, parents)
	if err := m.Mount(target); err != nil {
		return err
	}
	info, err := mount.Lookup(target)
	if err == nil {
		fmt.Printf("mounted: the layer is open as %s\n", info.Root)
		err = use(target)
	}
	fmt.Printf("unmounting %s\n", target)
	if err := errors.Join(err, mount.Unmount(target, 0)); err != nil {
		return err
	}
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("something is still at %s: %v", target, err)
	}
	if _, err := os.Stat(info.Root); len(parents) > 0 && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is still there: %v", info.Root, err)
	}
	fmt.Println("unmounted: the layer is closed, and nothing is at the target")
	return nil
}

// useFiles reads a file of the base layer through the target, and writes one.
func useFiles(target string) error {
	path := filepath.Join(target, "License.txt")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fmt.Printf("reading %s, a file of the base layer: %q\n", path, data)
	path = filepath.Join(target, "hello.txt")
	fmt.Printf("writing %s\n", path)
	if err := os.WriteFile(path, []byte("hello\n"), 0o666); err != nil {
		return err
	}
	return list(target)
}

func list(target string) error {
	entries, err := os.ReadDir(target)
	if err != nil {
		return err
	}
	fmt.Printf("listing %s: %d entries\n", target, len(entries))
	for _, entry := range entries {
		fmt.Printf("  %s\n", entry)
	}
	return nil
}

// makeSample makes a base layer and a writable one, which shows the files of the
// other.
func makeSample() (scratch, base string) {
	scratch, base = `C:\layers\scratch`, `C:\layers\base`
	for _, dir := range []string{filepath.Join(base, `Files\Windows`), scratch} {
		check(os.MkdirAll(dir, 0o777))
	}
	check(os.WriteFile(filepath.Join(base, `Files\License.txt`), []byte("sample"), 0o666))
	check(os.WriteFile(filepath.Join(scratch, "sandbox.vhdx"), nil, 0o666))
	fmt.Printf("made sample layers %s and %s\n", base, scratch)
	return scratch, base
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}
