package mount_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed-941ae793/mount"
)

func ExampleMount_GetParentPaths() {
	m := mount.Mount{
		Type:    "windows-layer",
		Source:  `C:\layers\2`,
		Options: []string{"rw", mount.ParentLayerPathsFlag + `["C:\\layers\\1","C:\\layers\\0"]`},
	}
	parents, err := m.GetParentPaths()
	fmt.Println(parents, err)
	// Output: [C:\layers\1 C:\layers\0] <nil>
}

func ExampleMount_Mount() {
	m := mount.Mount{
		Type:    "windows-layer",
		Source:  `C:\layers\2`,
		Options: []string{mount.ParentLayerPathsFlag + `["C:\\layers\\1","C:\\layers\\0"]`},
	}
	if err := m.Mount(`C:\mnt\rootfs`); err != nil {
		log.Fatal(err)
	}
	if err := mount.Unmount(`C:\mnt\rootfs`, 0); err != nil {
		log.Fatal(err)
	}
}

// A snapshotter hands out the mounts; whoever unpacks or diffs a layer needs
// them for a moment.
func ExampleWithTempMount() {
	mounts := []mount.Mount{{Type: "windows-layer", Source: `C:\layers\0`}}
	err := mount.WithTempMount(context.Background(), mounts, func(root string) error {
		fmt.Println("the layer is shown at", root)
		return nil
	})
	if err != nil {
		log.Print(err)
	}
}

// When a runtime starts it clears away what it had mounted when it was killed.
func ExampleCleanupTempMounts() {
	if err := mount.SetTempMountLocation(`C:\ProgramData\runtime\tmpmounts`); err != nil {
		log.Fatal(err)
	}
	failed, err := mount.CleanupTempMounts(0)
	if err != nil {
		log.Fatal(err)
	}
	for _, err := range failed {
		log.Print(err)
	}
}

// A snapshotter closes a layer before it removes its directory, wherever it is
// shown.
func ExampleUnmount() {
	if err := mount.Unmount(`C:\layers\2`, 0); err != nil {
		log.Fatal(err)
	}
}

// An operator who faces "in use by another process" sees what is mounted.
func ExampleList() {
	mounts, err := mount.List()
	for _, m := range mounts {
		fmt.Println(m.Mountpoint, "shows layer", m.Source)
	}
	if err != nil {
		log.Print(err)
	}
}
