package table

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// fullRecord has a value in every field.
var fullRecord = Record{
	State: Shown, Type: "bind", Source: `C:\link\2`, Dir: `C:\layers\2`, Parents: []string{`C:\layers\1`, `C:\layers\0`}, Disk: "own",
	Volume: `\\?\Volume{a}`, Target: `C:\mnt\слой & "a"` + "\n", Resolved: `\\?\Volume{b}\mnt\a`,
	Directory: true, Binding: true, ReadOnly: true, Hidden: "5f", Unseen: true,
}

// fullLine is the line of fullRecord, as a process of another build may have written it.
const fullLine = `1 a74b9d37 {"state":"shown","type":"bind","source":"C:\\link\\2","dir":"C:\\layers\\2",` +
	`"parents":["C:\\layers\\1","C:\\layers\\0"],"disk":"own","volume":"\\\\?\\Volume{a}",` +
	`"target":"C:\\mnt\\слой \u0026 \"a\"\n","resolved":"\\\\?\\Volume{b}\\mnt\\a",` +
	`"directory":true,"binding":true,"readOnly":true,"hidden":"5f","unseen":true}` + "\n"

// lineOf is a line with a right checksum.
func lineOf(version, text string) string {
	return fmt.Sprintf("%s %08x %s\n", version, crc32.ChecksumIEEE([]byte(version+text)), text)
}

// minimal is the text of a record in that state.
func minimal(state State) string { return fmt.Sprintf(`{"state":%q,"dir":"C:\\layers\\2"}`, state) }

func TestRecord_IsWrittenInTheDocumentedFormat(t *testing.T) {
	if line := string(fullRecord.encode()); line != fullLine {
		t.Errorf("record is written as\n%s, want\n%s", line, fullLine)
	}
	fields := reflect.ValueOf(fullRecord)
	for i := range fields.NumField() {
		if fields.Field(i).IsZero() {
			t.Errorf("fullRecord has no %s", fields.Type().Field(i).Name)
		}
	}
}

func TestRecord_SurvivesItsEncoding(t *testing.T) {
	r, size, err := decode([]byte(fullLine))
	if err != nil || !reflect.DeepEqual(r, fullRecord) || size != int64(len(fullLine)) {
		t.Errorf("%+v, %d, %v, want %+v, %d", r, size, err, fullRecord, len(fullLine))
	}
}

func TestRecord_LastWholeLineCounts(t *testing.T) {
	states := []State{"", Opening, Linked, Shown, Leaving, Closed}
	var file string
	for _, state := range states[1:] {
		file += lineOf("1", minimal(state))
	}
	for n := range len(file) + 1 {
		whole := strings.Count(file[:n], "\n")
		r, size, err := decode([]byte(file[:n]))
		if err != nil || r.State != states[whole] || int(size) != strings.LastIndex(file[:n], "\n")+1 {
			t.Errorf("%d bytes, %d lines: state %q, size %d, %v", n, whole, r.State, size, err)
		}
	}
}

// After a power failure any part of a line may be zeros.
func TestRecord_LineWithZerosDoesNotCount(t *testing.T) {
	before, line := lineOf("1", minimal(Opening)), lineOf("1", minimal(Shown))
	for from := range line {
		for to := from + 1; to <= len(line); to++ {
			torn := before + line[:from] + strings.Repeat("\x00", to-from) + line[to:]
			r, size, err := decode([]byte(torn))
			if err != nil || r.State != Opening || int(size) != strings.LastIndex(torn, "\n")+1 {
				t.Errorf("%q: state %q, size %d, %v", torn[len(before):], r.State, size, err)
			}
		}
	}
}

func TestRecord_LineWithAnotherChecksumDoesNotCount(t *testing.T) {
	text := minimal(Shown)
	sum := crc32.ChecksumIEEE([]byte("1" + text))
	for _, line := range []string{
		"\n",
		"1\n",
		"mine\n",
		"1 00000000 \n",
		fmt.Sprintf("1 %08x %s\n", sum+1, text),
		fmt.Sprintf("1 %08X %s\n", 0xabcdefab, text),
		fmt.Sprintf("1 %08x %s\n", sum, strings.Replace(text, "2", "3", 1)),
		fmt.Sprintf("1 %08x %s\n", crc32.ChecksumIEEE([]byte(text)), text),
		fmt.Sprintf("2 %08x %s\n", sum, text),
	} {
		if r, size, err := decode([]byte(line)); err != nil || r.State != "" || int(size) != len(line) {
			t.Errorf("%q alone: state %q, size %d, %v", line, r.State, size, err)
		}
		if r, size, err := decode([]byte(fullLine + line)); err != nil || r.State != Shown || int(size) != len(fullLine+line) {
			t.Errorf("%q after a line: %+v, size %d, %v", line, r, size, err)
		}
	}
}

func TestRecord_UnknownVersionIsAnError(t *testing.T) {
	for _, version := range []string{"2", "10", "1.0", ""} {
		_, _, err := decode([]byte(fullLine + lineOf(version, minimal(Shown))))
		wantError(t, err, fmt.Sprintf("unknown format version %q", version))
	}
}

func TestRecord_UnknownFieldsAreIgnored(t *testing.T) {
	text := strings.Replace(minimal(Shown), "{", `{"more":{"a":[1]},`, 1)
	r, _, err := decode([]byte(lineOf("1", text)))
	if want := (Record{State: Shown, Dir: `C:\layers\2`}); err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, %v, want %+v", r, err, want)
	}
}

func TestRecord_WhatNoMountRecordsIsAnError(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"no JSON", "mine", "invalid character"},
		{"not an object", "[]", "cannot unmarshal array"},
		{"a field of another type", `{"dir":1}`, "cannot unmarshal number"},
		{"no state", `{"dir":"C:\\layers\\2"}`, `unknown state ""`},
		{"unknown state", minimal("mounted"), `unknown state "mounted"`},
		{"no directory", `{"state":"shown"}`, "path is empty"},
		{"relative directory", `{"state":"shown","dir":"layers\\2"}`, "is not absolute"},
		{"directory of all layers", `{"state":"shown","dir":"C:\\layers\\"}`, `last element of "C:\\layers\\" is ""`},
		{"root of a volume", `{"state":"shown","dir":"C:\\"}`, "is the root of a volume"},
		{"device", `{"state":"shown","dir":"C:\\layers\\nul"}`, "is the name of a device"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := decode([]byte(fullLine + lineOf("1", test.text)))
			wantError(t, err, test.want)
		})
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(fullLine))
	f.Add([]byte(fullLine + fullLine[:20]))
	f.Add([]byte(lineOf("1", `{"state":"closed","dir":"/l/1","more":[]}`) + lineOf("2", `{}`)))
	f.Add([]byte(lineOf("1", `{"state":"shown","dir":"C:\\l\\","parents":[""]}`)))
	f.Add([]byte("1 00000000 \n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, size, err := decode(data)
		if err != nil {
			return
		}
		if int(size) != bytes.LastIndexByte(data, '\n')+1 {
			t.Fatalf("size %d of %q", size, data)
		}
		if r.State == "" {
			return
		}
		if winpath.CheckLayer(r.Dir) != nil {
			t.Fatalf("%q is accepted", data)
		}
		// Save appends after the whole lines, over what was not finished.
		line := r.encode()
		again, _, err := decode(append(append(data[:size:size], line...), "unfinished"...))
		if err != nil || !bytes.Equal(line, again.encode()) {
			t.Fatalf("%q is written as %q and then %q, %v", data, line, again.encode(), err)
		}
	})
}
