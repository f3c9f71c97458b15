// Package hostlvm reads the LVM of the host that it runs on: it finds the
// disks that hold physical volumes, the devices of logical volumes in use, and
// it holds the metadata snapshot of a thin pool for as long as its trees are
// walked.
//
// Nothing is ever written to a device. What changes is the pool's metadata
// snapshot, by two messages to its target, and a lock file. All reads bypass
// the page cache (O_DIRECT): the kernel writes below it. BLKFLSBUF, which
// would drop other processes' cache, is not used.
//
// On other systems the package builds, and Open fails with
// errors.ErrUnsupported.
package hostlvm
