//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-941ae793/mount/internal/hcsmodel"
)

// randomOps is how many random operations a run does at least. A failure is
// shrunk, and rapid prints the -rapid.seed that repeats it.
const randomOps = 10000

func TestAnySequenceOfOperationsDoesWhatTheReferenceDoesAndCleansUp(t *testing.T) {
	ops, elsewhere, faulty := 0, 0, 0
	processes := newProcesses(t, 3)
	for ops < randomOps {
		rapid.Check(t, func(rt *rapid.T) {
			r := newRandom(t, rt, processes)
			r.alone = true
			defer os.RemoveAll(r.dir)
			rt.Repeat(map[string]func(*rapid.T){
				"mount":                r.mountAny,
				"mount another":        r.mountAny,
				"unmount a target":     r.unmountTargetOf,
				"unmount a layer":      r.unmountLayer,
				"look up":              r.lookUp,
				"mount temporarily":    r.mountTemporarily,
				"put a thing":          r.put,
				"mount once more":      r.mountAny,
				"start the host again": func(*rapid.T) { r.reboot(); r.world.open = map[string]bool{}; r.ops++ },
				"clean up":             func(*rapid.T) { r.cleanUp() },
				"":                     func(*rapid.T) { r.check() },
			})
			r.cleanUp()
			ops += r.ops
			elsewhere += r.elsewhereOps
			faulty += r.faulty
		})
	}
	t.Logf("%d operations, %d of them in other processes, a fault in %d", ops, elsewhere, faulty)
}

// The order of what happens at once is not repeated: rapid may call a failure
// flaky, and then shows what it drew and what had failed.
func TestAnyOperationsAtOnceLeaveOnlyWholeMountsAndCleanUp(t *testing.T) {
	ops, killed := 0, 0
	processes := newProcesses(t, 4)
	rapid.Check(t, func(rt *rapid.T) {
		r := newRandom(t, rt, processes)
		defer os.RemoveAll(r.dir)
		r.table.pause = func(ctx context.Context) error { return ctx.Err() } // pauses is not for goroutines
		r.put(rt)
		killedHere := r.killOnce(rapid.IntRange(-20, 40).Draw(rt, "call that kills"))
		r.planElsewhere(rapid.SampledFrom(append(elsewhereKills, "")).Draw(rt, "fault elsewhere"))
		scripts := rapid.SliceOfN(rapid.SliceOfN(rapid.Custom(drawWork), 1, 10), 4, 4).Draw(rt, "scripts")
		var killedElsewhere atomic.Int32
		r.atOnce(len(scripts), func(name string) error {
			number, err := strconv.Atoi(name)
			if err != nil || number%2 == 0 {
				return r.workAll(scripts[number])
			}
			died, err := r.processes[number].do(r, scripts[number])
			if died {
				killedElsewhere.Add(1)
			}
			return err
		})
		r.model.Before = nil
		for _, script := range scripts {
			ops += len(script)
		}

		before := r.world
		r.world = r.observe()
		r.wantNoOpenLayerWithoutRecord()
		killed += int(killedElsewhere.Load())
		if !killedHere() && killedElsewhere.Load() == 0 {
			r.wantWholeMounts()
		}
		for place, thing := range before.at {
			if thing != emptyDir && r.world.at[place] != thing {
				rt.Fatalf("at %s, where the user has put %q, is %q", place, thing, r.world.at[place])
			}
		}
		r.cleanUp()
	})
	t.Logf("%d operations, %d other processes killed", ops, killed)
}

// world is what there is on a host, as the test sees it. The reference is one
// that is only reckoned.
type world struct {
	at      map[string]string // what is at a place, such as "mnt/a", the way tree lists it
	records map[string]mark   // by place
	open    map[string]bool   // layers that HCS has open
}

// mark is a record.
type mark struct {
	layer    string
	replaced bool
	opened   bool // HCS has told the volume
	closing  bool
}

// Things at a place, as tree lists them after the name of the place. The user's
// are kept whatever happens, and an empty directory may become a link.
const (
	absent     = ""
	emptyDir   = "/\n"
	userFile   = " mine\n"
	userDir    = "/\n/data mine\n"
	linkPrefix = " -> "
)

var randomLayers = []string{"1", "2", "3", "base"}

var randomPlaces = []string{"mnt/a", "mnt/b", "mnt/c"}

