package cbt

import (
	"iter"
	"sort"

	"cbt/sparse"
)

// part is an extent of a delta and where its bytes lie: chunk k, at byte at
// of its payload, and from old CRC number check on.
type part struct {
	extent
	k     uint64
	table *table
	at    int
	check int
}

// clip cuts p to [lo, hi). Cuts inside a block lose the checks.
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

// parts yields what the delta says about [lo, hi) of a stream, ascending.
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
			var t *table
			if t, err = d.table(k); err != nil {
				break
			}
			p := part{k: k, table: t}
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

// Extents yields what the delta says about a stream: Data and Zero extents,
// nothing where the image stays as it was.
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
