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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcs"
	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/retry"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
)

// Windows codes that calls of the model fail with.
const (
	errorAccessDenied       = syscall.Errno(0x5)
	errorNotReady           = syscall.Errno(0x15)
	errorGenFailure         = syscall.Errno(0x1f)
	errorSharingViolation   = syscall.Errno(0x20)
	errorInvalidParameter   = syscall.Errno(0x57)
	errorDeviceNotConnected = syscall.Errno(0x48f)
	errorNotFound           = syscall.Errno(0x490)
	errorTimeout            = syscall.Errno(0x5b4)
)

// host is a machine for tests: a directory with layers, a mount table and
// places to mount at, and a model of HCS.
type host struct {
	*engine
	t      testing.TB
	model  *hcstest.Model
	dir    string
	boot   string
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
	h := &host{t: t, model: model, dir: dir, boot: "boot1"}
	if boot, err := os.ReadFile(h.path("boot")); err == nil { // another process has started the host again
		h.boot = string(boot)
	}
	h.engine = &engine{layers: hcs.Layers{Calls: model}, filter: modelFilter{model}}
	h.setPause(func(ctx context.Context) error {
		h.pauses++
		return ctx.Err()
	})
	return h
}

// setPause sets what is done before anything is retried.
func (h *host) setPause(pause retry.Pause) {
	h.layers.Pause, h.pause = pause, pause
	h.useTable()
}

// useTable opens the mount table as a process does that was just started.
func (h *host) useTable() {
	if h.table != nil {
		h.table.Close()
	}
	h.table = table.New(h.path("table"), h.boot, h.pause)
}

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

func (f modelFilter) FileID(path string) (string, error) {
	id, err := winfs.FileID(path) // a root that is gone cannot be opened
	if b, is := f.BoundAt(path); is && err == nil {
		id, err = winfs.FileID(filepath.Clean(b.Source))
	}
	return id, err
}

func (f modelFilter) VolumeOf(path string) (uint64, error) {
	volume, err := winfs.VolumeOf(path)
	for dir := path; dir != "/"; dir = filepath.Dir(dir) {
		if b, is := f.BoundAt(dir); is && err == nil {
			dir = filepath.Clean(b.Source)
			volume, err = winfs.VolumeOf(dir)
		}
		if hcs.IsVolume(dir) { // a directory on the same device
			volume++
			break
		}
	}
	return volume, err
}

