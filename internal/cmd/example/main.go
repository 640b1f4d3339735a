//go:build windows

// Command example mounts a layer, lists its root and unmounts it, printing each
// step. The layer is one that the user names or, for the simulated HCS, a sample
// that it makes.
//
//	example [-target DIR] LAYER [PARENT...]
//	example -sample
package main

import (
	"encoding/json"
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
		check(run(*target, scratch, []string{base}, "hello.txt"))
		check(run(*target, base, nil, ""))
		return
	}
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	check(run(*target, flag.Arg(0), flag.Args()[1:], ""))
}

// run mounts the layer, writes a file in its root when one is named, lists the
// root and unmounts the layer.
func run(target, layer string, parents []string, file string) error {
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
	if err := show(target, file); err != nil {
		fmt.Println("showing the layer failed:", err)
	}
	fmt.Printf("unmounting %s\n", target)
	if err := mount.Unmount(target, 0); err != nil {
		return err
	}
	if _, err := mount.Lookup(target); err == nil {
		return fmt.Errorf("%s is still a mount", target)
	}
	fmt.Println("unmounted: the layer is closed and the link is gone")
	return nil
}

// show writes the file and lists the root of the layer at target. Wine up to 10
// has no symbolic links: there the volume is used that the link leads to.
func show(target, file string) error {
	info, err := mount.Lookup(target)
	if err != nil {
		return err
	}
	fmt.Printf("mounted: the layer is open as %s\n", info.Root)
	root := target
	if _, err := os.Lstat(target); os.IsNotExist(err) {
		root = info.Root
		fmt.Printf("NOTE: this system said that it made the link at %s, and made none (Wine up to 10).\n", target)
		fmt.Println("      The layer is used through the path that the link leads to.")
	}
	if file != "" {
		fmt.Printf("writing %s\n", filepath.Join(root, file))
		if err := os.WriteFile(filepath.Join(root, file), []byte("hello\n"), 0o666); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	fmt.Printf("listing %s: %d entries\n", root, len(entries))
	for _, entry := range entries {
		fmt.Printf("  %s\n", entry)
	}
	return nil
}

// makeSample makes a base layer and a writable one. The simulation has no union
// filter: the volume of the writable layer does not show the files of the base
// layer.
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
