//go:build !windows

package mount

import (
	"context"
	stderrors "errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-941ae793/mount/internal/hcstest"
	"github.com/seed-941ae793/mount/internal/table"
	"github.com/seed-941ae793/mount/internal/winfs"
)

// setChecks sets how many checks rapid makes, unless the command line does: few, or full if all tests are to run.
// A check has about 30 operations. A failure is shrunk, and rapid prints the -rapid.seed that repeats it.
func setChecks(t *testing.T, few, full int) {
	checks := flag.Lookup("rapid.checks")
	isSet := false
	flag.Visit(func(f *flag.Flag) { isSet = isSet || f == checks })
	if isSet {
		return
	}
	if os.Getenv(allCases) != "" {
		few = full
	}
	before := checks.Value.String()
	t.Cleanup(func() { _ = checks.Value.Set(before) })
	_ = checks.Value.Set(strconv.Itoa(few)) // flag.Set would make it one of the command line
}

func TestEngine_DoesWhatTheReferenceDoes(t *testing.T) {
	setChecks(t, 30, 200)
	var ops, elsewhere, faulty int
	processes := newProcesses(t, 3)
	rapid.Check(t, func(rt *rapid.T) {
		r := newRandom(t, rt, processes)
		r.alone = true
		defer os.RemoveAll(r.dir)
		rarely := func(do func()) func(rt *rapid.T) {
			return func(rt *rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "rarely") == 0 {
					do()
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"mount":             r.mountAny,
			"mount another":     r.mountAny,
			"mount once more":   r.mountAny,
			"mount, again":      r.mountAny,
			"mount temporarily": r.mountTemporarily,
			"unmount a target":  r.unmountTargetOf,
			"unmount a layer":   r.unmountLayerOf,
			"unmount all below": r.unmountBelowAny,
			"look up":           r.lookUp,
			"put a thing":       r.put,
			"other code":        r.otherCode,
			"remove a layer":    r.removeLayer,
			"restart, or not":   rarely(r.startAgain),
			"clean up, or not":  rarely(r.cleanUp),
			"":                  func(*rapid.T) { r.check() },
		})
		r.cleanUp()
		count("random operations", r.model.Personality, r.ops)
		ops, elsewhere, faulty = ops+r.ops, elsewhere+r.elsewhereOps, faulty+r.faulty
	})
	t.Logf("%d operations, %d of them in other processes, a fault in %d", ops, elsewhere, faulty)
}

// The order of what happens at once is not repeated: rapid may call a failure flaky, and then shows what it drew
// and what had failed.
func TestEngine_LeavesOnlyWholeMountsOfOperationsAtOnce(t *testing.T) {
	setChecks(t, 15, 100)
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
		r.settle()
		r.world = r.observe()
		r.wantNoLeak()
		killed += int(killedElsewhere.Load())
		if !killedHere() && killedElsewhere.Load() == 0 {
			for target := range r.world.mounts {
				if !r.world.isLive(target) || !r.world.open[r.world.mounts[target].layer] {
					rt.Fatalf("half a mount at %s in\n%+v", target, r.world)
				}
			}
		}
		for place, thing := range before.at {
			if thing != emptyDir && r.world.at[place] != thing {
				rt.Fatalf("at %s, where a user has put %q, is %q", place, thing, r.world.at[place])
			}
		}
		r.cleanUp()
	})
	t.Logf("%d operations, %d other processes killed", ops, killed)
}

var randomLayers = []string{"1", "2", "3", "base", "committed"}

// randomPlaces are those to mount at. In the last ones there is something to mount in only while there is a
// directory, or while a layer is shown there.
var randomPlaces = []string{"mnt/a", "mnt/b", "mnt/c", "mnt/a/in", "mnt/b/in"}

// random is a host, and the reference for it.
type random struct {
	*host
	layerMounts map[string]*Mount
	files       string // what must never change
	world       *world
	// alone is set if nobody else does anything at the same time.
	alone bool
	// foreign has the layers that other code has opened since they were closed last.
	foreign map[string]bool
	// processes do some of the operations.
	processes processes

	ops, elsewhereOps, faulty, away int
}

