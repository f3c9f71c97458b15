package qcow2

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"cbt/internal/ordered"
	"cbt/sparse"
)

// comparison goes over the tables of two states of one image side by side. Clusters and tables that
// both share are the same bytes of the same file, so they are equal and are not read. The rest is
// compared in its stored form, and decoded entry by entry only where that differs.
type comparison struct {
	img      *Image
	old, new *walker
	yield    func(sparse.Extent, error) bool
}

// tablePair holds a slice of each of two L2 tables that belong to the same place of the disk.
type tablePair struct {
	index      int64  // L1 entry
	old, new   uint64 // offsets of the tables; 0 for one that does not exist
	lo, hi     int64  // the range to be compared
	a, b       []byte // the slices
	first      int64  // the entry that they start with
	room       *pairRoom
	difference []bounds // the parts of [lo, hi) in which each entry differs in some way
}

type pairRoom struct{ a, b [maxSlice]byte }

type bounds struct{ lo, hi int64 }

var pairRooms = sync.Pool{New: func() any { return new(pairRoom) }}

// nothing stands for a slice of a table that does not exist.
var nothing [maxSlice]byte

// errStopped means that the caller wants no more extents.
var errStopped = errors.New("qcow2: stopped")

// compare yields the extents of new that differ from old in [lo, hi), which lies inside both, and
// reports whether to go on.
func compare(old, new *View, lo, hi int64, yield func(sparse.Extent, error) bool) bool {
	c := comparison{new.img, old.walk(lo, hi-lo), new.walk(lo, hi-lo), yield}
	var err error
	if c.old.scan {
		// Reading tables ahead hides how long the disk takes for each.
		err = ordered.Map(context.Background(), runtime.GOMAXPROCS(0),
			func(_ context.Context, emit func(*tablePair) error) error {
				return pairs(old, new, lo, hi, emit)
			},
			func(_ context.Context, p *tablePair) (*tablePair, error) {
				p.room = pairRooms.Get().(*pairRoom)
				return p, c.read(p)
			},
			func(p *tablePair) error {
				defer pairRooms.Put(p.room)
				return c.decode(p)
			})
	} else {
		err = pairs(old, new, lo, hi, func(p *tablePair) error {
			if err := c.read(p); err != nil {
				return err
			}
			return c.decode(p)
		})
	}
	if err != nil && err != errStopped {
		yield(sparse.Extent{}, err)
	}
	return err == nil
}

// pairs emits the slices of L2 tables in [lo, hi) that old and new do not share.
func pairs(old, new *View, lo, hi int64, emit func(*tablePair) error) error {
	oldL1, newL1 := old.walk(lo, hi-lo), new.walk(lo, hi-lo)
	h := &new.img.header
	span, slice := h.L1Span(), min(maxSlice, h.ClusterSize())/h.L2EntrySize()
	for index := lo / span; index <= (hi-1)/span; {
		same, err := sameL1(oldL1, newL1, index)
		if err != nil {
			return err
		}
		if same > 0 {
			index += same
			continue
		}
		p := tablePair{index: index}
		if p.old, _, err = oldL1.l1Run(index); err != nil {
			return err
		}
		if p.new, _, err = newL1.l1Run(index); err != nil {
			return err
		}
		// hi may be in the last span of a disk of nearly 2^63 bytes.
		start, end := max(lo, index*span), index*span+min(hi-index*span, span)
		for start < end {
			next := p
			next.first = (start - index*span) >> h.ClusterBits &^ (slice - 1)
			next.lo = start
			next.hi = min(end, index*span+(next.first+slice)<<h.ClusterBits)
			start = next.hi
			if err := emit(&next); err != nil {
				return err
			}
		}
		index++
	}
	return nil
}

// sameL1 returns how many L1 entries from index on point to the same tables in both, as far as one
// slice shows.
func sameL1(old, new *walker, index int64) (int64, error) {
	if index >= old.v.l1Entries || index >= new.v.l1Entries { // both only where tables were cut
		if index >= old.v.l1Entries && index >= new.v.l1Entries {
			return 1 << 32, nil
		}
		return 0, nil
	}
	a, err := old.l1Slice(index)
	if err != nil {
		return 0, err
	}
	b, err := new.l1Slice(index)
	if err != nil {
		return 0, err
	}
	at := int(index % (maxSlice / 8) * 8)
	n := min(len(a), len(b))
	return int64(firstDifference(a[:n], b[:n], at, notCopied, notCopied)-at) / 8, nil
}

