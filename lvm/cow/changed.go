package cow

import (
	"fmt"
	"reflect"

	"cbt/sparse"
)

var errUnrelated = fmt.Errorf("%w: not a snapshot and its origin, nor two snapshots of one origin", sparse.ErrUnrelated)

// Changed returns the extents of new in [off, off+n) that may differ from old, from the tables
// alone and with the kinds of new. It may name too much, never too little: outside the extents
// named, old and new read the same, and an image reads as zeros past its end. The range may reach
// as far as the end of the larger of the two. What lies past new's end is not named; what lies past
// old's end is named in full.
//
// Either one side is a snapshot's *View and the other its origin, the very view that NewView was
// given, or both are snapshots of one origin. Otherwise the error is sparse.ErrUnrelated. Changed
// names every chunk that has a record in either table. That includes chunks that got their old
// content back and, for two snapshots, everything written since both were taken. Compare tells
// these from real changes.
func Changed(old, new sparse.View, off, n int64) sparse.Seq {
	if !related(old, new) {
		return sparse.Fail(errUnrelated)
	}
	if err := sparse.CheckRange(off, n, max(old.Size(), new.Size())); err != nil {
		return sparse.Fail(err)
	}
	asked := sparse.Extent{Off: off, Len: n}
	both, grown := asked.Clip(0, min(old.Size(), new.Size())), asked.Clip(old.Size(), new.Size())
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		for e, err := range recorded(old, new, both) {
			if err != nil {
				yield(e, err)
				return
			}
			if !eachExtent(new, e, yield) {
				return
			}
		}
		eachExtent(new, grown, yield)
	})
}

// Compare narrows down Changed by reading. In the chunks that Changed names, it names the 4 KiB
// blocks that hold different bytes. It reads nothing else. See sparse.Compare for memory and
// goroutines.
func Compare(old, new sparse.View, off, n int64) sparse.Seq {
	if !related(old, new) {
		return sparse.Fail(errUnrelated)
	}
	mask := func(v sparse.View) sparse.View { return &masked{v, old, new} }
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		for e, err := range sparse.Compare(mask(old), mask(new), off, n) {
			if err != nil {
				yield(e, err)
				return
			}
			if !eachExtent(new, e, yield) {
				return
			}
		}
	})
}

// ChangedChunks returns the chunks in [off, off+n) of a snapshot of size bytes that have a record
// in s, as Data extents. It is for a snapshot in use, whose content is read through its device.
// Snapshot and origin can differ nowhere else. Two snapshots of one origin cannot differ outside
// the Overlay of their chunks.
func ChangedChunks(s *Store, size, off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, size); err != nil {
		return sparse.Fail(err)
	}
	if err := s.fits(size); err != nil {
		return sparse.Fail(err)
	}
	return s.chunks(off, n)
}

func (s *Store) chunks(off, n int64) sparse.Seq {
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		for p := range s.pieces(off, n) {
			if p.stored && !yield(sparse.Extent{Off: p.off, Len: p.n, Kind: sparse.Data}, nil) {
				return
			}
		}
	})
}

func related(old, new sparse.View) bool {
	a, aSnapshot := old.(*View)
	b, bSnapshot := new.(*View)
	switch {
	case aSnapshot && bSnapshot && same(a.origin, b.origin):
		return true
	case aSnapshot && same(a.origin, new):
		return true
	}
	return bSnapshot && same(b.origin, old)
}

func same(a, b sparse.View) bool {
	return a != nil && b != nil && reflect.TypeOf(a).Comparable() && reflect.TypeOf(b).Comparable() && a == b
}

// recorded returns the chunks inside r that have a record on either side.
func recorded(old, new sparse.View, r sparse.Extent) sparse.Seq {
	a, aSnapshot := old.(*View)
	b, bSnapshot := new.(*View)
	switch {
	case !aSnapshot || bSnapshot && same(a, b.origin):
		return b.store.chunks(r.Off, r.Len)
	case !bSnapshot || same(b, a.origin):
		return a.store.chunks(r.Off, r.Len)
	case a.store == b.store:
		return sparse.Of()
	}
	return sparse.Coalesce(sparse.Overlay(a.store.chunks(r.Off, r.Len), b.store.chunks(r.Off, r.Len)))
}

// eachExtent yields the extents of v in e and reports whether to go on.
func eachExtent(v sparse.View, e sparse.Extent, yield func(sparse.Extent, error) bool) bool {
	if e.Len == 0 {
		return true
	}
	for e, err := range v.Extents(e.Off, e.Len) {
		if !yield(e, err) || err != nil {
			return false
		}
	}
	return true
}

// masked presents one of two images with everything as a hole except the chunks with a record, so
// that the rest is not read.
type masked struct {
	sparse.View
	old, new sparse.View
}

func (m *masked) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, m.Size()); err != nil {
		return sparse.Fail(err)
	}
	asked := sparse.Extent{Off: off, Len: n}
	both := asked.Clip(0, min(m.old.Size(), m.new.Size()))
	past := sparse.Extent{Off: off + both.Len, Len: n - both.Len, Kind: sparse.Data}
	if both.Len == 0 {
		past = sparse.Extent{Off: off, Len: n, Kind: sparse.Data}
	}
	s := sparse.Fill(recorded(m.old, m.new, both), both.Off, both.Len, sparse.Hole)
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		for e, err := range s {
			if !yield(e, err) || err != nil {
				return
			}
		}
		if past.Len > 0 {
			yield(past, nil)
		}
	})
}
