//go:build !windows

package mount

import (
	"bytes"
	stderrors "errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

func TestARecordIsWrittenBeforeHCSOpensTheLayer(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.model.Before = func(call hcstest.Call, _ string) error {
		if call == hcstest.MountPath { // which asks whether the layer is open
			return nil
		}
		h.model.Before = nil
		want := record{Boot: h.boot, Key: keyOf(m.Source), Source: m.Source, Resolved: m.Source, Parents: []string{`C:\layers\1`, `C:\layers\0`},
			Targets: []target{{Path: h.target("a"), Resolved: h.target("a"), Key: keyOf(h.target("a")), Replaced: true}}}
		if r := h.record(h.target("a")); !reflect.DeepEqual(*r, want) {
			t.Errorf("record %+v, want %+v", *r, want)
		}
		return nil
	}
	h.mustMount(m, h.mkdir(h.target("a")))
}

func TestARecordSurvivesItsEncoding(t *testing.T) {
	want := aRecord()
	data := want.encode()
	if got, size, err := decodeRecord(data); err != nil || !reflect.DeepEqual(got, want) || size != int64(len(data)) {
		t.Errorf("got %+v, %d, %v, want %+v, %d", got, size, err, want, len(data))
	}
}

// aRecord returns a record with all its fields.
func aRecord() record {
	return record{Boot: "boot", Key: keyOf("b"), Source: `\\?\C:\layers\1`, Resolved: `\\?\Volume{b}\layers\1`, Parents: []string{`C:\layers\0`},
		ReadOnly: true, Volume: `\\?\Volume{a}`, Targets: []target{
			{Path: `C:\mnt\слой & 'a'`, Resolved: `\\?\Volume{b}\mnt\слой & 'a'`, Key: keyOf("a"), Replaced: true, Restored: true},
			{Path: "C:\\mnt\\b\n", Resolved: `\\?\Volume{b}\mnt\b`, Key: keyOf("c"), Shown: true, Linked: true},
		}}
}

// line is the line of a record with that version and text.
func line(version, text string) string {
	return fmt.Sprintf("%s %08x %s\n", version, crc32.ChecksumIEEE([]byte(text)), text)
}

func TestWhatFollowsTheLastWholeLineDoesNotCount(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	data, err := os.ReadFile(h.layerFile(h.target("a")))
	if err != nil {
		t.Fatal(err)
	}
	states := []bool{false, false, true} // the target is shown
	if n := bytes.Count(data, []byte("\n")); n != len(states) {
		t.Fatalf("%d lines", n)
	}
	for n := bytes.IndexByte(data, '\n') + 1; n <= len(data); n++ {
		lines := bytes.Count(data[:n], []byte("\n"))
		r, size, err := decodeRecord(data[:n])
		if err != nil || r.isShown() != states[lines-1] || int(size) != bytes.LastIndexByte(data[:n], '\n')+1 {
			t.Errorf("%d bytes with %d whole lines: %+v, %d, %v", n, lines, r, size, err)
		}
	}
}

func TestALineWithAnotherChecksumDoesNotCount(t *testing.T) {
	r := aRecord()
	whole := string(r.encode())
	for _, torn := range []string{strings.Repeat("\x00", 100) + whole[100:], "mine\n", "\n", "2.0 00000000 {}\n"} {
		got, size, err := decodeRecord([]byte(whole + torn + "1.0"))
		if err != nil || !reflect.DeepEqual(got, r) || int(size) != len(whole+torn) {
			t.Errorf("with %.20q: %+v, %d, %v", torn, got, size, err)
		}
	}
}

func TestALineThatWasNotFinishedIsRepairedByTheNextChange(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	path := h.layerFile(h.target("a"))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, rest := range []string{"1", "1.0 0", line("1.0", "{}")[:15], strings.Repeat("x", 3000)} {
		h.write(path, string(data)+rest)
		if r := h.record(h.target("a")); !r.isShown() {
			t.Errorf("with %.20q: %+v", rest, r)
		}
		h.change(h.target("a"), func(r *record) { r.Volume = "after " + rest })
		if r := h.record(h.target("a")); r.Volume != "after "+rest {
			t.Errorf("after %.20q: %+v", rest, r)
		}
	}
	h.write(path, string(data)+"1.0")
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestAFieldAndAMinorVersionThatAreNotKnownAreIgnored(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.mkdir(h.target("a")))
	path := h.layerFile(h.target("a"))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	text := strings.SplitN(lines[len(lines)-2], " ", 3)[2]
	text = strings.Replace(text, `{"boot"`, `{"extra":{"a":[1]},"boot"`, 1)
	text = strings.Replace(text, `{"path"`, `{"more":true,"path"`, 1)
	h.write(path, line("1.7", text))
	want := Info{Mountpoint: h.target("a"), Source: m.Source, Root: h.link(m), FSType: "windows-layer"}
	if info, err := h.lookup(h.target("a")); err != nil || info != want {
		t.Errorf("%+v, %v, want %+v", info, err, want)
	}
	h.mustMount(m, h.target("b"))
	h.mustUnmount(h.target("b"))
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "directory of []")
	h.wantClosed()
}