// random is a host and the reference for it.
type random struct {
	*host
	mounts map[string]*Mount
	links  map[string]string // what is at a place that shows a layer
	files  string            // what must never change
	world  world
	// alone tells that nobody else does anything at the same time.
	alone bool
	// processes do some of the operations.
	processes processes

	ops, elsewhereOps, faulty int
}

func newRandom(t *testing.T, rt *rapid.T, processes processes) *random {
	tb := &rapidTB{TB: t, rt: rt}
	r := &random{host: sharedHost(tb, newHost(tb).dir), mounts: map[string]*Mount{}, links: map[string]string{}, processes: processes}
	r.model.Before, r.model.After = nil, nil // what is planned is for other processes
	r.model.FolderWhenClosed = rapid.Bool().Draw(rt, "folder when closed")
	tb.dir = r.dir
	r.write(r.path("user", "data"), "mine")
	r.mkdir(r.path("temp"))
	tempLocation.dir = r.path("temp")
	rt.Cleanup(func() { tempLocation.dir = "" })
	for _, name := range randomLayers {
		r.addLayer(name)
	}
	r.files = r.allFiles()
	r.world = world{map[string]string{}, map[string]mark{}, map[string]bool{}}
	return r
}

// addLayer makes a layer with a file in its volume. Layers 1 and 2 have the same
// parents.
func (r *random) addLayer(name string) {
	if name == "base" {
		m := r.base(name)
		r.mounts[name], r.links[name] = m, linkPrefix+filepath.Join(m.Source, "Files")+"\n"
		return
	}
	m := r.scratch(name)
	if name == "3" {
		m.Options = []string{ParentLayerPathsFlag + `["C:\\layers\\other"]`}
	}
	r.mounts[name] = m
	r.inVolume(m, func(volume string) {
		r.write(filepath.Join(volume, "data"), "in the volume")
		r.links[name] = linkPrefix + volume + "\n"
	})
}

// allFiles lists what is in the layers and behind the links.
func (r *random) allFiles() string {
	return tree(r.t, r.path("layers")) + tree(r.t, r.path("hcs", "volumes")) + tree(r.t, r.path("user"))
}

// rapidTB makes the fixtures fail through rapid, which shrinks only what fails
// with the same words again: without the names that are new each time.
type rapidTB struct {
	testing.TB
	rt  *rapid.T
	dir string
}

var tempName = regexp.MustCompile(`containerd-mount\d+`)

func (tb *rapidTB) clean(text string) string {
	if tb.dir != "" {
		text = strings.ReplaceAll(text, tb.dir+"/", "")
	}
	return tempName.ReplaceAllString(text, "containerd-mount…")
}

func (tb *rapidTB) Helper()           {}
func (tb *rapidTB) Error(args ...any) { tb.rt.Error(tb.clean(fmt.Sprint(args...))) }
func (tb *rapidTB) Fatal(args ...any) { tb.rt.Fatal(tb.clean(fmt.Sprint(args...))) }
func (tb *rapidTB) Logf(format string, args ...any) {
	tb.rt.Log(tb.clean(fmt.Sprintf(format, args...)))
}
func (tb *rapidTB) Errorf(format string, args ...any) { tb.Error(fmt.Sprintf(format, args...)) }
func (tb *rapidTB) Fatalf(format string, args ...any) { tb.Fatal(fmt.Sprintf(format, args...)) }

// What the operations do to the reference when HCS does its part.

// reckonMount returns whether the mount is refused.
func (r *random) reckonMount(w *world, layer, place string) (refused bool) {
	if old, ok := w.records[place]; ok {
		if r.isLive(w, place) {
			return true
		}
		r.reckonForget(w, place, old)
	}
	thing := w.at[place]
	if thing != absent && thing != emptyDir {
		return true
	}
	if !r.isShared(w, layer) {
		w.open[layer] = true
	}
	w.records[place] = mark{layer: layer, replaced: thing == emptyDir, opened: true}
	w.at[place] = r.links[layer]
	return false
}

func (r *random) isLive(w *world, place string) bool {
	record := w.records[place]
	return record.opened && w.at[place] == r.links[record.layer] && hasVolume(w, record.layer)
}

// isShared tells whether the layer is shown at a place, so that it is not opened
// again.
func (r *random) isShared(w *world, layer string) bool {
	for _, record := range w.records {
		if record.layer == layer && record.opened && !record.closing && hasVolume(w, layer) {
			return true
		}
	}
	return false
}

// hasVolume tells whether HCS knows the mount path of a layer, which for a base
// layer is its directory, open or not.
func hasVolume(w *world, layer string) bool { return layer == "base" || w.open[layer] }

