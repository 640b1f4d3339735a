//go:build !windows

package mount

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcsmodel"
)

func TestARecordIsWrittenBeforeHCSIsCalled(t *testing.T) {
	h := newHost(t)
	h.model.Before = func(hcsmodel.Call, string) error {
		h.model.Before = nil
		r := h.record(h.target("a"))
		want := record{Target: h.target("a"), Source: h.path("layers", "2"), Replaced: true, Resolved: r.Resolved, TargetKey: r.TargetKey, SourceKey: r.SourceKey}
		if r != want {
			t.Errorf("record %+v, want %+v", r, want)
		}
		return nil
	}
	h.mustMount(h.scratch("2"), h.mkdir(h.target("a")))
}

func TestARecordSurvivesItsEncoding(t *testing.T) {
	want := record{
		Target: `C:\mnt\слой & 'a'`, Resolved: `\\?\Volume{b}\mnt\слой & 'a'`, Source: `\\?\C:\layers\1`, Volume: `\\?\Volume{a}`, Base: true, Replaced: true,
		TargetKey: keyOf("a"), SourceKey: keyOf("b"),
	}
	data, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeRecord(data); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// aRecord mounts layer 2 at a and returns the path of the record.
func aRecord(t *testing.T) (*host, string) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	return h, h.table.recordPath(h.record(h.target("a")).TargetKey)
}

func TestARecordTruncatedAtAnyByteIsReportedAndNotFollowed(t *testing.T) {
	h, path := aRecord(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		h.write(path, string(whole[:n]))
		h.wantRefused(path, "damaged record "+path)
	}
}

// wantRefused fails the test unless everything that would follow the record of
// target a reports it instead.
func (h *host) wantRefused(path, text string) {
	h.t.Helper()
	h.model.ResetCalls()
	before := tree(h.t, h.path("mnt"))
	wantError(h.t, h.unmount(h.target("a")), text)
	wantError(h.t, h.unmountAll(context.Background(), h.target("a")), text)
	wantError(h.t, h.unmount(h.path("layers", "2")), text)
	wantError(h.t, h.mount(h.scratch("3"), h.target("a")), text)
	wantError(h.t, h.mount(h.scratch("2"), h.target("b")), text)
	_, err := h.lookup(context.Background(), h.target("a"))
	wantError(h.t, err, text)
	h.wantCalls()
	if after := tree(h.t, h.path("mnt")); after != before {
		h.t.Errorf("the targets have changed to\n%s", after)
	}
}

func TestAForeignFileInTheTableIsReportedAndNotFollowed(t *testing.T) {
	t.Run("in the place of a record", func(t *testing.T) {
		h, path := aRecord(t)
		h.write(path, "mine")
		h.wantRefused(path, "damaged record "+path)
	})
	t.Run("a record under another name", func(t *testing.T) {
		h, path := aRecord(t)
		h.mustMount(h.scratch("3"), h.target("c"))
		data, err := os.ReadFile(h.table.recordPath(h.record(h.target("c")).TargetKey))
		if err != nil {
			t.Fatal(err)
		}
		h.write(path, string(data))
		h.wantRefused(path, "damaged record "+path+": is the record of "+h.target("c"))
	})
	t.Run("a link to a record", func(t *testing.T) {
		h, path := aRecord(t)
		if err := os.Rename(path, h.path("moved")); err != nil {
			t.Fatal(err)
		}
		symlink(t, h.path("moved"), path)
		h.wantRefused(path, path)
	})
	t.Run("a directory", func(t *testing.T) {
		h, path := aRecord(t)
		if err := os.Rename(path, h.path("moved")); err != nil {
			t.Fatal(err)
		}
		h.mkdir(path)
		h.wantRefused(path, path)
	})
	t.Run("among the targets of a layer", func(t *testing.T) {
		h, _ := aRecord(t)
		h.write(filepath.Join(h.table.layerPath(h.record(h.target("a")).SourceKey), "note.txt"), "mine")
		wantError(t, h.unmount(h.path("layers", "2")), "foreign file")
		wantError(t, h.mount(h.scratch("2"), h.target("b")), "foreign file")
		h.wantNoLeak()
	})
	t.Run("in the place of the table", func(t *testing.T) {
		h := newHost(t)
		h.write(h.path("table"), "mine")
		wantError(t, h.mount(h.scratch("2"), h.target("a")), "is not a directory")
		h.wantCalls()
	})
	t.Run("a link in the place of the table", func(t *testing.T) {
		h := newHost(t)
		symlink(t, h.mkdir(h.path("elsewhere")), h.path("table"))
		wantError(t, h.mount(h.scratch("2"), h.target("a")), "is not a directory")
		h.wantCalls()
		h.wantAt(h.path("elsewhere"), "directory of []")
	})
}

