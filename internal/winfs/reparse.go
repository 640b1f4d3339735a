package winfs

import (
	"encoding/binary"
	"unicode/utf16"

	"github.com/pkg/errors"
)

// decodeSymlink returns the text of a symbolic link from its reparse point, a REPARSE_DATA_BUFFER ([MS-FSCC]
// 2.1.2.4). The buffer is little-endian: tag (4 bytes), length (2), reserved (2), offset and length of the
// substitute name (2 each), offset and length of the print name (2 each), flags (4), and the names.
func decodeSymlink(data []byte) (string, error) {
	const header = 20
	units := make([]uint16, len(data)/2)
	_, _ = binary.Decode(data, binary.LittleEndian, units) // cannot fail: the data is as long as that
	if len(data) < header {
		return "", errors.New("reparse point is cut short")
	}
	if units[1] != 0xa000 || units[0] != 0x000c {
		return "", errors.Wrapf(ErrNotLink, "reparse point 0x%04x%04x", units[1], units[0])
	}
	start, length := (header+int(units[4]))/2, int(units[5])
	if end := start + length/2; end <= len(units) && length%2 == 0 {
		return string(utf16.Decode(units[start:end])), nil
	}
	return "", errors.New("reparse point is cut short")
}