func (r *random) reckonForget(w *world, place string, record mark) {
	if record.opened && w.at[place] == r.links[record.layer] {
		delete(w.at, place)
	}
	delete(w.records, place)
	if w.at[place] == absent && record.replaced {
		w.at[place] = emptyDir
	}
	for _, other := range w.records {
		if other.layer == record.layer && other.opened && !other.closing {
			return
		}
	}
	delete(w.open, record.layer)
}

func (r *random) reckonUnmount(w *world, places []string) {
	for _, place := range places {
		if record, ok := w.records[place]; ok {
			r.reckonForget(w, place, record)
		}
	}
}

// placesOf returns the places with a record of the layer.
func (w *world) placesOf(layer string) []string {
	var places []string
	for place, record := range w.records {
		if record.layer == layer {
			places = append(places, place)
		}
	}
	return places
}

func (w *world) clone() *world {
	c := &world{map[string]string{}, map[string]mark{}, map[string]bool{}}
	for place, thing := range w.at {
		c.at[place] = thing
	}
	for place, record := range w.records {
		c.records[place] = record
	}
	for layer := range w.open {
		c.open[layer] = true
	}
	return c
}

// The operations.

// step is an operation that calls HCS.
type step struct {
	work randomWork
	// want is the reference once all went well, in which the work returns wantErr,
	// or panics as the callback does.
	want    *world
	wantErr error
	panics  bool
	// Only these places and layers are the step's business. A temporary mount
	// makes its own place.
	places, layers []string
	temporary      bool
	mounts         bool
}

func (r *random) mountAny(rt *rapid.T) {
	layer, place := drawLayer(rt), drawPlace(rt)
	s := step{
		work:   randomWork{"mount", layer, place},
		want:   r.world.clone(),
		places: []string{place},
		layers: []string{layer, r.world.records[place].layer},
		mounts: true,
	}
	if r.reckonMount(s.want, layer, place) {
		s.wantErr = os.ErrExist
	}
	r.run(rt, s)
}

func (r *random) unmountTargetOf(rt *rapid.T) {
	place := drawPlace(rt)
	op := rapid.SampledFrom([]string{"unmount", "unmount all"}).Draw(rt, "op")
	r.runUnmount(rt, randomWork{Op: op, Place: place}, []string{place}, r.world.records[place].layer)
}

func (r *random) unmountLayer(rt *rapid.T) {
	layer := drawLayer(rt)
	op := rapid.SampledFrom([]string{"unmount layer", "unmount layer all"}).Draw(rt, "op")
	r.runUnmount(rt, randomWork{Op: op, Layer: layer}, r.world.placesOf(layer), layer)
}

// runUnmount does work, which unmounts a layer from places.
func (r *random) runUnmount(rt *rapid.T, work randomWork, places []string, layer string) {
	s := step{work: work, want: r.world.clone(), places: places, layers: []string{layer}}
	r.reckonUnmount(s.want, s.places)
	r.run(rt, s)
}

func (r *random) mountTemporarily(rt *rapid.T) {
	layer := drawLayer(rt)
	op := rapid.SampledFrom([]string{"temporarily", "temporarily, fails", "temporarily, panics"}).Draw(rt, "op")
	s := step{
		work:      randomWork{Op: op, Layer: layer},
		want:      r.world.clone(),
		wantErr:   allowedErrors[op],
		panics:    op == "temporarily, panics",
		layers:    []string{layer},
		temporary: true,
	}
	const place = "temp/new"
	s.want.at[place] = emptyDir
	r.reckonMount(s.want, layer, place)
	r.reckonUnmount(s.want, []string{place})
	delete(s.want.at, place)
	r.run(rt, s)
}

func (r *random) lookUp(rt *rapid.T) {
	r.ops++
	place := drawPlace(rt)
	info, err := r.lookup(context.Background(), r.path(place))
	record := r.world.records[place]
	if !record.opened {
		if !stderrors.Is(err, os.ErrNotExist) {
			r.t.Fatalf("lookup of %s: %+v, %v", place, info, err)
		}
		return
	}
	root := strings.TrimSuffix(strings.TrimPrefix(r.links[record.layer], linkPrefix), "\n")
	want := Info{Mountpoint: r.path(place), Source: r.mounts[record.layer].Source, Root: root, FSType: layerType}
	if err != nil || info != want {
		r.t.Fatalf("lookup of %s: %+v, %v, want %+v", place, info, err, want)
	}
}

