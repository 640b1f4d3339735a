// Command vendoring puts this package into a checkout of containerd, in place of what containerd
// mounts with on Windows, or takes it out again. Run it at the top of the repository:
//
//	go run ./internal/cmd/vendoring DIR [-undo]
//
// It looks at everything before it changes anything: a tree that it refuses is left untouched. It
// prints each change. In a tree that it has changed before, it puts its own version of this package
// in the place of the other one.
package main

import (
	"fmt"
	"os"
	"slices"
)

func main() {
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool { return arg == "-undo" })
	if len(args) != 1 || args[0] == "" || args[0][0] == '-' {
		fmt.Fprintln(os.Stderr, "usage: vendor DIR [-undo]")
		os.Exit(2)
	}
	if err := run(args[0], slices.Contains(os.Args[1:], "-undo")); err != nil {
		fmt.Fprintln(os.Stderr, "vendor:", err)
		os.Exit(1)
	}
}

func run(dir string, undo bool) error {
	e, err := readEngine(".")
	if err != nil {
		return err
	}
	t, err := findTree(dir, os.Stdout)
	if err != nil {
		return err
	}
	if undo {
		return t.undo()
	}
	return t.vendor(e)
}
