package mount

import (
	"slices"
	"strings"
	"testing"
)

func TestGetParentCimPaths_ReturnsWhatTheFirstOptionLists(t *testing.T) {
	for _, test := range []struct {
		options []string
		want    []string
	}{
		{nil, nil},
		{[]string{"ro"}, nil},
		{[]string{"parentCimPaths=null"}, nil},
		{[]string{"parentCimPaths=[]"}, []string{}},
		{[]string{"ro", `parentCimPaths=["C:\\1.cim","0.cim"]`, `parentCimPaths=["2"]`}, []string{`C:\1.cim`, "0.cim"}},
	} {
		got, err := GetParentCimPaths(&Mount{Type: "CimFS", Options: test.options})
		if err != nil || !slices.Equal(got, test.want) || (got == nil) != (test.want == nil) {
			t.Errorf("%q: %q, %v", test.options, got, err)
		}
	}
}

func TestGetParentCimPaths_RefusesAMalformedList(t *testing.T) {
	for _, list := range []string{"", "{", `"C:\\1.cim"`, `[1]`} {
		if paths, err := GetParentCimPaths(&Mount{Type: "CimFS", Options: []string{"parentCimPaths=" + list}}); err == nil {
			t.Errorf("%q: %q", list, paths)
		}
	}
}

func TestGetCimPath_ReturnsThatOfTheFirstOption(t *testing.T) {
	m := &Mount{Type: "CimFS", Options: []string{"ro", `cimpath=C:\2.cim`, "cimpath=other"}}
	if path, err := GetCimPath(m); path != `C:\2.cim` || err != nil {
		t.Error(path, err)
	}
	m.Options = nil
	if path, err := GetCimPath(m); err == nil || err.Error() != "cim path not found" {
		t.Error(path, err)
	}
}

func TestCheckCimFS_RefusesOtherTypes(t *testing.T) {
	for _, other := range []string{"windows-layer", "BlockCIM", "cimfs", ""} {
		m := &Mount{Type: other, Options: []string{`cimpath=C:\2.cim`, "parentCimPaths=[]"}}
		_, err := GetParentCimPaths(m)
		_, pathErr := GetCimPath(m)
		for _, err := range []error{err, pathErr} {
			if err == nil || err.Error() != "invalid mount type: '"+other+"'" {
				t.Errorf("%s: %v", other, err)
			}
		}
	}
}

func TestGetEnableLayerIntegrity_AndGetAppendVHDFooterFindTheirOptions(t *testing.T) {
	for _, test := range []struct {
		options   []string
		integrity bool
		footer    bool
	}{
		{nil, false, false},
		{[]string{"enable_layer_integrity=1", "append_vhd_footer2"}, false, false},
		{[]string{"ro", "enable_layer_integrity"}, true, false},
		{[]string{"append_vhd_footer", "enable_layer_integrity"}, true, true},
	} {
		m := &Mount{Type: BlockCIMMountType, Options: test.options}
		if integrity, footer := GetEnableLayerIntegrity(m), GetAppendVHDFooter(m); integrity != test.integrity || footer != test.footer {
			t.Errorf("%q: %t, %t", test.options, integrity, footer)
		}
	}
}

func TestCheckType_RefusesWhatIsNotMounted(t *testing.T) {
	for mountType, known := range map[string]bool{"CimFS": true, "BlockCIM": true, "overlay": false, "": false} {
		err := checkType(mountType)
		if err == nil || !strings.Contains(err.Error(), "invalid windows mount type: '"+mountType+"'") {
			t.Errorf("%s: %v", mountType, err)
		} else if strings.Contains(err.Error(), "is known") != known {
			t.Error(err)
		}
	}
	if err := checkType("windows-layer"); err != nil {
		t.Error(err)
	}
}