func newRandom(t *testing.T, rt *rapid.T, processes processes) *random {
	tb := &rapidTB{TB: t, rt: rt}
	r := &random{host: sharedHost(tb, newHost(tb).dir), layerMounts: map[string]*Mount{}, foreign: map[string]bool{}, processes: processes}
	r.model.Before, r.model.After = nil, nil // what is planned is for other processes
	tb.dir = r.dir
	r.write(r.path("user", "data"), "mine")
	r.mkdir(r.path("temp"))
	r.mkdir(r.path("gone"))
	setRandomTemp(r.path("temp"))
	rt.Cleanup(func() { setRandomTemp("") })
	for _, name := range randomLayers {
		r.addLayer(name)
	}
	r.model.Personality = drawPersonality(rt)
	if err := hcstest.SetPersonality(r.path("hcs"), r.model.Personality); err != nil {
		tb.Fatal(err)
	}
	r.files = r.allFiles()
	r.world = r.observe()
	return r
}

func setRandomTemp(dir string) {
	tempLocation.Store(dir)
}

// drawPersonality draws in about half of all cases one of the personalities that differ in many answers.
func drawPersonality(rt *rapid.T) hcstest.Personality {
	var names []string
	for i, p := range hcstest.Personalities {
		names = append(names, p.Name, somePersonalities[i%len(somePersonalities)])
	}
	p, _ := hcstest.Named(rapid.SampledFrom(names).Draw(rt, "personality"))
	return p
}

// addLayer makes a layer with a file that tells which it is, in its volume and in its directory, either of which
// may be shown. Layers 1 and 2 have the same parents.
func (r *random) addLayer(name string) {
	switch name {
	case "base":
		r.layerMounts[name] = r.base(name)
		r.write(r.path("layers", name, "Files", "data"), "of layer "+name)
		return
	case "committed":
		r.layerMounts[name] = r.committed(name)
	default:
		r.layerMounts[name] = r.scratch(name)
	}
	if name == "3" {
		r.layerMounts[name].Options = []string{ParentLayerPathsFlag + `["C:\\layers\\other"]`}
	}
	r.write(r.path("layers", name, "data"), "of layer "+name)
	r.model.Personality.AttachesKeptDisk = true // for once, so that each of these gets a volume
	r.inVolume(r.layerMounts[name], func(volume string) { r.write(filepath.Join(volume, "data"), "of layer "+name) })
}

// allFiles returns the data in the layers, in their volumes and behind the links.
func (r *random) allFiles() string {
	var all []string
	for _, pattern := range []string{"layers/*/*", "layers/base/Files/*", "user/*"} {
		files, _ := filepath.Glob(r.path(pattern))
		all = append(all, files...)
	}
	volumes, _ := filepath.Glob(r.path("hcs/volumes/*/data"))
	data := []string{}
	for _, file := range volumes { // whose names may change
		data = append(data, describe(file))
	}
	slices.Sort(data)
	all = slices.DeleteFunc(all, func(path string) bool { // a restart leaves the stream of a base layer
		return filepath.Base(path) == "in" || strings.HasSuffix(path, sourceStream)
	})
	for _, file := range all {
		if info, err := os.Stat(file); err == nil && !info.IsDir() {
			file += describe(file)
		}
		data = append(data, file)
	}
	return strings.Join(data, "\n")
}

// rapidTB makes the fixtures fail through rapid, which shrinks only what fails with the same words again: without
// the names that are new each time.
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

// Operations.

// randomWork is one operation.
type randomWork struct {
	Op, Layer, Place string
	Bind             bool // and make no link
}

var errRandomCallback = stderrors.New("callback")

