package mount

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pkg/errors"
)

// record is what the table knows of a layer: what it is, and where it is shown.
type record struct {
	// Boot is the start of the system in which the layer was opened (see bootID). In a later
	// one the layer is closed: HCS forgets all layers when Windows shuts down. An empty Boot means that
	// the layer is closed already, as when Unmount could not remove the record after closing it.
	Boot string `json:"boot"`
	// Key is the key of Source at the time of the Mount. The same path has another key once the
	// link that it led through is gone.
	Key key `json:"key"`
	// Source is the directory of the layer as HCS knows it. Resolved is the same without
	// links and 8.3 names.
	Source   string   `json:"source"`
	Resolved string   `json:"resolved"`
	Parents  []string `json:"parents,omitempty"`
	// ReadOnly is set when the layer has no disk of its own, so that nothing but HCS can tell
	// whether it is open.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Volume is the mount path of the layer: its volume, or its directory when it is read-only. It
	// is empty until HCS has told it, and until then no target shows the layer.
	Volume  string   `json:"volume,omitempty"`
	Targets []target `json:"targets"`
}

// isShown reports whether the layer is shown at any target. A mount that was still opening when its
// process was killed does not count, nor does one whose Unmount was killed: such a layer may be
// half open.
func (r *record) isShown() bool {
	return slices.ContainsFunc(r.Targets, func(at target) bool { return at.Shown })
}

// targetAt returns the target with that key, or nil.
func (r *record) targetAt(k key) *target {
	if i := slices.IndexFunc(r.Targets, func(at target) bool { return at.Key == k }); i >= 0 {
		return &r.Targets[i]
	}
	return nil
}

// destination returns what a link to the layer leads to, and what is bound to a target.
func (r *record) destination() string {
	if len(r.Parents) == 0 && !isVolume(r.Volume) {
		// A base layer has no filter: its mount path is its own directory, which also holds what
		// belongs to HCS. A client must see the files alone.
		return filepath.Join(r.Volume, "Files")
	}
	// A link to `\\?\Volume{GUID}` without the separator leads to the device and not to its root
	// directory.
	return r.Volume + string(filepath.Separator)
}

// isSource reports whether a path, as the bind filter lists it, is the source of a binding of the layer.
// Volumes are not compared by their serial numbers: scratch disks are copies of one another.
func (r *record) isSource(path string) bool {
	if sameLink(path, r.destination()) {
		return true
	}
	_, bound, boundErr := resolveSource(path)
	_, layer, layerErr := resolveSource(r.destination())
	return boundErr == nil && layerErr == nil && bound == layer
}

// info returns what is known of the layer at one of its targets.
func (r *record) info(at *target) Info {
	info := Info{Mountpoint: at.Path, Source: r.Source, FSType: layerType}
	if r.Volume != "" {
		info.Root = r.destination()
	}
	if at.ReadOnly {
		info.Options = "ro"
	}
	return info
}

// key stands for a path: all spellings of the path have the same key.
type key string

func keyOf(path string) key {
	sum := sha256.Sum256([]byte(path))
	return key(hex.EncodeToString(sum[:16]))
}

func (k key) valid() bool {
	return len(k) == 32 && strings.Trim(string(k), "0123456789abcdef") == ""
}

// The file of a record has a line for each state that the record has been in. The last whole line with
// the right checksum counts:
//
//	1.0 8a3c6c2e {"boot":"…","key":"…",…}
//
// A line has the version of the format, the CRC-32 of the record and the record. Lines are appended.
// A process may be killed, or the power may fail, while one is written: a line without its end, or
// with another checksum, does not count. A reader ignores fields that it does not know, and loses
// them when it writes. A field that an older build must not lose therefore needs another version
// before the dot.
const recordVersion = "1.0"

// errDamaged is found, by errors.Is, in the error of a file that is not what this package writes.
var errDamaged = errors.New("damaged file")

func (r *record) encode() []byte {
	text, _ := json.Marshal(r) // which cannot fail: JSON has all its types
	return fmt.Appendf(nil, "%s %08x %s\n", recordVersion, crc32.ChecksumIEEE(text), text)
}

// decodeRecord returns the record in a file, and the size of the whole lines of the file.
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