// put is what a user does at a place: what is there, also our link, goes, and
// something else comes.
func (r *random) put(rt *rapid.T) {
	r.ops++
	place := drawPlace(rt)
	thing := rapid.SampledFrom([]string{absent, emptyDir, absent, emptyDir, userFile, userDir, linkPrefix}).Draw(rt, "thing")
	path := r.path(place)
	if err := os.RemoveAll(path); err != nil {
		r.t.Fatal(err)
	}
	switch thing {
	case absent:
		delete(r.world.at, place)
		return
	case emptyDir:
		r.mkdir(path)
	case userFile:
		r.write(path, "mine")
	case userDir:
		r.write(filepath.Join(path, "data"), "mine")
	case linkPrefix:
		symlink(r.t, r.path("user"), path)
		thing += r.path("user") + "\n"
	}
	r.world.at[place] = thing
}

func drawLayer(rt *rapid.T) string { return rapid.SampledFrom(randomLayers).Draw(rt, "layer") }
func drawPlace(rt *rapid.T) string { return rapid.SampledFrom(randomPlaces).Draw(rt, "place") }

// cleanUp unmounts all that there may be, as a process would that comes after
// whatever has happened.
func (r *random) cleanUp() {
	r.ops++
	failed, err := r.cleanupTempMounts(context.Background())
	if err := stderrors.Join(append(failed, err)...); err != nil {
		r.t.Fatalf("cleaning up temporary mounts: %v", err)
	}
	for place, record := range r.world.records {
		r.reckonForget(&r.world, place, record)
		if strings.HasPrefix(place, "temp/") {
			delete(r.world.at, place)
		}
	}
	paths := []string{}
	for _, place := range randomPlaces {
		paths = append(paths, r.path(place))
	}
	for _, layer := range randomLayers {
		paths = append(paths, r.mounts[layer].Source)
	}
	for _, path := range paths {
		if err := r.unmountAll(context.Background(), path); err != nil {
			r.t.Fatalf("cleaning up %s: %v", path, err)
		}
	}
	r.wantClosed()
	if files := r.allFiles(); files != r.files { // nobody else would have put them right
		r.t.Fatalf("the files have changed to\n%s\nfrom\n%s", files, r.files)
	}
	r.check()
}

// run does a step, in this process or in another one, with a fault in its HCS
// calls or without, and fails the test unless the reference allows what comes of
// it. After a fault, which of the allowed outcomes it is becomes the reference.
func (r *random) run(rt *rapid.T, s step) {
	r.ops++
	do := r.here
	if rapid.IntRange(0, 3).Draw(rt, "process") == 0 {
		do = r.elsewhere
	}
	died, happened, err := do(rt, s.work)
	r.t.Logf("%+v: died %v, error %v", s.work, died, err)
	if happened {
		r.faulty++
		before := r.world
		r.world = r.observe()
		r.wantAllowed(s, before, r.world, died || err != nil, died)
		return
	}
	if died != s.panics || !stderrors.Is(err, s.wantErr) {
		r.t.Fatalf("%+v: died %v, error %v, want %v, %v", s.work, died, err, s.panics, s.wantErr)
	}
	r.world = *s.want
}

// here does the work in this process, and tells whether a fault has happened.
func (r *random) here(rt *rapid.T, work randomWork) (died, happened bool, err error) {
	fault := func() bool { return false }
	if rapid.Bool().Draw(rt, "faulty") {
		f := faults[rapid.IntRange(0, len(faults)-1).Draw(rt, "fault")]
		at := rapid.IntRange(0, 5).Draw(rt, "call")
		r.t.Logf("call %d %s", at, f.name)
		fault = f.plan(r.host, at)
	}
	died, err = survive(func() error { return r.work(work) })
	r.model.Before, r.model.After = nil, nil
	return died, fault(), err
}

// check fails the test unless the host is as the reference has it.
func (r *random) check() {
	if got := r.observe(); !reflect.DeepEqual(got, r.world) {
		r.t.Fatalf("the host is\n%+v\nwant\n%+v", got, r.world)
	}
	r.wantAt(r.path("user", "data"), "file: mine")
	r.wantNoOpenLayerWithoutRecord()
	r.wantParents()
}

func (r *random) wantNoOpenLayerWithoutRecord() {
	for layer := range r.world.open {
		if len(r.world.placesOf(layer)) == 0 {
			r.t.Fatalf("layer %s is open without a record", layer)
		}
	}
}

