package qcow2

import "cbt/sparse"

// Extents implements sparse.View from metadata alone, backing files included. Stored and compressed
// clusters are Data, those with a zero flag are Zero, and what is allocated nowhere is Hole. With
// Options.Holes, stored clusters that are holes of the file are Zero.
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

// flatten yields the extents of one run, or those of the backing file where the run is unallocated.
// It reports whether to go on.
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

// flattenStored is flatten for a run that is stored in the file. Parts of it may never have been
// written, if its clusters were preallocated.
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

// hostExtent returns the extent of the file that holds off, which must be inside the file. It
// remembers the last one: clusters that follow one another on the disk mostly lie near each other
// in the file.
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
	// Where the file system gives no answer, anything may be stored.
	return sparse.Extent{Off: off, Len: img.data.size - off, Kind: sparse.Data}
}

// extentsBelow is flatten for unallocated bytes.
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

// insideBacking returns how many of the n bytes at off lie inside the backing file.
func (img *Image) insideBacking(off, n int64) int64 {
	if img.backing == nil {
		return 0
	}
	return max(0, min(n, img.backing.Size()-off))
}
