package mount

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	stderrors "errors"

	"github.com/pkg/errors"
)

// record is what the table remembers of a mount.
type record struct {
	Target string `json:"target"`
	// Resolved is Target without links, drives and 8.3 names on the way to it, which
	// may go or lead elsewhere.
	Resolved string `json:"resolved"`
	Source   string `json:"source"`
	// Volume is the mount path of the layer, and empty until HCS has told it:
	// until then there is no link.
	Volume string `json:"volume"`
	// Base tells that the layer has no parents, so that its files are shown.
	Base bool `json:"base"`
	// Replaced tells that Target was an empty directory.
	Replaced bool `json:"replaced"`
	// TargetKey and SourceKey are kept because a path that has gone, or that led
	// through a link which has gone, has another key.
	TargetKey key `json:"targetKey"`
	SourceKey key `json:"sourceKey"`

	// closing tells that the layer was about to be closed with this mount.
	closing bool
}

// isWhole tells whether the mount came to where its layer was open, and has not
// begun to close it.
func (r record) isWhole() bool { return r.Volume != "" && !r.closing }

// key stands for a path: all ways to write the path have the same key.
type key string

func keyOf(canonical string) key {
	sum := sha256.Sum256([]byte(canonical))
	return key(hex.EncodeToString(sum[:16]))
}

func (k key) valid() bool {
	raw, err := hex.DecodeString(string(k))
	return err == nil && len(raw) == 16 && hex.EncodeToString(raw) == string(k)
}

// maxRecord bounds what is read of a record: four paths, each unit escaped, and
// some more.
const maxRecord = 5 * 6 * maxPath

// errDamaged tells that a file is not what this package writes.
var errDamaged = errors.New("damaged record")

// decodeRecord accepts exactly what encode writes: a record that was torn,
// changed or written by something else is not followed.
func decodeRecord(data []byte) (record, error) {
	var r record
	if len(data) > maxRecord {
		return r, errors.New("too long")
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, errors.WithStack(err)
	}
	again, err := r.encode()
	if err != nil {
		return record{}, err
	}
	if !bytes.Equal(data, again) {
		return record{}, errors.New("not as this package writes it")
	}
	if err := stderrors.Join(checkPath(r.Target), checkPath(r.Resolved)); err != nil {
		return record{}, errors.WithMessage(err, "target")
	}
	if err := checkSource(r.Source); err != nil {
		return record{}, err
	}
	if !r.TargetKey.valid() || !r.SourceKey.valid() {
		return record{}, errors.New("malformed key")
	}
	return r, nil
}

func (r record) encode() ([]byte, error) {
	data, err := json.Marshal(r)
	return append(data, '\n'), errors.WithStack(err)
}
