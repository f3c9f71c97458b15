package qcow2

import (
	"fmt"
	"reflect"

	"cbt/sparse"
)

var errUnrelated = fmt.Errorf("%w: the older image is neither a state of the same file nor in the backing chain", sparse.ErrUnrelated)

// Changed returns the extents of new in [off, off+n) that may differ from old, from metadata alone
// and with the kinds of new. It may name too much, never too little: outside the extents named, old
// and new read the same, and an image reads as zeros past its end. The range may reach as far as
// the end of the larger of the two. What lies past new's end is not named; what lies past old's end
// is named in full.
//
// old and new must be states of one image, or old a state of an image in the backing chain of new;
// otherwise the error is sparse.ErrUnrelated. No image of the chain may have changed since new was
// made.
func Changed(old, new *View, off, n int64) sparse.Seq {
	if old.img != new.img && !new.inChain(func(v sparse.View) bool { return isStateOf(v, old.img) }) {
		return sparse.Fail(errUnrelated)
	}
	return new.changed(old, off, n)
}

// ChangedOver is Changed for a base that need not be a qcow2 image. base is either a view anywhere
// in the backing chain of v, found by ==, or a state of an image there.
func (v *View) ChangedOver(base sparse.View, off, n int64) sparse.Seq {
	if old, ok := base.(*View); ok {
		return Changed(old, v, off, n)
	}
	if base == nil || !reflect.TypeOf(base).Comparable() || !v.inChain(func(below sparse.View) bool { return below == base }) {
		return sparse.Fail(errUnrelated)
	}
	return v.changed(base, off, n)
}

// inChain reports whether found returns true for a view in the backing chain.
func (v *View) inChain(found func(sparse.View) bool) bool {
	for below := v.img.backing; below != nil; {
		if found(below) {
			return true
		}
		next, ok := below.(*View)
		if !ok {
			return false
		}
		below = next.img.backing
	}
	return false
}

func isStateOf(v sparse.View, img *Image) bool {
	state, ok := v.(*View)
	return ok && state.img == img
}

// changed does what Changed does, for an old that is known to be related.
func (v *View) changed(old sparse.View, off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, max(old.Size(), v.size)); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		end := min(off+n, v.size)
		common := min(end, old.Size())
		d := difference{old, yield}
		if off < common && !d.between(v, off, common) {
			return
		}
		if grown := max(off, old.Size()); grown < end {
			for e, err := range v.Extents(grown, end-grown) {
				if !yield(e, err) {
					return
				}
			}
		}
	})
}

// difference finds where an image differs from old, up to the end of old.
type difference struct {
	old   sparse.View
	yield func(sparse.Extent, error) bool
}

// between yields what differs between old and v in [lo, hi), which lies inside both, and reports
// whether to go on.
func (d difference) between(v *View, lo, hi int64) bool {
	if lo >= hi {
		return true
	}
	if old, ok := d.old.(*View); ok && old.img == v.img {
		return compare(old, v, lo, hi, d.yield)
	}
	w := v.walk(lo, hi-lo)
	for {
		r, err := w.next()
		if err != nil {
			d.yield(sparse.Extent{}, err)
			return false
		}
		if r.n == 0 {
			return true
		}
		ok := false
		switch r.kind {
		case unallocated:
			ok = d.below(v, r.off, r.end())
		case zeros:
			ok = d.reading(sparse.Zero, r.off, r.end())
		default:
			ok = v.flatten(r, d.yield)
		}
		if !ok {
			return false
		}
	}
}

// below yields what differs in [lo, hi), where v reads from its backing file. Past the end of that
// file, v reads as zeros, whatever lies further down the chain.
func (d difference) below(v *View, lo, hi int64) bool {
	end := lo + v.img.insideBacking(lo, hi-lo)
	// A backing file that is not a qcow2 image is the last of the chain, and so it is old.
	if layer, ok := v.img.backing.(*View); ok && !d.between(layer, lo, end) {
		return false
	}
	return d.reading(sparse.Hole, end, hi)
}

// reading yields the parts of [lo, hi) where old stores something, as extents of the given kind.
// The new state reads as zeros there.
func (d difference) reading(kind sparse.Kind, lo, hi int64) bool {
	if lo >= hi {
		return true
	}
	for e, err := range d.old.Extents(lo, hi-lo) {
		if err == nil && e.Kind.ReadsZero() {
			continue
		}
		e.Kind = kind
		if err != nil {
			e = sparse.Extent{}
		}
		if !d.yield(e, err) || err != nil {
			return false
		}
	}
	return true
}
