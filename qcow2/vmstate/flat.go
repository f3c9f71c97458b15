package vmstate

import (
	"sort"

	"cbt/sparse"
)

// flat is an image made of pieces of other images, with holes between them.
type flat struct {
	parts []flatPart // ascending, none empty
	size  int64
}

// flatPart places n bytes of v, from off on, at offset at of the image.
type flatPart struct {
	at, n int64
	v     sparse.View
	off   int64
}

func (f *flat) add(p flatPart) {
	if p.n > 0 {
		f.parts = append(f.parts, p)
		f.size = max(f.size, p.at+p.n)
	}
}

func (f *flat) Size() int64 { return f.size }

// from returns the parts from the first one that ends after off.
func (f *flat) from(off int64) []flatPart {
	i := sort.Search(len(f.parts), func(i int) bool { return f.parts[i].at+f.parts[i].n > off })
	return f.parts[i:]
}

func (f *flat) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, f.size)
	end := off + int64(len(p))
	at := off
	for _, part := range f.from(off) {
		if part.at >= end {
			break
		}
		lo, hi := max(at, part.at), min(end, part.at+part.n)
		clear(p[at-off : lo-off])
		if n, err := sparse.ReadFull(part.v, p[lo-off:hi-off], part.off+lo-part.at); err != nil {
			return int(lo-off) + n, err
		}
		at = hi
	}
	clear(p[at-off:])
	return len(p), eof
}

func (f *flat) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, f.size); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(sparse.Fill(func(yield func(sparse.Extent, error) bool) {
		for _, part := range f.from(off) {
			e := sparse.Extent{Off: part.at, Len: part.n}.Clip(off, off+n)
			if e.Len <= 0 {
				return
			}
			shift := part.at - part.off
			for x, err := range part.v.Extents(e.Off-shift, e.Len) {
				x.Off += shift
				if !yield(x, err) || err != nil {
					return
				}
			}
		}
	}, off, n, sparse.Hole))
}

// Flat returns physical memory as one image, from address 0 on; gaps between the ranges read as
// zeros. ram has the same meaning as in WriteStream.
func (s *State) Flat(ranges []Range, ram Content) (sparse.View, error) {
	f := &flat{}
	for _, r := range ranges {
		v, err := r.Block.content(ram)
		if err != nil {
			return nil, err
		}
		f.add(flatPart{int64(r.Addr), r.Len, v, r.Off})
	}
	return f, nil
}