func (r *random) do(work randomWork) error {
	m, place := r.layerMounts[work.Layer], r.path(work.Place)
	ctx, e := context.Background(), r.binding(work.Bind)
	switch work.Op {
	case "mount":
		return e.mount(ctx, m, place)
	case "unmount":
		return r.unmount(place)
	case "unmount all":
		return r.unmountAll(place)
	case "unmount layer":
		return r.unmount(m.Source)
	case "unmount below":
		return r.unmountRecursive(place)
	case "look up":
		_, err := r.lookup(place)
		return err
	}
	return e.withTempMount(ctx, []Mount{*m}, func(root string) error {
		files := root
		if b, is := r.model.BoundAt(root); is {
			files = b.Source
		}
		text, err := os.ReadFile(filepath.Join(files, "data"))
		isUnmounted := err != nil && !r.alone // by somebody else
		if string(text) != "of layer "+work.Layer && !isUnmounted {
			return fmt.Errorf("the callback was shown %q, %v", text, err)
		}
		switch work.Op {
		case "temporarily, fails":
			return errRandomCallback
		case "temporarily, panics":
			panic(errKilled)
		}
		return nil
	})
}

// reckon does to the reference what do does to the host, and returns the error that do is to return.
func (r *reference) reckon(work randomWork) (err error) {
	switch work.Op {
	case "mount":
		return r.mount(work.Layer, work.Place, work.Bind)
	case "unmount":
		return r.unmount(work.Place)
	case "unmount all":
		return r.unmountAll(work.Place)
	case "unmount layer":
		return r.unmountLayer(work.Layer)
	case "unmount below":
		return r.unmountRecursive(work.Place)
	}
	const place = "temp/new"
	r.at[place] = emptyDir
	if err = r.mount(work.Layer, place, work.Bind); err == nil {
		if err = r.unmount(place); work.Op != "temporarily" {
			err = errRandomCallback
		}
	}
	delete(r.at, place)
	return err
}

func drawLayer(rt *rapid.T) string { return rapid.SampledFrom(randomLayers).Draw(rt, "layer") }

// drawLayerOnRecord draws a layer, and more often one that is on record.
func (r *random) drawLayerOnRecord(rt *rapid.T) string {
	layers := slices.Clone(randomLayers)
	for _, layer := range randomLayers {
		if len(r.world.targetsOf(layer)) > 0 {
			layers = append(layers, layer, layer, layer, layer)
		}
	}
	return rapid.SampledFrom(layers).Draw(rt, "layer")
}

func drawPlace(rt *rapid.T) string { return rapid.SampledFrom(randomPlaces).Draw(rt, "place") }

// drawPlaceIn draws a place, and not one in a file: only Windows takes that for one where nothing is.
func (r *random) drawPlaceIn(rt *rapid.T) string {
	place := drawPlace(rt)
	if r.world.at[filepath.Dir(place)] == userFile {
		return filepath.Dir(place)
	}
	return place
}

func (r *random) mountAny(rt *rapid.T) {
	work := randomWork{"mount", drawLayer(rt), r.drawPlaceIn(rt), rapid.Bool().Draw(rt, "bind")}
	if isVolume(filepath.Dir(r.world.resolve(work.Place))) {
		work.Bind = false // the model does not say what becomes of a binding in a volume that goes
	}
	r.run(rt, work)
}

func (r *random) mountTemporarily(rt *rapid.T) {
	op := rapid.SampledFrom([]string{"temporarily", "temporarily, fails", "temporarily, panics"}).Draw(rt, "op")
	r.run(rt, randomWork{Op: op, Layer: drawLayer(rt), Bind: rapid.Bool().Draw(rt, "bind")})
}

func (r *random) unmountTargetOf(rt *rapid.T) {
	op := rapid.SampledFrom([]string{"unmount", "unmount all"}).Draw(rt, "op")
	r.run(rt, randomWork{Op: op, Place: r.drawPlaceIn(rt)})
}

func (r *random) unmountLayerOf(rt *rapid.T) {
	r.run(rt, randomWork{Op: "unmount layer", Layer: drawLayer(rt)})
}

func (r *random) unmountBelowAny(rt *rapid.T) {
	place := rapid.SampledFrom([]string{"mnt", "mnt/a", "mnt/b", "user"}).Draw(rt, "below")
	r.run(rt, randomWork{Op: "unmount below", Place: place})
}

