package qcow2

import (
	"io"

	"cbt/internal/binfmt"
)

// Tables are read in slices of at most maxSlice bytes, so that the 2 MiB
// tables of 2 MiB clusters need no more memory than those of 64 KiB ones.
const (
	maxSlice    = 64 << 10
	tableCache  = 4 << 20
	decodeCache = 4 << 20 // at least two clusters, as large as they get
)

// file is an image file: where its bytes come from and how many there are.
type file struct {
	r    io.ReaderAt
	size int64
}

// table reads n bytes of a table at off, no more than limit.
func (f file) table(what string, off, n, limit uint64) ([]byte, error) {
	return binfmt.Read(f.r, f.size, what, off, n, limit)
}

// fill reads len(p) bytes of a table at off.
func (f file) fill(what string, p []byte, off uint64) error {
	return binfmt.Fill(f.r, f.size, what, p, off)
}

// slice is a part of a table, as a key.
type slice struct {
	off uint64
	n   int
}

// cachedTable is table for slices that are likely to be wanted again. Nobody
// may write to what it returns.
func (img *Image) cachedTable(what string, off uint64, n int) ([]byte, error) {
	return img.tables.Get(slice{off, n}, int64(n), func() ([]byte, error) {
		return img.file.table(what, off, uint64(n), maxSlice)
	})
}
