//go:build !windows

package winfs

import (
	"os"
	"syscall"
	"testing"
)

func forgetsRefusal(*testing.T, string) bool { return false }

func TestIsBusy_KnowsTheCodes(t *testing.T) {
	for err, want := range map[error]bool{&os.PathError{Err: syscall.EBUSY}: true, &os.PathError{Err: syscall.EACCES}: false, nil: false} {
		if got := IsBusy(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

func TestMoveUntrusted_MovesADirectory(t *testing.T) {
	tr := newTree(t)
	tr.write("dir/file", "")
	must(t, MoveUntrusted(tr.path("dir"), tr.path("aside")))
	tr.want("aside")
}

func TestRemoveOpen_ReportsWhatItCannotRemove(t *testing.T) {
	tr := newTree(t)
	file, err := OpenPrivate(tr.path("file"), os.O_CREATE)
	must(t, err, os.Remove(tr.path("file")))
	wantError(t, RemoveOpen(file), tr.path("file"), os.ErrNotExist)
	must(t, file.Close()) // which it still is
}

func TestRemoveLink_ReportsWhatItCannotRemove(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("nothing is denied to root")
	}
	tr := newTree(t)
	tr.mkdir("dir")
	link := tr.link("text", "dir/link")
	must(t, os.Chmod(tr.path("dir"), 0o555))
	defer os.Chmod(tr.path("dir"), 0o777)
	wantError(t, RemoveLink(link, "text"), link, os.ErrPermission)
	must(t, os.Chmod(tr.path("dir"), 0o111))
	wantError(t, RemoveLink(link, "text"), tr.path("dir"), os.ErrPermission)
}
