package mount

import "github.com/moby/sys/mountinfo"

// Info is what Lookup tells of a mount. Mountpoint is its target, Source the
// directory of the layer, Root what the link at the target leads to (the volume of
// a writable layer, the directory of a read-only one, or the Files folder of one
// without parents) and FSType
// "windows-layer". The other fields are empty.
type Info = mountinfo.Info
