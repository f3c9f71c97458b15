package cbt

import (
	"cbt/sparse"
)

func floorBlock(n int64) int64 { return n &^ (BlockSize - 1) }

// ceilBlock rounds up to a block, but not past the end of the image.
func ceilBlock(n, size int64) int64 {
	if n > floorBlock(size) { // there n+BlockSize could overflow
		return size
	}
	return floorBlock(n + BlockSize - 1)
}

// wholeBlocks widens the extents of s to whole blocks of an image of the given size. A block that
// no single extent covers becomes Data. The other blocks read as zeros if they did before. So the
// result has only Data and Zero.
func wholeBlocks(s sparse.Seq, size int64) sparse.Seq {
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		pos := int64(0)
		// put yields the part of [from, to) that was not yielded yet.
		put := func(from, to int64, kind sparse.Kind) bool {
			from = max(from, pos)
			if from >= to {
				return true
			}
			pos = to
			return yield(sparse.Extent{Off: from, Len: to - from, Kind: kind}, nil)
		}
		for e, err := range sparse.Clip(s, 0, size) {
			if err != nil {
				yield(sparse.Extent{}, err)
				return
			}
			start, end := floorBlock(e.Off), ceilBlock(e.End(), size)
			if e.Kind == sparse.Data {
				if !put(start, end, sparse.Data) {
					return
				}
				continue
			}
			inner := ceilBlock(e.Off, size) // start of the first block that e covers from its beginning
			outer := floorBlock(e.End())    // end of the last block that it covers whole
			if e.End() == size {
				outer = size
			}
			if inner > outer || e.Off > inner {
				inner, outer = end, end
			}
			if !put(start, inner, sparse.Data) || !put(inner, outer, sparse.Zero) || !put(outer, end, sparse.Data) {
				return
			}
		}
	})
}
