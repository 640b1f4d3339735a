//go:build !windows

package mount

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"sync"
	"testing"

	"github.com/seed-941ae793/mount/internal/hcstest"
)

// allCases is the environment variable that makes the exhaustive families of tests run all their cases, and not a
// few.
const allCases = "MOUNT_TEST_ALL"

// somePersonalities are those under which the families always run. If any other personality differs from likely
// in an answer, so does one of these.
var somePersonalities = []string{"likely", "all-different-a", "all-different-b", "all-different-c"}

// underPersonalities runs a family of tests under the personalities of HCS. A family that disturbs files, and hardly
// depends on HCS, runs under somePersonalities at most.
func underPersonalities(t *testing.T, some bool, test func(t *testing.T, p hcstest.Personality)) {
	for _, p := range hcstest.Personalities {
		if (some || os.Getenv(allCases) == "") && !slices.Contains(somePersonalities, p.Name) {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

// chosen reports whether case number n of a family runs under a personality. If not all cases run, each of
// somePersonalities gets one case in every, and no two of them get the same one.
func chosen(p hcstest.Personality, n, every int) bool {
	return os.Getenv(allCases) != "" || n%every == slices.Index(somePersonalities, p.Name)
}

// newHostOf returns a host of that personality, in memory.
func newHostOf(t testing.TB, p hcstest.Personality) *host {
	h := newHost(t)
	h.model.Personality = p
	return h
}

// matrix counts the cases that ran, by family and personality.
var matrix = struct {
	sync.Mutex
	cases map[string]map[string]int
}{cases: map[string]map[string]int{}}

func count(family string, p hcstest.Personality, cases int) {
	matrix.Lock()
	defer matrix.Unlock()
	if matrix.cases[family] == nil {
		matrix.cases[family] = map[string]int{}
	}
	matrix.cases[family][p.Name] += cases
}

// printMatrix prints the counts as a table in Markdown.
func printMatrix(w io.Writer) {
	matrix.Lock()
	defer matrix.Unlock()
	if len(matrix.cases) == 0 {
		return
	}
	var families []string
	for family := range matrix.cases {
		families = append(families, family)
	}
	sort.Strings(families)
	row := func(name string, cell func(family string) string) {
		fmt.Fprintf(w, "| %s |", name)
		for _, family := range families {
			fmt.Fprintf(w, " %s |", cell(family))
		}
		fmt.Fprintln(w)
	}
	row("personality", func(family string) string { return family })
	row("---", func(string) string { return "--:" })
	totals := map[string]int{}
	for _, p := range hcstest.Personalities {
		row(p.Name, func(family string) string {
			n := matrix.cases[family][p.Name]
			totals[family] += n
			return fmt.Sprint(n)
		})
	}
	row("all", func(family string) string { return fmt.Sprint(totals[family]) })
}
