package qcow2

import "cbt/sparse"

// Extents implements sparse.View from metadata alone, backing files included:
// Data for stored and compressed clusters, Zero for those with a zero flag,
// Hole for what is allocated nowhere. With Options.Holes, stored clusters that
// are holes of the file are Zero.
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
	case stored:
		return v.img.flattenStored(r, yield)
	case deflated:
		return yield(sparse.Extent{Off: r.off, Len: r.n, Kind: sparse.Data}, nil)
	case zeros:
		return yield(sparse.Extent{Off: r.off, Len: r.n, Kind: sparse.Zero}, nil)
	}
	return v.extentsBelow(r.off, r.n, yield)
}

// flattenStored is flatten for what lies in the file, which may be where
// nothing was ever written to a preallocated cluster.
func (img *Image) flattenStored(r run, yield func(sparse.Extent, error) bool) bool {
	for r.n > 0 {
		host := sparse.Extent{Off: r.host, Len: r.n, Kind: sparse.Data}
		if img.holes != nil && r.host < img.data.size {
			host = img.hostExtent(r.host)
		}
		e := sparse.Extent{Off: r.off, Len: min(r.n, host.End()-r.host), Kind: sparse.Data}
		if host.Kind.ReadsZero() {
			e.Kind = sparse.Zero
		}
		if !yield(e, nil) {
			return false
		}
		if e.Len == r.n {
			break
		}
		r = r.from(e.End())
	}
	return true
}

// hostExtent is the extent of the file that holds off, which is inside it. The
// last one is remembered: clusters that follow one another on the disk mostly
// lie near each other.
func (img *Image) hostExtent(off int64) sparse.Extent {
	if last := img.lastHost.Load(); last != nil && last.Off <= off && off < last.End() {
		return *last
	}
	for e, err := range img.holes(off, img.data.size-off) {
		if err != nil || e.Off != off || e.Len <= 0 {
			break
		}
		img.lastHost.Store(&e)
		return e
	}
	// What the file system does not know may be anything.
	return sparse.Extent{Off: off, Len: img.data.size - off, Kind: sparse.Data}
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
