//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

const errorGenFailure = syscall.Errno(0x1f)

// host is a machine for tests: a directory with layers, a mount table and
// places to mount at, and a model of HCS.
type host struct {
	*mounter
	t      testing.TB
	model  *hcstest.Model
	dir    string
	pauses int
	// bindsAt has the names of the targets that mount binds layers to, such as "ab".
	bindsAt string
}

func newHost(t testing.TB) *host {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := hostIn(t, dir, hcstest.New(filepath.Join(dir, "volumes")))
	for _, name := range []string{"layers", "mnt"} {
		if err := os.Mkdir(h.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// hostIn is the host in a directory which a newHost has made.
func hostIn(t testing.TB, dir string, model *hcstest.Model) *host {
	h := &host{t: t, model: model, dir: dir}
	pause := func(ctx context.Context) error {
		h.pauses++
		return ctx.Err()
	}
	h.mounter = &mounter{opener: opener{hcs: model}, binder: binder{filter: modelFilter{model}}, table: &table{dir: filepath.Join(dir, "table")}, boot: "boot 1"}
	h.setPause(pause)
	if boot, err := os.ReadFile(h.path("boot")); err == nil { // another process has started the host again
		h.boot = string(boot)
	}
	return h
}

// setPause sets what is done before anything is retried.
func (h *host) setPause(pause pauser) {
	h.opener.pause, h.binder.pause, h.table.pause = pause, pause, pause
}

// The host has as methods what are functions over a mounter.

func (h *host) all(ctx context.Context, mounts []Mount, target string) error {
	return mountAll(ctx, h.mounter, mounts, target)
}

func (h *host) unmountMounts(mounts []Mount, target string) error {
	return unmountMounts(h.mounter, mounts, target)
}

func (h *host) unmountRecursive(path string) error { return unmountRecursive(h.mounter, path) }

func (h *host) withTempMount(ctx context.Context, mounts []Mount, f func(root string) error) error {
	return withTempMount(ctx, h.mounter, mounts, f)
}

func (h *host) cleanupTempMounts() ([]error, error) { return cleanupTempMounts(h.mounter) }

func (h *host) lookup(dir string) (Info, error) { return lookup(h.mounter, dir) }

func (h *host) list() ([]Info, error) { return list(h.mounter) }

// modelFilter is the bind filter of a host.
type modelFilter struct{ *hcstest.Model }

func (modelFilter) Find() error { return nil }

func (f modelFilter) Bindings(path string) (bindings []binding, err error) {
	listed, err := f.Model.Bindings(path)
	for _, b := range listed {
		bindings = append(bindings, binding{b.Root, b.Source})
	}
	return bindings, err
}

// reboot starts the host again.
func (h *host) reboot() {
	h.t.Helper()
	if err := h.model.Reboot(); err != nil {
		h.t.Fatal(err)
	}
	h.boot += "1"
	h.write(h.path("boot"), h.boot)
}

func (h *host) path(elements ...string) string {
	return filepath.Join(append([]string{h.dir}, elements...)...)
}

// target returns a path to mount at, at which nothing is.
func (h *host) target(name string) string { return h.path("mnt", name) }

// scratch makes a writable layer and returns its mount.
func (h *host) scratch(name string) *Mount {
	h.write(h.path("layers", name, "sandbox.vhdx"), "scratch")
	return h.scratchMount(name)
}

func (h *host) scratchMount(name string) *Mount {
	return &Mount{Type: "windows-layer", Source: h.path("layers", name),
		Options: []string{ParentLayerPathsFlag + `["C:\\layers\\1","C:\\layers\\0"]`}}
}

// inVolume calls f with the volume of a writable layer, which is active meanwhile.
func (h *host) inVolume(m *Mount, f func(volume string)) {
	h.t.Helper()
	if err := h.model.ActivateLayer(m.Source); err != nil {
		h.t.Fatal(err)
	}
	f(h.link(m))
	if err := h.model.DeactivateLayer(m.Source); err != nil {
		h.t.Fatal(err)
	}
}

// base makes a read-only layer without parents and returns its mount.
func (h *host) base(name string) *Mount {
	h.write(h.path("layers", name, "Files", "hello.txt"), "hello")
	h.write(h.path("layers", name, "Hives", "System_Base"), "hive")
	return h.baseMount(name)
}

func (h *host) baseMount(name string) *Mount {
	return &Mount{Type: "windows-layer", Source: h.path("layers", name)}
}

func (h *host) write(path, text string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) mkdir(path string) string {
	h.t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h *host) mount(m *Mount, target string) error {
	return mountIn(context.Background(), h.binding(strings.Contains(h.bindsAt, filepath.Base(target))), m, target)
}

// binding is the mounter as it is where the process has chosen bindings, or else links.
func (h *host) binding(on bool) *mounter {
	mt := *h.mounter
	mt.binds = on
	return &mt
}

func (h *host) mustMount(m *Mount, target string) {
	h.t.Helper()
	if err := h.mount(m, target); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) unmount(path string) error {
	_, err := h.mounter.unmount(path)
	return err
}

func (h *host) mustUnmount(path string) {
	h.t.Helper()
	if err := h.unmount(path); err != nil {
		h.t.Fatal(err)
	}
}

// record is the record of the layer at a target, or fails the test.
func (h *host) record(target string) *record {
	h.t.Helper()
	r, err := h.table.recordAt(h.key(target))
	if err != nil {
		h.t.Fatal(err)
	}
	return &r
}

// key is the key of a target.
func (h *host) key(path string) key {
	h.t.Helper()
	at, err := newTarget(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return at.Key
}

// layerFile is the path of the record of the layer at a target.
func (h *host) layerFile(target string) string {
	h.t.Helper()
	return h.table.layerPath(h.record(target).Key)
}

// change records a change of the record of the layer at a target.
func (h *host) change(target string, change func(*record)) {
	h.t.Helper()
	e, err := h.table.entry(h.record(target).Key)
	if err != nil {
		h.t.Fatal(err)
	}
	defer e.close()
	change(&e.record)
	if err := e.save(true); err != nil {
		h.t.Fatal(err)
	}
}

// records returns all records in the table.
func (h *host) records() []record {
	h.t.Helper()
	var records []record
	there, err := h.table.holdIfThere()
	if err != nil {
		h.t.Fatal(err)
	}
	if !there {
		return nil
	}
	unread, err := h.table.each(func(r record) { records = append(records, r) })
	if err := stderrors.Join(append(unread, err)...); err != nil {
		h.t.Fatal(err)
	}
	return records
}

// wantNoLeak fails the test when a layer is open or bound that no record names.
func (h *host) wantNoLeak() {
	h.t.Helper()
	recorded, bound := map[string]bool{}, map[string]bool{}
	for _, r := range h.records() {
		recorded[r.Source] = r.Boot == h.boot
		for _, at := range r.Targets {
			bound[at.Resolved] = at.Bound == h.boot
		}
	}
	for _, b := range h.model.Bound() {
		if !bound[b.Root] && !strings.HasSuffix(b.Source, "others") {
			h.t.Errorf("%s is bound to %s without a record", b.Source, b.Root)
		}
	}
	for _, layer := range h.model.OpenLayers() {
		if !recorded[layer] {
			h.t.Errorf("layer %s is open without a record", layer)
		}
	}
}

// wantOpen fails the test unless these layers are open and no others.
func (h *host) wantOpen(names ...string) {
	h.t.Helper()
	var want []string
	for _, name := range names {
		want = append(want, h.path("layers", name))
	}
	if open := h.model.OpenLayers(); !reflect.DeepEqual(open, want) {
		h.t.Errorf("open layers: %q, want %q", open, want)
	}
}

// wantClosed fails the test when a layer is open or bound, or anything is in the table.
func (h *host) wantClosed() {
	h.t.Helper()
	h.wantOpen()
	h.wantBound()
	if left := h.tableFiles(); len(left) != 0 {
		h.t.Errorf("left in the table: %q", left)
	}
}

// wantBound fails the test unless these bindings are there and no others.
func (h *host) wantBound(want ...hcstest.Binding) {
	h.t.Helper()
	if bound := h.model.Bound(); !reflect.DeepEqual(bound, want) {
		h.t.Errorf("bound: %+v, want %+v", bound, want)
	}
}

// tableFiles returns all that is in the table but locks.
func (h *host) tableFiles() []string {
	var all []string
	for _, pattern := range []string{"layers/*", "targets/*"} {
		files, _ := filepath.Glob(h.path("table", pattern))
		all = append(all, files...)
	}
	return all
}

// wantAt fails the test unless what describe tells of path is want.
func (h *host) wantAt(path, want string) {
	h.t.Helper()
	if got := describe(path); got != want {
		h.t.Errorf("at %s: %s, want %s", path, got, want)
	}
}

// describe tells what is at a path: "nothing", "link to …", "file: …", or
// "directory of …".
func describe(path string) string {
	info, err := os.Lstat(path)
	switch {
	case stderrors.Is(err, os.ErrNotExist):
		return "nothing"
	case err != nil:
		return err.Error()
	case info.Mode()&os.ModeSymlink != 0:
		text, err := os.Readlink(path)
		if err != nil {
			return err.Error()
		}
		return "link to " + text
	case info.IsDir():
		entries, err := os.ReadDir(path)
		if err != nil {
			return err.Error()
		}
		names := []string{}
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		return fmt.Sprintf("directory of %q", names)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return "file: " + string(data)
}

// wantCalls fails the test unless HCS was called exactly so. The layers'
// directory is left out of want.
func (h *host) wantCalls(want ...string) {
	h.t.Helper()
	got := strings.ReplaceAll(strings.Join(h.model.Calls(), "\n"), h.path("layers")+string(filepath.Separator), "")
	if got != strings.Join(want, "\n") {
		h.t.Errorf("calls:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

// awaitWaiting waits until a goroutine waits for one of the locks, which the test
// holds, or has come to its end without waiting, which it sends to ended.
func (h *host) awaitWaiting(ended chan error, locks ...string) {
	for len(ended) == 0 {
		for _, lock := range locks {
			if isQueued(h.table, lock, 2) {
				return
			}
		}
		runtime.Gosched()
	}
}

// failOpening is failNext for the calls that open a layer, but not for the one
// before them, which asks whether it is open.
func (h *host) failOpening(name hcstest.Call, codes ...syscall.Errno) {
	if name == hcstest.MountPath {
		codes = append([]syscall.Errno{errorNotReady}, codes...)
	}
	h.failNext(name, codes...)
}

// failEvery makes every call of these names fail with code, before it has an effect.
func (h *host) failEvery(code syscall.Errno, names ...hcstest.Call) {
	h.model.Before = failing(code, names...)
}

// failing returns what makes every call of these names fail with code: as Before of a model before
// it has an effect, as After once it has had it.
func failing(code syscall.Errno, names ...hcstest.Call) func(hcstest.Call, string) error {
	return func(call hcstest.Call, layer string) error {
		if slices.Contains(names, call) {
			return &hcstest.Error{Call: call, Layer: layer, Code: code}
		}
		return nil
	}
}

// kill runs do, and kills the process in call number at, counted from 0: before the
// call has an effect or after it. It reports whether do came to that call.
func (h *host) kill(at int, after bool, do func() error) (died bool) {
	h.t.Helper()
	call := -1
	die := func(now bool) error {
		if now && call == at {
			panic(errKilled)
		}
		return nil
	}
	h.model.Before = func(hcstest.Call, string) error { call++; return die(!after) }
	h.model.After = func(hcstest.Call, string) error { return die(after) }
	died, err := survive(do)
	h.model.Before, h.model.After = nil, nil
	if err != nil {
		h.t.Fatal(err)
	}
	return died
}

// failNext makes the next calls of that name fail with codes, one each, before
// they have an effect.
func (h *host) failNext(name hcstest.Call, codes ...syscall.Errno) {
	h.model.Before = func(call hcstest.Call, layer string) error {
		if call != name || len(codes) == 0 {
			return nil
		}
		code := codes[0]
		codes = codes[1:]
		return &hcstest.Error{Call: call, Layer: layer, Code: code}
	}
}
