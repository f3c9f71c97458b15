package vmstate

import (
	"math/bits"
	"slices"
)

// A place tells where a guest page is stored. 0 means nowhere, because the page is zero. Otherwise
// it is an offset in the source or, with inTemp set, in the temporary file; the offset is never 0.
type place uint64

const inTemp place = 1 << 63

func (p place) offset() int64 { return int64(p &^ inTemp) }

// The index has branches only where pages are stored: a leaf covers 64 pages, a branch 32 leaves. A
// hostile stream must store pages to make an index grow, and each page costs at most 300 bytes.
const (
	leafPages    = 64
	branchLeaves = 32
	branchPages  = branchLeaves * leafPages
)

// branch tells which of its pages are stored and where, in the order of the pages. For a block
// whose pages have fixed places it has no places.
type branch struct {
	stored [branchLeaves]uint64
	places []place
}

// rank returns how many pages of the branch before page are stored.
func (b *branch) rank(page int64) int {
	i := page % branchPages / leafPages
	n := bits.OnesCount64(b.stored[i] & (1<<(page%leafPages) - 1))
	for _, word := range b.stored[:i] {
		n += bits.OnesCount64(word)
	}
	return n
}

// index holds the places of the pages of a block.
type index struct {
	pages    int64
	branches []*branch
	stored   int64 // pages that are not zero

	// For mapped-ram: page n, if it is stored, is at fixed + n*pageSize.
	fixed, pageSize int64
}

func newIndex(pages int64) index {
	return index{pages: pages, branches: make([]*branch, (pages+branchPages-1)/branchPages)}
}

// leaf returns the word of the page's leaf, or 0 if there is none.
func (x *index) leaf(page int64) uint64 {
	b := x.branches[page/branchPages]
	if b == nil {
		return 0
	}
	return b.stored[page%branchPages/leafPages]
}

func (x *index) get(page int64) place {
	if x.leaf(page)&(1<<(page%leafPages)) == 0 {
		return 0
	}
	if x.pageSize != 0 {
		return place(x.fixed + page*x.pageSize)
	}
	b := x.branches[page/branchPages]
	return b.places[b.rank(page)]
}

func (x *index) set(page int64, p place) {
	b := x.branches[page/branchPages]
	if b == nil {
		if p == 0 {
			return
		}
		b = &branch{}
		x.branches[page/branchPages] = b
	}
	word, mask := &b.stored[page%branchPages/leafPages], uint64(1)<<(page%leafPages)
	rank := b.rank(page)
	switch there := *word&mask != 0; {
	case there && p == 0:
		b.places = slices.Delete(b.places, rank, rank+1)
		*word &^= mask
		x.stored--
	case there:
		b.places[rank] = p
	case p != 0:
		if n := len(b.places); n == cap(b.places) {
			b.places = append(make([]place, 0, max(1, 2*n)), b.places...)
		}
		b.places = slices.Insert(b.places, rank, p)
		*word |= mask
		x.stored++
	}
}

// setFixed records which of 64 pages from page on are stored at their fixed places.
func (x *index) setFixed(page int64, word uint64) {
	if word == 0 {
		return
	}
	b := x.branches[page/branchPages]
	if b == nil {
		b = &branch{}
		x.branches[page/branchPages] = b
	}
	b.stored[page%branchPages/leafPages] = word
	x.stored += int64(bits.OnesCount64(word))
}

// run returns the end of the run of pages from page on, at most end, that are either all stored or
// all not stored, and which of the two.
func (x *index) run(page, end int64) (int64, bool) {
	stored := x.leaf(page)&(1<<(page%leafPages)) != 0
	for page < end {
		if x.branches[page/branchPages] == nil {
			if stored {
				break
			}
			page = (page/branchPages + 1) * branchPages
			continue
		}
		word := x.leaf(page)
		if stored {
			word = ^word
		}
		if word >>= page % leafPages; word != 0 {
			page += int64(bits.TrailingZeros64(word))
			break
		}
		page = (page/leafPages + 1) * leafPages
	}
	return min(page, end), stored
}
