package qcow2

import (
	"encoding/binary"

	"cbt/sparse"
)

// comparison goes over the tables of two states of one image side by side.
// What both share is the same by being the same bytes of the same file; the
// rest is judged entry by entry.
type comparison struct {
	img      *Image
	old, new *walker
	yield    func(sparse.Extent, error) bool
}

// nothing is the slice of a table that does not exist.
var nothing [maxSlice]byte

// compare yields the extents of new that differ from old in [lo, hi), which
// lies inside both, and reports whether to go on.
func compare(old, new *View, lo, hi int64, yield func(sparse.Extent, error) bool) bool {
	c := comparison{new.img, old.walk(lo, hi-lo), new.walk(lo, hi-lo), yield}
	span := c.img.header.L1Span()
	for index := lo / span; index <= (hi-1)/span; {
		same, err := c.sameL1(index)
		if err != nil {
			return c.fail(err)
		}
		if same > 0 {
			index += same
			continue
		}
		if !c.tables(index, max(lo, index*span), min(hi-index*span, span)+index*span) {
			return false
		}
		index++
	}
	return true
}

func (c *comparison) fail(err error) bool {
	c.yield(sparse.Extent{}, err)
	return false
}

// sameL1 returns how many L1 entries from index on point to the same tables in
// both, as far as one slice shows it.
func (c *comparison) sameL1(index int64) (int64, error) {
	a, err := c.old.l1Slice(index)
	if err != nil {
		return 0, err
	}
	b, err := c.new.l1Slice(index)
	if err != nil {
		return 0, err
	}
	at := int(index % (maxSlice / 8) * 8)
	n := min(len(a), len(b))
	return int64(firstDifference(a[:n], b[:n], at, notCopied, notCopied)-at) / 8, nil
}

// tables compares the two L2 tables of L1 entry index in [lo, hi).
func (c *comparison) tables(index, lo, hi int64) bool {
	oldTable, _, err := c.old.l1Run(index)
	if err != nil {
		return c.fail(err)
	}
	newTable, _, err := c.new.l1Run(index)
	if err != nil {
		return c.fail(err)
	}
	h := &c.img.header
	size, base := h.L2EntrySize(), index*h.L1Span()
	for lo < hi {
		entry := (lo - base) >> h.ClusterBits
		a, first, err := c.slice(c.old, oldTable, entry)
		if err != nil {
			return c.fail(err)
		}
		b, _, err := c.slice(c.new, newTable, entry)
		if err != nil {
			return c.fail(err)
		}
		start := base + first<<h.ClusterBits // of what the slice describes
		last := min((hi-1-base)>>h.ClusterBits+1, first+int64(len(b))/size)
		if !c.entries(a[:(last-first)*size], b[:(last-first)*size], int((entry-first)*size), start, lo, hi) {
			return false
		}
		lo = base + last<<h.ClusterBits
	}
	return true
}

// slice is l2Slice, also for a table that does not exist.
func (c *comparison) slice(w *walker, table uint64, entry int64) ([]byte, int64, error) {
	if table != 0 {
		return w.l2Slice(table, entry)
	}
	n := min(maxSlice, c.img.header.ClusterSize())
	return nothing[:n], entry &^ (n/c.img.header.L2EntrySize() - 1), nil
}

// entries compares two slices from byte at on; start is the guest offset of
// their first entry. What differs, clipped to [lo, hi), is decoded.
func (c *comparison) entries(a, b []byte, at int, start, lo, hi int64) bool {
	size, odd := int(c.img.header.L2EntrySize()), uint64(notCopied)
	if size == 16 {
		odd = ^uint64(0) // the bitmap, where every bit counts
	}
	for {
		from := firstDifference(a, b, at, notCopied, odd) / size * size
		if from >= len(a) {
			return true
		}
		at = from + size
		for at < len(a) && firstDifference(a[:at+size], b[:at+size], at, notCopied, odd) < at+size {
			at += size
		}
		left := start + int64(from/size)<<c.img.header.ClusterBits
		right := start + int64(at/size)<<c.img.header.ClusterBits
		if !c.clusters(max(lo, left), min(hi, right)) {
			return false
		}
	}
}

// clusters yields what differs in a range whose entries all differ somehow.
func (c *comparison) clusters(lo, hi int64) bool {
	c.old.seek(lo, hi)
	c.new.seek(lo, hi)
	var a, b run
	for pos := lo; pos < hi; {
		var err error
		if a.end() <= pos {
			if a, err = c.old.next(); err != nil {
				return c.fail(err)
			}
		}
		if b.end() <= pos {
			if b, err = c.new.next(); err != nil {
				return c.fail(err)
			}
		}
		end := min(a.end(), b.end())
		if !c.part(a.from(pos), b.from(pos), end-pos) {
			return false
		}
		pos = end
	}
	return true
}

// part compares the first n bytes of two runs that start at the same offset.
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

// hidden yields the parts of b where the backing file stores something, which
// one state shows and the other one hides behind zeros.
func (c *comparison) hidden(b run) bool {
	inside := c.img.insideBacking(b.off, b.n)
	if inside == 0 {
		return true
	}
	for e, err := range c.img.backing.Extents(b.off, inside) {
		if err != nil {
			return c.fail(err)
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

// from is the part of r from pos on.
func (r run) from(pos int64) run {
	if r.host >= 0 {
		r.host += pos - r.off
	}
	r.n -= pos - r.off
	r.off = pos
	return r
}

// notCopied masks off the COPIED bit of an entry that was loaded as if it were
// little endian.
const notCopied = ^uint64(0x80)

// firstDifference returns the offset, at or after at, of the first 8 bytes
// that differ between a and b, which are equally long, or len(a). Words at
// even and odd places are compared under a mask of their own.
func firstDifference(a, b []byte, at int, even, odd uint64) int {
	b = b[:len(a)]
	le := binary.LittleEndian
	for at&15 == 0 && len(a)-at >= 64 {
		x, y := a[at:at+64:at+64], b[at:at+64:at+64]
		d := (le.Uint64(x) ^ le.Uint64(y)) | (le.Uint64(x[16:]) ^ le.Uint64(y[16:])) |
			(le.Uint64(x[32:]) ^ le.Uint64(y[32:])) | (le.Uint64(x[48:]) ^ le.Uint64(y[48:]))
		e := (le.Uint64(x[8:]) ^ le.Uint64(y[8:])) | (le.Uint64(x[24:]) ^ le.Uint64(y[24:])) |
			(le.Uint64(x[40:]) ^ le.Uint64(y[40:])) | (le.Uint64(x[56:]) ^ le.Uint64(y[56:]))
		if d&even|e&odd != 0 {
			break
		}
		at += 64
	}
	for ; len(a)-at >= 8; at += 8 {
		mask := even
		if at&8 != 0 {
			mask = odd
		}
		if (le.Uint64(a[at:])^le.Uint64(b[at:]))&mask != 0 {
			return at
		}
	}
	return len(a)
}
