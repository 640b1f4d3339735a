//go:build !windows

package mount

import (
	"errors"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/seed-941ae793/mount/internal/table"
)

// world is what there is on a host of a random test. All paths are relative to the directory of the host, and
// have no links on the way.
type world struct {
	at      map[string]string // what is at a path, if anything
	bound   map[string]string // what is bound to a path
	mounts  map[string]mark   // the mounts on record, by their targets
	open    map[string]bool   // the layers that HCS has open
	volumes map[string]string // the volumes that are there, and whose each is
	gone    map[string]bool   // the layers whose directory somebody has removed
}

// mark is the record of a mount.
type mark struct {
	given     string // the place at which it was mounted, whose links may be gone
	layer     string
	stale     bool // made before the system was started
	state     table.State
	shows     string // what the target leads to; "" if the layer was not opened yet
	binding   bool
	directory bool // stood at the target
	made      bool // for the binding, and is still there
}

// Things at a path. A directory with data is a user's, and so is a file.
const (
	absent   = ""
	emptyDir = "directory" // but for what is mounted in it
	userDir  = "directory with data"
	userFile = "file"
)

func linkTo(dir string) string { return "link to " + dir }

// reference is the world as an operation is to leave it, if HCS does its part.
type reference struct {
	world
	after   *world          // the world after it, which tells which volume a layer got: HCS alone decides
	refuses bool            // the bind filter does not remove a binding below which another one lies
	fails   bool            // HCS gives an error if it is asked for the volume of a layer that is not active
	touched map[string]bool // the targets and the layers that the operation may change
	unsure  bool            // the operation closes a layer that is in no record: that HCS refuses is no error
	tied    bool            // it may depend on the order in which the table lists mounts: see unmountBelow
}

// errAny stands for any error that an operation may have.
var errAny = errors.New("any error")

// mount mounts a layer.
func (r *reference) mount(layer, place string, bind bool) error {
	target := r.resolve(place)
	if !r.isDir(path.Dir(target)) || bind && strings.HasPrefix(target, "layers/"+layer+"/") {
		return errAny
	}
	if r.isUnknown(r.mounts[target]) && r.isShown(target) {
		return errAny
	}
	if r.isLive(target) {
		return os.ErrExist
	}
	if _, is := r.mounts[target]; is && !r.leave(target) {
		return errAny
	}
	thing := r.at[target]
	isEmpty := thing == absent || thing == emptyDir && r.at[target+"/in"] == absent
	if !isEmpty && !(bind && isDir(thing) && len(r.below(target)) == 0) {
		return os.ErrExist
	}
	if thing != absent && r.isBehindDead(target) {
		return errAny
	}
	r.touched[target] = true

	shows, opened := "", false
	for other, m := range r.mounts {
		if m.layer == layer && r.isUnknown(m) {
			return errAny
		}
		if m.layer == layer && m.binding && !r.isShown(other) { // if Mount fails, what it undoes keeps no layer open
			r.touched[other], r.touched[layer] = true, true
		}
		isGone := m.binding && !isVolume(m.shows) && !r.isShown(other) // other code has unmounted it
		if m.layer == layer && r.seemsOpen(m) && !isGone {
			shows = m.shows
		}
	}
	if shows == "" {
		r.touched[layer] = true
		if !r.leave(r.targetsOf(layer)...) || r.open[layer] || r.gone[layer] {
			return errAny
		}
		shows, opened = r.openLayer(layer), true
	}
	if !r.isDir(path.Dir(target)) || !r.isDir(shows) { // the one may have gone with the volume, the other with the layer
		if opened {
			r.close(layer)
		}
		return errAny
	}
	r.mounts[target] = mark{given: place, layer: layer, state: table.Shown, shows: shows, binding: bind, directory: thing != absent, made: bind && thing == absent}
	switch {
	case !bind:
		r.at[target] = linkTo(shows)
	case thing == absent:
		r.at[target] = emptyDir
		fallthrough
	default:
		r.bound[target] = shows
	}
	return nil
}

