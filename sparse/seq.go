package sparse

import (
	"iter"
	"math"
)

// Of returns the sequence of the given extents, which must be in ascending order.
func Of(extents ...Extent) Seq {
	return func(yield func(Extent, error) bool) {
		for _, e := range extents {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Fail returns a sequence that holds only err.
func Fail(err error) Seq {
	return func(yield func(Extent, error) bool) { yield(Extent{}, err) }
}

// Collect gathers a sequence into memory. Use it for tests and short sequences.
func Collect(s Seq) ([]Extent, error) {
	var all []Extent
	for e, err := range s {
		if err != nil {
			return all, err
		}
		all = append(all, e)
	}
	return all, nil
}

// Total returns the number of bytes that the extents of s cover.
func Total(s Seq) (int64, error) {
	var n int64
	for e, err := range s {
		if err != nil {
			return n, err
		}
		n += e.Len
	}
	return n, nil
}

// Coalesce joins extents of one kind that touch.
func Coalesce(s Seq) Seq {
	return func(yield func(Extent, error) bool) {
		var run Extent
		for e, err := range s {
			if err != nil {
				if run.Len > 0 && !yield(run, nil) {
					return
				}
				yield(Extent{}, err)
				return
			}
			switch {
			case e.Len == 0:
			case run.Len > 0 && e.Kind == run.Kind && e.Off == run.End():
				run.Len += e.Len
			default:
				if run.Len > 0 && !yield(run, nil) {
					return
				}
				run = e
			}
		}
		if run.Len > 0 {
			yield(run, nil)
		}
	}
}

// Clip keeps what lies in [off, off+n). Past the range it takes at most one extent from s, and none
// if an extent reaches the end of the range.
func Clip(s Seq, off, n int64) Seq {
	return func(yield func(Extent, error) bool) {
		end := rangeEnd(off, n)
		if end <= off {
			return
		}
		for e, err := range s {
			if err != nil {
				yield(Extent{}, err)
				return
			}
			if c := e.Clip(off, end); c.Len > 0 && !yield(c, nil) {
				return
			}
			if e.End() >= end {
				return
			}
		}
	}
}

// rangeEnd returns off+n, or the largest possible offset if that overflows.
func rangeEnd(off, n int64) int64 {
	if end := off + n; end >= off || n < 0 {
		return end
	}
	return math.MaxInt64
}

// Fill clips s to [off, off+n) and fills the gaps with extents of the given kind. These are not
// joined with those of s.
func Fill(s Seq, off, n int64, kind Kind) Seq {
	return func(yield func(Extent, error) bool) {
		pos, end := off, rangeEnd(off, n)
		for e, err := range Clip(s, off, n) {
			if err != nil {
				yield(Extent{}, err)
				return
			}
			if e.Off > pos && !yield(Extent{pos, e.Off - pos, kind}, nil) {
				return
			}
			if !yield(e, nil) {
				return
			}
			pos = e.End()
		}
		if pos < end {
			yield(Extent{pos, end - pos, kind}, nil)
		}
	}
}

// Freed returns the extents of new in [off, off+n) that are not Data where old's are: what old
// stores there reads as zeros in new. The range must be inside both images.
func Freed(old, new View, off, n int64) Seq {
	zeros := Select(new.Extents(off, n), func(e Extent) bool { return e.Kind != Data })
	return Intersect(zeros, Select(old.Extents(off, n), func(e Extent) bool { return e.Kind == Data }))
}

// Invert returns the gaps of s in [off, off+n), as extents of the given kind.
func Invert(s Seq, off, n int64, kind Kind) Seq {
	return func(yield func(Extent, error) bool) {
		pos, end := off, rangeEnd(off, n)
		for e, err := range Clip(s, off, n) {
			if err != nil {
				yield(Extent{}, err)
				return
			}
			if e.Off > pos && !yield(Extent{pos, e.Off - pos, kind}, nil) {
				return
			}
			pos = e.End()
		}
		if pos < end {
			yield(Extent{pos, end - pos, kind}, nil)
		}
	}
}

// Select keeps the extents for which keep is true.
func Select(s Seq, keep func(Extent) bool) Seq {
	return func(yield func(Extent, error) bool) {
		for e, err := range s {
			if err != nil || keep(e) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// Intersect returns the parts of a that b covers too, with the kinds of a. The kinds of b do not
// matter. An error of one sequence that comes after the end of the other may be missed.
func Intersect(a, b Seq) Seq {
	return func(yield func(Extent, error) bool) {
		next, stop := iter.Pull2(b)
		defer stop()
		be, err, ok := next()
		for ae, aerr := range a {
			if aerr != nil {
				yield(Extent{}, aerr)
				return
			}
			for ok && err == nil && be.Off < ae.End() {
				if c := ae.Clip(be.Off, be.End()); c.Len > 0 && !yield(c, nil) {
					return
				}
				if be.End() > ae.End() {
					break
				}
				be, err, ok = next()
			}
			if err != nil {
				yield(Extent{}, err)
				return
			}
			if !ok {
				return
			}
		}
	}
}

// Overlay returns top where top has extents, and bottom elsewhere. So it is the union of two sets
// of extents. Neighbours are not joined: Coalesce does that.
func Overlay(top, bottom Seq) Seq {
	return func(yield func(Extent, error) bool) {
		next, stop := iter.Pull2(bottom)
		defer stop()
		low, err, ok := next()
		// below yields what bottom has between pos and limit.
		pos := int64(0)
		below := func(limit int64) bool {
			for ok && err == nil && low.Off < limit {
				if c := low.Clip(pos, limit); c.Len > 0 && !yield(c, nil) {
					return false
				}
				if low.End() > limit {
					break
				}
				low, err, ok = next()
			}
			return true
		}
		for e, terr := range top {
			if terr != nil {
				yield(Extent{}, terr)
				return
			}
			if !below(e.Off) {
				return
			}
			if err != nil {
				yield(Extent{}, err)
				return
			}
			if !yield(e, nil) {
				return
			}
			pos = e.End()
		}
		if !below(math.MaxInt64) {
			return
		}
		if err != nil {
			yield(Extent{}, err)
		}
	}
}
