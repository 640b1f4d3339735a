package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const flags = "-mod=readonly -buildvcs=false -p=2"

// tree is a copy of containerd.
type tree struct {
	dir      string
	mount    string // the pattern of package mount, such as "./mount"
	packages string // the pattern of what is built and vetted for Windows
}

// facts are what is compared before and after.
type facts struct {
	Packages   int      // that build for Windows
	Importers  int      // those of them that import package mount
	Vetted     int      // how many vet reported on: packages with their tests, and packages of tests
	Complaints []string // of vet, without numbers of lines
	API        []string // of package mount on Windows
	Linux      []string // the files of package mount and those below it that Linux builds, with their hashes
}

// facts finds out all of them. When vet fails, it must have reported on as many packages as needed.
func (t *tree) facts(needed int) (*facts, error) {
	if _, err := t.run("windows", "build", t.packages); err != nil {
		return nil, err
	}
	var found facts
	if err := t.count(&found); err != nil {
		return nil, err
	}
	if err := t.vet(&found, needed); err != nil {
		return nil, err
	}
	var err error
	if found.API, err = t.api(); err != nil {
		return nil, err
	}
	if found.Linux, err = t.linux(); err != nil {
		return nil, err
	}
	return &found, nil
}

func (t *tree) count(found *facts) error {
	module, err := t.run("windows", "list", "-m")
	if err != nil {
		return err
	}
	mount := strings.TrimSpace(module) + strings.TrimPrefix(t.mount, ".")
	out, err := t.run("windows", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, t.packages)
	if err != nil {
		return err
	}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		found.Packages++
		if slices.Contains(strings.Fields(line)[1:], mount) {
			found.Importers++
		}
	}
	return nil
}

var position = regexp.MustCompile(`:\d+(:\d+)?`)

// vet finds what vet has to say.
//
// Go 1.26 keeps the results of vet without noting whether a package was vetted for itself or for what
// its importers need to know of it. In the second case a later run for itself finds that result, and
// says nothing. It shows in a package that vet does not report on; then all are vetted anew, under the
// key of an option that changes nothing.
func (t *tree) vet(found *facts, needed int) error {
	out, err := t.run("windows", "list", "-f", "{{if or .GoFiles .TestGoFiles}}p{{end}} {{if .XTestGoFiles}}x{{end}}", t.packages)
	if err != nil {
		return err
	}
	all := len(strings.Fields(out))
	for _, option := range []string{"", "-printf.funcs=zz" + strconv.FormatInt(time.Now().UnixNano(), 36)} {
		args := []string{"vet", "-json", option, t.packages}
		out, err := t.run("windows", slices.DeleteFunc(args, func(arg string) bool { return arg == "" })...)
		if found.Vetted, found.Complaints, err = t.readVet(out, err); err != nil {
			return err
		}
		if found.Vetted >= all || needed > 0 && found.Vetted >= needed {
			return nil
		}
	}
	if needed > 0 {
		return fmt.Errorf("vet reported on %d packages, not %d", found.Vetted, needed)
	}
	return nil
}

// readVet reads what vet has printed: an object for each package on stdout, and on stderr, which is in
// failed, what cannot be compiled.
func (t *tree) readVet(out string, failed error) (vetted int, complaints []string, err error) {
	decoder := json.NewDecoder(strings.NewReader(out))
	for decoder.More() {
		var packages map[string]map[string]json.RawMessage
		if err := decoder.Decode(&packages); err != nil {
			return 0, nil, fmt.Errorf("read what vet says: %w\n%s", err, out)
		}
		vetted++
		for pkg, analyzers := range packages {
			for analyzer, text := range analyzers {
				var diagnostics []struct{ Posn, Message string }
				if json.Unmarshal(text, &diagnostics) != nil {
					complaints = append(complaints, fmt.Sprintf("%s: %s: %s", analyzer, pkg, text))
				}
				for _, d := range diagnostics {
					complaints = append(complaints, t.complaint(fmt.Sprintf("%s: %s: %s", analyzer, d.Posn, d.Message)))
				}
			}
		}
	}
	if failed != nil {
		for _, line := range strings.Split(failed.Error(), "\n")[1:] {
			if line != "" && !strings.HasPrefix(line, "#") {
				complaints = append(complaints, t.complaint(line))
			}
		}
	}
	slices.Sort(complaints)
	return vetted, complaints, nil
}

func (t *tree) complaint(line string) string {
	return position.ReplaceAllString(strings.ReplaceAll(line, t.dir+string(filepath.Separator), ""), "")
}

// linux builds package mount for Linux, with what is below it, and returns the files that were built.
func (t *tree) linux() (files []string, err error) {
	below := t.mount + "/..."
	if _, err := t.run("linux", "build", below); err != nil {
		return nil, err
	}
	out, err := t.run("linux", "list", "-f", `{{range .GoFiles}}{{$.Dir}}/{{.}}
{{end}}{{range .SFiles}}{{$.Dir}}/{{.}}
{{end}}`, below)
	if err != nil {
		return nil, err
	}
	for _, path := range strings.Fields(out) {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, fmt.Sprintf("%s %x", strings.TrimPrefix(path, t.dir), sha256.Sum256(content)))
	}
	return files, nil
}
