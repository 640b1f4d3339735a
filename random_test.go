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
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// randomOps is how many random operations a run does at least. A failure is
// shrunk, and rapid prints the -rapid.seed that repeats it.
const randomOps = 5000

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
				"unmount all below":    r.unmountBelow,
				"start the host again": func(*rapid.T) { r.startAgain() },
				"clean up":             func(*rapid.T) { r.cleanUp() },
				"":                     func(*rapid.T) { r.check() },
			})
			r.cleanUp()
			count("random operations", r.model.Personality, r.ops)
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
		r.setPause(func(ctx context.Context) error { return ctx.Err() }) // pauses is not for goroutines
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
			count("random operations at once", r.model.Personality, len(script))
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
	at      map[string]string    // what is at a place, such as "mnt/a", the way tree lists it
	bound   map[string]string    // the layers that are bound, by place
	records map[string]layerMark // by layer
	open    map[string]bool      // layers that HCS has open
}

// layerMark is a record.
type layerMark struct {
	boot    boot
	opened  bool // HCS has told the volume
	targets map[string]targetMark
}

type targetMark struct {
	bound                           boot // in which start of the system; "" is a link
	made, replaced, restored, shown bool
	identified                      bool // the ID of the directory that was made is on record
}

// boot tells when the layer of a record was opened.
type boot string

const (
	now    boot = "now"    // since the system was started
	before boot = "before" // in an earlier start of the system
	closed boot = "closed" // and is closed again, or was never bound
)

// Things at a place, as tree lists them after the name of the place. The user's
// are kept whatever happens, and an empty directory may become a link.
const (
	absent     = ""
	emptyDir   = "/\n"
	userFile   = " mine\n"
	userDir    = "/\n/data mine\n"
	linkPrefix = " -> "
)

// linkTo is the thing at a place that shows a layer with the volume of its record.
func linkTo(layer string) string { return linkPrefix + "layer " + layer + "\n" }

var randomLayers = []string{"1", "2", "3", "base", "committed"}

var randomPlaces = []string{"mnt/a", "mnt/b", "mnt/c"}

// random is a host and the reference for it.
type random struct {
	*host
	mounts map[string]*Mount
	files  string // what must never change
	world  world
	// alone tells that nobody else does anything at the same time.
	alone bool
	// processes do some of the operations.
	processes processes
	// users has the places at which what is there is a user's.
	users map[string]bool

	ops, elsewhereOps, faulty, away int
}

func newRandom(t *testing.T, rt *rapid.T, processes processes) *random {
	tb := &rapidTB{TB: t, rt: rt}
	r := &random{host: sharedHost(tb, newHost(tb).dir), mounts: map[string]*Mount{}, users: map[string]bool{}, processes: processes}
	r.model.Before, r.model.After = nil, nil // what is planned is for other processes
	tb.dir = r.dir
	r.write(r.path("user", "data"), "mine")
	r.mkdir(r.path("temp"))
	r.mkdir(r.path("gone"))
	tempMountLocation = r.path("temp")
	rt.Cleanup(func() { tempMountLocation = "" })
	for _, name := range randomLayers {
		r.addLayer(name)
	}
	r.files = r.allFiles()
	r.world = newWorld()
	r.model.Personality = drawPersonality(rt)
	if err := hcstest.SetPersonality(r.path("hcs"), r.model.Personality); err != nil {
		tb.Fatal(err)
	}
	return r
}

// drawPersonality draws more often the personalities that differ in many answers.
func drawPersonality(rt *rapid.T) hcstest.Personality {
	var names []string
	for _, p := range hcstest.Personalities {
		names = append(names, p.Name)
	}
	p, _ := hcstest.Named(rapid.SampledFrom(append(names, somePersonalities...)).Draw(rt, "personality"))
	return p
}

