// Command layermount mounts Windows container layers, and finds out why one is in use.
//
//	layermount mount [-ro] [-bind] [-base] [-parent DIR]... LAYER TARGET
//	layermount unmount PATH...
//	layermount list [-json]
//	layermount cleanup DIR
//
// It exits with 0 if all went well, with 1 if something failed, and with 2 if its arguments are wrong.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/seed-941ae793/mount"
	"github.com/seed-941ae793/mount/internal/hcs"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// command is what a first argument names. Do returns errUsage if the arguments after the flags are wrong.
type command struct {
	name, args, about string
	flags             func(flags *flag.FlagSet)
	do                func(args []string, out io.Writer) error
}

var errUsage = errors.New("wrong arguments")

func run(args []string, out, errOut io.Writer) (code int) {
	commands := []command{mountCommand(), unmountCommand(), listCommand(), cleanupCommand()}
	for _, c := range commands {
		if len(args) > 0 && args[0] == c.name {
			return c.run(args[1:], out, errOut)
		}
	}
	isHelp := len(args) > 0 && (args[0] == "help" || strings.TrimLeft(args[0], "-") == "h" || strings.TrimLeft(args[0], "-") == "help")
	if isHelp {
		errOut = out
	}
	fmt.Fprintln(errOut, "layermount mounts Windows container layers.")
	for _, c := range commands {
		fmt.Fprintf(errOut, "\n  layermount %s %s\n      %s\n", c.name, c.args, c.about)
	}
	if isHelp {
		return 0
	}
	return 2
}

func (c command) run(args []string, out, errOut io.Writer) (code int) {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: layermount %s %s\n%s\n", c.name, c.args, c.about)
		flags.PrintDefaults()
	}
	if c.flags != nil {
		c.flags(flags)
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	err := c.do(flags.Args(), out)
	if errors.Is(err, errUsage) {
		flags.Usage()
		return 2
	}
	if err != nil {
		fmt.Fprintln(errOut, "layermount:", describe(err))
		return 1
	}
	return 0
}

// describe returns the text of an error with its Windows code and, if one is known, what to do.
func describe(err error) string {
	text := err.Error()
	var code syscall.Errno
	if errors.As(err, &code) {
		text += fmt.Sprintf(" (code 0x%x)", uintptr(code))
	}
	const sharingViolation, accessDenied, moduleNotFound, notPrivileged = 0x20, 0x5, 0x7e, 0x522
	switch {
	case errors.Is(err, mount.ErrNotImplementOnUnix):
		text += "\nOnly Windows mounts container layers. On Linux, scripts/example runs this program under Wine."
	case errors.Is(err, os.ErrExist):
		text += "\nThe target is in use. layermount list shows what is mounted, and layermount unmount TARGET unmounts it."
	case code == sharingViolation:
		text += "\nAnother program has the layer open. layermount list shows whether a program that uses this package has,\nand layermount unmount LAYER closes it."
	case code == accessDenied, code == notPrivileged:
		text += "\nRun this as administrator."
	case code == moduleNotFound:
		text += "\nIs the Windows feature Containers installed?"
	}
	return text
}

func mountCommand() command {
	var readOnly, bind, isBase bool
	var parents []string
	return command{
		name: "mount", args: "[-ro] [-bind] [-base] [-parent DIR]... LAYER TARGET",
		about: "Opens the layer in the directory LAYER and shows its files at TARGET.",
		flags: func(flags *flag.FlagSet) {
			flags.BoolVar(&readOnly, "ro", false, "refuse to write through TARGET; takes -bind")
			flags.BoolVar(&bind, "bind", false, "show the layer through the bind filter, and not by a link")
			flags.BoolVar(&isBase, "base", false, "LAYER has no parents")
			flags.Func("parent", "the `directory` of a parent, the nearest first; by default LAYER's layerchain.json lists them", func(dir string) error {
				dir, err := filepath.Abs(dir)
				parents = append(parents, dir)
				return err
			})
		},
		do: func(args []string, out io.Writer) error {
			if len(args) != 2 || isBase && len(parents) > 0 || readOnly && !bind {
				return errUsage
			}
			layer, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if len(parents) == 0 && !isBase {
				if parents, err = hcs.ParentsOf(layer); err != nil {
					return fmt.Errorf("find the parents: %w\nName them with -parent, or say -base if there are none", err)
				}
			}
			list, err := json.Marshal(parents)
			if err != nil {
				return err
			}
			m := mount.Mount{Type: "windows-layer", Source: layer, Options: []string{mount.ParentLayerPathsFlag + string(list)}}
			if readOnly {
				m.Options = append(m.Options, "ro")
			}
			mount.UseBindFilter(bind)
			if err := m.Mount(args[1]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "%s shows %s\n", args[1], layer)
			return err
		},
	}
}

func unmountCommand() command {
	return command{
		name: "unmount", args: "PATH...",
		about: "Unmounts targets. The directory of a layer stands for all its targets. A layer is closed with its last one.",
		do: func(args []string, out io.Writer) error {
			if len(args) == 0 {
				return errUsage
			}
			var errs []error
			for _, path := range args {
				errs = append(errs, mount.Unmount(path, 0))
			}
			return errors.Join(errs...)
		},
	}
}

func listCommand() command {
	var asJSON bool
	return command{
		name: "list", args: "[-json]",
		about: "Lists what is mounted, and what a killed process or a restart has left.",
		flags: func(flags *flag.FlagSet) { flags.BoolVar(&asJSON, "json", false, "print JSON") },
		do: func(args []string, out io.Writer) error {
			if len(args) > 0 {
				return errUsage
			}
			infos, err := mount.List()
			if asJSON {
				type entry struct{ Target, Source, Root, Type, Options string }
				entries := []entry{}
				for _, info := range infos {
					entries = append(entries, entry{info.Mountpoint, info.Source, info.Root, info.FSType, info.Options})
				}
				encoder := json.NewEncoder(out)
				encoder.SetIndent("", "  ")
				return errors.Join(err, encoder.Encode(entries))
			}
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "TARGET\tSOURCE\tSHOWS\tTYPE\tOPTIONS")
			for _, info := range infos {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", info.Mountpoint, info.Source, info.Root, info.FSType, info.Options)
			}
			return errors.Join(err, table.Flush())
		},
	}
}

func cleanupCommand() command {
	return command{
		name: "cleanup", args: "DIR",
		about: "Unmounts all that is mounted below DIR, a location of temporary mounts, and removes the targets.",
		do: func(args []string, out io.Writer) error {
			if len(args) != 1 {
				return errUsage
			}
			if err := mount.SetTempMountLocation(args[0]); err != nil {
				return err
			}
			failed, err := mount.CleanupTempMounts(0)
			return errors.Join(append(failed, err)...)
		},
	}
}