func TestAFileThatHasGrownLongIsWrittenAnew(t *testing.T) {
	h := newHost(t)
	m := h.base("2")
	h.mustMount(m, h.target("a"))
	path := h.layerFile(h.target("a"))
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	shrank := 0
	for i, before := 0, size(); i < 100; i++ {
		h.mustMount(m, h.target("b"))
		h.mustUnmount(h.target("b"))
		if size() < before {
			shrank++
		}
		before = size()
		if before > maxSize+4096 {
			t.Fatalf("%d bytes after %d mounts", before, i)
		}
	}
	if shrank == 0 || shrank > 10 {
		t.Errorf("written anew %d times", shrank)
	}
	h.wantAt(path+unfinishedSuffix, "nothing")
	if r := h.record(h.target("a")); len(r.Targets) != 1 || !r.isShown() {
		t.Errorf("record %+v", r)
	}
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

const noLine = "it has no whole line"

// damages are ways in which the file of a record is not what this package writes,
// and what the error says.
var damages = []struct {
	name, text string
	damage     func(h *host, data string) string
}{
	{"empty", noLine, func(*host, string) string { return "" }},
	{"no record", noLine, func(*host, string) string { return "mine\n" }},
	{"zeros", noLine, func(_ *host, data string) string { return strings.Repeat("\x00", len(data)) }},
	{"higher major version", `format "2.0" is not known`, func(_ *host, data string) string { return strings.ReplaceAll(data, "1.0 ", "2.0 ") }},
	{"higher major version in the last line", `format "2.0" is not known`, func(_ *host, data string) string { return data + line("2.0", "{}") }},
	{"wrong checksum", noLine, func(h *host, data string) string { return strings.ReplaceAll(data, `"boot"`, `"BOOT"`) }},
	{"no JSON", "invalid character", func(*host, string) string { return line("1.0", "mine") }},
	{"not an object", "json: cannot unmarshal", func(*host, string) string { return line("1.0", "[]") }},
	{"a source that HCS must not get", "invalid layer source", func(h *host, data string) string {
		r, _, err := decodeRecord([]byte(data))
		if err != nil {
			h.t.Fatal(err)
		}
		r.Source += "/"
		return string(r.encode())
	}},
	{"the record of another layer", "is the record of ", func(h *host, _ string) string {
		h.mustMount(h.scratch("3"), h.target("other"))
		data, err := os.ReadFile(h.layerFile(h.target("other")))
		if err != nil {
			h.t.Fatal(err)
		}
		h.mustUnmount(h.target("other"))
		return string(data)
	}},
}

func TestADamagedRecordIsReportedAndClosedBySource(t *testing.T) {
	for _, test := range damages {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			h.mustMount(m, h.target("a"))
			path := h.layerFile(h.target("a"))
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			h.write(path, test.damage(h, string(data)))
			h.wantDamaged(path, test.text)
			h.wantClosedBySource(m)
		})
	}
}

func TestARecordTruncatedAtAnyByteOfItsFirstLineIsReportedAndClosedBySource(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	for n, more := 0, true; more; n++ {
		h.mustMount(m, h.target("a"))
		path := h.layerFile(h.target("a"))
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		more = data[n] != '\n'
		h.write(path, string(data[:n]))
		if n%50 == 0 || !more {
			h.wantDamaged(path, noLine)
		} else {
			wantError(t, h.unmount(h.target("a")), "damaged file "+path+": "+noLine, errDamaged)
		}
		h.wantClosedBySource(m)
		if err := os.Remove(h.target("a")); err != nil {
			t.Fatal(err)
		}
	}
}

