package mount

import "github.com/moby/sys/mountinfo"

// Info is what Lookup and List tell of a mount. Mountpoint is its target, Source the
// directory of the layer, Root what the link at the target leads to (the volume of a
// writable layer, the directory of a read-only one, or the Files folder of one without
// parents; "" until HCS has told it) and FSType "windows-layer". The rest is empty.
type Info = mountinfo.Info
