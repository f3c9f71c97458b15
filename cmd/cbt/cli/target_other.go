//go:build !linux

package cli

import "os"

const openNonblock = 0

func markIncomplete(*os.File) error { return nil }

func unmarkIncomplete(*os.File) error { return nil }

func isMarkedIncomplete(*os.File) bool { return false }

func wasClosed(*os.File) bool { return false }

// deviceState knows nothing: the record of a device fits only on Linux.
func deviceState(*os.File, fileStat) (id, writes string) { return "", "" }

// deviceWrites knows nothing.
func deviceWrites(fileStat) string { return "" }

// splitDevice leaves a device number as it is: it has other parts elsewhere.
func splitDevice(n uint64) (major, minor uint32) { return uint32(n >> 32), uint32(n) }
