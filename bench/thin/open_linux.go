package main

import (
	"os"
	"syscall"
)

// open opens a file to read. The reads of the thin package are of whole blocks into buffers of their own pages,
// as O_DIRECT wants them.
func open(name string, direct bool) (*os.File, error) {
	flags := os.O_RDONLY
	if direct {
		flags |= syscall.O_DIRECT
	}
	return os.OpenFile(name, flags, 0)
}
