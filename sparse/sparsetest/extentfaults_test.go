package sparsetest_test

import (
	"sync"
	"sync/atomic"

	"cbt/sparse"
)

// extentFaults break the rules of Extents.
var extentFaults = map[string]func(f *faulty){
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
