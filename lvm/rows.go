package lvm

import (
	"iter"

	"cbt/sparse"
)

// rowKinds goes through the extents of all legs of a stripe set together. It keeps one extent of
// each leg in memory.
type rowKinds struct {
	unit int64
	legs []legCursor
}

type legCursor struct {
	now  sparse.Extent
	next func() (sparse.Extent, error, bool)
	stop func()
}

// newRowKinds returns a rowKinds for the rows [row, end).
func newRowKinds(legs []sparse.View, unit, row, end int64) *rowKinds {
	r := &rowKinds{unit: unit}
	for _, v := range legs {
		c := legCursor{}
		c.next, c.stop = iter.Pull2(v.Extents(row*unit, (end-row)*unit))
		r.legs = append(r.legs, c)
	}
	return r
}

func (r *rowKinds) stop() {
	for _, c := range r.legs {
		c.stop()
	}
}

// at returns the kind of row, and the first row after it that is not known to be of that kind too.
// Rows must ascend from call to call.
func (r *rowKinds) at(row int64) (kind sparse.Kind, next int64, err error) {
	start, end := row*r.unit, (row+1)*r.unit
	kind = sparse.Hole
	data := row + 1
	for i := range r.legs {
		c := &r.legs[i]
		for c.now.End() <= start {
			e, err, ok := c.next()
			if err != nil {
				return 0, 0, err
			}
			if !ok { // a view whose extents do not cover the range asked for
				e = sparse.Extent{Off: start, Len: r.unit, Kind: sparse.Data}
			}
			c.now = e
		}
		switch {
		case !c.now.Kind.ReadsZero():
			kind = sparse.Data
			data = max(data, (c.now.End()+r.unit-1)/r.unit)
		case c.now.End() < end:
			kind = sparse.Data
		case kind != sparse.Data && c.now.Kind == sparse.Zero:
			kind = sparse.Zero
		}
		if full := c.now.End() / r.unit; i == 0 || full < next {
			next = full
		}
	}
	if kind == sparse.Data {
		next = data
	}
	return kind, max(next, row+1), nil
}
