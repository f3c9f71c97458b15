package qcow2

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"cbt/internal/testimg"
	"cbt/internal/testtool"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// TestHolesOfPreallocatedImage: with Holes, the parts of a preallocated image that were never
// written are known to be zeros.
func TestHolesOfPreallocatedImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "i.qcow2")
	testtool.Run(t, "qemu-img", "create", "-f", "qcow2", "-o", "preallocation=metadata", path, "4M")
	testtool.Run(t, "qemu-io", "-c", "write -P 1 1M 64k", "-c", "write -P 2 3M 128k", path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := sparse.OpenRaw(f)
	if err != nil {
		t.Fatal(err)
	}
	img, err := Open(f, raw.Size(), Options{Holes: raw.Extents})
	if err != nil {
		t.Fatal(err)
	}
	v := img.Active()
	got := extents(t, v.Extents(0, v.Size()))
	data, err := sparse.Total(sparse.Select(sparse.Of(got...), func(e sparse.Extent) bool { return e.Kind == sparse.Data }))
	// The end of the file was written when the file was extended to there.
	if err != nil || data < 192<<10 || data > 320<<10 {
		t.Errorf("%d bytes of data: %v", data, got)
	}
	sparsetest.View(t, v, mustRead(t, v))
}

func TestHoles(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 12, Size: 10 << 12})
	host := q.Write(0, bytes.Repeat([]byte{1}, 8<<12))
	q.Compress(9<<12, []byte("x"))
	q.Put(host+1000, make([]byte, 5000))
	b := q.Bytes()
	var asked atomic.Int64 // View reads at once
	all := sparse.Of(sparse.Extent{Off: 0, Len: host + 1000, Kind: sparse.Data}, sparse.Extent{Off: host + 1000, Len: 5000, Kind: sparse.Hole},
		sparse.Extent{Off: host + 6000, Len: int64(len(b)) - host - 6000, Kind: sparse.Data})
	img, err := openBytes(b, Options{Holes: func(off, n int64) sparse.Seq {
		asked.Add(1)
		return sparse.Clip(all, off, n)
	}})
	if err != nil {
		t.Fatal(err)
	}
	v := img.Active()
	want := []sparse.Extent{{Off: 0, Len: 1000, Kind: sparse.Data}, {Off: 1000, Len: 5000, Kind: sparse.Zero}, {Off: 6000, Len: 8<<12 - 6000, Kind: sparse.Data},
		{Off: 8 << 12, Len: 1 << 12, Kind: sparse.Hole}, {Off: 9 << 12, Len: 1 << 12, Kind: sparse.Data}}
	if got := extents(t, v.Extents(0, v.Size())); !slices.Equal(got, want) || asked.Load() != 3 {
		t.Errorf("asked %d times: %v", asked.Load(), got)
	}
	sparsetest.View(t, v, mustRead(t, v))

	// A sequence that gives no answer does no harm.
	for _, s := range []sparse.Seq{sparse.Of(), sparse.Fail(errors.New("no"))} {
		img, err := openBytes(b, Options{Holes: func(off, n int64) sparse.Seq { return s }})
		if err != nil {
			t.Fatal(err)
		}
		v := img.Active()
		if got := extents(t, v.Extents(0, 8<<12)); len(got) != 1 || got[0].Kind != sparse.Data {
			t.Error(got)
		}
	}
}