// isBehindDead reports whether the binding that a path lies in has lost its source, so that nobody can look at the
// path.
func (r *reference) isBehindDead(target string) bool {
	for dir := path.Dir(target); dir != "."; dir = path.Dir(dir) {
		if source, is := r.bound[dir]; is {
			return !r.isDir(source)
		}
	}
	return false
}

// unmount unmounts what is at a target, or a layer to whose directory a link leads.
func (r *reference) unmount(place string) error {
	target := r.resolve(place)
	if _, is := r.mounts[target]; is {
		return r.leaveOrFail(target)
	}
	if lost := r.lost(place); len(lost) > 0 {
		var err error
		for _, target := range lost {
			if leaveErr := r.leaveOrFail(target); leaveErr != nil {
				err = leaveErr
			}
		}
		return err
	}
	if layer, is := strings.CutPrefix(r.at[target], linkTo("layers/")); is && !strings.Contains(layer, "/") {
		return r.unmountLayer(layer)
	}
	return nil
}

func (r *reference) unmountAll(place string) error {
	for {
		_, again := r.mounts[r.resolve(place)]
		again = again || len(r.lost(place)) > 0
		if err := r.unmount(place); err != nil || !again {
			return err
		}
	}
}

// unmountLayer unmounts a layer from all targets. One that is in no record, other code has opened.
func (r *reference) unmountLayer(layer string) error {
	targets := r.targetsOf(layer)
	if len(targets) == 0 && !r.gone[layer] {
		r.touched[layer], r.unsure = true, true
		r.close(layer)
	}
	return r.leaveOrFail(targets...)
}

func (r *reference) unmountRecursive(dir string) error {
	return errors.Join(r.unmountBelow(dir), r.unmountAll(dir))
}

// unmountBelow unmounts what is below a directory. If a mount goes together with one that lies elsewhere, it
// may go too early: before what is mounted in it. Then the bind filter may refuse.
func (r *reference) unmountBelow(dir string) (err error) {
	for _, target := range r.below(dir) {
		if _, is := r.mounts[target]; !is {
			r.tied = true
		} else if leaveErr := r.leaveOrFail(target); leaveErr != nil {
			r.tied, err = true, leaveErr
		}
	}
	return err
}

func (r *reference) leaveOrFail(targets ...string) error {
	if !r.leave(targets...) {
		return errAny
	}
	return nil
}

// leave unmounts a layer from some targets, and closes it if no other one shows it. What killed processes have
// left of its mounts goes with the last one. It reports whether nothing is left to do. If the bind filter keeps
// a binding, something is left: the layer is in use and stays open.
func (r *reference) leave(targets ...string) (done bool) {
	isLast := slices.ContainsFunc(targets, r.mayBeOpen)
	if isLast {
		for _, other := range r.targetsOf(r.mounts[targets[0]].layer) {
			m := r.mounts[other]
			needsLayer := r.mayBeOpen(other) && m.state == table.Shown && (!m.binding || r.isShown(other))
			isLast = isLast && (slices.Contains(targets, other) || !needsLayer)
		}
	}
	if isLast {
		for _, other := range r.targetsOf(r.mounts[targets[0]].layer) {
			if !slices.Contains(targets, other) && r.mayBeOpen(other) {
				targets = append(targets, other)
			}
		}
	}
	slices.SortStableFunc(targets, longestFirst)
	done = true
	hidden := map[string]bool{}
	for _, target := range targets {
		r.touched[target] = true
		hidden[target] = r.hide(target)
		done = done && hidden[target]
	}
	if isLast {
		layer := r.mounts[targets[0]].layer
		r.touched[layer] = true
		if done && r.isOpenSince(targets) {
			r.close(layer)
		}
	}
	for _, target := range targets {
		switch {
		case !hidden[target]:
		case isLast && !done && r.mayBeOpen(target):
			m := r.mounts[target]
			m.state = table.Opening // the layer stays open, and the target is as it was
			r.mounts[target] = m
		default:
			delete(r.mounts, target)
		}
	}
	return done
}