func (r *random) lookUp(rt *rapid.T) {
	r.ops++
	place := r.drawPlaceIn(rt)
	info, err := r.lookup(r.path(place))
	m := r.world.mounts[r.world.resolve(place)]
	if m.state != table.Shown || m.stale {
		if !stderrors.Is(err, os.ErrNotExist) {
			r.t.Fatalf("lookup of %s: %+v, %v", place, info, err)
		}
		return
	}
	// Its Mountpoint may lead there on another way.
	if err != nil || info.Source != r.path("layers", m.layer) || filepath.Clean(info.Root) != r.path(m.shows) || info.FSType != layerType {
		r.t.Fatalf("lookup of %s: %+v, %v", place, info, err)
	}
}

// startAgain starts the host again, which closes all layers.
func (r *random) startAgain() {
	r.ops++
	r.reboot()
	r.foreign = map[string]bool{}
	r.adopt()
}

// adopt makes the world that there is the reference, after something that the engine has no part in.
func (r *random) adopt() {
	r.settle()
	r.world = r.observe()
}

// settle lets the time pass that a volume takes to come and go. If a program mounts in the meantime, it may
// take a layer for open, or for closed, that no longer is.
func (r *random) settle() {
	p := r.model.Personality
	for i := 0; i < max(p.VolumeLate, p.VolumeLingers); i++ {
		for _, m := range r.layerMounts {
			_, _ = r.model.GetLayerMountPath(m.Source)
		}
	}
}

// put is what a user does at a place: what is there, also our link, goes, and something else comes.
func (r *random) put(rt *rapid.T) {
	r.ops++
	path := r.world.resolve(r.drawPlaceIn(rt))
	thing := rapid.SampledFrom([]string{absent, emptyDir, absent, emptyDir, userFile, userDir, linkTo("user")}).Draw(rt, "thing")
	_, isMounted := r.world.mounts[path+"/in"]
	if !r.world.isDir(filepath.Dir(path)) || r.world.bound[path] != "" || r.world.bound[path+"/in"] != "" ||
		thing == userFile && isMounted {
		return // Windows removes no directory that is in use, and only there is a target in a file one that is absent
	}
	path = r.path(path)
	r.putAway(path)
	switch thing {
	case emptyDir:
		for r.mkdir(path); r.hasMade(path); r.mkdir(path) {
			r.putAway(path)
		}
	case userFile:
		r.write(path, "mine")
	case userDir:
		r.write(filepath.Join(path, "data"), "mine")
	case linkTo("user"):
		symlink(r.t, r.path("user"), path)
	}
	r.adopt()
}

// putAway removes what is at a path, if anything. It keeps it elsewhere: Linux would give its ID to another
// directory, which Windows does not.
func (r *random) putAway(path string) {
	r.away++
	if err := os.Rename(path, r.path("gone", fmt.Sprint(r.away))); err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
}

// hasMade reports whether a directory has the ID of one that was made for a binding, on record.
func (r *random) hasMade(path string) bool {
	id, err := winfs.FileID(path)
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.ContainsFunc(r.mounts(), func(m *table.Mount) bool { return !m.Directory && m.Hidden == id })
}

// otherCode is what other code does to a layer or a binding, whosever it is.
func (r *random) otherCode(rt *rapid.T) {
	r.ops++
	layer := r.drawLayerOnRecord(rt)
	m := r.layerMounts[layer]
	parents, _ := m.GetParentPaths()
	switch rapid.SampledFrom([]string{"open", "close", "unprepare", "deactivate", "unbind"}).Draw(rt, "other") {
	case "open":
		if r.world.open[layer] || r.world.gone[layer] {
			return
		}
		if err := stderrors.Join(r.model.ActivateLayer(m.Source), r.model.PrepareLayer(m.Source, parents)); err != nil {
			r.t.Fatal(err)
		}
		r.foreign[layer] = true
	case "close":
		_, _ = r.model.UnprepareLayer(m.Source), r.model.DeactivateLayer(m.Source)
	case "unprepare":
		_ = r.model.UnprepareLayer(m.Source)
	case "deactivate":
		_ = r.model.DeactivateLayer(m.Source)
	case "unbind":
		_ = r.model.Unbind(r.path(r.world.resolve(drawPlace(rt))))
	}
	r.adopt()
}

