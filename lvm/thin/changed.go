package thin

import (
	"fmt"
	"reflect"

	"cbt/sparse"
)

var errUnrelated = fmt.Errorf("%w: the two thin devices were not opened from the same", sparse.ErrUnrelated)

// Changed returns the extents of new in [off, off+n) that may differ from old, from metadata alone
// and with the kinds of new. These are blocks that are mapped to different data blocks, or in only
// one of the two. It may name too much. It never names too little, as long as nobody writes in
// place to blocks of either. Outside the extents named, old and new read the same, and an image
// reads as zeros past its end. The range may reach as far as the end of the larger of the two. What
// lies past new's end is not named; what lies past old's end is named in full.
//
// Subtrees that both mapping trees share are skipped unread, unless the two have different external
// origins. In that case all of both trees is read, and blocks that neither maps count as changed
// where one of the origins has data. old and new must be views of one Metadata; otherwise the error
// is sparse.ErrUnrelated.
//
// Memory is at most 2.2 MiB besides what Metadata keeps. The sequence reads with several
// goroutines, which end when the loop over it ends.
func Changed(old, new *View, off, n int64) sparse.Seq {
	if old.m != new.m {
		return sparse.Fail(errUnrelated)
	}
	if err := sparse.CheckRange(off, n, max(old.size, new.size)); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		end := min(off+n, new.size)
		if common := min(end, old.size); off < common {
			if !difference(old, new, off, common, yield) {
				return
			}
		}
		if grown := max(off, old.size); grown < end {
			for e, err := range new.Extents(grown, end-grown) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	})
}

// diff is the state of a walk over two mapping trees side by side.
type diff struct {
	oldView, newView *View
	old, new         *walk
	lo, hi           int64 // in bytes, inside both
	yield            func(sparse.Extent, error) bool
	run              blockRun // found but not yet yielded

	// With different external origins, blocks that neither maps count too. Those from pos on have
	// not been judged yet.
	origins bool
	pos     uint64
}

// blockRun is a run of changed blocks [lo, hi) of new, which are either all mapped in new or all
// unmapped.
type blockRun struct {
	lo, hi uint64
	mapped bool
}

// difference yields what differs in [lo, hi), which is not empty, and reports whether to go on.
func difference(old, new *View, lo, hi int64, yield func(sparse.Extent, error) bool) bool {
	d := diff{oldView: old, newView: new, lo: lo, hi: hi, yield: yield, pos: uint64(lo / new.blockSize())}
	d.origins = !sameOrigin(old.external, new.external)
	if old.dev.Root == new.dev.Root && !d.origins {
		return true
	}
	d.old, d.new = old.walk(lo, hi), new.walk(lo, hi)
	defer d.old.close()
	defer d.new.close()
	if !d.origins {
		d.old.other, d.new.other = d.new, d.old
	}
	for {
		ended, err := d.step()
		switch {
		case err != nil:
			if d.flush() {
				yield(sparse.Extent{}, err)
			}
			return false
		case ended:
			return false
		case d.over():
			return d.gap(d.new.hi+1) && d.flush()
		}
	}
}

func sameOrigin(a, b sparse.View) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return reflect.TypeOf(a).Comparable() && reflect.TypeOf(b).Comparable() && a == b
}

func (d *diff) over() bool { return d.old.over() && d.new.over() }

// step handles the tops of both walks. ended means that the caller wants no more extents.
func (d *diff) step() (ended bool, err error) {
	oldBlock, oldKey, oldSub := d.old.atSubtree()
	newBlock, newKey, newSub := d.new.atSubtree()
	oldLeaf, newLeaf := d.old.atEntry(), d.new.atEntry()
	switch {
	case oldSub && newSub:
		switch oldLevels, newLevels := d.old.levels(), d.new.levels(); {
		case oldBlock == newBlock && !d.origins:
			d.old.skip()
			d.new.skip()
			return false, nil
		case oldKey < newKey || oldKey == newKey && oldLevels > newLevels:
			return false, d.old.expand()
		case oldKey > newKey || oldLevels < newLevels:
			return false, d.new.expand()
		}
		if err := d.old.expand(); err != nil {
			return false, err
		}
		return false, d.new.expand()
	case oldSub && (newLeaf == nil || oldKey <= newLeaf.key()):
		return false, d.old.expand()
	case newSub && (oldLeaf == nil || newKey <= oldLeaf.key()):
		return false, d.new.expand()
	case oldSub:
		ended = !d.oneSided(newLeaf, oldKey, true)
	case newSub:
		ended = !d.oneSided(oldLeaf, newKey, false)
	case oldLeaf != nil && newLeaf != nil:
		ended = !d.leaves(oldLeaf, newLeaf)
	case newLeaf != nil:
		ended = !d.oneSided(newLeaf, 1<<64-1, true)
	case oldLeaf != nil:
		ended = !d.oneSided(oldLeaf, 1<<64-1, false)
	}
	d.old.settle()
	d.new.settle()
	return ended, nil
}