// wantDamaged fails the test unless everything that would follow the record of layer
// 2, at target a, names its file instead and touches nothing.
func (h *host) wantDamaged(path, text string) {
	h.t.Helper()
	h.model.ResetCalls()
	before, table := tree(h.t, h.path("mnt")), h.tableFiles()
	_, lookupErr := h.lookup(h.target("a"))
	_, listErr := h.list()
	for _, err := range []error{
		h.unmount(h.target("a")),
		h.unmountAll(h.target("a")),
		h.unmountRecursive(h.target("a")),
		h.mount(h.scratch("3"), h.target("a")),
		h.mount(h.scratch("2"), h.target("b")),
		lookupErr,
		listErr,
	} {
		wantError(h.t, err, "damaged file "+path+": "+text, errDamaged)
	}
	h.wantCalls()
	if after := tree(h.t, h.path("mnt")); after != before {
		h.t.Errorf("the targets have changed to\n%s", after)
	}
	if after := h.tableFiles(); !reflect.DeepEqual(after, table) {
		h.t.Errorf("the table has changed to %q", after)
	}
	h.wantOpen("2")
}

// wantClosedBySource fails the test unless Unmount of a layer whose record is damaged
// closes it, and of its target then leaves nothing in the table.
func (h *host) wantClosedBySource(m *Mount) {
	h.t.Helper()
	h.mustUnmount(m.Source)
	h.wantOpen()
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestADamagedRecordIsKeptWhileItsLayerCannotBeClosed(t *testing.T) {
	for name, layer := range map[string]func(*host) *Mount{"scratch": scratch2, "base layer": base2, "committed": committed2} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := layer(h)
			h.mustMount(m, h.target("a"))
			path := h.layerFile(h.target("a"))
			h.write(path, "torn")
			h.failEvery(errorSharingViolation, hcstest.Unprepare, hcstest.Deactivate)
			wantError(t, h.unmount(m.Source), "failed to unprepare layer "+m.Source, errorSharingViolation)
			h.wantAt(path, "file: torn")
			h.model.Before = nil
			h.wantClosedBySource(m)
		})
	}
}

func TestADamagedRecordOfALayerThatHasGoneIsRemovedBySource(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.write(h.layerFile(h.target("a")), "torn")
	h.reboot()
	if err := os.RemoveAll(m.Source); err != nil {
		t.Fatal(err)
	}
	h.wantClosedBySource(m)
}

func TestADamagedRecordDisturbsNoOtherLayer(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.write(h.layerFile(h.target("a")), "torn")
	m := h.scratch("3")
	h.mustMount(m, h.target("b"))
	h.mustMount(m, h.target("c"))
	h.mustUnmount(h.target("b"))
	h.mustUnmount(m.Source)
	h.wantOpen("2")
}

