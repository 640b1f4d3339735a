package mount

import "github.com/moby/sys/mountinfo"

// Info is what Lookup tells of a mount. Mountpoint is its target, Source the
// directory of the layer, Root what the link at the target leads to (the
// layer's volume, or the Files folder of a layer without parents) and FSType
// "windows-layer". The other fields are empty.
type Info = mountinfo.Info
