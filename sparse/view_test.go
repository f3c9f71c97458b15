package sparse_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

func TestZerosAndResize(t *testing.T) {
	for _, size := range []int64{0, 1, 5000, 300_000} {
		sparsetest.View(t, sparse.Zeros(size), make([]byte, size))
		m := newMemView(size, block, 6)
		sparsetest.View(t, m, m.data)
		for _, to := range []int64{0, 1, size / 2, size, size + 1, size + 100_000} {
			want := append(bytes.Clone(m.data), make([]byte, 100_000)...)[:to]
			sparsetest.View(t, sparse.Resize(m, to), want)
		}
	}
}

func TestResizeErrors(t *testing.T) {
	m := newMemView(1<<20, block, 6)
	m.short, m.failExtents = 500_000, 500_000
	v := sparse.Resize(m, 2<<20)
	if n, err := v.ReadAt(make([]byte, 1<<20), 0); err != io.ErrUnexpectedEOF || n != 500_000 {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
	if all, err := gather(t, v.Extents(0, v.Size())); !errors.Is(err, errTest) || len(all) > 0 && all[len(all)-1].End() > 500_000 {
		t.Errorf("Extents = %v, %v", all, err)
	}
	for _, size := range []int64{-1, -4096} {
		if all, err := sparse.Collect(sparse.Zeros(10).Extents(0, size)); err == nil {
			t.Errorf("Extents(0, %d) = %v", size, all)
		}
	}
	if got, err := sparse.Collect(sparse.Resize(sparse.Zeros(10), 20).Extents(0, 20)); err != nil || !slices.Equal(got, []sparse.Extent{{Off: 0, Len: 20, Kind: sparse.Hole}}) {
		t.Errorf("two holes: %v, %v", got, err)
	}
}