// wantParents fails the test when HCS was given the parents of another layer.
func (r *random) wantParents() {
	for _, call := range r.model.Calls() {
		if !strings.HasPrefix(call, string(hcsmodel.Prepare)) {
			continue
		}
		for _, layer := range randomLayers {
			m := r.mounts[layer]
			parents, err := m.GetParentPaths()
			if err != nil {
				r.t.Fatal(err)
			}
			want := fmt.Sprintf("PrepareLayer %s %s", m.Source, parents)
			if strings.HasPrefix(call, "PrepareLayer "+m.Source+" ") && call != want {
				r.t.Fatalf("called %s, want %s", call, want)
			}
		}
	}
	r.model.ResetCalls()
}

// wantWholeMounts fails the test when there is a record without its link, or a
// link without its layer.
func (r *random) wantWholeMounts() {
	for place, record := range r.world.records {
		if !record.opened || record.closing || r.world.at[place] != r.links[record.layer] || !r.world.open[record.layer] {
			r.t.Fatalf("half a mount at %s in\n%+v", place, r.world)
		}
	}
}

// observe returns what there is on the host.
func (r *random) observe() world {
	w := world{map[string]string{}, map[string]mark{}, map[string]bool{}}
	for _, dir := range []string{"mnt", "temp"} {
		for _, line := range strings.SplitAfter(tree(r.t, r.path(dir)), "\n") {
			if end := strings.IndexAny(line, "/ "); end > 0 {
				w.at[dir+"/"+line[:end]] += line[end:]
			}
		}
	}
	for _, record := range r.records() {
		w.records[strings.TrimPrefix(record.Target, r.dir+"/")] = r.observeRecord(record)
	}
	for _, layer := range r.model.OpenLayers() {
		w.open[filepath.Base(layer)] = true
	}
	return w
}

func (r *random) observeRecord(record record) mark {
	layer := filepath.Base(record.Source)
	if record.Source != r.path("layers", layer) || record.Base != (layer == "base") {
		r.t.Fatalf("record %+v", record)
	}
	if record.Volume != "" && linkPrefix+record.link()+"\n" != r.links[layer] {
		r.t.Fatalf("record %+v", record)
	}
	_, err := os.Lstat(r.table.markPath(record) + closingSuffix)
	return mark{layer, record.Replaced, record.Volume != "", err == nil}
}

// What a step may leave behind when one of its HCS calls went wrong.

func (r *random) wantAllowed(s step, before, got world, failed, died bool) {
	if !failed {
		r.wantPromise(s, got)
		return
	}
	for place := range union(before, got) {
		if r.allowsPlace(s, before, got, place) {
			continue
		}
		r.t.Fatalf("%+v: at %s is now\n%q, %+v where there was\n%q, %+v", s.work, place,
			got.at[place], got.records[place], before.at[place], before.records[place])
	}
	for _, layer := range randomLayers {
		if got.open[layer] != before.open[layer] && !r.allowsChange(s, before, layer) {
			r.t.Fatalf("%+v: layer %s open is %v", s.work, layer, got.open[layer])
		}
		if got.open[layer] && !before.open[layer] && !died && len(s.places) == 1 && got.records[s.places[0]] == (mark{}) {
			r.t.Fatalf("%+v: layer %s is left open without the record that was tried", s.work, layer)
		}
	}
	if s.wantErr == os.ErrExist && !died && s.mounts && r.isLive(&before, s.places[0]) && !reflect.DeepEqual(before, got) {
		r.t.Fatalf("%+v: the live mount has changed to\n%+v from\n%+v", s.work, got, before)
	}
}

// wantPromise fails the test unless a step that got over a fault did all that it
// does without one.
func (r *random) wantPromise(s step, got world) {
	if s.wantErr != nil {
		r.t.Fatalf("%+v: no error, want %v", s.work, s.wantErr)
	}
	if !reflect.DeepEqual(got, *s.want) {
		r.t.Fatalf("%+v: success, and the host is\n%+v\nwant\n%+v", s.work, got, *s.want)
	}
}

func union(a, b world) map[string]bool {
	places := map[string]bool{}
	for _, w := range []world{a, b} {
		for place := range w.at {
			places[place] = true
		}
		for place := range w.records {
			places[place] = true
		}
	}
	return places
}

