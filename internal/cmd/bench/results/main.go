//go:build windows

// Command results prints what Mount and the Unmounts of this module's package mount and of
// containerd's, with which it shares an API, return for the same targets, as a table in Markdown.
// Both bind layers, as a fork of containerd 2.x does. It fails when they differ in a way that
// has no reason here, or agree where one is given. It is for the simulated HCS and bind filter;
// scripts/results runs it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/Microsoft/hcsshim"
	containerd "github.com/containerd/containerd/v2/core/mount"
	"github.com/seed-941ae793/mount"
)

// api is a package mount.
type api struct {
	mount    func(source string, options []string, target string) error
	unmounts map[string]func(target string, flags int) error
}

var theirs = api{
	mount: func(source string, options []string, target string) error {
		m := containerd.Mount{Type: "windows-layer", Source: source, Options: options}
		return m.Mount(target)
	},
	unmounts: map[string]func(string, int) error{
		"Unmount": containerd.Unmount, "UnmountAll": containerd.UnmountAll, "UnmountRecursive": containerd.UnmountRecursive,
	},
}

var ours = api{
	mount: func(source string, options []string, target string) error {
		m := mount.Mount{Type: "windows-layer", Source: source, Options: options}
		return m.Mount(target)
	},
	unmounts: map[string]func(string, int) error{
		"Unmount": mount.Unmount, "UnmountAll": mount.UnmountAll, "UnmountRecursive": mount.UnmountRecursive,
	},
}

// host is where a case happens: a directory with a layer of its own and a target.
type host struct {
	api
	layer, target string
}

func (h *host) mountAt(target string) error {
	parents, err := json.Marshal([]string{filepath.Join(filepath.Dir(h.layer), "base")})
	if err != nil {
		return err
	}
	return h.mount(h.layer, []string{mount.ParentLayerPathsFlag + string(parents)}, target)
}

// state is what a target is before the call.
type state struct {
	name    string
	prepare func(h *host) error
}

var states = []state{
	{"absent", func(h *host) error { return nil }},
	{"an empty directory", func(h *host) error { return os.Mkdir(h.target, 0o777) }},
	{"a directory with a file", func(h *host) error {
		return errors.Join(os.Mkdir(h.target, 0o777), os.WriteFile(filepath.Join(h.target, "data"), nil, 0o666))
	}},
	{"a file", func(h *host) error { return os.WriteFile(h.target, nil, 0o666) }},
	{"mounted", func(h *host) error { return errors.Join(os.Mkdir(h.target, 0o777), h.mountAt(h.target)) }},
	{"mounted, its layer open elsewhere too", func(h *host) error {
		other := h.target + "2"
		err := errors.Join(os.Mkdir(h.target, 0o777), os.Mkdir(other, 0o777), h.mountAt(h.target))
		_ = h.mountAt(other) // which containerd refuses
		return err
	}},
	{"unmounted already", func(h *host) error {
		return errors.Join(os.Mkdir(h.target, 0o777), h.mountAt(h.target), h.unmounts["Unmount"](h.target, 0))
	}},
	{"mounted, and its directory removed", func(h *host) error {
		err := errors.Join(os.Mkdir(h.target, 0o777), h.mountAt(h.target))
		// A stream goes with its file, but Wine has none and makes a file of that name.
		return errors.Join(err, os.RemoveAll(h.target), os.RemoveAll(h.target+":containerd.io-source"))
	}},
	{"the directory of a mounted layer", func(h *host) error {
		err := errors.Join(os.Mkdir(h.target, 0o777), h.mountAt(h.target))
		h.target = h.layer
		return err
	}},
}

// reasons tell why the packages differ, by call and state, or by state alone.
var reasons = map[string]string{
	"Mount: absent":  "containerd creates the directory that the target is in; when the target ends in a separator, it takes the target itself for that directory",
	"Mount: mounted": "a mount is recognized before HCS is asked",
	"Mount: the directory of a mounted layer":   "it is refused before HCS is asked",
	"Unmount: absent":                           "what is not there is not mounted, as for UnmountAll",
	"Mount: mounted, and its directory removed": "it counts as live: the simulation does not show the binding, so nothing tells that it is gone",
	"a file":                                "a file is no mount, and no target; containerd returns what the bind filter says",
	"mounted, its layer open elsewhere too": "a layer may be at two targets, and is closed with the last; containerd refuses the second",
	"mounted, and its directory removed":    "the record tells the layer; containerd's is lost with the directory",
	"the directory of a mounted layer":      "closes the layer",
}

