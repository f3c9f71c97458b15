//go:build !linux

package infile

// SplitDevice leaves a device number as it is: it has other parts elsewhere.
func SplitDevice(n uint64) (major, minor uint32) { return uint32(n >> 32), uint32(n) }
