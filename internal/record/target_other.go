//go:build !linux

package record

import (
	"os"

	"cbt/internal/infile"
)

func MarkIncomplete(*os.File) error { return nil }

func UnmarkIncomplete(*os.File) error { return nil }

func IsMarkedIncomplete(*os.File) bool { return false }

// DeviceState knows nothing: the record of a device fits only on Linux.
func DeviceState(*os.File, infile.Stat) (id, writes string) { return "", "" }

// DeviceWrites knows nothing.
func DeviceWrites(infile.Stat) string { return "" }
