package mount

import (
	"github.com/seed-941ae793/mount/internal/winpath"

	"encoding/json"
	stderrors "errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func parentsOption(list string) *Mount {
	return &Mount{Options: []string{"rw", ParentLayerPathsFlag + list}}
}

func TestGetParentPaths_ReturnsWhatTheLastOptionLists(t *testing.T) {
	for _, test := range []struct {
		name    string
		options []string
		want    []string
	}{
		{"no options", nil, nil},
		{"no matching option", []string{"ro", "parentLayerPath=[]", "x" + ParentLayerPathsFlag}, nil},
		{"null, as containerd 1.6 writes for a layer without parents", []string{ParentLayerPathsFlag + "null"}, nil},
		{"an empty list", []string{ParentLayerPathsFlag + "[]"}, []string{}},
		{"one", []string{ParentLayerPathsFlag + `["C:\\layers\\1"]`}, []string{`C:\layers\1`}},
		{"in order", []string{ParentLayerPathsFlag + `["C:\\2","C:\\1","C:\\0"]`}, []string{`C:\2`, `C:\1`, `C:\0`}},
		{"white space", []string{ParentLayerPathsFlag + " [ \"C:\\\\1\" ]\r\n"}, []string{`C:\1`}},
		{"the last option wins", []string{ParentLayerPathsFlag + `["C:\\1"]`, ParentLayerPathsFlag + `["C:\\2"]`, "ro"}, []string{`C:\2`}},
		{"an earlier option is not looked at", []string{ParentLayerPathsFlag + `{`, ParentLayerPathsFlag + `null`}, nil},
		{"forward slashes", []string{ParentLayerPathsFlag + `["C:/layers/1"]`}, []string{`C:/layers/1`}},
		{"a share", []string{ParentLayerPathsFlag + `["\\\\server\\share\\1"]`}, []string{`\\server\share\1`}},
		{"an extended path", []string{ParentLayerPathsFlag + `["\\\\?\\C:\\layers\\1"]`}, []string{`\\?\C:\layers\1`}},
		{"a volume", []string{ParentLayerPathsFlag + `["\\\\?\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\1"]`}, []string{`\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}\1`}},
		{"not ASCII", []string{ParentLayerPathsFlag + `["C:\\слой\\层\\😀","C:\\\u0441"]`}, []string{`C:\слой\层\😀`, `C:\с`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := &Mount{Options: test.options}
			got, err := m.GetParentPaths()
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %#v, %v, want %#v", got, err, test.want)
			}
		})
	}
}

func TestGetParentPaths_TakesAListOfAnyLength(t *testing.T) {
	var want []string
	for i := 0; i < 20000; i++ {
		want = append(want, fmt.Sprintf(`C:\layers\%d`, i))
	}
	got, err := parentsOption(listOf(want)).GetParentPaths()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %d paths, %v", len(got), err)
	}
}

