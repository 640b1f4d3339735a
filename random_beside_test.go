//go:build !windows

package mount

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
)

// besidePersonalities have a list of bindings: without one, docs/limits.md says what cannot be known.
var besidePersonalities = []string{"likely", "new-volume", "keeps-scratch", "kept-disk-attached",
	"trailing-backslash", "unbind-ancestor-refused", "bindings-other-names", "read-only-detached"}

// beside is a host on which containerd's own package mounts and unmounts, too.
type beside struct {
	*host
	rt     *rapid.T
	mounts map[string]*Mount
}

// Whatever containerd's own package and this one do in turns, and wherever a process of this one is killed, no layer
// is open without a record or a binding, and none is closed under a binding.
func TestEngine_BesideContainerd(t *testing.T) {
	setChecks(t, 30, 1000)
	rapid.Check(t, func(rt *rapid.T) {
		p, _ := hcstest.Named(rapid.SampledFrom(besidePersonalities).Draw(rt, "personality"))
		tb := &rapidTB{TB: t, rt: rt}
		h := &beside{bindingHostOf(tb, p, "shown"), rt, map[string]*Mount{}}
		tb.dir = h.dir
		defer os.RemoveAll(h.dir)
		h.mounts["1"], h.mounts["2"], h.mounts["base"] = h.scratch("1"), h.scratch("2"), h.base("base")
		if p.CommittedKeepsScratch {
			h.mounts["committed"] = h.committed("committed")
			h.write(h.path("layers", "committed", "layerchain.json"), `["C:\\layers\\1","C:\\layers\\0"]`)
		}
		for _, target := range besideTargets {
			h.must(os.MkdirAll(h.path(target), 0o755))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"mount":              h.mountAny,
			"mount another":      h.mountAny,
			"they mount":         h.theyMount,
			"they mount another": h.theyMount,
			"they unmount":       h.theyUnmount,
			"unmount a target":   h.unmountTargetAny,
			"unmount a layer":    h.unmountLayerAny,
			"unmount all below":  h.unmountBelowAny,
			"list":               func(*rapid.T) { h.do("list", func() error { _, err := h.list(); return err }) },
			"restart": func(*rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "rarely") == 0 {
					h.rt.Logf("restart")
					h.reboot()
				}
			},
			"": func(*rapid.T) { h.wantNoneLost() },
		})
		h.must(h.unmountRecursive(h.path("mnt")))
		h.must(h.unmountRecursive(h.path("elsewhere")))
		for _, m := range h.mounts {
			h.mustUnmount(m.Source)
		}
		h.wantBound()
		h.wantClosed()
		for _, target := range besideTargets {
			h.wantAt(h.path(target), "directory of []")
		}
	})
}

var besideTargets = []string{"mnt/a", "mnt/a-name-that-is-longer", "elsewhere/b"}

func (h *beside) target() string {
	return h.path(rapid.SampledFrom(besideTargets).Draw(h.rt, "target"))
}

func (h *beside) layer() *Mount {
	var names []string
	for name := range h.mounts {
		names = append(names, name)
	}
	slices.Sort(names)
	return h.mounts[rapid.SampledFrom(names).Draw(h.rt, "layer")]
}

