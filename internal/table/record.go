package table

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/pkg/errors"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// State says how far a mount has got. If a process is killed, its mount stays in the state that was recorded last.
type State string

const (
	// Opening: the layer may be open, and the target is as it was before Mount. Mount is opening the layer, or
	// Unmount has restored the target and could not close the layer.
	Opening State = "opening"
	// Linked: the layer is open, and the target may already show it.
	Linked State = "linked"
	// Shown: Mount has returned nil, and Unmount has not begun.
	Shown State = "shown"
	// Leaving: Unmount has begun, or the undo of a failed Mount. The target may already be as it was before
	// Mount, and the layer may already be closed.
	Leaving State = "leaving"
	// Closed: the layer is closed, or the mount never opened it. Something is left to do at the target,
	// such as removing a link that another program had open.
	Closed State = "closed"
)

// Record is what the table knows of a mount.
type Record struct {
	State State `json:"state"`
	// Type is "" for the mount of a layer. It is "bind" for a mount of that type, which shows the directory
	// Source and has no layer.
	Type string `json:"type,omitempty"`
	// Source is the directory of the layer as the caller gave it. Dir is the same directory with the links in
	// the path resolved. HCS knows the layer by Dir: at Unmount a link in Source may be gone, or lead elsewhere.
	Source  string   `json:"source"`
	Dir     string   `json:"dir"`
	Parents []string `json:"parents,omitempty"`
	// Disk tells whether HCS attaches a disk for the layer (see hcs.Disk).
	Disk string `json:"disk,omitempty"`
	// Volume is the mount path of the open layer: its volume, or its directory if it has no volume.
	Volume string `json:"volume,omitempty"`
	// Target is the target as the caller gave it. Resolved is the same path with the links in it resolved.
	Target   string `json:"target"`
	Resolved string `json:"resolved"`
	// Directory is set if there was a directory at the target before Mount. It is not set if there was nothing.
	Directory bool `json:"directory,omitempty"`
	// Binding is set if the bind filter shows the layer. It is not set if a link does.
	Binding bool `json:"binding,omitempty"`
	// ReadOnly is set if the bind filter refuses writes through the target.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Hidden is the file ID of the directory that a binding hides. It is "" if a process was killed just after
	// it made the directory, or if Unmount has made the directory again.
	Hidden string `json:"hidden,omitempty"`
	// Unseen is set until the process that bound the layer has found it at the target. While Unseen is set, the
	// layer may be bound there although it is not found.
	Unseen bool `json:"unseen,omitempty"`
}

// The file of a mount has a line for each state that the mount has been in. The last line that counts is the
// record:
//
//	1 8a3c6c2e {"state":"shown","source":"C:\\layers\\2",…}
//
// A line contains the version of the format, the CRC-32 of the version and the record, and the record. A line
// counts if it is complete and its checksum is right: a process may be killed while it writes a line, and after
// a power failure a part of the line may be zeros.
//
// A reader ignores the fields that it does not know. If it writes the record, those fields are lost. If an
// older build must not lose a new field, the field needs a new version of the format.
const version = "1"

// ErrDamaged is returned, wrapped, if this package cannot have written a file of the table.
var ErrDamaged = errors.New("damaged file")

func (r *Record) encode() []byte {
	text, _ := json.Marshal(r) // cannot fail: JSON can represent all fields
	return fmt.Appendf(nil, "%s %08x %s\n", version, checksum(version, text), text)
}

func checksum(version string, text []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE([]byte(version)), crc32.IEEETable, text)
}

// decode returns the record in a file and the size of its complete lines. If no line counts, decode returns a
// Record without a State.
func decode(data []byte) (r Record, size int64, err error) {
	size = int64(bytes.LastIndexByte(data, '\n') + 1)
	for _, line := range slices.Backward(bytes.Split(data[:size], []byte("\n"))) {
		found, rest, _ := bytes.Cut(line, []byte(" "))
		sum, text, _ := bytes.Cut(rest, []byte(" "))
		if string(sum) != fmt.Sprintf("%08x", checksum(string(found), text)) {
			continue
		}
		if string(found) != version {
			return r, size, errors.Errorf("unknown format version %.20q", found)
		}
		if err := json.Unmarshal(text, &r); err != nil {
			return r, size, errors.WithStack(err)
		}
		return r, size, r.check()
	}
	return r, size, nil
}

// check returns an error if no Mount can have written the record, or if HCS must not be called for its
// directory.
func (r *Record) check() error {
	switch r.State {
	case Opening, Linked, Shown, Leaving, Closed:
	default:
		return errors.Errorf("unknown state %.20q", r.State)
	}
	switch r.Type {
	case "":
		return winpath.CheckLayer(r.Dir)
	case "bind":
		return winpath.Check(r.Dir)
	}
	return errors.Errorf("unknown type %.20q", r.Type)
}