func TestRecordsThatThisPackageWouldNotWriteAreRefused(t *testing.T) {
	good := record{Target: `C:\mnt\a`, Resolved: `C:\mnt\a`, Source: `C:\layers\1`, TargetKey: keyOf("a"), SourceKey: keyOf("b")}
	for _, test := range []struct {
		name, text string
		change     func(*record)
	}{
		{"relative target", "target", func(r *record) { r.Target = "a" }},
		{"no target", "target", func(r *record) { r.Target = "" }},
		{"no resolved target", "target", func(r *record) { r.Resolved = "" }},
		{"source that is all layers", "last element", func(r *record) { r.Source = `C:\layers\` }},
		{"key that is a path", "malformed key", func(r *record) { r.SourceKey = "../../x" }},
		{"upper-case key", "malformed key", func(r *record) { r.TargetKey = key(strings.ToUpper(string(r.TargetKey))) }},
	} {
		r := good
		test.change(&r)
		data, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		_, err = decodeRecord(data)
		wantError(t, err, test.text)
	}
	data, err := good.encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		string(data) + " ",
		string(data) + string(data),
		strings.Replace(string(data), `{`, `{"more":1,`, 1),
		strings.Replace(string(data), `"target"`, `"TARGET"`, 1),
		strings.Repeat(" ", maxRecord) + string(data),
	} {
		if _, err := decodeRecord([]byte(text)); err == nil {
			t.Errorf("accepted %.80q", text)
		}
	}
}

func TestARecordThatCouldNotBeReadAgainIsNotWritten(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	r := h.record(h.target("a"))
	r.Volume = "\xff" // which JSON would turn into U+FFFD
	wantError(t, h.table.update(r), "failed to record "+r.Target)
	h.mustUnmount(h.target("a"))
	h.wantClosed()
}

func TestWhatAKilledWriterLeftIsSweptAway(t *testing.T) {
	for _, test := range []struct{ name, data string }{
		{"a whole record", ""},
		{"a torn record", `{"target":"/mn`},
		{"an empty record", "-"},
	} {
		for _, by := range []string{"target", "source", "mount"} {
			t.Run(test.name+" by "+by, func(t *testing.T) {
				h, path := aRecord(t)
				if err := h.model.Reboot(); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(h.target("a")); err != nil {
					t.Fatal(err)
				}
				pending := strings.TrimSuffix(path, ".json") + ".pending"
				if err := os.Rename(path, pending); err != nil {
					t.Fatal(err)
				}
				if test.data != "" { // then the empty file is not written yet
					h.write(pending, strings.Trim(test.data, "-"))
					if err := os.RemoveAll(h.path("table", "layers")); err != nil {
						t.Fatal(err)
					}
					h.mkdir(h.path("table", "layers"))
				}
				switch {
				case by == "mount":
					h.mustMount(h.scratch("3"), h.target("a"))
					h.mustUnmount(h.target("a"))
				case by == "target":
					h.mustUnmount(h.target("a"))
				default:
					h.mustUnmount(h.path("layers", "2"))
					if test.data != "" { // nothing leads there from the source
						h.mustUnmount(h.target("a"))
					}
				}
				h.wantClosed()
			})
		}
	}
}

func TestAPendingRecordIsSweptAwayUnderTheLockOfItsLayer(t *testing.T) {
	h, path := aRecord(t)
	h.reboot()
	r := h.record(h.target("a"))
	pending := h.table.pendingPath(r.TargetKey)
	if err := os.Rename(path, pending); err != nil {
		t.Fatal(err)
	}
	unlock := mustLock(t, h.table.lockSource, r.SourceKey)
	done := make(chan error, 1)
	go func() { done <- h.unmount(h.target("a")) }()
	h.awaitWaiting("s"+string(r.SourceKey), done)
	if len(done) != 0 {
		t.Error("it did not wait")
	}
	if _, err := os.Lstat(pending); err != nil {
		t.Error(err)
	}
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.wantClosed()
}

func FuzzRecord(f *testing.F) {
	data, err := record{Target: `C:\mnt\a`, Resolved: `C:\mnt\a`, Source: `C:\layers\1`, TargetKey: keyOf("a"), SourceKey: keyOf("b")}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("accepted %q, which is written %q, %v", data, again, err)
		}
		if checkSource(r.Source) != nil || checkPath(r.Target) != nil {
			t.Fatalf("accepted %q", data)
		}
	})
}

func TestARecordFromBeforeARebootDoesNotKeepTheLayerOpen(t *testing.T) {
	h := newHost(t)
	m := h.scratch("2")
	h.mustMount(m, h.target("a"))
	h.mustMount(m, h.target("b"))
	old := h.record(h.target("b"))
	old.Volume = "the volume that the layer had then"
	if err := h.table.update(old); err != nil {
		t.Fatal(err)
	}
	h.mustUnmount(h.target("a"))
	h.wantOpen()
	h.mustUnmount(h.target("b"))
}

func TestAMarkOfAnotherLayersTargetIsNotBelieved(t *testing.T) {
	h := newHost(t)
	h.mustMount(h.scratch("2"), h.target("a"))
	m := h.scratch("3")
	planted := h.record(h.target("a"))
	var err error
	if planted.SourceKey, err = sourceKey(m.Source); err != nil {
		t.Fatal(err)
	}
	h.write(h.table.markPath(planted), "")
	shown := describe(h.target("a"))
	h.mustUnmount(m.Source)
	h.wantAt(h.target("a"), shown)
	h.mustMount(m, h.target("b"))
	h.wantAt(h.target("b"), "link to "+h.link(m))
}