// read reads the slices of p and finds where they differ.
func (c *comparison) read(p *tablePair) (err error) {
	h := &c.img.header
	n, size, odd := min(maxSlice, h.ClusterSize()), h.L2EntrySize(), uint64(notCopied)
	if p.a, err = c.slice(p, p.old, (*pairRoom).old, n); err != nil {
		return err
	}
	if p.b, err = c.slice(p, p.new, (*pairRoom).new, n); err != nil {
		return err
	}
	if size == 16 {
		odd = ^uint64(0) // the bitmap, where every bit counts
	}
	base := p.index*h.L1Span() + p.first<<h.ClusterBits // the guest offset where the slices start
	at := (p.lo - base) >> h.ClusterBits * size
	end := ((p.hi-1-base)>>h.ClusterBits + 1) * size
	for a, b := p.a[:end], p.b[:end]; ; {
		from := int64(firstDifference(a, b, int(at), notCopied, odd)) / size * size
		if from >= end {
			return nil
		}
		at = from + size
		for at < end && int64(firstDifference(a[:at+size], b[:at+size], int(at), notCopied, odd)) < at+size {
			at += size
		}
		lo, hi := base+from/size<<h.ClusterBits, base+at/size<<h.ClusterBits
		p.difference = append(p.difference, bounds{max(p.lo, lo), min(p.hi, hi)})
	}
}

func (r *pairRoom) old() []byte { return r.a[:] }
func (r *pairRoom) new() []byte { return r.b[:] }

// slice reads n bytes of one table of p, or returns zeros if the table does not exist.
func (c *comparison) slice(p *tablePair, table uint64, room func(*pairRoom) []byte, n int64) ([]byte, error) {
	if table == 0 {
		return nothing[:n], nil
	}
	off := table + uint64(p.first*c.img.header.L2EntrySize())
	if p.room == nil {
		return c.img.cachedTable("qcow2 L2 table", off, int(n))
	}
	b := room(p.room)[:n]
	return b, c.img.file.fill("qcow2 L2 table", b, off)
}

// decode yields what differs in p.
func (c *comparison) decode(p *tablePair) error {
	offset := uint64(p.first * c.img.header.L2EntrySize())
	if p.old != 0 {
		c.old.l2.off, c.old.l2.b = p.old+offset, p.a
	}
	if p.new != 0 {
		c.new.l2.off, c.new.l2.b = p.new+offset, p.b
	}
	for _, d := range p.difference {
		if err := c.clusters(d.lo, d.hi); err != nil {
			return err
		}
	}
	// The slices must not be used after this returns.
	c.old.l2.b, c.new.l2.b = nil, nil
	return nil
}

// clusters yields what differs in a range in which each entry differs in some way.
func (c *comparison) clusters(lo, hi int64) error {
	c.old.seek(lo, hi)
	c.new.seek(lo, hi)
	var a, b run
	for pos := lo; pos < hi; {
		var err error
		if a.end() <= pos {
			if a, err = c.old.next(); err != nil {
				return err
			}
		}
		if b.end() <= pos {
			if b, err = c.new.next(); err != nil {
				return err
			}
		}
		end := min(a.end(), b.end())
		if !c.part(a.from(pos), b.from(pos), end-pos) {
			return errStopped
		}
		pos = end
	}
	return nil
}

// part compares the first n bytes of two runs that start at the same offset, and reports whether to
// go on.
func (c *comparison) part(a, b run, n int64) bool {
	b.n = n
	switch {
	case a.kind == b.kind && a.kind == stored && a.host == b.host,
		a.kind == b.kind && a.kind == deflated && a.entry == b.entry,
		a.kind == b.kind && (a.kind == zeros || a.kind == unallocated):
		return true
	case a.kind == zeros && b.kind == unallocated, a.kind == unallocated && b.kind == zeros:
		return c.hidden(b)
	}
	return c.new.v.flatten(b, c.yield)
}

// hidden yields the parts of b where the backing file stores something. One state shows those
// bytes, and the other hides them behind zeros.
func (c *comparison) hidden(b run) bool {
	inside := c.img.insideBacking(b.off, b.n)
	if inside == 0 {
		return true
	}
	for e, err := range c.img.backing.Extents(b.off, inside) {
		if err != nil {
			c.yield(sparse.Extent{}, err)
			return false
		}
		if e.Kind.ReadsZero() {
			continue
		}
		if b.kind == zeros {
			e.Kind = sparse.Zero
		}
		if !c.yield(e, nil) {
			return false
		}
	}
	return true
}

// from returns the part of r from pos on.
func (r run) from(pos int64) run {
	if r.host >= 0 {
		r.host += pos - r.off
	}
	r.n -= pos - r.off
	r.off = pos
	return r
}
