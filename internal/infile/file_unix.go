//go:build unix && !linux

package infile

import (
	"os"
	"syscall"
)

func fileNumbers(_ *os.File, info os.FileInfo) (dev, ino uint64, err error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, os.ErrInvalid
	}
	return uint64(st.Dev), uint64(st.Ino), nil
}

func storedBytes(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return info.Size()
}
