package mount

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"
)

// private is the security of everything in the table: it belongs to the
// Administrators, and only they and SYSTEM have access, whatever the directory
// above would pass on (P).
var private = sync.OnceValues(func() (*windows.SecurityAttributes, error) {
	sd, err := windows.SecurityDescriptorFromString("O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)")
	if err != nil {
		return nil, err
	}
	return &windows.SecurityAttributes{
		Length:             uint32(unsafe.Sizeof(windows.SecurityAttributes{})),
		SecurityDescriptor: sd,
	}, nil
})

func createPrivateDir(path string) error {
	sa, err := private()
	if err != nil {
		return err
	}
	pathPtr, err := windows.UTF16PtrFromString(path)
	if err == nil {
		err = windows.CreateDirectory(pathPtr, sa)
	}
	if err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return nil
}

// checkPrivateDir makes sure that a directory of the table is no link and belongs
// to somebody trusted.
func checkPrivateDir(path string) error {
	handle, err := openExisting(path, windows.READ_CONTROL|windows.WRITE_DAC|windows.FILE_READ_ATTRIBUTES, windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(handle)
	if err := checkDirectory(handle); errors.Is(err, windows.ERROR_DIRECTORY) {
		return errors.Errorf("%s is not a directory", path)
	} else if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	sd, err := checkOwner(handle, path)
	if err != nil {
		return err
	}
	if control, _, err := sd.Control(); err == nil && control&windows.SE_DACL_PROTECTED != 0 {
		return nil
	}
	// An administrator made it by hand, and it has the access of its parent.
	sa, err := private()
	if err != nil {
		return err
	}
	dacl, _, err := sa.SecurityDescriptor.DACL()
	if err != nil {
		return err
	}
	err = whileChanging(func() error {
		return windows.SetSecurityInfo(handle, windows.SE_FILE_OBJECT,
			windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	})
	return errors.Wrapf(err, "failed to protect %s", path)
}

// whileChanging repeats an access to the security of a file that another process
// changes at the same time: it has grown since its size was asked for. Wine 8,
// where every process protects the table, reports that now and then. The bound
// keeps a system that always says so from hanging the caller.
func whileChanging(access func() error) error {
	for tries := 1; ; tries++ {
		err := access()
		if !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) || tries == 1000 {
			return err
		}
	}
}

// checkOwner refuses a file that belongs to anybody but the Administrators,
// SYSTEM and the user of this process, and returns its security.
func checkOwner(handle windows.Handle, path string) (*windows.SECURITY_DESCRIPTOR, error) {
	var sd *windows.SECURITY_DESCRIPTOR
	err := whileChanging(func() (err error) {
		sd, err = windows.GetSecurityInfo(handle, windows.SE_FILE_OBJECT,
			windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "get owner", Path: path, Err: err}
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return nil, &os.PathError{Op: "get owner", Path: path, Err: err}
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, &os.PathError{Op: "get owner", Path: path, Err: err}
	}
	if owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.IsWellKnown(windows.WinLocalSystemSid) || owner.Equals(user.User.Sid) {
		return sd, nil
	}
	return nil, errors.Wrapf(os.ErrPermission, "%s belongs to %s and cannot be trusted", path, owner)
}

func createPrivate(path string) (*os.File, error) {
	handle, err := openFile(path, windows.GENERIC_WRITE, windows.FILE_SHARE_READ|windows.FILE_SHARE_DELETE, windows.CREATE_NEW)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(handle), path), nil
}

func openPrivate(path string) (*os.File, error) {
	handle, err := openFile(path, windows.GENERIC_READ, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, windows.OPEN_EXISTING)
	if err != nil {
		return nil, err
	}
	if _, err := checkOwner(handle, path); err != nil {
		_ = windows.CloseHandle(handle)
		return nil, err
	}
	return os.NewFile(uintptr(handle), path), nil
}

// openFile opens a file of the table, and not what a link in its place leads to.
func openFile(path string, access, share, disposition uint32) (windows.Handle, error) {
	sa, err := private()
	if err != nil {
		return 0, err
	}
	pathPtr, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	handle, err := windows.CreateFile(pathPtr, access, share, sa, disposition,
		windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return handle, nil
}

// lockFile locks one byte of the file "lock" in dir, far behind its end, where
// Windows allows it. Names that differ lock different bytes, so that one file
// serves all of them. The lock goes with its handle when a process dies.
func lockFile(dir, name string) (unlock func(), err error) {
	path := filepath.Join(dir, "lock")
	handle, err := openFile(path, windows.GENERIC_READ|windows.GENERIC_WRITE,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, windows.OPEN_ALWAYS)
	if err != nil {
		return nil, err
	}
	offset := lockOffset(name)
	overlapped := &windows.Overlapped{Offset: uint32(offset), OffsetHigh: uint32(offset >> 32)}
	if err := windows.LockFileEx(handle, windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, overlapped); err != nil {
		_ = windows.CloseHandle(handle)
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return func() {
		// Closing unlocks too, but not at once. No error is of use here: the
		// lock is gone in the end.
		_ = windows.UnlockFileEx(handle, 0, 1, 0, overlapped)
		_ = windows.CloseHandle(handle)
	}, nil
}

// lockOffset spreads names over the offsets that a file can have, 63 bits.
func lockOffset(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(sum[:]) >> 1
}
