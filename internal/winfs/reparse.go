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
	const tagSymlink, header = 0xa000000c, 20
	if len(data) < header {
		return "", errors.New("reparse point is cut short")
	}
	if tag := binary.LittleEndian.Uint32(data); tag != tagSymlink {
		return "", errors.Wrapf(ErrNotLink, "reparse point 0x%x", tag)
	}
	start := header + int(binary.LittleEndian.Uint16(data[8:]))
	end := start + int(binary.LittleEndian.Uint16(data[10:]))
	if end > len(data) || (end-start)%2 != 0 {
		return "", errors.New("reparse point is cut short")
	}
	name := make([]uint16, 0, (end-start)/2)
	for i := start; i < end; i += 2 {
		name = append(name, binary.LittleEndian.Uint16(data[i:]))
	}
	return string(utf16.Decode(name)), nil
}