func main() {
	mount.UseBindFilter(true)
	root, err := os.MkdirTemp("", "results")
	if err != nil {
		fail(err)
	}
	t := &table{root: root, given: map[string]bool{}}
	fmt.Println("| call | the target is | containerd 2.4.2 | this package | why |\n| --- | --- | --- | --- | --- |")
	for _, call := range []string{"Mount", "Unmount", "UnmountAll", "UnmountRecursive"} {
		for _, state := range states {
			plain, separated := t.try(call, state, ""), t.try(call, state, `\`)
			t.print(call, state, "", plain)
			if separated != plain {
				t.print(call, state, `, with \ at its end`, separated)
			}
		}
	}
	for key := range reasons {
		if !t.given[key] {
			t.wrong = append(t.wrong, fmt.Errorf("%s: a reason is given, and they agree", key))
		}
	}
	if len(t.wrong) > 0 {
		fail(errors.Join(t.wrong...))
	}
}

// table is what was printed so far.
type table struct {
	root  string          // of the hosts
	hosts int             // which have a directory each
	given map[string]bool // the reasons that were needed
	wrong []error
}

// results are what comes of one call of containerd's package and of this one.
type results struct{ theirs, ours string }

func (t *table) try(call string, s state, separator string) results {
	return results{t.tryOne(theirs, call, s, separator), t.tryOne(ours, call, s, separator)}
}

func (t *table) tryOne(api api, call string, s state, separator string) string {
	t.hosts++
	h, err := newHost(api, filepath.Join(t.root, fmt.Sprint(t.hosts)))
	if err == nil {
		err = s.prepare(h)
	}
	if err != nil {
		fail(fmt.Errorf("%s: %w", s.name, err))
	}
	return h.do(call, separator)
}

// print prints a row, with the reason when the packages differ.
func (t *table) print(call string, s state, how string, got results) {
	why := ""
	if got.theirs != got.ours {
		why = t.reason(call, s)
	}
	if got.theirs != got.ours && why == "" {
		why = "**no reason is given**"
		t.wrong = append(t.wrong, fmt.Errorf("%s of %s%s: they differ", call, s.name, how))
	}
	fmt.Printf("| %s | %s%s | %s | %s | %s |\n", call, s.name, how, got.theirs, got.ours, why)
}

func (t *table) reason(call string, s state) string {
	for _, key := range []string{call + ": " + s.name, s.name} {
		if reason := reasons[key]; reason != "" {
			t.given[key] = true
			return reason
		}
	}
	return ""
}

func newHost(api api, dir string) (*host, error) {
	h := &host{api: api, layer: filepath.Join(dir, "layer"), target: filepath.Join(dir, "target")}
	for _, dir := range []string{filepath.Join(dir, "base", "Files"), h.layer} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, err
		}
	}
	return h, os.WriteFile(filepath.Join(h.layer, "sandbox.vhdx"), nil, 0o666)
}

// do makes the call and returns what comes of it: the result, and whether the layer is open.
func (h *host) do(call, separator string) string {
	var err error
	if unmount := h.unmounts[call]; unmount != nil {
		err = unmount(h.target+separator, 0)
	} else {
		err = h.mountAt(h.target + separator)
	}
	open := "closed"
	dir, id := filepath.Split(h.layer)
	if path, err := hcsshim.GetLayerMountPath(hcsshim.DriverInfo{HomeDir: dir}, id); err == nil && strings.Contains(path, "Volume{") {
		open = "open"
	}
	return result(err) + ", " + open
}

func result(err error) string {
	var code syscall.Errno
	switch {
	case err == nil:
		return "nil"
	case errors.Is(err, os.ErrExist):
		return "`os.ErrExist`"
	case errors.As(err, &code):
		return fmt.Sprintf("0x%x", uintptr(code))
	}
	var hcs *hcsshim.HcsError
	if errors.As(err, &hcs) && errors.As(hcs.Err, &code) {
		return fmt.Sprintf("0x%x in an `HcsError`", uintptr(code))
	}
	return "an error"
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "results:", err)
	os.Exit(1)
}
