package qcow2

import "cbt/sparse"

// Extents implements sparse.View from metadata alone, backing files included:
// Data for stored and compressed clusters, Zero for those with a zero flag,
// Hole for what is allocated nowhere.
func (v *View) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, v.size); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		w := v.walk(off, n)
		for {
			r, err := w.next()
			if err != nil {
				yield(sparse.Extent{}, err)
				return
			}
			if r.n == 0 || !v.flatten(r, yield) {
				return
			}
		}
	})
}

// flatten yields the extents of one run, those of the backing file where
// nothing is allocated, and reports whether to go on.
func (v *View) flatten(r run, yield func(sparse.Extent, error) bool) bool {
	switch r.kind {
	case stored, deflated:
		return yield(sparse.Extent{Off: r.off, Len: r.n, Kind: sparse.Data}, nil)
	case zeros:
		return yield(sparse.Extent{Off: r.off, Len: r.n, Kind: sparse.Zero}, nil)
	}
	return v.extentsBelow(r.off, r.n, yield)
}

// extentsBelow is flatten for what is unallocated.
func (v *View) extentsBelow(off, n int64, yield func(sparse.Extent, error) bool) bool {
	inside := v.img.insideBacking(off, n)
	if inside > 0 {
		for e, err := range v.img.backing.Extents(off, inside) {
			if !yield(e, err) || err != nil {
				return false
			}
		}
	}
	return inside == n || yield(sparse.Extent{Off: off + inside, Len: n - inside, Kind: sparse.Hole}, nil)
}

// insideBacking is how many of the n bytes at off lie inside the backing file.
func (img *Image) insideBacking(off, n int64) int64 {
	if img.backing == nil {
		return 0
	}
	return max(0, min(n, img.backing.Size()-off))
}
