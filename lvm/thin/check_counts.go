package thin

import (
	"fmt"
	"math"
)

// storedCounts goes through the blocks that a space map counts as used, in ascending order.
type storedCounts struct {
	c      *checker
	blocks uint64
	index  func(i uint64) (block uint64, err error) // block of bitmap i
	counts *walk
	t      *tree // of the counts

	i      uint64 // number of the current bitmap
	bitmap spaceBitmap
	at     int
	used   uint64 // number found so far

	// The next count in the tree, if there is one.
	key   uint64
	count uint32
	more  bool
}

func (c *checker) stored(s SpaceMap, t *tree, index func(i uint64) (uint64, error)) (*storedCounts, error) {
	r := &storedCounts{c: c, blocks: s.Blocks, index: index, t: t, bitmap: make(spaceBitmap, BlockSize)}
	r.counts = c.m.walk(s.RefCountRoot, refCounts, t, 0, 0, math.MaxUint64)
	return r, r.nextCount()
}

func (r *storedCounts) nextCount() error {
	n, i, err := r.counts.next()
	if r.more = n != nil; r.more {
		r.key, r.count = n.key(i), n.count(i)
	}
	return err
}

// next returns the next block and its count; after the last one, noBlock.
func (r *storedCounts) next() (block uint64, count uint32, err error) {
	for first := r.i * bitmapEntries; first < r.blocks; first = r.i * bitmapEntries {
		if r.at == 0 {
			at, err := r.index(r.i)
			if err == nil {
				err = r.c.m.dev.read(r.bitmap, at, r.t.name)
			}
			if err != nil {
				return 0, 0, err
			}
		}
		n := int(min(bitmapEntries, r.blocks-first))
		if r.at = r.bitmap.next(r.at, n); r.at == n {
			r.i, r.at = r.i+1, 0
			continue
		}
		block, count = first+uint64(r.at), r.bitmap.count(r.at)
		if r.at++; r.at == n {
			r.i, r.at = r.i+1, 0
		}
		r.used++
		count, err = r.large(block, count)
		return block, count, err
	}
	_, err = r.large(noBlock, 0)
	return noBlock, 0, err
}

// large looks up a block's count in the tree if it is too large for the bitmap. It reports counts
// that the tree has for blocks before it.
func (r *storedCounts) large(block uint64, count uint32) (uint32, error) {
	for r.more && r.key < block {
		r.stale()
		if err := r.nextCount(); err != nil {
			return 0, err
		}
	}
	found := r.more && r.key == block
	switch {
	case found && count == inTree:
		count = r.count
	case found:
		r.stale()
	case count == inTree:
		r.c.entry(r.t, noBlock, -1, block, block, citeCounts, "the bitmap says that the count is in the tree, and it is not")
	}
	if found {
		return count, r.nextCount()
	}
	return count, nil
}

func (r *storedCounts) stale() {
	r.c.add(Fault{
		Kind: Leak, Struct: r.t.name, Block: noBlock, Device: -1, Keys: true, First: r.key, Last: r.key,
		Cite: citeCounts, Msg: fmt.Sprintf("a count of %d that the bitmap does not refer to", r.count),
	})
}

// countRun joins blocks that have the same wrong count.
type countRun struct {
	c              *checker
	name           string
	first, n       uint64
	stored, actual uint32
	hidden         bool // counts that are too high were found but not reported
}

// compare judges the count of one block.
func (r *countRun) compare(block uint64, stored, actual uint32) {
	if stored == actual {
		return
	}
	if stored > actual && r.c.broken {
		r.hidden = true // something that could not be read may refer to it
		return
	}
	if r.n > 0 && block == r.first+r.n && stored == r.stored && actual == r.actual {
		r.n++
		return
	}
	r.flush()
	r.first, r.n, r.stored, r.actual = block, 1, stored, actual
}

func (r *countRun) flush() {
	if r.n == 0 {
		return
	}
	f := Fault{
		Kind: Corruption, Struct: r.name, Block: r.first, Blocks: r.n, Device: -1, Cite: citeCounts,
		Msg: fmt.Sprintf("counted as used %d times, and used %d times", r.stored, r.actual),
	}
	if r.stored > r.actual {
		f.Kind = Leak
	}
	r.c.add(f)
	r.n = 0
}

// end reports the last run, and a wrong total in the map.
func (r *countRun) end(s SpaceMap, stored *storedCounts) {
	r.flush()
	if r.hidden {
		r.c.note(r.name, noBlock, citeCounts, "counts that are too high are not reported: trees are damaged")
	}
	if s.Allocated != stored.used {
		f := Fault{
			Kind: Corruption, Struct: superblockName(0), Block: 0, Device: -1, Cite: citeAllocated,
			Msg: fmt.Sprintf("space map of %ss: nr_allocated is %d, and the bitmaps have %d", r.name, s.Allocated, stored.used),
		}
		if s.Allocated > stored.used { // thin_restore writes this; only space is lost
			f.Kind = Note
		}
		r.c.add(f)
	}
}

// metadataCounts compares the counts of the metadata blocks.
func (c *checker) metadataCounts() error {
	table := c.blocks
	for b := range c.m.dev.blocks {
		if table.refs[b] != 0 {
			c.stats.MetadataUsed++
		}
	}
	if c.brokenMap[metadataSpace] {
		c.note("metadata block", noBlock, citeCounts, "counts are not compared: the space map is damaged")
		return nil
	}
	index := make([]byte, BlockSize)
	if err := c.m.dev.read(index, c.pool.Metadata.BitmapRoot, metadataIndex.name); err != nil {
		return err
	}
	stored, err := c.stored(c.pool.Metadata, metadataCountTree, func(i uint64) (uint64, error) {
		return decodeIndexEntry(index[indexHeaderSize+indexEntrySize*i:]).block, nil
	})
	if err != nil {
		return err
	}
	defer stored.counts.close()
	run := countRun{c: c, name: "metadata block"}
	var last uint64
	for {
		block, count, err := stored.next()
		if err != nil {
			return err
		}
		for ; last < min(block, c.m.dev.blocks); last++ {
			run.compare(last, 0, table.count(last))
		}
		if block == noBlock {
			break
		}
		actual := uint32(0)
		if block < c.m.dev.blocks {
			actual = table.count(block)
		}
		run.compare(block, count, actual)
		last = block + 1
	}
	run.end(c.pool.Metadata, stored)
	table.refs, table.more, table.entries, table.info = nil, nil, nil, nil
	return nil
}