// addLayer makes a layer with a file that tells which it is, in its volume and in its
// directory, either of which may be shown. Layers 1 and 2 have the same parents.
func (r *random) addLayer(name string) {
	switch name {
	case "base":
		r.mounts[name] = r.base(name)
		r.write(r.path("layers", name, "Files", "data"), "of layer "+name)
	case "committed":
		r.base(name)
		r.mounts[name] = r.scratch(name)
		r.write(r.path("layers", name, "data"), "of layer "+name)
	default:
		m := r.scratch(name)
		if name == "3" {
			m.Options = []string{ParentLayerPathsFlag + `["C:\\layers\\other"]`}
		}
		r.mounts[name] = m
		r.write(r.path("layers", name, "data"), "of layer "+name)
		r.inVolume(m, func(volume string) { r.write(filepath.Join(volume, "data"), "of layer "+name) })
	}
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
func (r *random) reckonMount(w *world, layer, place string, bind bool) (refused bool) {
	if old := w.layerAt(place); old != "" {
		if r.isLive(w, place) {
			return true
		}
		r.reckonTakeAway(w, old, place)
	}
	thing := w.at[place]
	if thing != absent && thing != emptyDir && !(bind && thing == userDir) {
		return true
	}
	record, known := w.records[layer]
	if known && !r.isWhole(w, layer) {
		r.reckonTakeAway(w, layer, w.placesOf(layer)...)
		known = false
	}
	if !known {
		record = layerMark{boot: now, opened: true, targets: map[string]targetMark{}}
		w.open[layer] = true
	}
	w.records[layer] = record
	if !bind {
		record.targets[place] = targetMark{replaced: thing == emptyDir, shown: true}
		w.at[place] = linkTo(layer)
		return false
	}
	record.targets[place] = targetMark{bound: now, made: thing == absent, identified: thing == absent, shown: true}
	w.bound[place] = layer
	if thing == absent {
		delete(r.users, place)
		w.at[place] = emptyDir
	}
	return false
}

// isLive reports whether a place shows a layer.
func (r *random) isLive(w *world, place string) bool {
	layer := w.layerAt(place)
	at := w.records[layer].targets[place]
	return at.shown && (at.bound == now || w.isLinked(layer, place)) && r.seemsOpen(w, layer)
}

// isWhole reports whether a layer is shown, so that it is not opened again.
func (r *random) isWhole(w *world, layer string) bool {
	return w.records[layer].isShown() && r.seemsOpen(w, layer)
}

// seemsOpen reports whether a layer is open, as far as can be told: that of one
// without a volume always is, since the system was started.
func (r *random) seemsOpen(w *world, layer string) bool {
	return w.records[layer].boot == now && (w.open[layer] || !r.hasVolume(layer))
}

func (r *random) hasVolume(layer string) bool {
	return !isReadOnly(r.mounts[layer].Source) && !r.model.Personality.OpenPathEmpty
}

func (m layerMark) isShown() bool {
	for _, at := range m.targets {
		if at.shown {
			return true
		}
	}
	return false
}

// isLinked reports whether the link to a layer is at a place.
func (w *world) isLinked(layer, place string) bool {
	record := w.records[layer]
	return record.opened && record.targets[place].bound == "" && w.at[place] == linkTo(layer)
}

// leaving returns the places that a layer is taken from with some of them.
func (w *world) leaving(layer string, places ...string) []string {
	record := w.records[layer]
	for place, at := range record.targets {
		if at.shown && record.boot == now && !contains(places, place) {
			return places
		}
	}
	return w.placesOf(layer) // the others are left of what was killed
}

// reckonTakeAway takes a layer from places.
func (r *random) reckonTakeAway(w *world, layer string, places ...string) {
	record := w.records[layer]
	for _, place := range w.leaving(layer, places...) {
		at := record.targets[place]
		if at.bound != "" {
			if record.opened { // or its directory was not made, nor anything bound
				r.reckonUnbind(w, at, place)
			}
			delete(record.targets, place)
			continue
		}
		linked := w.isLinked(layer, place)
		if at.shown && at.replaced {
			at.restored = !linked
		}
		if linked {
			delete(w.at, place)
		}
		if at.replaced && !at.restored && w.at[place] == absent {
			w.at[place] = emptyDir
		}
		delete(record.targets, place)
	}
	if len(record.targets) > 0 {
		return
	}
	delete(w.records, layer)
	if record.boot == now {
		delete(w.open, layer)
	}
}

func (r *random) reckonUnbind(w *world, at targetMark, place string) {
	if at.restored {
		return
	}
	if at.bound == now {
		delete(w.bound, place)
	}
	if at.made && w.at[place] == emptyDir && !(at.identified && r.users[place]) {
		delete(w.at, place)
	}
}

func (r *random) reckonUnmount(w *world, places []string) {
	for _, place := range places {
		if layer := w.layerAt(place); layer != "" {
			r.reckonTakeAway(w, layer, place)
		}
	}
}

func newWorld() world {
	return world{map[string]string{}, map[string]string{}, map[string]layerMark{}, map[string]bool{}}
}

// layerAt returns the layer that has the place on record, or "".
func (w *world) layerAt(place string) string {
	for layer, record := range w.records {
		if _, is := record.targets[place]; is {
			return layer
		}
	}
	return ""
}

// placesOf returns the places that the record of a layer has, sorted.
func (w *world) placesOf(layer string) []string {
	var places []string
	for place := range w.records[layer].targets {
		places = append(places, place)
	}
	sort.Strings(places)
	return places
}

func (w *world) clone() *world {
	c := newWorld()
	for place, thing := range w.at {
		c.at[place] = thing
	}
	for place, layer := range w.bound {
		c.bound[place] = layer
	}
	for layer, record := range w.records {
		c.records[layer] = record.clone()
	}
	for layer := range w.open {
		c.open[layer] = true
	}
	return &c
}

func (m layerMark) clone() layerMark {
	targets := map[string]targetMark{}
	for place, at := range m.targets {
		targets[place] = at
	}
	m.targets = targets
	return m
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
	layer, place, bind := drawLayer(rt), drawPlace(rt), rapid.Bool().Draw(rt, "bind")
	s := step{
		work:   randomWork{"mount", layer, place, bind},
		want:   r.world.clone(),
		places: []string{place},
		layers: []string{layer, r.world.layerAt(place)},
		mounts: true,
	}
	if r.reckonMount(s.want, layer, place, bind) {
		s.wantErr = os.ErrExist
	}
	r.run(rt, s)
}

func (r *random) unmountTargetOf(rt *rapid.T) {
	place := drawPlace(rt)
	op := rapid.SampledFrom([]string{"unmount", "unmount all"}).Draw(rt, "op")
	r.runUnmount(rt, randomWork{Op: op, Place: place}, []string{place}, r.world.layerAt(place))
}

func (r *random) unmountLayer(rt *rapid.T) {
	layer := drawLayer(rt)
	op := rapid.SampledFrom([]string{"unmount layer", "unmount layer all"}).Draw(rt, "op")
	r.runUnmount(rt, randomWork{Op: op, Layer: layer}, r.world.placesOf(layer), layer)
}

func (r *random) unmountBelow(rt *rapid.T) {
	var places, layers []string
	for layer := range r.world.records {
		layers = append(layers, layer)
		places = append(places, r.world.placesOf(layer)...)
	}
	for _, place := range places {
		if strings.HasPrefix(place, "temp/") { // that of a killed process
			return
		}
	}
	r.runUnmount(rt, randomWork{Op: "unmount below"}, places, layers...)
}

// runUnmount does work, which unmounts layers from places.
func (r *random) runUnmount(rt *rapid.T, work randomWork, places []string, layers ...string) {
	s := step{work: work, want: r.world.clone(), places: places, layers: layers}
	r.reckonUnmount(s.want, s.places)
	r.run(rt, s)
}

func (r *random) mountTemporarily(rt *rapid.T) {
	layer := drawLayer(rt)
	op := rapid.SampledFrom([]string{"temporarily", "temporarily, fails", "temporarily, panics"}).Draw(rt, "op")
	bind := rapid.Bool().Draw(rt, "bind")
	s := step{
		work:      randomWork{Op: op, Layer: layer, Bind: bind},
		want:      r.world.clone(),
		wantErr:   allowedErrors[op],
		panics:    op == "temporarily, panics",
		layers:    []string{layer},
		temporary: true,
	}
	const place = "temp/new"
	s.want.at[place] = emptyDir
	r.reckonMount(s.want, layer, place, bind)
	r.reckonUnmount(s.want, []string{place})
	delete(s.want.at, place)
	r.run(rt, s)
}

func (r *random) lookUp(rt *rapid.T) {
	r.ops++
	place := drawPlace(rt)
	info, err := r.lookup(r.path(place))
	layer := r.world.layerAt(place)
	record := r.world.records[layer]
	if record.boot != now || !record.targets[place].shown {
		if !stderrors.Is(err, os.ErrNotExist) {
			r.t.Fatalf("lookup of %s: %+v, %v", place, info, err)
		}
		return
	}
	m := r.mounts[layer]
	if err != nil || info.Mountpoint != r.path(place) || info.Source != m.Source || info.FSType != layerType ||
		(r.world.bound[place] == layer || r.world.isLinked(layer, place)) && r.shownAt(r.path(place)) != info.Root {
		r.t.Fatalf("lookup of %s: %+v, %v", place, info, err)
	}
}

// startAgain starts the host again, which closes all layers.
func (r *random) startAgain() {
	r.ops++
	r.reboot()
	r.world.open, r.world.bound = map[string]bool{}, map[string]string{}
	for layer, record := range r.world.records {
		for place, at := range record.targets {
			if at.bound == now {
				at.bound = before
				record.targets[place] = at
			}
		}
		if record.boot == now {
			record.boot = before
			r.world.records[layer] = record
		}
	}
}

// putAway removes what is at a path, if anything. It keeps it elsewhere: Linux would give its ID to
// another directory, which Windows does not.
func (r *random) putAway(path string) {
	r.away++
	if err := os.Rename(path, r.path("gone", fmt.Sprint(r.away))); err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
}

// hasMade reports whether a directory has the ID of one that was made for a binding, on record.
func (r *random) hasMade(path string) bool {
	id, err := fileID(path)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, record := range r.records() {
		for _, at := range record.Targets {
			if at.MadeID == id {
				return true
			}
		}
	}
	return false
}

// put is what a user does at a place: what is there, also our link, goes, and
// something else comes.
func (r *random) put(rt *rapid.T) {
	r.ops++
	place := drawPlace(rt)
	thing := rapid.SampledFrom([]string{absent, emptyDir, absent, emptyDir, userFile, userDir, linkPrefix}).Draw(rt, "thing")
	if r.world.bound[place] != "" {
		return // Windows removes no directory that is in use
	}
	path := r.path(place)
	r.putAway(path)
	r.users[place] = thing != absent
	switch thing {
	case absent:
		delete(r.world.at, place)
		return
	case emptyDir:
		for r.mkdir(path); r.hasMade(path); r.mkdir(path) {
			r.putAway(path)
		}
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
	failed, err := r.cleanupTempMounts()
	if err := stderrors.Join(append(failed, err)...); err != nil {
		r.t.Fatalf("cleaning up temporary mounts: %v", err)
	}
	for _, layer := range randomLayers {
		places := r.world.placesOf(layer)
		if len(places) > 0 {
			r.reckonTakeAway(&r.world, layer, places...)
		}
		for _, place := range places {
			if strings.HasPrefix(place, "temp/") {
				delete(r.world.at, place)
			}
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
		if err := r.unmountAll(path); err != nil {
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

// here does the work in this process, and reports whether a fault has happened.
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
		if r.world.records[layer].boot != now {
			r.t.Fatalf("layer %s is open without a record", layer)
		}
	}
	for place, layer := range r.world.bound {
		if r.world.records[layer].targets[place].bound != now {
			r.t.Fatalf("layer %s is bound to %s without a record", layer, place)
		}
	}
}

// wantParents fails the test when HCS was given the parents of another layer.
func (r *random) wantParents() {
	for _, call := range r.model.Calls() {
		if !strings.HasPrefix(call, string(hcstest.Prepare)) {
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
	for layer, record := range r.world.records {
		for place, at := range record.targets {
			there := r.world.isLinked(layer, place) || at.bound == now && r.world.bound[place] == layer
			if !at.shown || record.boot != now || !there || !r.world.open[layer] {
				r.t.Fatalf("half a mount at %s in\n%+v", place, r.world)
			}
		}
	}
}

// observe returns what there is on the host.
func (r *random) observe() world {
	w := newWorld()
	for _, dir := range []string{"mnt", "temp"} {
		for _, line := range strings.SplitAfter(tree(r.t, r.path(dir)), "\n") {
			if end := strings.IndexAny(line, "/ "); end > 0 {
				w.at[dir+"/"+line[:end]] += line[end:]
			}
		}
	}
	bound := map[string]string{}
	for _, b := range r.model.Bound() {
		bound[strings.TrimPrefix(b.Root, r.dir+"/")] = b.Source
	}
	for _, record := range r.records() {
		layer := filepath.Base(record.Source)
		if record.Source != r.path("layers", layer) || record.ReadOnly != isReadOnly(record.Source) {
			r.t.Fatalf("record %+v", record)
		}
		mark := layerMark{boot: r.mark(record.Boot), opened: record.Volume != "", targets: map[string]targetMark{}}
		if mark.boot == "" {
			mark.boot = closed
		}
		for _, at := range record.Targets {
			place := strings.TrimPrefix(at.Path, r.dir+"/")
			mark.targets[place] = targetMark{r.mark(at.Bound), at.Made, at.Replaced, at.Restored, at.Shown, at.MadeID != ""}
			if source, is := bound[place]; is && mark.opened && source == record.destination() {
				w.bound[place] = layer
				delete(bound, place)
			}
			if mark.opened && w.at[place] == linkPrefix+record.destination()+"\n" {
				w.at[place] = linkTo(layer)
			}
		}
		w.records[layer] = mark
	}
	for _, layer := range r.model.OpenLayers() {
		w.open[filepath.Base(layer)] = true
	}
	for place, source := range bound {
		w.bound[place] = source
	}
	return w
}

// mark is the start of the system that a record names.
func (r *random) mark(id string) boot {
	switch id {
	case r.boot:
		return now
	case neverBound:
		return closed
	case "":
		return ""
	}
	return before
}

// What a step may leave behind when one of its HCS calls went wrong.

func (r *random) wantAllowed(s step, before, got world, failed, died bool) {
	if !failed {
		r.wantPromise(s, got)
		return
	}
	leaving := append([]string{}, s.places...)
	for _, layer := range s.layers {
		if s.mounts && layer == s.work.Layer && !r.isWhole(&before, layer) {
			leaving = append(leaving, before.placesOf(layer)...)
		} else {
			leaving = append(leaving, before.leaving(layer, s.places...)...)
		}
	}
	for place := range union(before.at, got.at) {
		if !r.allowsThing(s, before, got, place, leaving) {
			r.t.Fatalf("%+v: at %s is now %q where there was %q", s.work, place, got.at[place], before.at[place])
		}
	}
	for _, layer := range randomLayers {
		if !allowsRecord(s, before, got, layer, leaving) {
			r.t.Fatalf("%+v: the record of %s is now\n%+v where there was\n%+v", s.work, layer, got.records[layer], before.records[layer])
		}
		if got.open[layer] != before.open[layer] && !allowsChange(s, before, layer, leaving) {
			r.t.Fatalf("%+v: layer %s open is %v", s.work, layer, got.open[layer])
		}
	}
	for place, layer := range got.bound {
		tried := s.mounts && s.work.Bind && place == s.work.Place || s.temporary && strings.HasPrefix(place, "temp/")
		if before.bound[place] != layer && !(tried && layer == s.work.Layer) {
			r.t.Fatalf("%+v: at %s is bound %s where there was %q", s.work, place, layer, before.bound[place])
		}
	}
	for place, layer := range before.bound {
		if got.bound[place] != layer && !contains(leaving, place) {
			r.t.Fatalf("%+v: at %s is bound %q where there was %s", s.work, place, got.bound[place], layer)
		}
	}
	if s.wantErr == os.ErrExist && !died && s.mounts && r.isLive(&before, s.places[0]) && !reflect.DeepEqual(before, got) {
		r.t.Fatalf("%+v: the live mount has changed to\n%+v from\n%+v", s.work, got, before)
	}
}

// wantPromise fails the test unless a step that was retried after a fault did all that it
// does without one.
func (r *random) wantPromise(s step, got world) {
	if s.wantErr != nil {
		r.t.Fatalf("%+v: no error, want %v", s.work, s.wantErr)
	}
	if !reflect.DeepEqual(got, *s.want) {
		r.t.Fatalf("%+v: success, and the host is\n%+v\nwant\n%+v", s.work, got, *s.want)
	}
}

func union(a, b map[string]string) map[string]bool {
	keys := map[string]bool{}
	for _, m := range []map[string]string{a, b} {
		for key := range m {
			keys[key] = true
		}
	}
	return keys
}

// allowsThing reports whether a step that failed may leave the thing at a place: what was
// there, or what remains when a link of ours has gone.
func (r *random) allowsThing(s step, before, got world, place string, leaving []string) bool {
	was, is := before.at[place], got.at[place]
	if is == was {
		return true
	}
	if s.temporary && was == absent && strings.HasPrefix(place, "temp/") {
		return is == emptyDir
	}
	layer := before.layerAt(place)
	at := before.records[layer].targets[place]
	tried := got.records[s.work.Layer].targets[place]
	if s.mounts && place == s.work.Place && tried.made && is == emptyDir && (was == absent || before.isLinked(layer, place)) {
		return true
	}
	if contains(leaving, place) && was == absent && is == emptyDir && at.bound == now {
		return true // so that the bind filter finds its root, and the next Unmount removes it
	}
	if !contains(leaving, place) || was != absent && !before.isLinked(layer, place) && !(at.made && was == emptyDir) {
		return false
	}
	return is == absent || is == emptyDir && at.replaced
}

// allowsRecord reports whether a step that failed may leave the record of a layer: the old
// one, without the places that it leaves or with them on their way, or that of a mount
// which could not be undone.
func allowsRecord(s step, before, got world, layer string, leaving []string) bool {
	was, is := before.records[layer], got.records[layer]
	if reflect.DeepEqual(was, is) {
		return true
	}
	if !contains(s.layers, layer) {
		return false
	}
	// A mount at a place that was on record begins with a record of its own.
	isTried := func(place string) bool {
		tried := s.mounts && place == s.places[0] || s.temporary && strings.HasPrefix(place, "temp/")
		return tried && !is.targets[place].shown && is.boot == now
	}
	for place, at := range was.targets {
		now, there := is.targets[place]
		if contains(leaving, place) && there && isTried(place) {
			continue
		}
		now.restored, now.identified = at.restored, at.identified
		onItsWay := at
		onItsWay.shown = false
		if !contains(leaving, place) && now != at || there && now != at && now != onItsWay {
			return false
		}
	}
	for place := range is.targets {
		if _, known := was.targets[place]; !known && !isTried(place) {
			return false
		}
	}
	return true
}

// allowsChange reports whether a step that failed may leave a layer open that was
// closed, or closed that was open.
func allowsChange(s step, before world, layer string, leaving []string) bool {
	if !contains(s.layers, layer) {
		return false
	}
	if !before.open[layer] {
		// Where HCS refuses to close what is closed, a layer on record is opened to be closed.
		return s.mounts || s.temporary || before.records[layer].boot == now
	}
	for place, at := range before.records[layer].targets {
		if at.shown && !contains(leaving, place) {
			return false
		}
	}
	return true
}

// Operations at once.

// randomWork is one operation of a goroutine.
type randomWork struct {
	Op, Layer, Place string
	Bind             bool // and make no link
}

func drawWork(rt *rapid.T) randomWork {
	ops := []string{"mount", "unmount", "unmount layer", "unmount all", "unmount below", "look up", "temporarily", "temporarily, fails"}
	return randomWork{rapid.SampledFrom(ops).Draw(rt, "op"), drawLayer(rt), drawPlace(rt), rapid.Bool().Draw(rt, "bind")}
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
	ctx, mt := context.Background(), r.binding(work.Bind)
	switch work.Op {
	case "mount":
		return mt.mount(ctx, m, path)
	case "unmount":
		return r.unmount(path)
	case "unmount all":
		return r.unmountAll(path)
	case "unmount layer":
		return r.unmount(m.Source)
	case "unmount layer all":
		return r.unmountAll(m.Source)
	case "unmount below":
		return r.unmountRecursive(r.path("mnt"))
	case "look up":
		_, err := r.lookup(path)
		return err
	}
	return withTempMount(ctx, mt, []Mount{*m}, func(root string) error {
		text, err := os.ReadFile(filepath.Join(r.shownAt(root), "data"))
		unmounted := err != nil && !r.alone // by somebody else
		if string(text) != "of layer "+work.Layer && !unmounted {
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
	r.model.Before = func(hcstest.Call, string) error {
		if int(atomic.AddInt32(&calls, 1)) == at {
			panic(errKilled)
		}
		return nil
	}
	return func() bool { return at >= 0 && int(atomic.LoadInt32(&calls)) >= at }
}
