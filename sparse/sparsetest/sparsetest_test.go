package sparsetest_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// memView keeps the contract; faulty overrides parts of it.
type memView struct {
	data    []byte
	extents []sparse.Extent
}

func (m *memView) Size() int64 { return int64(len(m.data)) }

func (m *memView) ReadAt(p []byte, off int64) (int, error) {
	p, err := sparse.ClipRead(p, off, m.Size())
	if len(p) > 0 {
		copy(p, m.data[off:])
	}
	return len(p), err
}

func (m *memView) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, m.Size()); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Clip(sparse.Of(m.extents...), off, n)
}

// newMemView has runs of the three kinds, each of unit to 3*unit bytes, and
// data extents without a zero byte.
func newMemView(size, unit int64) *memView {
	m := &memView{data: make([]byte, size)}
	rnd := rand.New(rand.NewPCG(3, uint64(size)))
	kinds := []sparse.Kind{sparse.Data, sparse.Hole, sparse.Data, sparse.Zero, sparse.Hole}
	for i, off := 0, int64(0); off < size; i++ {
		e := sparse.Extent{Off: off, Len: min(unit*(1+rnd.Int64N(3)), size-off), Kind: kinds[i%len(kinds)]}
		if e.Kind == sparse.Data {
			for j := e.Off; j < e.End(); j++ {
				m.data[j] = byte(1 + rnd.IntN(255))
			}
		}
		m.extents = append(m.extents, e)
		off = e.End()
	}
	return m
}

var sizes = []struct{ size, unit int64 }{
	{0, 1}, {1, 1}, {2, 1}, {61, 7}, {200, 1}, {201, 16}, {4096, 512}, {70000, 4096}, {1<<20 + 1, 4096}, {3 << 20, 65536},
}

func TestGoodViews(t *testing.T) {
	for _, s := range sizes {
		t.Run(fmt.Sprint(s.size), func(t *testing.T) {
			m := newMemView(s.size, s.unit)
			sparsetest.View(t, m, m.data)
			sparsetest.View(t, sparse.Zeros(s.size), make([]byte, s.size))
			longer := append(bytes.Clone(m.data), make([]byte, 777)...)
			sparsetest.View(t, sparse.Resize(m, s.size+777), longer)
			sparsetest.View(t, sparse.Resize(m, s.size/2), m.data[:s.size/2])
			sparsetest.View(t, sparse.Resize(sparse.Resize(m, s.size/3), s.size),
				append(bytes.Clone(m.data[:s.size/3]), make([]byte, s.size-s.size/3)...))
		})
	}
}

// TestFaults breaks one rule of the contract at a time, and wants each breach
// found.
func TestFaults(t *testing.T) {
	faults := maps.Clone(readFaults)
	maps.Copy(faults, extentFaults)
	for name, breakIt := range faults {
		t.Run(name, func(t *testing.T) {
			for _, s := range []struct{ size, unit int64 }{{190, 9}, {70001, 4096}} {
				f := &faulty{memView: newMemView(s.size, s.unit)}
				want := f.data
				breakIt(f)
				err := sparsetest.Check(f, want)
				if err == nil {
					t.Errorf("%d bytes: not found", s.size)
				} else if testing.Verbose() {
					t.Log(err)
				}
			}
		})
	}
}
