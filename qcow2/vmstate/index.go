package vmstate

// A place says where a guest page is stored: 0 nowhere, because it is zero;
// else an offset in the source, or with inTemp set in the temporary file, that
// is never 0.
type place uint64

const inTemp place = 1 << 63

func (p place) offset() int64 { return int64(p &^ inTemp) }

// Places are kept where there are any: 64 of them are a leaf of 512 bytes, 64
// leaves a branch of as many, so that a hostile stream has to store pages to
// make an index grow: by 1 KiB for a page, at worst.
const (
	leafPages   = 64
	branchPages = 64 * leafPages
)

type leaf [leafPages]place

type branch [branchPages / leafPages]*leaf

// index holds the places of the pages of a block.
type index struct {
	pages    int64
	branches []*branch
	stored   int64 // pages that are not zero
}

func newIndex(pages int64) index {
	return index{pages: pages, branches: make([]*branch, (pages+branchPages-1)/branchPages)}
}

func (x *index) get(page int64) place {
	b := x.branches[page/branchPages]
	if b == nil {
		return 0
	}
	l := b[page%branchPages/leafPages]
	if l == nil {
		return 0
	}
	return l[page%leafPages]
}

func (x *index) set(page int64, p place) {
	b := x.branches[page/branchPages]
	if b == nil {
		if p == 0 {
			return
		}
		b = new(branch)
		x.branches[page/branchPages] = b
	}
	l := b[page%branchPages/leafPages]
	if l == nil {
		if p == 0 {
			return
		}
		l = new(leaf)
		b[page%branchPages/leafPages] = l
	}
	if old := l[page%leafPages]; old == 0 && p != 0 {
		x.stored++
	} else if old != 0 && p == 0 {
		x.stored--
	}
	l[page%leafPages] = p
}

// run returns the end of the run of pages from page on, at most end, that are
// all stored or all not, and which.
func (x *index) run(page, end int64) (int64, bool) {
	stored := x.get(page) != 0
	for page < end {
		b := x.branches[page/branchPages]
		switch {
		case b == nil && stored:
			return page, true
		case b == nil:
			page = (page/branchPages + 1) * branchPages
			continue
		}
		l := b[page%branchPages/leafPages]
		switch {
		case l == nil && stored:
			return page, true
		case l == nil:
			page = (page/leafPages + 1) * leafPages
			continue
		}
		if (l[page%leafPages] != 0) != stored {
			return page, stored
		}
		page++
	}
	return min(page, end), stored
}