// hide takes a layer away from a target, and reports whether nothing keeps it there.
func (r *reference) hide(target string) bool {
	m := r.mounts[target]
	if m.state == table.Shown && !m.binding {
		m.directory = m.directory && r.isShown(target) // or somebody has removed the link
	}
	if m.state == table.Shown || m.state == table.Linked {
		m.state = table.Leaving
	}
	r.mounts[target] = m
	if m.shows == "" || m.state == table.Opening && !m.binding {
		return true // nothing has been done there, or all is undone
	}
	if !m.binding {
		now := r.resolve(target) // somebody may have replaced the directory that it is in by a link
		r.touched[now] = true
		if r.at[now] == linkTo(m.shows) {
			delete(r.at, now)
		}
		if m.directory && r.at[now] == absent && r.isDir(path.Dir(now)) {
			r.at[now] = emptyDir
		}
		return true
	}
	if r.refuses && r.bound[target] != "" {
		for other := range r.bound {
			if strings.HasPrefix(other, target+"/") {
				return false
			}
		}
	}
	delete(r.bound, target)
	if !m.stale && r.at[target] == absent && r.isBehindDead(target) {
		r.at[target] = emptyDir // Unmount has made it to unbind it. Only here can anybody do so: on Windows nothing is found there
	}
	if m.made && r.at[target] == emptyDir && r.at[target+"/in"] == absent {
		delete(r.at, target)
		m.made = false
		r.mounts[target] = m
	}
	return true
}

// isOpenSince reports whether the layer of some mounts is still what they have opened: other code may have
// closed it, and opened it again with another volume.
func (r *reference) isOpenSince(targets []string) bool {
	for _, target := range targets {
		if m := r.mounts[target]; r.mayBeOpen(target) && isVolume(m.shows) {
			return r.volumes[m.shows] != ""
		}
	}
	return true
}

// openLayer opens a layer and returns what it is shown as.
func (r *reference) openLayer(layer string) (shows string) {
	r.open[layer] = true
	volume := r.after.volumeOf(layer)
	if volume == "" {
		return dirOf(layer)
	}
	r.volumes[volume] = layer
	if in := r.after.at[volume+"/in"]; in != absent {
		r.at[volume+"/in"] = in // from an earlier time
	}
	return volume
}

func (r *reference) close(layer string) {
	delete(r.open, layer)
	if volume := r.volumeOf(layer); volume != "" {
		delete(r.volumes, volume)
		delete(r.at, volume+"/in") // out of sight
	}
}

// What there is in a world.

// resolve returns the path of a place without links on the way.
func (w *world) resolve(place string) string {
	if dir, is := strings.CutPrefix(w.at[path.Dir(place)], linkTo("")); is && w.isDir(dir) {
		return path.Join(dir, path.Base(place))
	}
	return place
}

// lost returns the targets of what was mounted at a place, in another mount whose link is gone.
func (w *world) lost(place string) (found []string) {
	target := w.resolve(place)
	dir := path.Dir(target)
	if w.isDir(dir) {
		return nil
	}
	outer := w.mounts[dir]
	for other, m := range w.mounts {
		led := outer.shows != "" && other == path.Join(outer.shows, path.Base(target)) && (!isVolume(outer.shows) || outer.stale == m.stale)
		if led || m.given == place {
			found = append(found, other)
		}
	}
	return found
}

// isDir reports whether there is a directory at a path without links on the way.
func (w *world) isDir(dir string) bool {
	if layer, is := strings.CutPrefix(dir, "layers/"); is {
		return !w.gone[strings.TrimSuffix(layer, "/Files")]
	}
	return dir == "mnt" || dir == "temp" || dir == "user" || w.volumes[dir] != "" || isDir(w.at[dir])
}

func isDir(thing string) bool { return thing == emptyDir || thing == userDir }

func isVolume(dir string) bool { return strings.HasPrefix(dir, "hcs/volumes/") }

// volumeOf returns the volume of a layer, or "" if there is none.
func (w *world) volumeOf(layer string) string {
	for volume, of := range w.volumes {
		if of == layer {
			return volume
		}
	}
	return ""
}

