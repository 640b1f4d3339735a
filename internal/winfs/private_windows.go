package winfs

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"github.com/pkg/errors"
	"golang.org/x/sys/windows"

	"github.com/seed-941ae793/mount/internal/winpath"
)

// private is the security descriptor of this package's own files. Administrators own the files, and only
// Administrators and SYSTEM have access. P keeps a file from inheriting more access from its directory.
var private = securityOf("O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)")

// securityOf returns a function that returns a security descriptor. It panics if Windows does not know the text,
// which is a constant, as regexp.MustCompile does: a file without the descriptor would be open to others.
func securityOf(sddl string) func() *windows.SecurityAttributes {
	return sync.OnceValue(func() *windows.SecurityAttributes {
		sd, err := windows.SecurityDescriptorFromString(sddl)
		if err != nil {
			panic(err)
		}
		sa := &windows.SecurityAttributes{SecurityDescriptor: sd}
		sa.Length = uint32(unsafe.Sizeof(*sa))
		return sa
	})
}

func makePrivateDir(path string) error {
	return withPath("mkdir", path, func(p *uint16) error { return windows.CreateDirectory(p, private()) })
}

// OpenPrivateDir opens the directory at path. If there is none, OpenPrivateDir creates one that only
// Administrators and SYSTEM can use. If the directory inherits its access list, for example because an
// administrator has created it by hand, OpenPrivateDir gives it the access list that a new directory gets.
//
// While the directory is open nobody can rename or remove it or a directory above it ([MS-FSA] 2.1.5.1.2.2),
// because OpenPrivateDir does not share deletion. The error matches ErrUntrusted if the owner is not trusted,
// and ERROR_DIRECTORY if path is a link or a file.
func OpenPrivateDir(path string) (*os.File, error) {
	if err := MakePrivateDir(path); err != nil {
		return nil, err
	}
	const access = windows.FILE_LIST_DIRECTORY | windows.FILE_READ_ATTRIBUTES | windows.READ_CONTROL | windows.WRITE_DAC
	handle, err := createFile(path, access, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		if errors.Is(err, os.ErrPermission) && CheckOwner(path) != nil {
			err = errors.WithStack(fmt.Errorf("%w: %w", ErrUntrusted, err))
		}
		return nil, err
	}
	sd, err := checkOpen(handle, path)
	if err == nil {
		err = errors.WithMessage(checkDirectory(handle), path)
	}
	if err == nil {
		if control, _, controlErr := sd.Control(); controlErr != nil || control&windows.SE_DACL_PROTECTED == 0 {
			err = errors.Wrapf(setAccess(handle, private()), "protect %s", path)
		}
	}
	if err != nil {
		_ = windows.CloseHandle(handle)
		return nil, err
	}
	return os.NewFile(uintptr(handle), path), nil
}

func setAccess(file windows.Handle, sa *windows.SecurityAttributes) error {
	// SetSecurityInfo would also change the files in a directory, and might follow a link there.
	const what = windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION
	return errors.WithStack(windows.SetKernelObjectSecurity(file, what, sa.SecurityDescriptor))
}

// OpenPrivate opens a file that this package has created. If the file is absent and flag has os.O_CREATE,
// OpenPrivate creates it. If flag has os.O_EXCL as well, the file must be absent. OpenPrivate opens a link itself
// and does not follow it. The error matches ErrUntrusted if the owner is not trusted.
func OpenPrivate(path string, flag int) (*os.File, error) {
	disposition := map[int]uint32{
		0: windows.OPEN_EXISTING, os.O_CREATE: windows.OPEN_ALWAYS, os.O_CREATE | os.O_EXCL: windows.CREATE_NEW,
	}[flag]
	const access = windows.GENERIC_READ | windows.GENERIC_WRITE | windows.DELETE
	handle, err := createFile(path, access, shareAll, private(), disposition, windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return nil, err
	}
	if disposition != windows.CREATE_NEW {
		if _, err := checkOpen(handle, path); err != nil {
			_ = windows.CloseHandle(handle)
			return nil, err
		}
	}
	return os.NewFile(uintptr(handle), path), nil
}

// RemoveOpen removes a file that OpenPrivate has opened, and closes it. If it returns an error of the removal,
// the file is still open.
func RemoveOpen(file *os.File) error {
	err := removeOpen(windows.Handle(file.Fd()))
	if err != nil {
		return &os.PathError{Op: "remove", Path: file.Name(), Err: err}
	}
	return file.Close()
}

// RemoveUntrusted removes the file at path if its owner is not trusted. Otherwise it does nothing and returns nil:
// another process may have replaced the file.
func RemoveUntrusted(path string) error {
	const access = windows.DELETE | windows.READ_CONTROL
	return withFile("remove", path, access, windows.FILE_FLAG_OPEN_REPARSE_POINT, func(file windows.Handle) error {
		if _, err := checkOpen(file, path); !errors.Is(err, ErrUntrusted) {
			return err
		}
		return removeOpen(file)
	})
}

// MoveUntrusted renames the directory at from to to. If the owner of the directory is trusted, MoveUntrusted does
// nothing and returns nil: it may have live mounts.
//
// MoveUntrusted renames the very directory that it has checked: it keeps the directory open without sharing
// deletion, so nobody else can rename it in between. If a process uses the directory as its mount table,
// MoveUntrusted cannot open it.
func MoveUntrusted(from, to string) error {
	handle, err := createFile(from, windows.DELETE, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(handle)
	if CheckOwner(from) == nil {
		return nil
	}
	name, err := windows.UTF16FromString(to)
	if err != nil {
		return &os.PathError{Op: "move aside", Path: from, Err: err}
	}
	var info struct { // FILE_RENAME_INFO
		replace uint32
		root    windows.Handle
		length  uint32 // of the name, in bytes and without the NUL
		name    [winpath.Max]uint16
	}
	info.length = uint32(2 * (copy(info.name[:], name) - 1))
	if err := windows.SetFileInformationByHandle(handle, windows.FileRenameInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info))); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// CheckOwner returns nil if path is a directory whose owner is trusted. Otherwise it returns an error that matches
// ErrUntrusted. It also does so if it cannot read who the owner is: an untrusted owner can keep everybody else
// from reading that.
func CheckOwner(path string) error {
	if info, err := os.Lstat(path); err == nil && info.IsDir() { // not for a link: the next call would follow it
		// Do not open the directory: CreateFile asks for more rights than an owner always has.
		sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
		if err == nil && checkOwner(sd, path) == nil {
			return nil
		}
	}
	return errors.Wrapf(ErrUntrusted, "owner of %s", path)
}

// checkOpen returns an error if the owner of an open file is not trusted, and otherwise its owner and access list.
func checkOpen(file windows.Handle, path string) (*windows.SECURITY_DESCRIPTOR, error) {
	const what = windows.OWNER_SECURITY_INFORMATION | windows.DACL_SECURITY_INFORMATION
	sd, err := windows.GetSecurityInfo(file, windows.SE_FILE_OBJECT, what)
	if err != nil {
		return nil, &os.PathError{Op: "get owner", Path: path, Err: err}
	}
	return sd, checkOwner(sd, path)
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
	return errors.Wrapf(ErrUntrusted, "%s belongs to %s", path, owner)
}

var currentUser = sync.OnceValues(func() (*windows.Tokenuser, error) {
	return windows.GetCurrentProcessToken().GetTokenUser()
})