func (r *random) allowsPlace(s step, before, got world, place string) bool {
	was, is := before.records[place], got.records[place]
	if before.at[place] == got.at[place] && was == is {
		return true
	}
	if s.temporary && before.at[place] == absent && was == (mark{}) && strings.HasPrefix(place, "temp/") {
		isNew := is == mark{} || is.layer == s.layers[0] && is.replaced
		return isNew && (got.at[place] == absent || got.at[place] == emptyDir)
	}
	return contains(s.places, place) && r.allowsThing(before, got.at[place], place) && allowsRecord(s, before, is, place)
}

// allowsThing tells whether a step that failed may leave the thing: what was
// there, or what remains when a link of ours has gone.
func (r *random) allowsThing(before world, thing, place string) bool {
	was, record := before.at[place], before.records[place]
	if thing == was {
		return true
	}
	if was != absent && (!record.opened || was != r.links[record.layer]) {
		return false
	}
	return thing == absent || thing == emptyDir && record.replaced
}

// allowsRecord tells whether a step that failed may leave the record: the old
// one, none, or that of a mount which could not be undone.
func allowsRecord(s step, before world, is mark, place string) bool {
	was := before.records[place]
	wasClosing := was
	wasClosing.closing = true
	tried := s.want.records[place]
	tried.opened = false
	return is == was || is == mark{} || is == tried || was != mark{} && is == wasClosing
}

// allowsChange tells whether a step that failed may leave a layer open that was
// closed, or closed that was open.
func (r *random) allowsChange(s step, before world, layer string) bool {
	if !contains(s.layers, layer) {
		return false
	}
	if !before.open[layer] {
		return s.mounts || s.temporary
	}
	elsewhere := before.clone()
	for _, place := range s.places {
		delete(elsewhere.records, place)
	}
	return !r.isShared(elsewhere, layer)
}

func contains(list []string, one string) bool {
	for _, each := range list {
		if each == one {
			return true
		}
	}
	return false
}

// Operations at once.

// randomWork is one operation of a goroutine.
type randomWork struct{ Op, Layer, Place string }

func drawWork(rt *rapid.T) randomWork {
	ops := []string{"mount", "unmount", "unmount layer", "unmount all", "look up", "temporarily", "temporarily, fails"}
	return randomWork{rapid.SampledFrom(ops).Draw(rt, "op"), drawLayer(rt), drawPlace(rt)}
}

// allowedErrors are those that an operation may have at any time.
var allowedErrors = map[string]error{
	"mount":              os.ErrExist,
	"look up":            os.ErrNotExist,
	"temporarily, fails": errCallback,
}

func (work randomWork) allows(err error) bool {
	allowed := allowedErrors[work.Op]
	return allowed != nil && stderrors.Is(err, allowed)
}

// workAll does the operations and returns the first error that none of them may
// have. A process that was killed does nothing more.
func (r *random) workAll(script []randomWork) error {
	for _, work := range script {
		died, err := survive(func() error { return r.work(work) })
		if died {
			return nil
		}
		if err != nil && !work.allows(err) {
			return fmt.Errorf("%+v: %w", work, err)
		}
	}
	return nil
}

func (r *random) work(work randomWork) error {
	m, path := r.mounts[work.Layer], r.path(work.Place)
	ctx := context.Background()
	switch work.Op {
	case "mount":
		return r.mount(m, path)
	case "unmount":
		return r.unmount(path)
	case "unmount all":
		return r.unmountAll(ctx, path)
	case "unmount layer":
		return r.unmount(m.Source)
	case "unmount layer all":
		return r.unmountAll(ctx, m.Source)
	case "look up":
		_, err := r.lookup(ctx, path)
		return err
	}
	return r.withTempMount(ctx, []Mount{*m}, func(root string) error {
		text, err := os.Readlink(root)
		unmounted := err != nil && !r.alone // by somebody else
		if linkPrefix+text+"\n" != r.links[work.Layer] && !unmounted {
			return fmt.Errorf("the callback was shown %q, %v", text, err)
		}
		switch work.Op {
		case "temporarily, fails":
			return errCallback
		case "temporarily, panics":
			panic(errKilled)
		}
		return nil
	})
}

// killOnce makes call number at kill the goroutine that makes it; none when it
// is negative. It returns whether it has come to that.
func (r *random) killOnce(at int) (killed func() bool) {
	var calls int32 = -1
	r.model.Before = func(hcsmodel.Call, string) error {
		if int(atomic.AddInt32(&calls, 1)) == at {
			panic(errKilled)
		}
		return nil
	}
	return func() bool { return at >= 0 && int(atomic.LoadInt32(&calls)) >= at }
}
