package qcow2

import (
	"io"

	"cbt/internal/binfmt"
)

// Tables are read in slices of at most maxSlice bytes, so that the 2 MiB tables of 2 MiB clusters
// need no more memory than those of 64 KiB clusters.
const (
	maxSlice    = 64 << 10
	tableCache  = 4 << 20
	decodeCache = 4 << 20 // room for at least two clusters of the largest size
)

// file is an image file: the source of its bytes, and their number.
type file struct {
	r    io.ReaderAt
	size int64
}

// table reads n bytes of a table at off; n must not exceed limit. what names the table in errors.
func (f file) table(what string, off, n, limit uint64) ([]byte, error) {
	return binfmt.Read(f.r, f.size, what, off, n, limit)
}

// fill reads len(p) bytes of a table at off.
func (f file) fill(what string, p []byte, off uint64) error {
	return binfmt.Fill(f.r, f.size, what, p, off)
}

// slice identifies a part of a table, as a key of the cache.
type slice struct {
	off uint64
	n   int
}

// cachedTable is table for slices that are likely to be wanted again. The bytes it returns must not
// be changed.
func (img *Image) cachedTable(what string, off uint64, n int) ([]byte, error) {
	return img.tables.Get(slice{off, n}, int64(n), func() ([]byte, error) {
		return img.file.table(what, off, uint64(n), maxSlice)
	})
}
