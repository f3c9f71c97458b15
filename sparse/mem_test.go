package sparse_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"cbt/sparse"
)

// memView is an image in memory that fails on demand.
type memView struct {
	data    []byte
	extents []sparse.Extent

	// fail, if not nil, may refuse a read of [off, off+n), or panic.
	fail func(off, n int64) error
	// failExtents is where Extents ends with errTest, if above 0.
	failExtents int64
	// short, if above 0, makes reads across this offset end there without an error, as no reader
	// should.
	short int64

	readers, mostReaders, longestRead, readBytes atomic.Int64
}

func (m *memView) Size() int64 { return int64(len(m.data)) }

func (m *memView) ReadAt(p []byte, off int64) (int, error) {
	atLeast(&m.mostReaders, m.readers.Add(1))
	defer m.readers.Add(-1)
	atLeast(&m.longestRead, int64(len(p)))
	m.readBytes.Add(int64(len(p)))
	if m.fail != nil {
		if err := m.fail(off, int64(len(p))); err != nil {
			return 0, err
		}
	}
	p, err := sparse.ClipRead(p, off, m.Size())
	if m.short > off && m.short < off+int64(len(p)) {
		p, err = p[:m.short-off], nil
	}
	if len(p) > 0 {
		copy(p, m.data[off:])
	}
	return len(p), err
}

func atLeast(a *atomic.Int64, n int64) {
	for old := a.Load(); n > old && !a.CompareAndSwap(old, n); old = a.Load() {
	}
}

func (m *memView) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, m.Size()); err != nil {
		return sparse.Fail(err)
	}
	clipped := sparse.Clip(sparse.Of(m.extents...), off, n)
	if m.failExtents == 0 {
		return clipped
	}
	return func(yield func(sparse.Extent, error) bool) {
		for e := range clipped {
			if e.End() > m.failExtents {
				yield(sparse.Extent{}, errTest)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// newMemView returns a view with extents of all three kinds, each a multiple of unit long. Some
// blocks of data extents are zeros.
func newMemView(size, unit int64, seed uint64) *memView {
	m := &memView{data: make([]byte, size)}
	rnd := rand.New(rand.NewPCG(seed, 3))
	last := sparse.Kind(0)
	for off := int64(0); off < size; {
		kind := sparse.Kind(1 + rnd.IntN(3))
		if kind == last {
			continue
		}
		e := sparse.Extent{Off: off, Len: min(unit*(1+rnd.Int64N(4)), size-off), Kind: kind}
		if e.Kind == sparse.Data {
			for at := e.Off; at < e.End(); {
				n := min(1+rnd.Int64N(20000), e.End()-at)
				if rnd.IntN(3) > 0 {
					copy(m.data[at:], noise(n, rnd.Uint64()))
				}
				at += n
			}
		}
		m.extents = append(m.extents, e)
		off, last = e.End(), kind
	}
	return m
}

// memTarget is a target in memory that remembers what was done to it.
type memTarget struct {
	mu       sync.Mutex
	data     []byte
	writes   []sparse.Extent
	zeros    []sparse.Extent
	failRead func(off int64) error
	fail     func(off, n int64) error // of WriteAt and Zero
	short    bool                     // WriteAt leaves off the last byte
	synced   bool
}

func (m *memTarget) Size() int64               { return int64(len(m.data)) }
func (m *memTarget) Truncate(size int64) error { return errors.New("not to be resized") }
func (m *memTarget) Sync() error               { m.synced = true; return nil }

func (m *memTarget) ReadAt(p []byte, off int64) (int, error) {
	if m.failRead != nil {
		if err := m.failRead(off); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := sparse.ClipRead(p, off, m.Size())
	copy(p, m.data[min(off, m.Size()):])
	return len(p), err
}

func (m *memTarget) WriteAt(p []byte, off int64) (int, error) {
	if m.fail != nil {
		if err := m.fail(off, int64(len(p))); err != nil {
			return 0, err
		}
	}
	if m.short {
		p = p[:len(p)-1]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes = append(m.writes, sparse.Extent{Off: off, Len: int64(len(p)), Kind: sparse.Data})
	return copy(m.data[off:], p), nil
}

func (m *memTarget) Zero(off, n int64) error {
	if m.fail != nil {
		if err := m.fail(off, n); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.zeros = append(m.zeros, sparse.Extent{Off: off, Len: n, Kind: sparse.Zero})
	clear(m.data[off : off+n])
	return nil
}