// removeLayer removes the directory of a layer that nobody uses, or puts it back.
func (r *random) removeLayer(rt *rapid.T) {
	r.ops++
	layer := r.drawLayerOnRecord(rt)
	from, to := r.path("layers", layer), r.path("gone", "layer "+layer)
	if r.world.gone[layer] {
		from, to = to, from
	} else if in := func(path string) bool { return strings.HasPrefix(path, "layers/"+layer+"/") }; r.world.open[layer] ||
		slices.ContainsFunc(r.world.targets(), in) {
		return
	}
	if err := os.Rename(from, to); err != nil {
		r.t.Fatal(err)
	}
	r.adopt()
}

// targets returns all targets on record, and all paths where a thing is.
func (w *world) targets() (all []string) {
	for target := range w.mounts {
		all = append(all, target)
	}
	for path := range w.at {
		all = append(all, path)
	}
	return all
}

// cleanUp unmounts all that there may be, as a process would that comes after whatever has happened.
func (r *random) cleanUp() {
	r.ops++
	unmount := func(work randomWork) {
		before := r.world
		err := r.do(work)
		r.world = r.observe()
		want := r.reference(before, r.world)
		if wantErr := want.reckon(work); !want.tied && (err != nil || wantErr != nil) {
			r.t.Fatalf("cleaning up: %+v: error %v, want %v", work, err, wantErr)
		}
		r.wantIs(want, before)
	}
	unmount(randomWork{Op: "unmount below", Place: "mnt"})
	before := r.world
	failed, err := r.cleanupTempMounts()
	if err := stderrors.Join(append(failed, err)...); err != nil {
		r.t.Fatalf("cleaning up temporary mounts: %v", err)
	}
	r.world = r.observe()
	want := r.reference(before, r.world)
	temp := want.below("temp")
	_ = want.unmountBelow("temp")
	for _, target := range temp {
		delete(want.at, target)
	}
	r.wantIs(want, before)
	for _, layer := range randomLayers {
		if len(r.world.targetsOf(layer)) > 0 {
			unmount(randomWork{Op: "unmount layer", Layer: layer})
		}
		if r.world.open[layer] { // since other code has opened it
			unmount(randomWork{Op: "unmount layer", Layer: layer})
		}
	}
	r.wantClosed()
	for layer := range r.world.gone {
		if err := os.Rename(r.path("gone", "layer "+layer), r.path("layers", layer)); err != nil {
			r.t.Fatal(err)
		}
	}
	r.adopt()
	if files := r.allFiles(); files != r.files { // nobody else would have put them right
		r.t.Fatalf("the files have changed to\n%s\nfrom\n%s", files, r.files)
	}
}

// wantIs fails the test unless the host is as the reference has it.
func (r *random) wantIs(want *reference, before *world) {
	if !want.tied && !reflect.DeepEqual(*r.world, want.world) {
		r.t.Fatalf("the host is\n%+v\nwant\n%+v\nbefore\n%+v", *r.world, want.world, *before)
	}
}

func (r *random) reference(before, after *world) *reference {
	p := r.model.Personality
	return &reference{world: before.clone(), after: after, refuses: p.UnbindAncestor != 0, fails: p.ClosedPath != 0, touched: map[string]bool{}}
}

// run does an operation, in this process or in another one, with a fault in its calls or without, and fails the
// test unless the reference allows what comes of it. That becomes the reference.
func (r *random) run(rt *rapid.T, work randomWork) {
	r.ops++
	do := r.here
	if rapid.IntRange(0, 3).Draw(rt, "process") == 0 {
		do = r.elsewhere
	}
	died, isFaulty, err := do(rt, work)
	r.t.Logf("%+v: died %v, fault %v, error %v", work, died, isFaulty, err)
	if isFaulty {
		r.faulty++
		r.settle()
	}
	before, got := r.world, r.observe()
	want := r.reference(before, got)
	wantErr := want.reckon(work)
	wantDied := work.Op == "temporarily, panics" && wantErr == errRandomCallback
	r.world = got
	switch {
	case want.tied, isFaulty && (died || err != nil || want.unsure || got.closesAtAnother(before)):
		r.wantAllowed(work, !died && err == nil, before, got, want)
	case died != wantDied || !died && !isWanted(err, wantErr):
		r.t.Fatalf("%+v: died %v, error %v, want %v\nbefore\n%+v", work, died, err, wantErr, *before)
	default:
		r.wantIs(want, before)
	}
}

