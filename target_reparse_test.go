package mount

import (
	"encoding/binary"
	"testing"
	"unicode/utf16"
)

// symlinkBuffer is the reparse point of a link as Windows stores it: print name
// first, substitute name behind it.
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

func TestTheTextOfALinkIsItsSubstituteName(t *testing.T) {
	const text = `\??\Volume{01234567-89ab-cdef-0123-456789abcdef}\`
	got, err := decodeSymlink(symlinkBuffer(text, `\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}\`))
	if err != nil || got != text {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAReparsePointThatIsCutShortOrNoLinkIsRefused(t *testing.T) {
	whole := symlinkBuffer(`\??\C:\layers\0\Files`, `C:\layers\0\Files`)
	for n := range whole {
		if _, err := decodeSymlink(whole[:n]); err == nil {
			t.Errorf("accepted %d bytes of %d", n, len(whole))
		}
	}
	junction := append([]byte(nil), whole...)
	binary.LittleEndian.PutUint32(junction, 0xa0000003)
	_, err := decodeSymlink(junction)
	wantError(t, err, "is not a symbolic link")
}

func TestAPathInTheFormInWhichWindowsNamesAnOpenFileIsTheSamePath(t *testing.T) {
	for path, want := range map[string]string{
		`Q:\`:                `\\?\Q:\`,
		`\\server\share\`:    `\\?\UNC\server\share\`,
		`\\?\Volume{a}\`:     `\\?\Volume{a}\`,
		`\\?\UNC\srv\share\`: `\\?\UNC\srv\share\`,
	} {
		if got := verbatimPath(path); got != want || !sameWindowsLink(got, path) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestLinksAreComparedByWhereTheyLead(t *testing.T) {
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{`\??\Volume{a}\`, `\\?\Volume{A}\`, true},
		{`\??\Volume{a}`, `\\?\Volume{a}\`, true},
		{`\??\C:\layers\0\Files`, `C:\layers\0\Files`, true},
		{`\??\C:\layers\0\Files`, `\\?\c:\Layers\0\files`, true},
		{`\??\UNC\server\share\0\Files`, `\\server\share\0\Files`, true},
		{`\??\UNC\server\share\0`, `\\?\unc\server\share\0`, true},
		{`\??\Volume{a}\`, `\\?\Volume{b}\`, false},
		{`C:\layers\0\Files`, `C:\layers\0`, false},
		{``, `\\?\Volume{a}\`, false},
	} {
		if got := sameWindowsLink(test.a, test.b); got != test.same {
			t.Errorf("%s and %s: %v", test.a, test.b, got)
		}
	}
}

func FuzzReparsePoint(f *testing.F) {
	f.Add(symlinkBuffer(`\??\Volume{a}\`, `\\?\Volume{a}\`))
	f.Add([]byte{0x0c, 0, 0, 0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		text, err := decodeSymlink(data)
		if err == nil && len(utf16.Encode([]rune(text)))*2 > len(data) {
			t.Fatalf("%d bytes hold the text %q", len(data), text)
		}
	})
}