// do does something, during which this process may be killed. What was bound to a layer stays so, or is removed.
func (h *beside) do(name string, op func() error) (died bool) {
	call := rapid.IntRange(-10, 10).Draw(h.rt, "killed at")
	isAfter := rapid.Bool().Draw(h.rt, "after it")
	live := h.liveBindings()
	die := func(now bool) error {
		if now && call == 0 {
			panic(errKilled)
		}
		return nil
	}
	h.model.Before = func(hcstest.Call, string) error { call--; return die(!isAfter) }
	h.model.After = func(hcstest.Call, string) error { return die(isAfter) }
	died, err := survive(op)
	h.model.Before, h.model.After = nil, nil
	if died {
		h.useTable()
	}
	h.rt.Logf("%s: died %v, error %v; bound %v, open %v", name, died, err, h.model.Bound(), h.model.OpenLayers())
	h.must(err)
	for _, b := range h.model.Bound() {
		if slices.Contains(live, b) && !isDirectory(b.Source) {
			h.rt.Fatalf("a layer was closed under the binding at %s", b.Root)
		}
	}
	return died
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (h *beside) liveBindings() (live []hcstest.Binding) {
	for _, b := range h.model.Bound() {
		if isDirectory(b.Source) {
			live = append(live, b)
		}
	}
	return live
}

// mountAny mounts a layer with this package. It may be refused.
func (h *beside) mountAny(*rapid.T) {
	m, target := h.layer(), h.target()
	binds := rapid.Bool().Draw(h.rt, "bind")
	h.do("mount "+filepath.Base(m.Source)+" at "+target, func() error {
		err := h.binding(binds).mount(context.Background(), m, target)
		h.rt.Logf("%v", err)
		return nil
	})
}

// theyMount mounts a layer as containerd does, which takes a directory to which nothing is bound, and a closed layer.
func (h *beside) theyMount(*rapid.T) {
	m, target := h.layer(), h.target()
	info, err := os.Lstat(target)
	isFree := err == nil && info.IsDir() && !slices.ContainsFunc(h.model.Bound(), func(b hcstest.Binding) bool { return b.Root == target })
	if isFree && !h.isOpen(m) {
		h.rt.Logf("they mount %s at %s", filepath.Base(m.Source), target)
		h.theirMount(m, target)
	}
}

func (h *beside) isOpen(m *Mount) bool {
	return slices.Contains(h.model.OpenLayers(), m.Source)
}

// theyUnmount unmounts a target as containerd does, if no other one shows the layer.
func (h *beside) theyUnmount(*rapid.T) {
	target := h.target()
	var sources []string
	source := ""
	for _, b := range h.model.Bound() {
		sources = append(sources, filepath.Clean(b.Source))
		if b.Root == target {
			source = filepath.Clean(b.Source)
		}
	}
	others := slices.DeleteFunc(sources, func(s string) bool { return s != source })
	isLinked := slices.ContainsFunc(h.host.mounts(), func(r *table.Mount) bool {
		return !r.Binding && r.State == table.Shown && r.Source == h.streamAt(target)
	})
	if source != "" && len(others) == 1 && !isLinked && strings.HasPrefix(h.streamAt(target), "/") && isDirectory(source) {
		h.rt.Logf("they unmount %s", target)
		h.theirUnmount(target)
	}
}

func (h *beside) unmountTargetAny(*rapid.T) {
	target := h.target()
	if !h.do("unmount "+target, func() error { return h.unmount(target) }) {
		h.wantUnbound(func(b hcstest.Binding) bool { return b.Root == target })
	}
}

func (h *beside) unmountLayerAny(*rapid.T) {
	m := h.layer()
	if !h.do("unmount "+m.Source, func() error { return h.unmount(m.Source) }) && h.isOpen(m) {
		h.rt.Fatalf("layer %s is open", m.Source)
	}
}

func (h *beside) unmountBelowAny(*rapid.T) {
	if !h.do("unmount all below mnt", func() error { return h.unmountRecursive(h.path("mnt")) }) {
		h.wantUnbound(func(b hcstest.Binding) bool { return isBelow(b.Root, h.path("mnt")) })
	}
}

func (h *beside) wantUnbound(isIt func(hcstest.Binding) bool) {
	for _, b := range h.model.Bound() {
		if isIt(b) {
			h.rt.Fatalf("%s is bound to %s", b.Source, b.Root)
		}
	}
}

// wantNoneLost wants each open layer to be on record or to be bound somewhere.
func (h *beside) wantNoneLost() {
	known := map[string]bool{}
	for _, r := range h.host.mounts() {
		known[r.Source] = known[r.Source] || h.mayBeOpen(r)
	}
	for _, b := range h.model.Bound() {
		known[h.streamAt(b.Root)] = true
	}
	for _, layer := range h.model.OpenLayers() {
		if !known[layer] {
			h.rt.Fatalf("layer %s is open, on no record and bound nowhere", layer)
		}
	}
}
