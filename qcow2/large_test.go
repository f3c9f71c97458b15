package qcow2

import (
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"cbt/internal/testtool"
	"cbt/sparse"
)

// countingFile counts the bytes read from a file.
type countingFile struct {
	f     io.ReaderAt
	bytes atomic.Int64
}

func (c *countingFile) ReadAt(p []byte, off int64) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.f.ReadAt(p, off)
}

// TestTerabyte bounds what 1 TiB of preallocated clusters costs in bytes read and in memory, with
// tables of 2 MiB.
func TestTerabyte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "i.qcow2")
	testtool.Run(t, "qemu-img", "create", "-f", "qcow2", "-o", "preallocation=metadata,cluster_size=2M", path, "1T")
	testtool.Run(t, "qemu-img", "snapshot", "-c", "one", path)
	testtool.Run(t, "qemu-io", "-c", "write 1M 2M", path)
	testtool.Run(t, "qemu-img", "snapshot", "-c", "two", path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	file := &countingFile{f: f}
	before := allocated()
	img, err := Open(file, st.Size(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	one, two, active := mustSnapshot(t, img, 0), mustSnapshot(t, img, 1), img.Active()
	if got := extents(t, Changed(two, active, 0, 1<<40)); len(got) != 0 {
		t.Error(got)
	}
	if n := file.bytes.Load(); n > 64<<10 {
		t.Errorf("nothing changed: %d bytes read", n)
	}
	file.bytes.Store(0)
	got := extents(t, Changed(one, two, 0, 1<<40))
	if want := (sparse.Extent{Off: 0, Len: 4 << 20, Kind: sparse.Data}); len(got) != 1 || got[0] != want {
		t.Error(got)
	}
	// The old and the new version of one of two tables, and little else.
	if n := file.bytes.Load(); n > 4<<20+64<<10 {
		t.Errorf("one of two tables changed: %d bytes read", n)
	}
	if got := extents(t, active.Extents(0, 1<<40)); len(got) != 1 {
		t.Error(got)
	}
	for _, err := range active.Map(0, 1<<40) {
		if err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, 4096)
	for off := int64(0); off < 1<<40; off += 1<<30 + 5000 {
		if _, err := active.ReadAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	if n := allocated() - before; n > 20<<20 {
		t.Errorf("%d bytes allocated in all", n)
	}
}