// closesAtAnother reports whether something is left at a target whose layer was closed since. A Mount at
// another target may close a layer to open it afresh: for that Mount what is left is no error.
func (w *world) closesAtAnother(before *world) bool {
	for target, m := range w.mounts {
		if m.state == table.Closed && before.mounts[target].state != table.Closed {
			return true
		}
	}
	return false
}

func isWanted(err, want error) bool {
	return stderrors.Is(err, want) || err != nil && stderrors.Is(want, errAny)
}

// wantAllowed is for an operation that a fault has ended. It fails the test unless the operation has changed
// only what it would have changed without the fault, and unless that is as before, or can be unmounted.
func (r *random) wantAllowed(work randomWork, isDone bool, before, got *world, want *reference) {
	for _, path := range append(before.targets(), got.targets()...) {
		was, is := before.mounts[path], got.mounts[path]
		wasThing, isThing := before.at[path], got.at[path]
		isNew := strings.HasPrefix(path, "temp/") && wasThing == absent
		isThere := before.isDir(filepath.Dir(path)) && got.isDir(filepath.Dir(path)) // and not out of sight
		ok := isThing == wasThing || !isThere
		if want.touched[path] || isNew {
			isOurs := wasThing == absent || wasThing == emptyDir || wasThing == linkTo(was.shows)
			isOK := isThing == absent && (wasThing != emptyDir || was.made || is.directory) || isThing == emptyDir || isThing == linkTo(is.shows)
			ok = ok || isOurs && isOK
		}
		if !ok {
			r.t.Fatalf("%+v: at %s is %q where there was %q in\n%+v\nbefore\n%+v", work, path, isThing, wasThing, *got, *before)
		}
		was.made, is.made = false, false // which the above is about
		ok = is == was
		if want.touched[path] || isNew {
			ok = ok || is == mark{} || is.layer == work.Layer && !is.stale && (isDone || is.state != table.Shown) || is.layer == was.layer && is.state != table.Shown
		}
		if !ok {
			r.t.Fatalf("%+v: the record of %s is %+v where there was %+v in\n%+v\nbefore\n%+v", work, path, is, was, *got, *before)
		}
		if before.bound[path] != got.bound[path] && !want.touched[path] && !isNew {
			r.t.Fatalf("%+v: to %s is bound %q where there was %q", work, path, got.bound[path], before.bound[path])
		}
	}
	for _, layer := range randomLayers {
		if got.open[layer] != before.open[layer] && !want.touched[layer] {
			r.t.Fatalf("%+v: layer %s open is %v\n%+v\nbefore\n%+v", work, layer, got.open[layer], *got, *before)
		}
	}
}

// check fails the test if something is open or bound that is in no record, if a user's file has changed, or if
// HCS was given the parents of another layer.
func (r *random) check() {
	r.wantAt(r.path("user", "data"), "file: mine")
	recorded := map[string]bool{}
	for target, m := range r.world.mounts {
		recorded[m.layer] = recorded[m.layer] || r.world.mayBeOpen(target)
	}
	for layer := range r.foreign {
		if !r.world.open[layer] {
			delete(r.foreign, layer)
		}
	}
	for layer := range r.world.open {
		if !recorded[layer] && !r.foreign[layer] {
			r.t.Fatalf("layer %s is open without a record in\n%+v", layer, r.world)
		}
	}
	for target, source := range r.world.bound {
		if m := r.world.mounts[target]; m.shows != source || !m.binding || m.stale {
			r.t.Fatalf("%s is bound to %s without a record in\n%+v", source, target, r.world)
		}
	}
	for _, call := range r.model.Calls() {
		for _, m := range r.layerMounts {
			parents, _ := m.GetParentPaths()
			want := fmt.Sprintf("PrepareLayer %s %s", m.Source, parents)
			if strings.HasPrefix(call, "PrepareLayer "+m.Source+" ") && call != want {
				r.t.Fatalf("called %s, want %s", call, want)
			}
		}
	}
	r.model.ResetCalls()
}

