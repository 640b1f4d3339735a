package hcstest

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// System calls of Linux, and their flags.
const (
	mount     = 165
	bind      = 0x1000 // MS_BIND
	remount   = 0x20   // MS_REMOUNT
	readOnly  = 0x1    // MS_RDONLY
	umount2   = 166
	detach    = 0x2 // MNT_DETACH
	statx     = 332
	mountRoot = 0x2000 // STATX_ATTR_MOUNT_ROOT
)

// linux makes a system call of Linux, as a program can under Wine too, which runs it as
// it is. It returns a Linux error code, or 0 from calls that give nothing else.
//
//go:uintptrescapes
func linux(call, a, b, c, d, e uintptr) uintptr

// show mounts the source of a binding at its root. Wine takes what is mounted for a
// plain directory, as long as it is on the same file system. A kill between the two
// calls leaves a read-only binding writable.
func show(b Binding) error {
	source, err := unixPath(b.Source)
	if err != nil {
		return err
	}
	root, err := unixPath(b.Root)
	if err != nil {
		return err
	}
	if errno := linux(mount, source, root, 0, bind, 0); errno != 0 {
		return fmt.Errorf("mount(2), which takes root, gives Linux error %d", errno)
	}
	if !b.ReadOnly {
		return nil
	}
	if errno := linux(mount, 0, root, 0, remount|bind|readOnly, 0); errno != 0 {
		linux(umount2, root, detach, 0, 0, 0)
		return fmt.Errorf("mount(2), for read-only, gives Linux error %d", errno)
	}
	return nil
}

// shown reports whether a binding is shown at the root.
func shown(root string) bool {
	path, err := unixPath(root)
	if err != nil {
		return false
	}
	var stat [256]byte
	errno := linux(statx, 0, path, 0, 0, uintptr(unsafe.Pointer(&stat)))
	return errno == 0 && binary.LittleEndian.Uint64(stat[8:])&mountRoot != 0 // stx_attributes
}

// hide ends what shown reports.
func hide(root string) error {
	path, err := unixPath(root)
	if err != nil {
		return err
	}
	if errno := linux(umount2, path, detach, 0, 0, 0); errno != 0 {
		return fmt.Errorf("failed to hide what is bound to %s: umount2(2) gives Linux error %d", root, errno)
	}
	return nil
}

var getUnixFileName = windows.NewLazySystemDLL("kernel32.dll").NewProc("wine_get_unix_file_name")

// unixPath returns the address of the Unix path of a file, which ends with a NUL and is
// never freed.
func unixPath(path string) (uintptr, error) {
	if err := getUnixFileName.Find(); err != nil {
		return 0, fmt.Errorf("not under Wine: %w", err)
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	unix, _, err := getUnixFileName.Call(uintptr(unsafe.Pointer(name)))
	if unix == 0 {
		return 0, fmt.Errorf("failed to get the Unix path of %s: %w", path, err)
	}
	return unix, nil
}
