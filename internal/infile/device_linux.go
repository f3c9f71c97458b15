package infile

import "golang.org/x/sys/unix"

// SplitDevice takes a device number apart.
func SplitDevice(n uint64) (major, minor uint32) { return unix.Major(n), unix.Minor(n) }
