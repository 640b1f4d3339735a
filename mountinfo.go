package mount

import "github.com/moby/sys/mountinfo"

// Info is what Lookup and List tell of a mount. Mountpoint is its target, Source the
// directory of the layer, Root what is shown at the target (the volume of a writable layer,
// the directory of a read-only one, or the Files folder of one without parents; "" until HCS
// has told it), FSType "windows-layer" and Options "ro" where nothing can be written through
// the target. The rest is empty.
type Info = mountinfo.Info
