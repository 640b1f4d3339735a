package winfs

import (
	"encoding/binary"
	"testing"
	"unicode/utf16"
)

// symlinkBuffer is the reparse point of a link as Windows stores it: the print name first, and the substitute
// name after it.
func symlinkBuffer(substitute, print string) []byte {
	names := append(utf16.Encode([]rune(print)), utf16.Encode([]rune(substitute))...)
	printLen := 2 * len(utf16.Encode([]rune(print)))
	data := binary.LittleEndian.AppendUint32(nil, 0xa000000c)
	for _, field := range []int{12 + 2*len(names), 0, printLen, 2*len(names) - printLen, 0, printLen, 0, 0} {
		data = binary.LittleEndian.AppendUint16(data, uint16(field))
	}
	for _, unit := range names {
		data = binary.LittleEndian.AppendUint16(data, unit)
	}
	return data
}

func TestDecodeSymlink_TheTextIsTheSubstituteName(t *testing.T) {
	for _, text := range []string{`\??\Volume{01234567-89ab-cdef-0123-456789abcdef}\`, `\??\C:\слой\𐐀`, ``} {
		got, err := decodeSymlink(symlinkBuffer(text, `\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}\`))
		if err != nil || got != text {
			t.Errorf("%q, %v, want %q", got, err, text)
		}
	}
}

func TestDecodeSymlink_RefusesWhatIsCutShortOrNoLink(t *testing.T) {
	whole := symlinkBuffer(`\??\C:\layers\0\Files`, `C:\layers\0\Files`)
	for n := range whole {
		if text, err := decodeSymlink(whole[:n]); err == nil {
			t.Errorf("%d bytes of %d are %q", n, len(whole), text)
		}
	}
	odd := append([]byte(nil), whole...)
	odd[10]-- // the length of the substitute name
	if text, err := decodeSymlink(odd); err == nil {
		t.Errorf("half a letter is %q", text)
	}
	junction := append([]byte(nil), whole...)
	binary.LittleEndian.PutUint32(junction, 0xa0000003)
	_, err := decodeSymlink(junction)
	wantError(t, err, "reparse point 0xa0000003", ErrNotLink)
}

func FuzzDecodeSymlink(f *testing.F) {
	f.Add(symlinkBuffer(`\??\Volume{a}\`, `\\?\Volume{a}\`))
	f.Add([]byte{0x0c, 0, 0, 0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		text, err := decodeSymlink(data)
		if err == nil && len(utf16.Encode([]rune(text)))*2 > len(data) {
			t.Fatalf("%d bytes contain the text %q", len(data), text)
		}
	})
}