// dirOf returns what a layer without a volume is shown as.
func dirOf(layer string) string {
	if layer == "base" {
		return "layers/base/Files"
	}
	return "layers/" + layer
}

// isShown reports whether a target shows what its record says.
func (w *world) isShown(target string) bool {
	m := w.mounts[target]
	if m.binding { // also if its source is gone, as long as the root is there
		return w.bound[target] == m.shows && (w.isDir(m.shows) || w.at[target] != absent)
	}
	return w.at[w.resolve(target)] == linkTo(m.shows)
}

// seemsOpen reports whether the layer of a mount that was shown seems to be open. If the layer has no volume,
// it always does, because nothing can be told of it.
func (w *world) seemsOpen(m mark) bool {
	return m.state == table.Shown && !m.stale && (!isVolume(m.shows) || w.volumes[m.shows] == m.layer)
}

// isUnknown reports whether nothing tells if the layer of a mount that was shown is open: another layer has its
// volume now, and HCS gives an error for a layer that is not active.
func (r *reference) isUnknown(m mark) bool {
	isElse := m.state == table.Shown && !m.stale && r.volumes[m.shows] != "" && r.volumes[m.shows] != m.layer
	return isElse && r.fails && r.volumeOf(m.layer) == ""
}

func (w *world) isLive(target string) bool {
	m := w.mounts[target]
	return w.seemsOpen(m) && w.isShown(target)
}

func (w *world) mayBeOpen(target string) bool {
	m := w.mounts[target]
	return m.state != table.Closed && !m.stale
}

// targetsOf returns all targets of a layer.
func (w *world) targetsOf(layer string) (targets []string) {
	for target, m := range w.mounts {
		if m.layer == layer {
			targets = append(targets, target)
		}
	}
	return targets
}

// below returns the targets below a directory: those behind a link last, and the others deepest first. A target
// is below it, too, if it lies in what another target below it shows. If there is no directory, a target is
// below it if Mount was given a path below it.
func (w *world) below(dir string) (found []string) {
	type place struct {
		dir     string
		ofStale []bool // of which start of the system the mounts are, if that matters
	}
	var asGiven []string
	unnamed := w.resolve(dir)
	places := []place{{dir: unnamed}}
	link, isLink := strings.CutPrefix(w.at[unnamed], linkTo(""))
	if isLink {
		places = append(places, place{dir: link})
	}
	if !w.isDir(unnamed) && !(isLink && w.isDir(link)) {
		for target, m := range w.mounts {
			if strings.HasPrefix(m.given, dir+"/") && !strings.HasPrefix(target, unnamed+"/") {
				asGiven = append(asGiven, target)
			}
		}
	}
	if m, is := w.mounts[unnamed]; is && m.shows != "" {
		places = append(places, place{m.shows, []bool{m.stale}})
	}
	for len(places) > 0 {
		var next []string
		for target, m := range w.mounts {
			isIn := slices.ContainsFunc(places, func(p place) bool {
				return strings.HasPrefix(target, p.dir+"/") && (p.ofStale == nil || !isVolume(p.dir) || p.ofStale[0] == m.stale)
			})
			if isIn && !slices.Contains(found, target) {
				next = append(next, target)
			}
		}
		slices.SortFunc(next, longestFirst)
		found = append(next, found...)
		places = nil
		for _, target := range next {
			if m := w.mounts[target]; m.shows != "" {
				places = append(places, place{m.shows, []bool{m.stale}})
			}
		}
	}
	for _, target := range asGiven {
		if !slices.Contains(found, target) {
			found = append(found, target)
		}
	}
	return found
}

func longestFirst(a, b string) int { return len(b) - len(a) }

func newWorld() *world {
	return &world{map[string]string{}, map[string]string{}, map[string]mark{}, map[string]bool{}, map[string]string{}, map[string]bool{}}
}

func (w *world) clone() world {
	return world{maps.Clone(w.at), maps.Clone(w.bound), maps.Clone(w.mounts), maps.Clone(w.open), maps.Clone(w.volumes), maps.Clone(w.gone)}
}
