package mount

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/pkg/errors"
)

// record is what the table remembers of a layer: what it is, and where it is shown.
type record struct {
	// Boot is the start of the system in which the layer was opened (see bootID).
	// After a restart no layer is open, and "" says that this one is closed already.
	Boot string `json:"boot"`
	// Key is that of Source. It is kept because a path that has gone, or that led
	// through a link which has gone, has another key.
	Key key `json:"key"`
	// Source is the directory of the layer as HCS knows it, and Resolved the same
	// without links and 8.3 names.
	Source   string   `json:"source"`
	Resolved string   `json:"resolved"`
	Parents  []string `json:"parents,omitempty"`
	// ReadOnly says that the layer has no disk of its own, so that nothing but HCS
	// can tell whether it is open.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Volume is the mount path of the layer. It is empty until HCS has told it: until
	// then no target shows the layer.
	Volume  string   `json:"volume,omitempty"`
	Targets []target `json:"targets"`
}

// target is a path at which a layer is shown.
type target struct {
	// Path is as the caller gave it. All that is done is done at Resolved, which is the
	// same without links and 8.3 names on the way, as those may go or lead elsewhere.
	Path     string `json:"path"`
	Resolved string `json:"resolved"`
	Key      key    `json:"key"`
	// Bound is the start of the system in which the layer was bound to the target, as
	// record.Boot, and "" where a link shows it. A binding goes when the system ends.
	Bound string `json:"bound,omitempty"`
	// Made says that the directory was made for the binding, and ReadOnly that the filter
	// refuses to write through it.
	Made     bool `json:"made,omitempty"`
	ReadOnly bool `json:"readOnly,omitempty"`
	// Replaced says that the link took the place of an empty directory.
	Replaced bool `json:"replaced,omitempty"`
	// Linked says that the link was there when the mount was whole. Should it be missing later,
	// somebody has removed it, and the directory is not ours to put back.
	Linked bool `json:"linked,omitempty"`
	// Restored says that the target is as it was before. A link that somebody has removed
	// counts, whose directory is not ours to put back.
	Restored bool `json:"restored,omitempty"`
	// Shown says that the link or the binding was made, and that no Unmount has begun to
	// take it away. It is false in the record of a process that was killed in between.
	Shown bool `json:"shown,omitempty"`
}

// isShown reports whether the layer is shown at any target. A mount that was still
// opening when its process was killed does not count, nor does one whose Unmount was
// killed before it came to its end: such a layer may be half open.
func (r *record) isShown() bool {
	return slices.ContainsFunc(r.Targets, func(at target) bool { return at.Shown })
}

// at returns the target with that key, or nil.
func (r *record) at(k key) *target {
	if i := slices.IndexFunc(r.Targets, func(at target) bool { return at.Key == k }); i >= 0 {
		return &r.Targets[i]
	}
	return nil
}

// key stands for a path: all ways to write the path have the same key.
type key string

func keyOf(path string) key {
	sum := sha256.Sum256([]byte(path))
	return key(hex.EncodeToString(sum[:16]))
}

func (k key) valid() bool {
	return len(k) == 32 && strings.Trim(string(k), "0123456789abcdef") == ""
}

// The file of a record has a line for each state that the record has been in, the
// last of which counts:
//
//	1.0 8a3c6c2e {"boot":"…","key":"…",…}
//
// which is the version of the format, the CRC-32 of what follows it, and the record.
// Lines are appended, and a process may be killed or the power fail meanwhile: a line
// without its end, or with another checksum, does not count. A reader ignores fields
// that it does not know, and drops them when it writes. So a field that an older build
// must not drop needs another version before the dot.
const recordVersion = "1.0"

// errDamaged matches the error of a file that is not what this package writes.
var errDamaged = errors.New("damaged file")

func (r *record) encode() []byte {
	text, _ := json.Marshal(r) // it holds nothing that JSON has not
	return fmt.Appendf(nil, "%s %08x %s\n", recordVersion, crc32.ChecksumIEEE(text), text)
}

// decodeRecord returns the record in a file, and how much of the file is whole lines.
func decodeRecord(data []byte) (r record, size int64, err error) {
	lines := bytes.Split(data, []byte("\n"))
	lines = lines[:len(lines)-1] // what follows the last end of a line
	size = int64(bytes.LastIndexByte(data, '\n') + 1)
	for i := len(lines) - 1; i >= 0; i-- {
		version, rest, _ := bytes.Cut(lines[i], []byte(" "))
		sum, text, _ := bytes.Cut(rest, []byte(" "))
		if string(sum) != fmt.Sprintf("%08x", crc32.ChecksumIEEE(text)) {
			continue
		}
		if major, _, _ := strings.Cut(string(version), "."); major != "1" {
			return record{}, 0, errors.Errorf("format %.20q is not known", version)
		}
		if err := json.Unmarshal(text, &r); err != nil {
			return record{}, 0, errors.WithStack(err)
		}
		return r, size, checkSource(r.Source)
	}
	return record{}, 0, errors.New("it has no whole line")
}
