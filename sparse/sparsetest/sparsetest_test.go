package sparsetest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
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

// faulty is a view whose methods can be replaced one by one.
type faulty struct {
	*memView
	size    func() int64
	read    func(p []byte, off int64) (int, error)
	extents func(off, n int64) sparse.Seq
}

func (f *faulty) Size() int64 {
	if f.size != nil {
		return f.size()
	}
	return f.memView.Size()
}

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	if f.read != nil {
		return f.read(p, off)
	}
	return f.memView.ReadAt(p, off)
}

func (f *faulty) Extents(off, n int64) sparse.Seq {
	if f.extents != nil {
		return f.extents(off, n)
	}
	return f.memView.Extents(off, n)
}

// alter changes the sound sequence of every range inside the image.
func (f *faulty) alter(change func(all []sparse.Extent, off, n int64) []sparse.Extent) {
	f.extents = func(off, n int64) sparse.Seq {
		all, err := sparse.Collect(f.memView.Extents(off, n))
		if err != nil {
			return sparse.Fail(err)
		}
		return sparse.Of(change(all, off, n)...)
	}
}

// TestFaults breaks one rule of the contract at a time, and wants each breach
// found.
func TestFaults(t *testing.T) {
	errTest := errors.New("test")
	faults := map[string]func(f *faulty){
		"size too large": func(f *faulty) { f.size = func() int64 { return f.memView.Size() + 1 } },
		"size too small": func(f *faulty) { f.size = func() int64 { return f.memView.Size() - 1 } },

		"one byte wrong": func(f *faulty) {
			f.memView = &memView{bytes.Clone(f.data), f.memView.extents}
			f.data[len(f.data)*2/3] ^= 1
		},
		"last byte wrong": func(f *faulty) {
			f.memView = &memView{bytes.Clone(f.data), f.memView.extents}
			f.data[len(f.data)-1] ^= 1
		},
		"holes not cleared": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				q, err := sparse.ClipRead(p, off, f.memView.Size())
				for i := range q {
					if b := f.data[off+int64(i)]; b != 0 {
						q[i] = b
					}
				}
				return len(q), err
			}
		},
		"no more than 64 bytes a read": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) { return f.memView.ReadAt(p[:min(len(p), 64)], off) }
		},
		"no io.EOF behind the end": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				n, err := f.memView.ReadAt(p, off)
				if err == io.EOF {
					err = nil
				}
				return n, err
			}
		},
		"wrapped io.EOF": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				n, err := f.memView.ReadAt(p, off)
				if err != nil {
					err = fmt.Errorf("read: %w", err)
				}
				return n, err
			}
		},
		"io.EOF at the end of a block": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				n, err := f.memView.ReadAt(p, off)
				if off >= 0 && (off+int64(n))%32 == 0 && n > 0 {
					err = io.EOF
				}
				return n, err
			}
		},
		"error at the end keeps the bytes back": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				n, err := f.memView.ReadAt(p, off)
				if n < len(p) {
					n = 0
				}
				return n, err
			}
		},
		"zeros behind the end": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				n, err := f.memView.ReadAt(p, off)
				if err == io.EOF {
					clear(p[n:])
					return len(p), nil
				}
				return n, err
			}
		},
		"zero-length read fails": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				if len(p) == 0 {
					return 0, io.EOF
				}
				return f.memView.ReadAt(p, off)
			}
		},
		"negative offset reads nothing": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				if off < 0 {
					return 0, nil
				}
				return f.memView.ReadAt(p, off)
			}
		},
		"negative offset panics": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				if off < f.memView.Size() {
					return copy(p, f.data[off:]), nil
				}
				return f.memView.ReadAt(p, off)
			}
		},
		"read spans no extents": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				n, err := f.memView.ReadAt(p, off)
				for i, e := range f.memView.extents {
					if i > 0 && off < e.Off && off+int64(n) > e.Off {
						clear(p[e.Off-off : n])
						break
					}
				}
				return n, err
			}
		},
		"writes behind the slice": func(f *faulty) {
			f.read = func(p []byte, off int64) (int, error) {
				n, err := f.memView.ReadAt(p, off)
				if n > 0 && cap(p) > n {
					p[:n+1][n] = 0
				}
				return n, err
			}
		},
		"one buffer for all readers": func(f *faulty) {
			var mu sync.Mutex
			var shared []byte
			f.read = func(p []byte, off int64) (int, error) {
				mu.Lock()
				shared = append(shared[:0], make([]byte, len(p))...)
				buf := shared
				n, err := f.memView.ReadAt(buf, off)
				mu.Unlock()
				// Another reader may come in here.
				for range 50 {
					mu.Lock()
					runtime.Gosched()
					mu.Unlock()
				}
				mu.Lock()
				copy(p, buf)
				mu.Unlock()
				return n, err
			}
		},
		"several readers at once fail": func(f *faulty) {
			var in atomic.Int32
			f.read = func(p []byte, off int64) (int, error) {
				defer in.Add(-1)
				if in.Add(1) > 1 {
					return 0, errTest
				}
				n, err := f.memView.ReadAt(p, off)
				for range 5 {
					runtime.Gosched()
				}
				return n, err
			}
		},

		"a data extent called a hole": func(f *faulty) {
			f.alter(func(all []sparse.Extent, _, _ int64) []sparse.Extent {
				for i, e := range all {
					if e.Kind == sparse.Data {
						all[i].Kind = sparse.Hole
					}
				}
				c, _ := sparse.Collect(sparse.Coalesce(sparse.Of(all...)))
				return c
			})
		},
		"a hole one byte too long": func(f *faulty) {
			x := f.memView.extents
			f.memView = &memView{f.data, append([]sparse.Extent(nil), x...)}
			for i := range x {
				if e := f.memView.extents; e[i].Kind == sparse.Hole && i+1 < len(x) {
					e[i].Len++
					e[i+1].Off++
					e[i+1].Len--
					break
				}
			}
		},
		"no kind": func(f *faulty) {
			f.alter(func(all []sparse.Extent, _, _ int64) []sparse.Extent {
				for i := range all {
					if all[i].Kind == sparse.Zero {
						all[i].Kind = 0
					}
				}
				return all
			})
		},
		"last extent missing": func(f *faulty) {
			f.alter(func(all []sparse.Extent, _, _ int64) []sparse.Extent { return all[:max(0, len(all)-1)] })
		},
		"holes left out": func(f *faulty) {
			f.extents = func(off, n int64) sparse.Seq {
				return sparse.Select(f.memView.Extents(off, n), func(e sparse.Extent) bool { return e.Kind != sparse.Hole })
			}
		},
		"not clipped at the start": func(f *faulty) {
			f.alter(func(all []sparse.Extent, off, n int64) []sparse.Extent {
				for _, e := range f.memView.extents {
					if len(all) > 0 && e.Off < off && e.End() > off {
						all[0] = sparse.Extent{Off: e.Off, Len: all[0].End() - e.Off, Kind: e.Kind}
					}
				}
				return all
			})
		},
		"not clipped at the end": func(f *faulty) {
			f.alter(func(all []sparse.Extent, off, n int64) []sparse.Extent {
				for _, e := range f.memView.extents {
					if len(all) > 0 && e.Off < off+n && e.End() > off+n {
						all[len(all)-1].Len = e.End() - all[len(all)-1].Off
					}
				}
				return all
			})
		},
		"offsets from the start of the range": func(f *faulty) {
			f.alter(func(all []sparse.Extent, off, _ int64) []sparse.Extent {
				for i := range all {
					all[i].Off -= off
				}
				return all
			})
		},
		"empty extent": func(f *faulty) {
			f.alter(func(all []sparse.Extent, off, _ int64) []sparse.Extent {
				return append([]sparse.Extent{{Off: off, Kind: sparse.Data}}, all...)
			})
		},
		"empty extent of an empty range": func(f *faulty) {
			f.alter(func(all []sparse.Extent, off, n int64) []sparse.Extent {
				if n == 0 {
					return []sparse.Extent{{Off: off, Kind: sparse.Hole}}
				}
				return all
			})
		},
		"neighbours not joined": func(f *faulty) {
			f.alter(func(all []sparse.Extent, _, _ int64) []sparse.Extent {
				for i, e := range all {
					if e.Len > 1 {
						half := sparse.Extent{Off: e.Off, Len: e.Len / 2, Kind: e.Kind}
						rest := sparse.Extent{Off: half.End(), Len: e.Len - half.Len, Kind: e.Kind}
						return append(append(append([]sparse.Extent(nil), all[:i]...), half, rest), all[i+1:]...)
					}
				}
				return all
			})
		},
		"overlap": func(f *faulty) {
			f.alter(func(all []sparse.Extent, _, _ int64) []sparse.Extent {
				if len(all) > 1 {
					all[0].Len++
				}
				return all
			})
		},
		"descending": func(f *faulty) {
			f.alter(func(all []sparse.Extent, _, _ int64) []sparse.Extent {
				if len(all) > 1 {
					all[0], all[len(all)-1] = all[len(all)-1], all[0]
				}
				return all
			})
		},
		"the last extent again and again": func(f *faulty) {
			f.extents = func(off, n int64) sparse.Seq {
				return func(yield func(sparse.Extent, error) bool) {
					for e, err := range f.memView.Extents(off, n) {
						for yield(e, err) {
							if e.End() < off+n || err != nil {
								break
							}
						}
					}
				}
			}
		},
		"sub-ranges say data": func(f *faulty) {
			f.alter(func(all []sparse.Extent, off, n int64) []sparse.Extent {
				if n > 0 && n < f.memView.Size()/2 {
					return []sparse.Extent{{Off: off, Len: n, Kind: sparse.Data}}
				}
				return all
			})
		},
		"zero and hole swapped in sub-ranges": func(f *faulty) {
			f.alter(func(all []sparse.Extent, off, _ int64) []sparse.Extent {
				for i, e := range all {
					if off > 0 && e.Kind == sparse.Zero {
						all[i].Kind = sparse.Hole
					}
				}
				c, _ := sparse.Collect(sparse.Coalesce(sparse.Of(all...)))
				return c
			})
		},
		"error in the middle": func(f *faulty) {
			f.extents = func(off, n int64) sparse.Seq {
				return func(yield func(sparse.Extent, error) bool) {
					for e, err := range f.memView.Extents(off, n) {
						if err == nil && e.Off > 100 {
							yield(sparse.Extent{}, errTest)
							return
						}
						if !yield(e, err) {
							return
						}
					}
				}
			}
		},
		"out of range is clipped": func(f *faulty) {
			f.extents = func(off, n int64) sparse.Seq {
				off = min(max(off, 0), f.memView.Size())
				return f.memView.Extents(off, min(max(n, 0), f.memView.Size()-off))
			}
		},
		"overflow of offset and length": func(f *faulty) {
			f.extents = func(off, n int64) sparse.Seq {
				if off < 0 || n < 0 || off+n > f.memView.Size() {
					return sparse.Fail(errTest)
				}
				return sparse.Clip(sparse.Of(f.memView.extents...), off, n)
			}
		},
		"error with an extent": func(f *faulty) {
			f.extents = func(off, n int64) sparse.Seq {
				if err := sparse.CheckRange(off, n, f.memView.Size()); err != nil {
					return func(yield func(sparse.Extent, error) bool) { yield(sparse.Extent{Off: off}, err) }
				}
				return f.memView.Extents(off, n)
			}
		},
		"error twice": func(f *faulty) {
			f.extents = func(off, n int64) sparse.Seq {
				if err := sparse.CheckRange(off, n, f.memView.Size()); err != nil {
					return func(yield func(sparse.Extent, error) bool) {
						if yield(sparse.Extent{}, err) {
							yield(sparse.Extent{}, err)
						}
					}
				}
				return f.memView.Extents(off, n)
			}
		},
		"goes on after a break": func(f *faulty) {
			f.extents = func(off, n int64) sparse.Seq {
				return func(yield func(sparse.Extent, error) bool) {
					for e, err := range f.memView.Extents(off, n) {
						yield(e, err)
					}
				}
			}
		},
		"ranged over once only": func(f *faulty) {
			f.extents = func(off, n int64) sparse.Seq {
				var used atomic.Bool
				seq := f.memView.Extents(off, n)
				return func(yield func(sparse.Extent, error) bool) {
					if !used.Swap(true) {
						seq(yield)
					}
				}
			}
		},
		"one cursor for all sequences": func(f *faulty) {
			var mu sync.Mutex
			var pos int64
			f.extents = func(off, n int64) sparse.Seq {
				if err := sparse.CheckRange(off, n, f.memView.Size()); err != nil {
					return sparse.Fail(err)
				}
				return func(yield func(sparse.Extent, error) bool) {
					mu.Lock()
					pos = off
					mu.Unlock()
					for {
						mu.Lock()
						e, err := sparse.Collect(sparse.Clip(f.memView.Extents(pos, f.memView.Size()-pos), off, n))
						if err == nil && len(e) > 0 {
							pos = e[0].End()
						}
						mu.Unlock()
						if err != nil || len(e) == 0 || !yield(e[0], nil) {
							return
						}
					}
				}
			}
		},
	}
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
