package mount

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"
)

// heldDir is the directory of the table, held open. While a directory is open for reading and deletion
// is not shared, nobody can rename or remove it, nor one above it ([MS-FSA] 2.1.5.1.2.2).
type heldDir struct{ dir, locks *os.File }

// holdDir makes the directory of the table and its content, or makes sure that what is there can be
// trusted: anybody may make directories in %ProgramData%.
func holdDir(dir string) (*heldDir, error) {
	held, err := openPrivateDir(dir)
	if errors.Is(err, os.ErrPermission) && !hasTrustedOwner(dir) {
		err = errors.WithStack(fmt.Errorf("%w: %w", errUntrusted, err))
	}
	if err != nil {
		return nil, err
	}
	h := &heldDir{dir: held}
	if err := h.fill(); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// hasTrustedOwner reports whether dir is a directory of an owner whom the table trusts, also when it cannot
// be opened. An untrusted owner can keep everybody else from reading even who that is.
func hasTrustedOwner(dir string) bool {
	if !isDirectory(dir) {
		return false // of a link, the next call would look at what it leads to
	}
	// CreateFile would ask for more rights than an owner always has.
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	return err == nil && checkOwner(sd, dir) == nil
}

func (h *heldDir) fill() error {
	if err := checkContent(h.dir.Name()); err != nil {
		return err
	}
	if err := protect(h.dir); err != nil {
		return err
	}
	for _, name := range []string{"layers", "targets"} {
		dir, err := openPrivateDir(filepath.Join(h.dir.Name(), name))
		if err != nil {
			return err
		}
		err = protect(dir)
		_ = dir.Close()
		if err != nil {
			return err
		}
	}
	var err error
	h.locks, err = openPrivate(filepath.Join(h.dir.Name(), "lock"), true)
	return err
}

func (h *heldDir) close() {
	_ = h.dir.Close()
	_ = h.locks.Close()
}

// openPrivateDir makes a directory that only Administrators and SYSTEM can use, or opens the one that is
// there. It refuses a link, and a directory of an untrusted owner.
func openPrivateDir(path string) (*os.File, error) {
	sa, err := private()
	if err == nil {
		err = withPath("mkdir", path, func(p *uint16) error { return windows.CreateDirectory(p, sa) })
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	handle, err := createFile(path, windows.FILE_LIST_DIRECTORY|windows.FILE_READ_ATTRIBUTES|windows.READ_CONTROL|windows.WRITE_DAC,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(handle), path)
	if err = checkTrust(dir); err == nil {
		err = errors.WithMessage(checkDirectory(handle), path)
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// private is the security of everything in the table: Administrators own it, and only they and SYSTEM
// have access. P keeps it from inheriting more from the directory above.
var private = sync.OnceValues(func() (*windows.SecurityAttributes, error) {
	return securityOf("O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)")
})

func securityOf(sddl string) (*windows.SecurityAttributes, error) {
	sd, err := windows.SecurityDescriptorFromString(sddl)
	sa := &windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(*sa))
	return sa, errors.WithStack(err)
}

// protect gives a directory the access list of the table, unless its own is protected. An administrator
// may have made it by hand, and it then has the access list of its parent.
func protect(dir *os.File) error {
	handle := windows.Handle(dir.Fd())
	sd, err := windows.GetSecurityInfo(handle, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err == nil {
		control, _, controlErr := sd.Control()
		if controlErr == nil && control&windows.SE_DACL_PROTECTED != 0 {
			return nil
		}
		var sa *windows.SecurityAttributes
		if sa, err = private(); err == nil {
			err = setAccess(handle, sa)
		}
	}
	return errors.Wrapf(err, "failed to protect %s", dir.Name())
}

func setAccess(file windows.Handle, sa *windows.SecurityAttributes) error {
	// SetSecurityInfo would also change what is in a directory, and perhaps follow a link there.
	const what = windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION
	return errors.WithStack(windows.SetKernelObjectSecurity(file, what, sa.SecurityDescriptor))
}

// checkTrust refuses a file that belongs to anybody but Administrators, SYSTEM and the user of this
// process.
func checkTrust(file *os.File) error {
	sd, err := windows.GetSecurityInfo(windows.Handle(file.Fd()), windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return &os.PathError{Op: "get owner", Path: file.Name(), Err: err}
	}
	return checkOwner(sd, file.Name())
}

func checkOwner(sd *windows.SECURITY_DESCRIPTOR, path string) error {
	user, err := currentUser()
	if err != nil {
		return errors.WithStack(err)
	}
	owner, _, err := sd.Owner()
	if err != nil || owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.IsWellKnown(windows.WinLocalSystemSid) || owner.Equals(user.User.Sid) {
		return errors.WithStack(err)
	}
	return errors.Wrapf(errUntrusted, "%s belongs to %s", path, owner)
}

var currentUser = sync.OnceValues(func() (*windows.Tokenuser, error) {
	return windows.GetCurrentProcessToken().GetTokenUser()
})

// openPrivate opens a file of the table, or makes it where it is absent and create is set. It opens a link
// itself, and not what that leads to.
func openPrivate(path string, create bool) (*os.File, error) {
	disposition := uint32(windows.OPEN_EXISTING)
	if create {
		disposition = windows.OPEN_ALWAYS
	}
	sa, err := private()
	if err != nil {
		return nil, err
	}
	handle, err := createFile(path, windows.GENERIC_READ|windows.GENERIC_WRITE, shareAll, sa, disposition,
		windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(handle), path), nil
}

// moveDurably moves a file into place, in the place of what is there. The move is on the disk when it
// returns.
func moveDurably(from, to string) error {
	return withPaths("rename", from, to, func(from, to *uint16) error {
		return windows.MoveFileEx(from, to, windows.MOVEFILE_REPLACE_EXISTING|windows.MOVEFILE_WRITE_THROUGH)
	})
}

// lock locks one byte of the file of locks, which may lie beyond the end of the file. Each name has a byte
// of its own, so that one file serves all of them. Windows drops the lock of a process that dies.
func (h *heldDir) lock(name string) (unlock func(), err error) {
	sum := sha256.Sum256([]byte(name))
	offset := binary.LittleEndian.Uint64(sum[:]) >> 1 // a file has 63 bits of them
	at := windows.Overlapped{Offset: uint32(offset), OffsetHigh: uint32(offset >> 32)}
	lock := func(file *os.File, flags uint32) error {
		err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|flags, 0, 1, 0, &at)
		return os.NewSyscallError("LockFileEx", err)
	}
	err = lock(h.locks, windows.LOCKFILE_FAIL_IMMEDIATELY)
	if !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		// An error of unlocking is of no use: the lock ends with the process at the latest.
		return func() { _ = windows.UnlockFileEx(windows.Handle(h.locks.Fd()), 0, 1, 0, &at) }, err
	}
	// Another process has the lock. Waiting takes a handle of its own: while one goroutine waits, no
	// other can lock or unlock by the same handle.
	own, err := openPrivate(h.locks.Name(), false)
	if err != nil {
		return nil, err
	}
	if err := lock(own, 0); err != nil {
		_ = own.Close()
		return nil, err
	}
	return func() {
		_ = windows.UnlockFileEx(windows.Handle(own.Fd()), 0, 1, 0, &at) // closing alone unlocks later
		_ = own.Close()
	}, nil
}