// leaves compares two leaves up to the end of one of them.
func (d *diff) leaves(o, n *frame) bool {
	oldLen, newLen := o.node.len(), n.node.len()
	hi := d.new.hi
	for o.i < oldLen && n.i < newLen {
		if !d.origins {
			same := sameEntries(o.node, n.node, o.i, n.i, min(oldLen-o.i, newLen-n.i))
			if o.i, n.i = o.i+same, n.i+same; o.i == oldLen || n.i == newLen {
				break
			}
		}
		k, l := o.key(), n.key()
		switch {
		case min(k, l) > hi:
			return true
		case k < l:
			if !d.add(k, k+1, false) {
				return false
			}
			o.i++
		case k > l:
			if !d.add(l, l+1, true) {
				return false
			}
			n.i++
		default:
			// As many keys as follow one another in both; usually that is all of them.
			run := int(min(uint64(oldLen-o.i), uint64(newLen-n.i), hi-k+1))
			if run > 1 && !(o.node.dense(o.i, o.i+run) && n.node.dense(n.i, n.i+run)) {
				run = 1
			}
			if !d.values(k, o.node.values()[8*o.i:][:8*run], n.node.values()[8*n.i:][:8*run]) {
				return false
			}
			o.i += run
			n.i += run
		}
	}
	return true
}

// sameEntries returns how many entries of a from i on, and of b from j on, have the same keys and
// data blocks, at most n.
func sameEntries(a, b node, i, j, n int) int {
	ak, bk := a[nodeHeaderSize+8*i:][:8*n], b[nodeHeaderSize+8*j:][:8*n]
	av, bv := a.values()[8*i:][:8*n], b.values()[8*j:][:8*n]
	for len(ak) >= 8 && len(bk) >= 8 && len(av) >= 8 && len(bv) >= 8 &&
		le.Uint64(ak) == le.Uint64(bk) && (le.Uint64(av)^le.Uint64(bv))>>timeBits == 0 {
		ak, bk, av, bv = ak[8:], bk[8:], av[8:], bv[8:]
	}
	return n - len(ak)/8
}

// values compares the mappings of the same blocks from key on.
func (d *diff) values(key uint64, old, new []byte) bool {
	for len(old) > 0 {
		left := len(old)
		for len(old) >= 8 && len(new) >= 8 && (le.Uint64(old)^le.Uint64(new))>>timeBits == 0 {
			old, new = old[8:], new[8:]
		}
		if same := uint64(left-len(old)) / 8; same > 0 && d.origins {
			if !d.gap(key) {
				return false
			}
			d.pos = key + same
		}
		key += uint64(left-len(old)) / 8
		left = len(old)
		for len(old) >= 8 && len(new) >= 8 && (le.Uint64(old)^le.Uint64(new))>>timeBits != 0 {
			old, new = old[8:], new[8:]
		}
		if other := uint64(left-len(old)) / 8; other > 0 {
			if !d.add(key, key+other, true) {
				return false
			}
			key += other
		}
	}
	return true
}

// oneSided handles the entries of a leaf below limit, which the other side does not have. mapped
// tells whether the leaf is new's.
func (d *diff) oneSided(f *frame, limit uint64, mapped bool) bool {
	for f.i < f.node.len() && f.key() <= d.new.hi && f.key() < limit {
		if !d.add(f.key(), f.key()+1, mapped) {
			return false
		}
		f.i++
	}
	return true
}

// add records that blocks [lo, hi) have changed.
func (d *diff) add(lo, hi uint64, mapped bool) bool {
	if d.run.hi == lo && d.run.mapped == mapped && d.run.lo < lo && !d.origins {
		d.run.hi = hi
		return true
	}
	if !d.gap(lo) || !d.flush() {
		return false
	}
	d.run = blockRun{lo, hi, mapped}
	d.pos = hi
	return true
}

// flush yields the current run.
func (d *diff) flush() bool {
	r := d.run
	d.run = blockRun{}
	if r.lo == r.hi {
		return true
	}
	lo, hi := d.bytes(r.lo, r.hi)
	if r.mapped {
		return d.yield(sparse.Extent{Off: lo, Len: hi - lo, Kind: sparse.Data}, nil)
	}
	return d.newView.unmapped(lo, hi, d.yield)
}

// bytes converts blocks [lo, hi) to bytes, cut to the range asked for.
func (d *diff) bytes(lo, hi uint64) (int64, int64) {
	size := uint64(d.newView.blockSize())
	return max(d.lo, int64(lo*size)), int64(min(uint64(d.hi), hi*size))
}

// gap judges the blocks from pos to below key, which neither maps.
func (d *diff) gap(key uint64) bool {
	if !d.origins || d.pos >= key {
		return true
	}
	lo, hi := d.bytes(d.pos, key)
	d.pos = key
	if !d.flush() {
		return false
	}
	oldData := sparse.Select(func(yield func(sparse.Extent, error) bool) {
		d.oldView.unmapped(lo, hi, yield)
	}, func(e sparse.Extent) bool { return e.Kind == sparse.Data })
	return d.newView.unmapped(lo, hi, func(e sparse.Extent, err error) bool {
		if err != nil || e.Kind == sparse.Data {
			return d.yield(e, err)
		}
		for part, err := range sparse.Intersect(sparse.Of(e), oldData) {
			if !d.yield(part, err) || err != nil {
				return false
			}
		}
		return true
	})
}
