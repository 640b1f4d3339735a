//go:build windows

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// host shows which host this is, and begins the report.
func (p *probe) host() {
	p.report.line("# What Windows does with container layers")
	p.report.table("host", "")
	p.report.row("Windows", windowsVersion())
	p.report.row("architecture", runtime.GOARCH)
	p.report.row("hcsshim", moduleVersion("github.com/Microsoft/hcsshim"))
	p.report.row("go-winio", moduleVersion("github.com/Microsoft/go-winio"))
	p.report.row("Go", runtime.Version())
	p.report.row("elevated", yesNo(windows.GetCurrentProcessToken().IsElevated()))
	p.report.row("file system of "+code(p.work), fileSystem(p.work))
	switch {
	case p.sample:
		p.report.row("base layer", "a sample, for the simulated HCS")
	case p.noBase != nil:
		p.report.row("base layer", notHere(p.noBase))
	default:
		p.report.row("base layer", fmt.Sprintf("%s, with %d parents", code(p.chain[0]), len(p.chain)-1))
	}
	p.report.row("date", time.Now().UTC().Format(time.RFC3339))
}

// windowsVersion returns the version and build, and the names that the registry has for them.
func windowsVersion() string {
	v := windows.RtlGetVersion()
	version := fmt.Sprintf("%d.%d.%d", v.MajorVersion, v.MinorVersion, v.BuildNumber)
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Microsoft\Windows NT\CurrentVersion`, registry.QUERY_VALUE)
	if err != nil {
		return version
	}
	defer key.Close()
	if revision, _, err := key.GetIntegerValue("UBR"); err == nil {
		version += fmt.Sprintf(".%d", revision)
	}
	for _, name := range []string{"ProductName", "DisplayVersion", "EditionID"} {
		if value, _, err := key.GetStringValue(name); err == nil {
			version += ", " + value
		}
	}
	return version
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == path {
				return strings.TrimSpace(module.Version)
			}
		}
	}
	return "unknown"
}

func fileSystem(path string) string {
	pathPtr, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return notHere(err)
	}
	var root, name [windows.MAX_PATH + 1]uint16
	if err := windows.GetVolumePathName(pathPtr, &root[0], uint32(len(root))); err != nil {
		return notHere(err)
	}
	if err := windows.GetVolumeInformation(&root[0], nil, 0, nil, nil, nil, &name[0], uint32(len(name))); err != nil {
		return notHere(err)
	}
	return windows.UTF16ToString(name[:])
}