func TestADirectoryInThePlaceOfARecordIsAnError(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	path := h.layerFile(h.target("a"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	h.mkdir(path)
	_, err := h.lookup(h.target("a"))
	for _, err := range []error{
		h.unmount(h.target("a")),
		h.unmount(h.path("layers", "2")),
		h.mount(h.scratch("2"), h.target("b")),
		err,
	} {
		wantError(t, err, path, syscall.EISDIR)
	}
	h.wantOpen("2")
}

func TestATableThatHoldsAnythingElseOrIsNoDirectoryIsRefused(t *testing.T) {
	for _, test := range []struct {
		name, text string
		make       func(h *host, path string)
	}{
		{"a foreign file", `holds "mine"`, func(h *host, path string) { h.write(filepath.Join(path, "mine"), "mine") }},
		{"a file", "is not a directory", func(h *host, path string) { h.write(path, "mine") }},
		{"a link", "is not a directory", func(h *host, path string) { symlink(h.t, h.mkdir(h.path("elsewhere")), path) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			test.make(h, h.path("table"))
			_, lookupErr := h.lookup(h.target("a"))
			_, listErr := h.list()
			for _, err := range []error{
				h.mount(m, h.target("a")),
				h.unmount(h.target("a")),
				h.unmount(m.Source),
				h.unmountRecursive(h.path("mnt")),
				lookupErr,
				listErr,
			} {
				wantError(t, err, "mount table")
				wantError(t, err, test.text)
			}
			h.wantCalls()
			if test.name == "a link" {
				h.wantAt(h.path("elsewhere"), "directory of []")
			}
		})
	}
}

func TestATableInADirectoryThatIsAbsentIsNotMade(t *testing.T) {
	h := newHost(t)
	h.table.dir = h.path("none", "table")
	wantError(t, h.mount(h.scratch("2"), h.target("a")), "mount table", os.ErrNotExist)
	h.wantCalls()
	h.mustUnmount(h.target("a"))
	h.wantAt(h.path("none"), "nothing")
}

func TestALayerThatIsUnmountedWhileTheTableIsReadIsNoError(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mustMount(h.scratch("3"), h.target("b"))
	read := 0
	unread, err := h.table.each(func(r record) {
		read++
		for _, m := range []*Mount{h.scratchMount("2"), h.scratchMount("3")} {
			if m.Source != r.Source {
				h.mustUnmount(m.Source)
			}
		}
	})
	if err != nil || len(unread) != 0 || read != 1 {
		t.Errorf("%d records, %q, %v", read, unread, err)
	}
}

func TestATornIndexHidesNoMount(t *testing.T) {
	whole := string(keyOf("any layer"))
	torn := []string{"mine", strings.ToUpper(whole), whole + whole, strings.Repeat("\x00", len(whole)+1)}
	for n := range whole {
		torn = append(torn, whole[:n])
	}
	for _, text := range torn {
		h := newHost(t)
		m := h.scratch("2")
		h.mustMount(m, h.mkdir(h.target("a")))
		h.write(h.table.indexPath(h.key(h.target("a"))), text)
		if info, err := h.lookup(h.target("a")); err != nil || info.Source != m.Source {
			t.Errorf("with %q: Lookup = %+v, %v", text, info, err)
		}
		wantError(t, h.mount(m, h.target("a")), "it shows layer", os.ErrExist)
		h.mustUnmount(h.target("a"))
		h.wantAt(h.target("a"), "directory of []")
		h.wantClosed()
	}
}

func TestATornIndexNamesTheDamagedRecordThatMayBeItsOwn(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	path := h.layerFile(h.target("a"))
	h.write(path, "torn")
	h.write(h.table.indexPath(h.key(h.target("a"))), "")
	wantError(t, h.unmount(h.target("a")), "damaged file "+path, errDamaged)
	// Another target whose index is torn has its own record.
	h.mustMount(h.scratch("3"), h.target("b"))
	h.write(h.table.indexPath(h.key(h.target("b"))), "")
	h.mustUnmount(h.target("b"))
	h.wantOpen("2")
}

func TestAnIndexProvesNothingByItself(t *testing.T) {
	for name, index := range map[string]func(h *host) string{
		"of a layer that is shown elsewhere": func(h *host) string { return string(keyOf(h.path("layers", "2"))) + "\n" },
		"of a layer without a record":        func(h *host) string { return string(keyOf(h.path("layers", "4"))) + "\n" },
		"torn":                               func(h *host) string { return "" },
	} {
		for _, by := range []string{"unmount", "mount"} {
			t.Run(name+", "+by, func(t *testing.T) {
				h := newHost(t)
				h.mustMount(h.scratch("2"), h.target("a"))
				path := h.table.indexPath(keyOf(h.target("b")))
				h.write(path, index(h))
				_, err := h.lookup(h.target("b"))
				wantError(t, err, "look up mount "+h.target("b"), os.ErrNotExist)
				if by == "mount" {
					h.mustMount(h.scratch("3"), h.target("b"))
				}
				h.mustUnmount(h.target("b"))
				h.wantAt(path, "nothing")
				h.wantOpen("2")
				h.mustUnmount(h.target("a"))
				h.wantClosed()
			})
		}
	}
}

func TestTheIndexOfAnotherLayerStays(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	h.mustMount(h.scratch("3"), h.target("b"))
	// So it may be after a power failure: the record of layer 2 has lost that it was unmounted from a.
	h.change(h.target("b"), func(r *record) {
		r.Targets = append(r.Targets, target{Path: h.target("a"), Resolved: h.target("a"), Key: h.key(h.target("a"))})
	})
	h.mustUnmount(h.target("b"))
	h.wantOpen("2")
	h.mustUnmount(h.target("a"))
	h.wantAt(h.target("a"), "nothing")
	h.wantClosed()
}

func TestAnIndexThatAMountIsAboutToWriteIsLeftAlone(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("b"))
	unlock := mustLock(t, h.table.lockTarget, h.key(h.target("a")))
	index := h.table.indexPath(h.key(h.target("a")))
	h.write(index, "")
	unmounted := make(chan error, 1)
	go func() { unmounted <- h.unmount(h.target("a")) }()
	h.awaitWaiting(unmounted, "t"+string(h.key(h.target("a"))))
	h.wantAt(index, "file: ")
	if err := h.table.addIndex(h.key(h.target("a")), keyOf(m.Source)); err != nil {
		t.Error(err)
	}
	h.change(h.target("b"), func(r *record) {
		r.Targets = append(r.Targets, target{Path: h.target("a"), Resolved: h.target("a"), Key: h.key(h.target("a"))})
	})
	unlock()
	if err := <-unmounted; err != nil {
		t.Error(err)
	}
	h.wantAt(index, "file: "+string(keyOf(m.Source))+"\n")
}

func TestALockThatCannotBeHadIsAnErrorAndKeepsNobodyWaiting(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	locks := h.path("table", "lock")
	if err := os.RemoveAll(locks); err != nil {
		t.Fatal(err)
	}
	h.write(locks, "in the way")
	for _, do := range []func() error{
		func() error { return h.mount(m, h.target("a")) },
		func() error { return h.mount(m, h.target("b")) },
		func() error { return h.unmount(h.target("a")) },
		func() error { return h.unmount(m.Source) },
	} {
		wantError(t, do(), "mount table: failed to lock", syscall.ENOTDIR)
		if n := len(h.table.turns.waiting); n != 0 {
			t.Fatalf("%d locks are remembered that nobody has", n)
		}
	}
	h.wantOpen("2")
	if err := os.Remove(locks); err != nil {
		t.Fatal(err)
	}
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestWhatTheKilledWriterOfARecordLeftIsSweptAway(t *testing.T) {
	data := (&record{}).encode()
	for name, left := range map[string]string{"a whole record": string(data), "a torn record": string(data[:20]), "an empty record": ""} {
		for by, sweep := range map[string]func(h *host, m *Mount){
			"target": func(h *host, m *Mount) { h.mustUnmount(h.target("a")) },
			"source": func(h *host, m *Mount) {
				h.mustUnmount(m.Source)
				h.wantAt(h.table.layerPath(keyOf(m.Source))+unfinishedSuffix, "nothing")
				h.mustUnmount(h.target("a"))
			},
			"mount": func(h *host, m *Mount) {
				h.mustMount(m, h.target("a"))
				h.mustUnmount(h.target("a"))
			},
			"mount of another layer": func(h *host, m *Mount) {
				h.mustMount(h.scratch("3"), h.target("a"))
				h.mustUnmount(h.target("a"))
			},
			"mount at another target": func(h *host, m *Mount) {
				h.mustMount(m, h.target("b"))
				h.mustUnmount(h.target("a"))
				h.wantOpen("2")
				h.mustUnmount(h.target("b"))
			},
		} {
			t.Run(name+" by "+by, func(t *testing.T) {
				h := newHost(t)
				m := h.scratch("2")
				if err := stderrors.Join(h.table.hold(), h.table.addIndex(h.key(h.target("a")), keyOf(m.Source))); err != nil {
					t.Fatal(err)
				}
				h.write(h.table.layerPath(keyOf(m.Source))+unfinishedSuffix, left)
				infos, err := h.list()
				if err != nil || len(infos) != 0 {
					t.Errorf("List = %+v, %v", infos, err)
				}
				sweep(h, m)
				h.wantClosed()
			})
		}
	}
}

func TestWhatTheKilledWriterOfALongFileLeftIsSweptAway(t *testing.T) {
	for _, by := range []string{"target", "source", "source of a damaged record"} {
		t.Run(by, func(t *testing.T) {
			h := newHost(t)
			m := h.scratch("2")
			m.Options = []string{ParentLayerPathsFlag + listOf(manyParents(1000))}
			h.mustMount(m, h.target("a"))
			path := h.layerFile(h.target("a"))
			h.write(path+unfinishedSuffix, "torn")
			switch by {
			case "target":
				h.mustUnmount(h.target("a"))
			case "source":
				h.mustUnmount(m.Source)
			default:
				h.write(path, "torn")
				h.mustUnmount(m.Source)
				h.mustUnmount(h.target("a"))
			}
			h.wantClosed()
		})
	}
}

func FuzzRecord(f *testing.F) {
	r := aRecord()
	whole := r.encode()
	f.Add(whole)
	f.Add(append(whole, whole[:20]...))
	f.Add([]byte(line("1.7", `{"source":"/l/1","more":[]}`) + line("1.0", `{"source":"/l/2"}`)))
	f.Add([]byte(line("1", `{"source":"C:\\l\\1","targets":[{}]}`)))
	f.Add([]byte("1.0 00000000 \n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, size, err := decodeRecord(data)
		if err != nil {
			return
		}
		if size < 1 || size > int64(len(data)) || data[size-1] != '\n' || bytes.Contains(data[size:], []byte("\n")) {
			t.Fatalf("%d bytes of %q are whole lines", size, data)
		}
		if checkSource(r.Source) != nil {
			t.Fatalf("accepted %q", data)
		}
		once := r.encode()
		again, _, err := decodeRecord(append(append(data[:size:size], once...), "unfinished"...))
		if err != nil {
			t.Fatalf("%q is written %q: %v", data, once, err)
		}
		if twice := again.encode(); !bytes.Equal(once, twice) {
			t.Fatalf("%q is written %q and then %q", data, once, twice)
		}
	})
}
