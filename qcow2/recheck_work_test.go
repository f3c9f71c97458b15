package qcow2

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"cbt/internal/testtool"
)

// manySnapshots returns an image with n snapshots of one name, ID and L1 table.
func manySnapshots(t *testing.T, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
	testtool.Run(t, "qemu-img", "snapshot", "-c", "daily", path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	at := be.Uint64(b[64:])
	entry := b[at:][:40+be.Uint32(b[at+36:])+uint32(be.Uint16(b[at+12:]))+uint32(be.Uint16(b[at+14:]))]
	entry = append(bytes.Clone(entry), make([]byte, -len(entry)&7)...)
	b = append(b, make([]byte, -len(b)&0xffff)...)
	be.PutUint64(b[64:], uint64(len(b)))
	be.PutUint32(b[60:], uint32(n))
	for i := range n {
		be.PutUint32(entry[16:], uint32(1e9+i))
		b = append(b, entry...)
	}
	return b
}

// counted counts the bytes read.
type counted struct {
	io.ReaderAt
	n atomic.Int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.n.Add(int64(n))
	return n, err
}

// A caller that opens each of many snapshots and rechecks each does not make Recheck read the whole
// table for each.
func TestRecheckWork(t *testing.T) {
	testtool.Need(t, "qemu-img")
	work := func(n int) int64 {
		b := manySnapshots(t, n)
		r := &counted{ReaderAt: bytes.NewReader(b)}
		img, err := Open(r, int64(len(b)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		before := r.n.Load()
		for _, i := range []int{0, n / 2, n - 1} {
			v, err := img.Snapshot(i)
			if err != nil {
				t.Fatal(err)
			}
			if err := img.Recheck(v); err != nil {
				t.Errorf("snapshot %d: %v", i, err)
			}
		}
		return r.n.Load() - before
	}
	few, many := work(10), work(65536)
	if many > 2*few+1<<16 {
		t.Errorf("%d bytes are read to look after 3 of 10 snapshots, %d for 3 of 65,536", few, many)
	}
}
