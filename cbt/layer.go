package cbt

import (
	"iter"
	"sort"

	"cbt/sparse"
)

// part is an extent of a delta and the place of its bytes: in chunk k from byte at of the payload
// on. Its old CRCs begin with number check. table is nil if it was not read because the index alone
// gives the only extent.
type part struct {
	extent
	k     uint64
	table *table
	at    int
	check int
}

// clip cuts p to [lo, hi). A cut inside a block loses the checks.
func (p part) clip(lo, hi int64) part {
	start, end := max(p.off, lo), min(p.end(), hi)
	if start >= end {
		return part{}
	}
	if p.checked && (start%BlockSize != 0 || end%BlockSize != 0 && end != p.end()) {
		p.checked = false
	}
	if !p.zero {
		p.at += int(start - p.off)
	}
	p.check += int((start - p.off) / BlockSize)
	p.off, p.n = start, end-start
	return p
}

// parts yields what the delta says about [lo, hi) of a stream, in ascending order.
func (d *Delta) parts(stream int, lo, hi int64) iter.Seq2[part, error] {
	return func(yield func(part, error) bool) {
		k, err := d.seek(stream, lo)
		for ; err == nil && k < d.root.chunks; k++ {
			var ref chunkRef
			if ref, err = d.ref(k); err != nil {
				break
			}
			if ref.stream != stream || ref.start >= hi {
				return
			}
			p := part{k: k}
			if e, ok := ref.single(d.Header.Streams[stream].Size); ok {
				p.extent = e
				if !yield(p.clip(lo, hi), nil) {
					return
				}
				continue
			}
			var t *table
			if t, err = d.table(k); err != nil {
				break
			}
			p.table = t
			first := 0
			if ref.start < lo {
				first = sort.Search(len(t.extents), func(i int) bool { return t.extents[i].end() > lo })
			}
			for i, e := range t.extents {
				p.extent = e
				if i >= first {
					if e.off >= hi {
						return
					}
					if c := p.clip(lo, hi); c.n > 0 && !yield(c, nil) {
						return
					}
				}
				if !e.zero {
					p.at += int(e.n)
				}
				if e.checked {
					p.check += e.blocks()
				}
			}
		}
		if err != nil {
			yield(part{}, err)
		}
	}
}

// Extents yields what the delta says about a stream: Data and Zero extents, and nothing where the
// image stays as it was.
func (d *Delta) Extents(stream int) sparse.Seq {
	return sparse.Coalesce(d.extents(stream, 0, d.Header.Streams[stream].Size))
}

func (d *Delta) extents(stream int, lo, hi int64) sparse.Seq {
	return func(yield func(sparse.Extent, error) bool) {
		for p, err := range d.parts(stream, lo, hi) {
			if err != nil {
				yield(sparse.Extent{}, err)
				return
			}
			kind := sparse.Data
			if p.zero {
				kind = sparse.Zero
			}
			if !yield(sparse.Extent{Off: p.off, Len: p.n, Kind: kind}, nil) {
				return
			}
		}
	}
}

// chunkIn is chunk k of a delta or, if err is not nil, a range of the image
// whose chunks are not known.
type chunkIn struct {
	chunkRef
	k   uint64
	err error
}

// chunksIn yields the chunks that reach into [lo, hi) of a stream, in ascending order. It goes on
// after a leaf that cannot be read.
func (d *Delta) chunksIn(stream int, lo, hi int64) iter.Seq[chunkIn] {
	return func(yield func(chunkIn) bool) {
		for i := range d.leavesIn(stream, lo, hi) {
			refs, err := d.leaf(i)
			if err != nil {
				c := chunkIn{err: err}
				c.start, c.end = d.leafBounds(i, stream, lo, hi)
				if c.start < c.end && !yield(c) {
					return
				}
				continue
			}
			for n := firstRef(refs, stream, lo); n < len(refs) && refs[n].stream == stream && refs[n].start < hi; n++ {
				if !yield(chunkIn{refs[n], uint64(i)*leafEntries + uint64(n), nil}) {
					return
				}
			}
		}
	}
}

// leavesIn yields the leaves that may have chunks in [lo, hi) of a stream.
func (d *Delta) leavesIn(stream int, lo, hi int64) iter.Seq[int] {
	return func(yield func(int) bool) {
		if lo >= hi {
			return
		}
		for i := d.firstLeaf(stream, lo); i < len(d.root.leaves); i++ {
			if l := d.root.leaves[i]; l.stream > stream || l.stream == stream && l.start >= hi || !yield(i) {
				return
			}
		}
	}
}

// leafBounds returns the part of [lo, hi) of a stream in which leaf i may have chunks.
func (d *Delta) leafBounds(i, stream int, lo, hi int64) (int64, int64) {
	if l := d.root.leaves[i]; l.stream == stream {
		lo = max(lo, l.start)
	}
	if i+1 < len(d.root.leaves) {
		if next := d.root.leaves[i+1]; next.stream == stream {
			hi = min(hi, next.start)
		}
	}
	return lo, hi
}