// observe returns what there is on the host.
func (r *random) observe() *world {
	w := newWorld()
	look := func(path string) {
		if thing := r.thingAt(path); thing != absent {
			w.at[path] = thing
		}
		if isDir(w.at[path]) {
			if thing := r.thingAt(path + "/in"); thing != absent {
				w.at[path+"/in"] = thing
			}
		}
	}
	for _, path := range []string{"mnt/a", "mnt/b", "mnt/c", "user/in", "layers/base/Files/in", "layers/committed/in"} {
		look(path)
	}
	temps, _ := filepath.Glob(r.path("temp", "*"))
	for _, temp := range temps {
		if strings.HasSuffix(temp, sourceStream) {
			continue
		}
		look("temp/" + filepath.Base(temp))
	}
	volumes, _ := filepath.Glob(r.path("hcs", "volumes", "*}"))
	for _, volume := range volumes {
		data, err := os.ReadFile(filepath.Join(volume, "data"))
		if err != nil {
			r.t.Fatal(err)
		}
		w.volumes[r.rel(volume)] = strings.TrimPrefix(string(data), "of layer ")
		look(r.rel(volume) + "/in")
	}
	for _, b := range r.model.Bound() {
		w.bound[r.rel(b.Root)] = r.rel(b.Source)
	}
	for _, layer := range r.model.OpenLayers() {
		w.open[filepath.Base(layer)] = true
	}
	for _, layer := range randomLayers {
		if _, err := os.Stat(r.path("layers", layer)); err != nil {
			w.gone[layer] = true
		}
	}
	for _, m := range r.host.mounts() {
		layer := filepath.Base(m.Source)
		if m.Dir != r.path("layers", layer) || m.Source != m.Dir {
			r.t.Fatalf("record %+v", m.Record)
		}
		target := r.rel(m.Resolved)
		if _, is := w.mounts[target]; is {
			r.t.Fatalf("two records of %s", target)
		}
		id, err := winfs.FileID(m.Resolved)
		mark := mark{given: strings.TrimPrefix(m.Target, r.dir+"/"), layer: layer, stale: r.table.IsStale(m.Name), state: m.State, binding: m.Binding, directory: m.Directory,
			// Without an ID on record, any directory there is taken for the one that was made.
			made: err == nil && m.Binding && !m.Directory && (m.Hidden == id || m.Hidden == "" && m.State != table.Opening)}
		if m.Volume != "" {
			mark.shows = r.rel(destination(m))
		}
		w.mounts[target] = mark
	}
	return w
}

// thingAt returns what is at a path.
func (r *random) thingAt(path string) string {
	thing := describe(r.path(path))
	text, isLink := strings.CutPrefix(thing, "link to ")
	switch {
	case thing == "nothing":
		return absent
	case isLink:
		return linkTo(r.rel(text))
	case thing == "file: mine":
		return userFile
	case strings.Contains(thing, `"data"`):
		return userDir
	case strings.HasPrefix(thing, "directory of"):
		return emptyDir
	}
	return thing
}

func (r *random) rel(path string) string { return strings.TrimPrefix(filepath.Clean(path), r.dir+"/") }

// Faults in this process.

// randomFault makes a call fail, or kills the process in it.
type randomFault struct {
	code   syscall.Errno // or 0, which kills
	after  bool          // the call has had its effect
	onward bool          // all later calls fail as well, before their effect
}

// randomFaults are those which an operation must survive, if nothing more can go wrong. ActivateLayer may say
// that the layer is open, but only before its effect: then it can be true.
var randomFaults = func() (all []randomFault) {
	for _, code := range []syscall.Errno{errorSharingViolation, errorInvalidParameter, errorAccessDenied, errorNotReady, errorGenFailure, errorTimeout} {
		all = append(all, randomFault{code: code}, randomFault{code: code, onward: true})
	}
	return append(all, randomFault{}, randomFault{}, randomFault{}, randomFault{after: true}, randomFault{after: true},
		randomFault{code: errorGenFailure, after: true}, randomFault{code: errorTimeout, after: true},
		randomFault{code: errorNotReady, after: true}, randomFault{code: errorDeviceNotConnected, after: true, onward: true})
}()

