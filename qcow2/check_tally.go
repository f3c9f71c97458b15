package qcow2

import (
	"math/bits"
	"slices"
)

// cell is what a check knows about one host cluster: how often it is referenced (low 16 bits,
// 0xffff if the count is in tally.spilled) and by what.
type cell uint32

const cellCount cell = 0xffff

const (
	usedHeader cell = 1 << (16 + iota)
	usedL1
	usedL2
	usedSnapshots
	usedRefTable
	usedRefBlock
	usedBitmapDir
	usedBitmapTable
	usedBitmapData
	usedLUKS
	usedData
	usedCompressed
	copiedSet   // an active entry that leads here has COPIED set
	copiedClear // an active entry that leads here has COPIED clear
	copiedWrong // at least one of these entries has it wrong
	storedOne   // the stored refcount is 1
)

// usedAlone holds the uses that never share a cluster with anything.
const usedAlone = usedHeader | usedL1 | usedSnapshots | usedRefTable | usedRefBlock |
	usedBitmapDir | usedBitmapTable | usedBitmapData | usedLUKS

func (c cell) use() string {
	for _, u := range []struct {
		bit  cell
		name string
	}{
		{usedHeader, "the header"}, {usedL1, "an L1 table"}, {usedL2, "an L2 table"},
		{usedSnapshots, "the snapshot table"}, {usedRefTable, "the refcount table"},
		{usedRefBlock, "a refcount block"}, {usedBitmapDir, "the bitmap directory"},
		{usedBitmapTable, "a bitmap table"}, {usedBitmapData, "a bitmap"},
		{usedLUKS, "the encryption header"}, {usedData, "guest data"},
		{usedCompressed, "compressed guest data"},
	} {
		if c&u.bit != 0 {
			return u.name
		}
	}
	return "nothing"
}

const pageCells = 512

// fewCells is how many cells of a page are kept singly before the page is allocated. A reference
// costs eight bytes in the file, so a file that scatters references over terabytes of holes must
// not cost a page for each.
const fewCells = 32

// tally counts the references to each host cluster. It needs four bytes of memory for each cluster
// where the image is dense. Where it is not, it stays within a small factor of the tables that hold
// the references.
type tally struct {
	pages   map[int64]*[pageCells]cell
	few     map[int64]cell // by cluster, for pages not allocated yet
	fewOf   map[int64]int  // by page: how many of its cells are in few
	spilled map[int64]uint64

	lastPage int64
	last     *[pageCells]cell

	pageOrder, fewOrder []int64 // set by sort
}

func newTally() *tally {
	return &tally{
		pages: map[int64]*[pageCells]cell{}, few: map[int64]cell{}, fewOf: map[int64]int{},
		spilled: map[int64]uint64{}, lastPage: -1,
	}
}

func (t *tally) page(cluster int64) *[pageCells]cell {
	n := cluster / pageCells
	if n != t.lastPage {
		t.lastPage, t.last = n, t.pages[n]
	}
	return t.last
}

func (t *tally) at(cluster int64) cell {
	if p := t.page(cluster); p != nil {
		return p[cluster%pageCells]
	}
	return t.few[cluster]
}

func (t *tally) set(cluster int64, c cell) {
	if p := t.page(cluster); p != nil {
		p[cluster%pageCells] = c
		return
	}
	if _, ok := t.few[cluster]; !ok {
		n := cluster / pageCells
		if t.fewOf[n]++; t.fewOf[n] > fewCells {
			t.makePage(n)[cluster%pageCells] = c
			return
		}
	}
	t.few[cluster] = c
}

func (t *tally) makePage(n int64) *[pageCells]cell {
	p := new([pageCells]cell)
	for i := range p {
		if c, ok := t.few[n*pageCells+int64(i)]; ok {
			p[i] = c
			delete(t.few, n*pageCells+int64(i))
		}
	}
	delete(t.fewOf, n)
	t.pages[n] = p
	t.lastPage, t.last = n, p
	return p
}

// add counts n more references with the given use, and returns the cell as it was before.
func (t *tally) add(cluster int64, n uint64, use cell) cell {
	was := t.at(cluster)
	now := was | use
	if sum, carry := bits.Add64(t.count(cluster, was), n, 0); carry == 0 && sum < uint64(cellCount) {
		now = now&^cellCount | cell(sum)
	} else {
		if carry != 0 {
			sum = 1<<64 - 1
		}
		now |= cellCount
		t.spilled[cluster] = sum
	}
	t.set(cluster, now)
	return was
}

// count returns the number of references in c, the cell of a cluster.
func (t *tally) count(cluster int64, c cell) uint64 {
	if c&cellCount == cellCount {
		return t.spilled[cluster]
	}
	return uint64(c & cellCount)
}

// sort prepares for each. It is called once all references are counted.
func (t *tally) sort() {
	t.pageOrder, t.fewOrder = make([]int64, 0, len(t.pages)), make([]int64, 0, len(t.few))
	for n := range t.pages {
		t.pageOrder = append(t.pageOrder, n)
	}
	for c := range t.few {
		t.fewOrder = append(t.fewOrder, c)
	}
	slices.Sort(t.pageOrder)
	slices.Sort(t.fewOrder)
}

// each calls yield, in ascending order, for the clusters of [lo, hi) that are referenced.
func (t *tally) each(lo, hi int64, yield func(cluster int64, c cell)) {
	f, _ := slices.BinarySearch(t.fewOrder, lo)
	p, _ := slices.BinarySearch(t.pageOrder, lo/pageCells)
	fewBelow := func(limit int64) {
		for ; f < len(t.fewOrder) && t.fewOrder[f] < limit; f++ {
			yield(t.fewOrder[f], t.few[t.fewOrder[f]])
		}
	}
	for ; p < len(t.pageOrder) && t.pageOrder[p]*pageCells < hi; p++ {
		first := t.pageOrder[p] * pageCells
		fewBelow(min(first, hi))
		page := t.pages[t.pageOrder[p]]
		for i := max(0, lo-first); i < pageCells && first+i < hi; i++ {
			if page[i] != 0 {
				yield(first+i, page[i])
			}
		}
	}
	fewBelow(hi)
}
