// Command mutants puts bugs into the package, one at a time and in a copy of it,
// and tells which test catches each. It fails when one is caught by none. Run it
// at the top of the repository:
//
//	go run ./internal/cmd/mutants [-check] [-run REGEXP]
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	check := flag.Bool("check", false, "only make sure that each bug can still be put in")
	run := flag.String("run", "", "only the bugs whose names match")
	flag.Parse()
	var chosen []mutant
	for _, m := range mutants {
		if regexp.MustCompile(*run).MatchString(m.bug) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		fmt.Fprintln(os.Stderr, "no bug has such a name")
		os.Exit(1)
	}
	do := tryAll
	if *check {
		do = checkAll
	}
	if err := do(chosen); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func checkAll(chosen []mutant) error {
	tests, err := testNames()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range chosen {
		_, _, err := m.change(".")
		name, _, _ := strings.Cut(m.run, "/") // what follows is a subtest's
		if err == nil && !slices.ContainsFunc(tests, regexp.MustCompile(name).MatchString) {
			err = fmt.Errorf("%s: no test has a name like %s", m.bug, m.run)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// testNames returns the names of the package's tests, those for other systems included.
func testNames() (names []string, err error) {
	files, err := filepath.Glob("*_test.go")
	for _, file := range files {
		text, readErr := os.ReadFile(file)
		err = errors.Join(err, readErr)
		for _, match := range regexp.MustCompile(`(?m)^func (Test\w+)`).FindAllSubmatch(text, -1) {
			names = append(names, string(match[1]))
		}
	}
	return names, err
}

func tryAll(chosen []mutant) error {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS(".")); err != nil {
		return err
	}
	if err := tryWithout(chosen, dir); err != nil {
		return err
	}
	missed := 0
	for _, m := range chosen {
		start := time.Now()
		by, err := m.try(dir)
		if err != nil {
			missed++
			by = err.Error()
		}
		fmt.Printf("%-60s %3.0f s  %s\n", m.bug, time.Since(start).Seconds(), by)
	}
	if missed > 0 {
		return fmt.Errorf("%d bugs caught, %d not", len(chosen)-missed, missed)
	}
	fmt.Printf("%d bugs caught\n", len(chosen))
	return nil
}

// mutant is a bug: a text in a file, which is there once, and what comes in its
// place. The tests that should catch it match run.
type mutant struct {
	bug, file, run string
	wine           bool
	old, new       string
}

func (m mutant) change(dir string) (original, changed []byte, err error) {
	original, err = os.ReadFile(filepath.Join(dir, m.file))
	if err != nil {
		return nil, nil, err
	}
	text := string(original)
	if n := strings.Count(text, m.old); n != 1 {
		return nil, nil, fmt.Errorf("%s: the text to change is %d times in %s:\n%s", m.bug, n, m.file, m.old)
	}
	return original, []byte(strings.Replace(text, m.old, m.new, 1)), nil
}

var (
	failedTest  = regexp.MustCompile(`(?m)^--- FAIL: (Test\w+)`)
	hangingTest = regexp.MustCompile(`running tests:\s+(Test\w+)`)
)

// try puts the bug into dir, and takes it out again once it was caught or not.
func (m mutant) try(dir string) (caughtBy string, err error) {
	original, changed, err := m.change(dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, m.file)
	if err := os.WriteFile(path, changed, 0o644); err != nil {
		return "", err
	}
	caughtBy, err = m.caughtBy(dir)
	return caughtBy, errors.Join(err, os.WriteFile(path, original, 0o644))
}

// caughtBy returns the name of the first test that fails in dir.
func (m mutant) caughtBy(dir string) (string, error) {
	out, err := m.test(dir, "30s")
	if err == nil {
		return "", errors.New("NOT CAUGHT")
	}
	if failed := failedTest.FindSubmatch(out); failed != nil {
		return string(failed[1]), nil
	}
	if hangs := hangingTest.FindSubmatch(out); hangs != nil {
		return string(hangs[1]) + " never ends", nil
	}
	return "", fmt.Errorf("%w\n%s", err, out)
}

// test runs the tests that should catch the bug.
func (m mutant) test(dir, timeout string) (out []byte, err error) {
	args := []string{"test", "-vet=off", "-count=1", "-failfast", "-short", "-timeout=" + timeout, "-run", m.run, "."}
	command := exec.Command("go", args...)
	if m.wine {
		command = exec.Command("scripts/wine", args...)
	}
	command.Dir = dir
	return command.CombinedOutput()
}

// tryWithout makes sure that the tests pass without the bugs: else whatever makes
// them fail would seem to catch each.
func tryWithout(chosen []mutant, dir string) error {
	for _, wine := range []bool{false, true} {
		var runs []string
		for _, m := range chosen {
			if m.wine == wine {
				runs = append(runs, m.run)
			}
		}
		if len(runs) == 0 {
			continue
		}
		if out, err := (mutant{run: strings.Join(runs, "|"), wine: wine}).test(dir, "5m"); err != nil {
			return fmt.Errorf("without any bug: %w\n%s", err, out)
		}
	}
	return nil
}
