package hcstest

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/seed-941ae793/mount/internal/hcstest/wine"
)

// System calls of Linux, and their flags.
const (
	mount     = 165
	bind      = 0x1000 // MS_BIND
	remount   = 0x20   // MS_REMOUNT
	readOnly  = 0x1    // MS_RDONLY
	chown     = 92
	umount2   = 166
	detach    = 0x2 // MNT_DETACH
	statx     = 332
	mountRoot = 0x2000 // STATX_ATTR_MOUNT_ROOT
)

// show mounts the source of a binding at its root, with mount(2). To Wine the mounted directory is a plain directory,
// provided that it is on the same file system. If the process is killed between the two calls, a read-only binding
// stays writable.
func show(b Binding) error {
	source, err := wine.UnixPath(b.Source)
	if err != nil {
		return err
	}
	root, err := wine.UnixPath(b.Root)
	if err != nil {
		return err
	}
	if n := wine.Linux(mount, uintptr(unsafe.Pointer(source)), uintptr(unsafe.Pointer(root)), 0, bind, 0); n != 0 {
		return fmt.Errorf("mount(2), which needs root, returned Linux error %d", -n)
	}
	if !b.ReadOnly {
		return nil
	}
	if n := wine.Linux(mount, 0, uintptr(unsafe.Pointer(root)), 0, remount|bind|readOnly, 0); n != 0 {
		wine.Linux(umount2, uintptr(unsafe.Pointer(root)), detach, 0, 0, 0)
		return fmt.Errorf("mount(2) for read-only returned Linux error %d", -n)
	}
	return nil
}

// shown reports whether something is mounted at the root, as show does.
func shown(root string) bool {
	path, err := wine.UnixPath(root)
	if err != nil {
		return false
	}
	var stat [256]byte
	n := wine.Linux(statx, 0, uintptr(unsafe.Pointer(path)), 0, 0, uintptr(unsafe.Pointer(&stat)))
	return n == 0 && binary.LittleEndian.Uint64(stat[8:])&mountRoot != 0 // stx_attributes
}

// hide unmounts what show has mounted at the root.
func hide(root string) error {
	path, err := wine.UnixPath(root)
	if err != nil {
		return err
	}
	if n := wine.Linux(umount2, uintptr(unsafe.Pointer(path)), detach, 0, 0, 0); n != 0 {
		return fmt.Errorf("hide what is bound to %s: umount2(2) returned Linux error %d", root, -n)
	}
	return nil
}

func symlink(text, path string) error { return wine.Symlink(text, path) }
func unlink(path string) error        { return wine.Unlink(path) }

// GiveAway makes another user the owner of a file. Windows does not allow that, so GiveAway needs Wine, and root.
func GiveAway(path string) error {
	unix, err := wine.UnixPath(path)
	if err != nil {
		return err
	}
	const other = 65533 // not nobody: tests may run as nobody
	if n := wine.Linux(chown, uintptr(unsafe.Pointer(unix)), other, other, 0, 0); n != 0 {
		return fmt.Errorf("chown(2), which needs root, returned Linux error %d", -n)
	}
	return nil
}