// plan makes call number at, counted from now, go wrong. What it returns reports whether a call went wrong.
func (r *random) plan(f randomFault, at int) (happened func() bool) {
	number, isOver := -1, false
	fail := func(call hcstest.Call, layer string) error {
		isOver = true
		if f.code == 0 {
			panic(errKilled)
		}
		return &hcstest.Error{Call: call, Layer: layer, Code: f.code}
	}
	r.model.Before = func(call hcstest.Call, layer string) error {
		number++
		isNow := number == at && !f.after || number > at && isOver && f.onward
		if isNow && !r.isLie(call, filepath.Base(layer), f.code) {
			return fail(call, layer)
		}
		return nil
	}
	r.model.After = func(call hcstest.Call, layer string) error {
		// Nothing but its error tells that the filter of a layer without a volume was attached.
		isHidden := call == hcstest.Prepare && f.code == errorGenFailure && !r.hasVolume(filepath.Base(layer))
		if number == at && f.after && !isHidden {
			return fail(call, layer)
		}
		return nil
	}
	return func() bool { return isOver }
}

// isLie reports whether a code would be a wrong answer that nothing can correct: other code has opened the
// layer, the code says that the call may have opened it, and the layer has no volume to look at.
func (r *random) isLie(call hcstest.Call, layer string, code syscall.Errno) bool {
	isTransient := code == errorNotReady || code == errorDeviceNotConnected || code == errorTimeout
	return call == hcstest.Prepare && isTransient && r.world.open[layer] && !r.hasVolume(layer)
}

func (r *random) hasVolume(layer string) bool {
	return layer != "base" && (layer != "committed" || r.model.Personality.AttachesKeptDisk)
}

// here does the work in this process, and reports whether a fault has happened.
func (r *random) here(rt *rapid.T, work randomWork) (died, isFaulty bool, err error) {
	happened := func() bool { return false }
	if rapid.Bool().Draw(rt, "faulty") {
		fault := rapid.SampledFrom(randomFaults).Draw(rt, "fault")
		happened = r.plan(fault, rapid.IntRange(0, 8).Draw(rt, "call"))
	}
	died, err = survive(func() error { return r.do(work) })
	r.model.Before, r.model.After = nil, nil
	return died, happened(), err
}

// Operations at once.

func drawWork(rt *rapid.T) randomWork {
	ops := []string{"mount", "unmount", "unmount layer", "unmount all", "unmount below", "look up", "temporarily", "temporarily, fails"}
	work := randomWork{rapid.SampledFrom(ops).Draw(rt, "op"), drawLayer(rt), rapid.SampledFrom(randomPlaces[:3]).Draw(rt, "place"), rapid.Bool().Draw(rt, "bind")}
	if work.Op == "unmount below" {
		work.Place = "mnt"
	}
	return work
}

// allowedErrors are those that an operation may have while others run.
var allowedErrors = map[string]error{
	"mount":              os.ErrExist,
	"look up":            os.ErrNotExist,
	"temporarily, fails": errRandomCallback,
}

func (work randomWork) allows(err error) bool {
	allowed := allowedErrors[work.Op]
	return allowed != nil && stderrors.Is(err, allowed)
}

// workAll does the operations and returns the first error that none of them may have. A process that was killed
// does nothing more.
func (r *random) workAll(script []randomWork) error {
	for _, work := range script {
		died, err := survive(func() error { return r.do(work) })
		if died {
			return nil
		}
		if err != nil && !work.allows(err) {
			return fmt.Errorf("%+v: %w", work, err)
		}
	}
	return nil
}

// killOnce makes call number at kill the goroutine that makes it; none if it is negative. It returns whether it
// has come to that.
func (r *random) killOnce(at int) (killed func() bool) {
	var calls atomic.Int32
	calls.Store(-1)
	r.model.Before = func(hcstest.Call, string) error {
		if int(calls.Add(1)) == at {
			panic(errKilled)
		}
		return nil
	}
	return func() bool { return at >= 0 && int(calls.Load()) >= at }
}