// reboot starts the host again.
func (h *host) reboot() {
	h.t.Helper()
	if err := h.model.Reboot(); err != nil {
		h.t.Fatal(err)
	}
	number, err := strconv.Atoi(strings.TrimPrefix(h.boot, "boot"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.boot = fmt.Sprint("boot", number+1)
	h.write(h.path("boot"), h.boot)
	h.useTable()
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

// link is the text of a link to the volume of a layer which is open.
func (h *host) link(m *Mount) string {
	path, err := h.model.GetLayerMountPath(m.Source)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(path, "/") + "/"
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

// committed makes a read-only layer with parents, which has kept its scratch disk, and returns its mount.
func (h *host) committed(name string) *Mount {
	h.base(name)
	return h.scratch(name)
}

func scratch2(h *host) *Mount   { return h.scratch("2") }
func base2(h *host) *Mount      { return h.base("2") }
func committed2(h *host) *Mount { return h.committed("2") }

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

func symlink(t testing.TB, text, path string) {
	t.Helper()
	if err := os.Symlink(text, path); err != nil {
		t.Fatal(err)
	}
}

func (h *host) mount(m *Mount, target string) error {
	return h.binding(strings.Contains(h.bindsAt, filepath.Base(target))).mount(context.Background(), m, target)
}

// binding is the engine of a process that shows layers by bindings, or by links.
func (h *host) binding(on bool) *engine {
	e := *h.engine
	e.binds = on
	return &e
}

func (h *host) mustMount(m *Mount, target string) {
	h.t.Helper()
	if err := h.mount(m, target); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) unmount(path string) error {
	_, err := h.engine.unmount(path)
	return err
}

func (h *host) unmountAll(path string) error {
	_, err := h.engine.unmountAll(path)
	return err
}

func (h *host) mustUnmount(path string) {
	h.t.Helper()
	if err := h.unmount(path); err != nil {
		h.t.Fatal(err)
	}
}

// key is the key of a target.
func (h *host) key(path string) table.Key {
	h.t.Helper()
	name, _, err := winfs.ResolveParent(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return table.KeyOf(name)
}

// record is the record of the mount at a target, which must be there.
func (h *host) record(target string) *table.Mount {
	h.t.Helper()
	names, err := h.table.At(h.key(target))
	if err != nil || len(names) != 1 {
		h.t.Fatalf("%d mounts on record at %s, %v", len(names), target, err)
	}
	r, err := h.table.Load(names[0])
	if err != nil {
		h.t.Fatal(err)
	}
	r.Release()
	return r
}

// recordFile is the file of the mount at a target.
func (h *host) recordFile(target string) string {
	h.t.Helper()
	return h.path("table", "mounts", h.record(target).Name.String())
}

// change records a change of the mount at a target.
func (h *host) change(target string, change func(*table.Record)) {
	h.t.Helper()
	r, err := h.table.Load(h.record(target).Name)
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Release()
	change(&r.Record)
	if err := r.Save(true); err != nil {
		h.t.Fatal(err)
	}
}

// mounts returns all mounts on record.
func (h *host) mounts() []*table.Mount {
	h.t.Helper()
	mounts, unread, err := h.records()
	if err := stderrors.Join(append(unread, err)...); err != nil {
		h.t.Fatal(err)
	}
	return mounts
}

// wantNoLeak fails the test when a layer is open or bound that no record names.
func (h *host) wantNoLeak() {
	h.t.Helper()
	recorded, bound := map[string]bool{}, map[string]bool{}
	for _, r := range h.mounts() {
		if h.mayBeOpen(r) {
			recorded[r.Source] = true
		}
		if r.Binding && !h.table.IsStale(r.Name) {
			bound[r.Resolved] = true
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

// tableFiles returns the files of all mounts.
func (h *host) tableFiles() []string {
	files, _ := filepath.Glob(h.path("table", "mounts", "*"))
	return files
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

// openCalls open layer 2 if it is closed. The first one asks whether it is
// closed. The others are tried again if they fail.
var openCalls = []string{
	"GetLayerMountPath 2",
	"ActivateLayer 2",
	`PrepareLayer 2 [C:\layers\1 C:\layers\0]`,
	"GetLayerMountPath 2",
}

var closeCalls = []string{"UnprepareLayer 2", "DeactivateLayer 2"}

// wantCalls fails the test unless HCS and the bind filter were called exactly so, but for lists of
// bindings. The layers' directory is left out of want.
func (h *host) wantCalls(want ...string) {
	h.t.Helper()
	calls := slices.DeleteFunc(h.model.Calls(), func(call string) bool { return strings.HasPrefix(call, string(hcstest.Bindings)) })
	got := strings.ReplaceAll(strings.Join(calls, "\n"), h.path("layers")+string(filepath.Separator), "")
	if got != strings.Join(want, "\n") {
		h.t.Errorf("calls:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

// awaitWaiting waits until a goroutine waits for a lock, or until something is in ended: there a goroutine sends
// its error if it ends without waiting.
func (h *host) awaitWaiting(ended chan error) {
	stacks := make([]byte, 1<<20)
	for len(ended) == 0 {
		n := runtime.Stack(stacks, true)
		if strings.Contains(string(stacks[:n]), "table.(*keyLocks).lock(") {
			return
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

// failing returns a function that makes every call of these names fail with code. As Before of a model it does
// so before the call has an effect, as After once it has had it.
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

// errKilled stands for the death of the process in a call. Unwinding the stack
// then does what the system does for a process that died: it drops the locks.
var errKilled = stderrors.New("killed")

func survive(do func() error) (died bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != errKilled {
				panic(r)
			}
			died = true
		}
	}()
	return false, do()
}

// atOnce calls do from n goroutines, with the names "0" to n-1.
func (h *host) atOnce(n int, do func(name string) error) {
	h.t.Helper()
	var all sync.WaitGroup
	for i := 0; i < n; i++ {
		name := fmt.Sprint(i)
		all.Add(1)
		go func() {
			defer all.Done()
			if err := do(name); err != nil {
				h.t.Error(err)
			}
		}()
	}
	all.Wait()
}
