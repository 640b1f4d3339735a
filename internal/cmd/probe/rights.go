//go:build windows

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/windows"
)

// mountAccess is the access list that Mount gives a link.
const mountAccess = "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FRFX;;;WD)(A;;FRFX;;;S-1-15-2-1)"

// deeds are what somebody may do to a link. Nothing is changed: an access is only opened.
var deeds = []struct {
	name string
	do   func(link string) error
}{
	{"follow it", func(link string) error { _, err := os.Stat(link + `\`); return err }},
	{"read it", readLink},
	{"write its attributes, which is enough to turn it", func(link string) error { return open(link, windows.FILE_WRITE_ATTRIBUTES) }},
	{"delete it", func(link string) error { return open(link, windows.DELETE) }},
	{"change its access list", func(link string) error { return open(link, windows.WRITE_DAC) }},
	{"delete it by a right to its directory", func(link string) error { return open(filepath.Dir(link), fileDeleteChild) }},
	{"make another one beside it", func(link string) error { return open(filepath.Dir(link), fileAddSubdirectory) }},
}

const fileAddSubdirectory, fileDeleteChild = 0x4, 0x40

// rights shows what a user who is no administrator may do to a link that an administrator made.
func (p *probe) rights() {
	p.report.title("What an ordinary user may do to a link")
	p.report.text("Asked as the user of this program, with a restricted token: without the group of administrators and without privileges. " +
		"nil means that it is allowed. The link is in " + code(p.work) + ".")
	p.report.table("deed", "a link as it is made", "one with the access list of Mount")
	shown, link := filepath.Join(p.work, "shown"), filepath.Join(p.work, "link")
	defer p.made.add("remove "+shown, func() error { return removePaths(shown) })()
	if err := os.Mkdir(shown, 0o777); err != nil {
		p.report.row("any", notHere(err), "")
		return
	}
	unlink, err := p.makeLink(shown, link)
	defer unlink()
	if err != nil {
		p.report.row("any", notHere(err), "")
		return
	}
	before, made := p.tryDeeds(link), accessOf(link)
	err = protect(link)
	after := p.tryDeeds(link)
	for i, deed := range deeds {
		if err != nil {
			after[i] = notHere(err)
		}
		p.report.row(deed.name, before[i], after[i])
	}
	p.report.row("owner and access list", made, accessOf(link))
}

// tryDeeds returns what came of each deed.
func (p *probe) tryDeeds(link string) []string {
	results := make([]string, len(deeds))
	err := asOrdinaryUser(func() {
		for i, deed := range deeds {
			results[i] = result(deed.do(link))
		}
	})
	for i := range results {
		if err != nil {
			results[i] = notHere(err)
		}
	}
	return results
}

// asOrdinaryUser calls f as the user of this process, to whom being in the group of administrators
// gives nothing meanwhile.
func asOrdinaryUser(f func()) error {
	var token, restricted windows.Token
	const access = windows.TOKEN_DUPLICATE | windows.TOKEN_QUERY | windows.TOKEN_ASSIGN_PRIMARY
	if err := windows.OpenProcessToken(windows.CurrentProcess(), access, &token); err != nil {
		return fmt.Errorf("OpenProcessToken: %w", err)
	}
	defer token.Close()
	administrators, err := windows.CreateWellKnownSid(windows.WinBuiltinAdministratorsSid)
	if err != nil {
		return fmt.Errorf("CreateWellKnownSid: %w", err)
	}
	disable := windows.SIDAndAttributes{Sid: administrators}
	const disableMaxPrivilege = 1
	advapi32 := windows.NewLazySystemDLL("advapi32.dll")
	create, impersonate := advapi32.NewProc("CreateRestrictedToken"), advapi32.NewProc("ImpersonateLoggedOnUser")
	if err := errors.Join(create.Find(), impersonate.Find()); err != nil {
		return err
	}
	if ok, _, err := create.Call(uintptr(token), disableMaxPrivilege, 1, uintptr(unsafe.Pointer(&disable)),
		0, 0, 0, 0, uintptr(unsafe.Pointer(&restricted))); ok == 0 {
		return fmt.Errorf("CreateRestrictedToken: %w", err)
	}
	defer restricted.Close()
	runtime.LockOSThread() // whose user it is. It is not used again when it cannot become itself
	if ok, _, err := impersonate.Call(uintptr(restricted)); ok == 0 {
		runtime.UnlockOSThread()
		return fmt.Errorf("ImpersonateLoggedOnUser: %w", err)
	}
	f()
	if err := windows.RevertToSelf(); err != nil {
		panic(fmt.Sprintf("RevertToSelf: %v", err)) // nothing could be taken away as this user
	}
	runtime.UnlockOSThread()
	return nil
}

func open(path string, access uint32) error {
	return withFile(path, access, func(windows.Handle) error { return nil })
}

func readLink(link string) error {
	return withFile(link, windows.FILE_READ_ATTRIBUTES, func(file windows.Handle) error {
		data := make([]byte, windows.MAXIMUM_REPARSE_DATA_BUFFER_SIZE)
		var n uint32
		return windows.DeviceIoControl(file, windows.FSCTL_GET_REPARSE_POINT, nil, 0, &data[0], uint32(len(data)), &n, nil)
	})
}

// protect gives a link, and not what it leads to, the access list of Mount. SetSecurityInfo would
// go on to what is in a directory, and perhaps through the link.
func protect(link string) error {
	return withFile(link, windows.WRITE_DAC, func(file windows.Handle) error {
		sd, err := windows.SecurityDescriptorFromString(mountAccess)
		if err != nil {
			return err
		}
		const what = windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION
		return windows.SetKernelObjectSecurity(file, what, sd)
	})
}

// accessOf returns the owner and the access list of a link, and not of what it leads to.
func accessOf(link string) (text string) {
	err := withFile(link, windows.READ_CONTROL, func(file windows.Handle) error {
		sd, err := windows.GetSecurityInfo(file, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
		if err == nil {
			text = code(sd.String())
		}
		return err
	})
	if err != nil {
		return notHere(err)
	}
	return text
}

// withFile calls do with a file or directory, or a link itself, open.
func withFile(path string, access uint32, do func(windows.Handle) error) error {
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	const flags = windows.FILE_FLAG_OPEN_REPARSE_POINT | windows.FILE_FLAG_BACKUP_SEMANTICS
	pathPtr, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	file, err := windows.CreateFile(pathPtr, access, share, nil, windows.OPEN_EXISTING, flags, 0)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(file)
	return do(file)
}