func listOf(paths []string) string {
	data, err := json.Marshal(paths)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func TestGetParentPaths_RefusesMalformedListsAndPaths(t *testing.T) {
	const unmarshal = "failed to unmarshal parent layer paths from mount"
	for _, test := range []struct{ list, text string }{
		{``, unmarshal},
		{`{`, unmarshal},
		{`["C:\\1"`, unmarshal},
		{`["C:\\1"] ["C:\\2"]`, unmarshal},
		{`{}`, unmarshal},
		{`"C:\\1"`, unmarshal},
		{`1`, unmarshal},
		{`[1]`, unmarshal},
		{`[["C:\\1"]]`, unmarshal},
		{`[""]`, "invalid parent layer path 0 in mount: path is empty"},
		{`["C:\\1",null]`, "invalid parent layer path 1 in mount: path is empty"},
		{`["C:\\a\u0000b"]`, "contains a NUL"},
		{`["C:\\\ud800"]`, "is not valid Unicode"},
		{"[\"C:\\\\\xff\"]", "is not valid Unicode"},
		{`["layers\\1"]`, "is not an absolute Windows path"},
		{`["\\layers\\1"]`, "is not an absolute Windows path"},
		{`["C:layers"]`, "is not an absolute Windows path"},
		{`["C:"]`, "is not an absolute Windows path"},
		{`["/layers/1"]`, "is not an absolute Windows path"},
		{`["\\\\server"]`, "is not an absolute Windows path"},
		{`["\\\\.\\C:\\1"]`, "is not an absolute Windows path"},
		{`["\\\\?\\"]`, "is not an absolute Windows path"},
		{`["C:\\"]`, "is the root of a volume"},
		{`["\\\\server\\share"]`, "is the root of a volume"},
		{`["C:\\layers\\1\\"]`, `last element of "C:\\layers\\1\\" is ""`},
		{`["C:/layers/."]`, `is "."`},
		{`["C:\\layers\\.."]`, `is ".."`},
	} {
		paths, err := parentsOption(test.list).GetParentPaths()
		wantError(t, err, test.text)
		if paths != nil {
			t.Errorf("%s: got %q with the error", test.list, paths)
		}
	}
}

func TestGetParentPaths_ReturnsErrorsOfEncodingJSON(t *testing.T) {
	_, err := parentsOption(`{`).GetParentPaths()
	var syntaxErr *json.SyntaxError
	if !stderrors.As(err, &syntaxErr) {
		t.Errorf("%T", err)
	}
	_, err = parentsOption(`[1]`).GetParentPaths()
	var typeErr *json.UnmarshalTypeError
	if !stderrors.As(err, &typeErr) {
		t.Errorf("%T", err)
	}
}

func TestGetParentPaths_AllocatesNothingWithoutTheOption(t *testing.T) {
	m := &Mount{Options: []string{"ro", "rw"}}
	if n := testing.AllocsPerRun(100, func() { _, _ = m.GetParentPaths() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestGetParentPaths_AllocatesNoMoreThanUnmarshal(t *testing.T) {
	list := listOf(manyParents(100))
	m := parentsOption(list)
	bare := testing.AllocsPerRun(100, func() {
		var paths []string
		_ = json.Unmarshal([]byte(list), &paths)
	})
	if n := testing.AllocsPerRun(100, func() { _, _ = m.GetParentPaths() }); n > bare {
		t.Errorf("%v allocations, json.Unmarshal makes %v", n, bare)
	}
}

func manyParents(n int) []string {
	var paths []string
	for i := 0; i < n; i++ {
		paths = append(paths, fmt.Sprintf(`C:\ProgramData\containerd\root\io.containerd.snapshotter.v1.windows\snapshots\%d`, i))
	}
	return paths
}

func TestReadOnly_ReportsWhetherThereIsTheOptionRo(t *testing.T) {
	for _, test := range []struct {
		options []string
		want    bool
	}{
		{nil, false}, {[]string{"rw"}, false}, {[]string{"ro=1", "RO"}, false}, {[]string{"x", "ro"}, true},
	} {
		if got := (&Mount{Options: test.options}).ReadOnly(); got != test.want {
			t.Errorf("%q: %v", test.options, got)
		}
	}
}

func FuzzGetParentPaths(f *testing.F) {
	for _, list := range []string{`null`, `[]`, `["C:\\1","\\\\?\\C:\\2"]`, `[""]`, `["\ud800"]`, `{`, `[[["`} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		paths, err := parentsOption(list).GetParentPaths()
		var bare []string
		bareErr := json.Unmarshal([]byte(list), &bare)
		if bareErr != nil && err == nil {
			t.Fatalf("accepted %q", list)
		}
		if err != nil {
			if paths != nil {
				t.Fatalf("%q with an error", paths)
			}
			return
		}
		if !reflect.DeepEqual(paths, bare) {
			t.Fatalf("got %q, want %q", paths, bare)
		}
		for _, path := range paths {
			if path == "" || strings.ContainsAny(path, "\x00\uFFFD") || !winpath.IsAbs(path) || winpath.CheckID(path) != nil {
				t.Fatalf("accepted %q", path)
			}
		}
	})
}

// BenchmarkGetParentPaths compares with a bare json.Unmarshal of the same text,
// in the same run.
func BenchmarkGetParentPaths(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		list := listOf(manyParents(n))
		b.Run(fmt.Sprintf("%d/GetParentPaths", n), func(b *testing.B) {
			b.ReportAllocs()
			m := parentsOption(list)
			for i := 0; i < b.N; i++ {
				if _, err := m.GetParentPaths(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%d/Unmarshal", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; i < b.N; i++ {
				var paths []string
				if err := json.Unmarshal([]byte(list), &paths); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("absent", func(b *testing.B) {
		b.ReportAllocs()
		m := &Mount{Options: []string{"ro"}}
		for i := 0; i < b.N; i++ {
			if _, err := m.GetParentPaths(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
