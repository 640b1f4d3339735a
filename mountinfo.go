package mount

import "github.com/moby/sys/mountinfo"

// Info is what Lookup and List return of a mount. Mountpoint is its target, and Source the directory of the
// layer. Root is what is shown at the target: the volume of a writable layer, the directory of a read-only
// one, or the Files folder of one without parents; it is empty in the record of a mount that was killed
// early. FSType is "windows-layer". Options is "ro" where nothing can be written through the target. All
// other fields are empty.
type Info = mountinfo.Info
