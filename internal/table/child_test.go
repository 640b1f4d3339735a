package table

import (
	"context"
	stderrors "errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-941ae793/mount/internal/winfs"
)

// A child is this test binary, with what it shall do in its environment.
const (
	childTask = "MOUNT_TEST_TASK"
	childDir  = "MOUNT_TEST_DIR"
)

var tasks = map[string]func(dir string) error{}

func TestMain(m *testing.M) {
	task := os.Getenv(childTask)
	if task == "" {
		os.Exit(m.Run())
	}
	if err := tasks[task](os.Getenv(childDir)); err != nil {
		_, _ = os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

func child(task, dir string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childTask+"="+task, childDir+"="+dir)
	return c
}

// noPause stands for the pause between attempts.
func noPause(ctx context.Context) error { return ctx.Err() }

// newTable returns the table in a directory that does not exist yet.
func newTable(t *testing.T) *Table { return tableIn(t, filepath.Join(t.TempDir(), "table")) }

// tableIn returns the table in dir, as another process has it.
func tableIn(t *testing.T, dir string) *Table {
	table := New(dir, "boot", noPause)
	t.Cleanup(table.Close)
	return table
}

func keyOf(path string) Key { return KeyOf(winfs.Name{Path: path}) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write and read let the file be removed meanwhile, which a Mount that has it open insists on.
func write(t *testing.T, path, text string) {
	t.Helper()
	file, err := winfs.OpenPrivate(path, os.O_CREATE)
	must(t, err)
	defer file.Close()
	must(t, file.Truncate(0))
	_, err = file.WriteString(text)
	must(t, err)
}

func read(t *testing.T, path string) string {
	t.Helper()
	file, err := winfs.OpenPrivate(path, 0)
	must(t, err)
	defer file.Close()
	data, err := io.ReadAll(file)
	must(t, err)
	return string(data)
}

// wantError fails the test unless err has the text and matches the targets.
func wantError(t testing.TB, err error, text string, targets ...error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want %q", err, text)
	}
	for _, target := range targets {
		if !stderrors.Is(err, target) {
			t.Errorf("error %v does not match %v", err, target)
		}
	}
}
