package sparse

import (
	"iter"
	"slices"
	"sort"
)

// Set is a set of bytes of an image, kept as runs that do not touch. Each run takes 16 to 32 bytes
// of memory. Runs may be added in any order at about the same cost. The zero Set is empty. It is
// not safe for concurrent use.
type Set struct {
	leaves [][]run // none is empty; all runs ascend
}

// run is the bytes [lo, hi).
type run struct{ lo, hi int64 }

// maxLeaf bounds how many runs are moved when one is added in the middle.
const maxLeaf = 1024

// at returns leaf and index of the first run that ends at or after off.
func (s *Set) at(off int64) (leaf, i int) {
	leaf = sort.Search(len(s.leaves), func(k int) bool {
		l := s.leaves[k]
		return l[len(l)-1].hi >= off
	})
	if leaf < len(s.leaves) {
		l := s.leaves[leaf]
		i = sort.Search(len(l), func(k int) bool { return l[k].hi >= off })
	}
	return leaf, i
}

// Add puts [lo, hi) in the set.
func (s *Set) Add(lo, hi int64) {
	if lo >= hi {
		return
	}
	first, i := s.at(lo)
	if first == len(s.leaves) {
		if first == 0 {
			s.leaves = [][]run{{{lo, hi}}}
			return
		}
		first--
		i = len(s.leaves[first])
	}
	r := run{lo, hi}
	last, j := first, i // past the last run that r touches
	for ; last < len(s.leaves); last, j = last+1, 0 {
		l := s.leaves[last]
		for j < len(l) && l[j].lo <= r.hi {
			r.lo, r.hi = min(r.lo, l[j].lo), max(r.hi, l[j].hi)
			j++
		}
		if j < len(l) {
			break
		}
	}
	if last > first {
		if last < len(s.leaves) {
			s.leaves[last] = s.leaves[last][j:]
		}
		s.leaves = slices.Delete(s.leaves, first+1, last)
		j = len(s.leaves[first])
	}
	l := slices.Replace(s.leaves[first], i, j, r)
	s.leaves[first] = l
	if len(l) > maxLeaf {
		half := slices.Clone(l[len(l)/2:])
		s.leaves[first] = l[:len(l)/2]
		s.leaves = slices.Insert(s.leaves, first+1, half)
	}
}

// Without yields start and end of each run of [lo, hi) that is not in the set, in ascending order.
// Nothing may be added to the set meanwhile.
func (s *Set) Without(lo, hi int64) iter.Seq2[int64, int64] {
	return func(yield func(int64, int64) bool) {
		leaf, i := s.at(lo)
		for ; leaf < len(s.leaves) && lo < hi; leaf, i = leaf+1, 0 {
			for _, r := range s.leaves[leaf][i:] {
				if r.lo >= hi {
					break
				}
				if lo < r.lo && !yield(lo, r.lo) {
					return
				}
				lo = r.hi
			}
			if l := s.leaves[leaf]; l[len(l)-1].hi >= hi {
				break
			}
		}
		if lo < hi {
			yield(lo, hi)
		}
	}
}
