// Command mutants puts bugs into a copy of the module, one at a time, and tells which test catches each. It fails
// if one is caught by none. Run it at the top of the repository:
//
//	go run ./internal/cmd/mutants [-check] [-run REGEXP]
package main

import (
	"bytes"
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

// mutant is a bug: a text that is once in a file, and what comes in its place.
type mutant struct {
	bug, file string
	pkg, run  string // the directory of the package, and the tests in it that should catch the bug
	wine      bool   // whether these are tests for Windows
	old, new  string
}

func main() {
	check := flag.Bool("check", false, "only make sure that each bug can be put in and that the tests exist")
	run := flag.String("run", "", "only the bugs that match")
	flag.Parse()
	name := regexp.MustCompile(*run)
	chosen := slices.DeleteFunc(mutants, func(m mutant) bool { return !name.MatchString(m.bug) })
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
	var errs []error
	for _, m := range chosen {
		_, _, err := m.change(".")
		errs = append(errs, err)
		for _, name := range strings.Split(m.run, "|") {
			errs = append(errs, m.checkTest(regexp.MustCompile(name)))
		}
	}
	return errors.Join(errs...)
}

// checkTest returns an error unless the package has a test of that name, for whichever system.
func (m mutant) checkTest(name *regexp.Regexp) error {
	files, err := filepath.Glob(filepath.Join(m.pkg, "*_test.go"))
	for _, file := range files {
		text, readErr := os.ReadFile(file)
		err = errors.Join(err, readErr)
		for _, test := range regexp.MustCompile(`(?m)^func Test\w+`).FindAll(text, -1) {
			if name.Match(bytes.TrimPrefix(test, []byte("func "))) {
				return err
			}
		}
	}
	return errors.Join(err, fmt.Errorf("%s: no test in ./%s matches %s", m.bug, m.pkg, name))
}

// change returns the text of the file without the bug and with it.
func (m mutant) change(dir string) (original, changed string, err error) {
	text, err := os.ReadFile(filepath.Join(dir, m.file))
	if n := strings.Count(string(text), m.old); err == nil && n != 1 {
		err = fmt.Errorf("%s: the text to change is %d times in %s:\n%s", m.bug, n, m.file, m.old)
	}
	return string(text), strings.Replace(string(text), m.old, m.new, 1), err
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
	// What fails without a bug would seem to catch each.
	for _, m := range together(chosen) {
		if out, err := m.test(dir, "5m"); err != nil {
			return fmt.Errorf("without any bug: %w\n%s", err, out)
		}
	}
	missed := 0
	for _, m := range chosen {
		start := time.Now()
		by, err := m.try(dir)
		if err != nil {
			missed++
			by = err.Error()
		}
		fmt.Printf("%-75s %3.0f s  %s\n", m.bug, time.Since(start).Seconds(), by)
	}
	fmt.Printf("%d bugs caught\n", len(chosen)-missed)
	if missed > 0 {
		return fmt.Errorf("%d bugs NOT caught", missed)
	}
	return nil
}

// together returns a mutant for each package, which has all its tests.
func together(chosen []mutant) (all []mutant) {
	for _, m := range chosen {
		i := slices.IndexFunc(all, func(other mutant) bool { return other.pkg == m.pkg && other.wine == m.wine })
		if i < 0 {
			all = append(all, m)
		} else {
			all[i].run += "|" + m.run
		}
	}
	return all
}

// try puts the bug into dir, and takes it out again. It returns the test that has caught it.
func (m mutant) try(dir string) (caughtBy string, err error) {
	original, changed, err := m.change(dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, m.file)
	if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
		return "", err
	}
	out, testErr := m.test(dir, "30s")
	if err := os.WriteFile(path, []byte(original), 0o644); err != nil {
		return "", err
	}
	failed := regexp.MustCompile(`(?m)^--- FAIL: (Test\w+)|running tests:\s+(Test\w+)`).FindSubmatch(out) // or it hangs
	switch {
	case testErr == nil:
		return "", errors.New("NOT CAUGHT")
	case failed == nil:
		return "", fmt.Errorf("%w\n%s", testErr, out)
	}
	return string(failed[1]) + string(failed[2]), nil
}

func (m mutant) test(dir, timeout string) (out []byte, err error) {
	args := []string{"test", "-vet=off", "-count=1", "-failfast", "-short", "-timeout=" + timeout, "-run", m.run, "./" + m.pkg}
	command := exec.Command("go", args...)
	if m.wine {
		command = exec.Command("scripts/wine", args...)
	}
	command.Dir = dir
	return command.CombinedOutput()
}
