package thin

import "fmt"

// The two space maps.
const (
	metadataSpace = iota
	dataSpace
)

var (
	metadataCountTree = newTree("thin metadata space map counts", 4)
	dataCountTree     = newTree("thin data space map counts", 4)
	metadataIndex     = newTree("thin metadata space map", 0)
	dataIndex         = newTree("thin data space map", indexEntrySize)
)

// spaceMaps checks the structures of the space maps, and counts the blocks that they use
// themselves.
func (c *checker) spaceMaps() error {
	if err := c.metadataIndex(); err != nil {
		return err
	}
	s := c.pool
	sound, err := c.tree(s.Metadata.RefCountRoot, c.counts(metadataCountTree, s.Metadata.Blocks))
	if err != nil {
		return err
	}
	c.brokenMap[metadataSpace] = c.brokenMap[metadataSpace] || !sound

	var bitmapsSeen uint64
	index := &branch{kind: bitmaps, t: dataIndex, device: -1}
	index.leaf = func(n node, block uint64) (bool, error) {
		ok := true
		for i := range n.len() {
			if n.key(i) >= bitmapsFor(s.Data.Blocks) {
				c.entry(dataIndex, block, -1, n.key(i), n.key(i), citeBitmaps, fmt.Sprintf("there are only %d data blocks", s.Data.Blocks))
				continue
			}
			bitmapsSeen++
			good, err := c.bitmap(dataIndex, block, n.key(i), decodeIndexEntry(n.values()[indexEntrySize*i:]), s.Data.Blocks)
			if err != nil {
				return false, err
			}
			ok = ok && good
		}
		return ok, nil
	}
	sound, err = c.tree(s.Data.BitmapRoot, index)
	if err != nil {
		return err
	}
	if want := bitmapsFor(s.Data.Blocks); sound && bitmapsSeen < want {
		c.add(Fault{Kind: Corruption, Struct: dataIndex.name, Block: s.Data.BitmapRoot, Device: -1, Cite: citeBitmaps, Msg: fmt.Sprintf("%d of %d bitmaps are missing", want-bitmapsSeen, want)})
		sound = false
	}
	c.brokenMap[dataSpace] = !sound
	sound, err = c.tree(s.Data.RefCountRoot, c.counts(dataCountTree, s.Data.Blocks))
	c.brokenMap[dataSpace] = c.brokenMap[dataSpace] || !sound
	return err
}

func bitmapsFor(blocks uint64) uint64 {
	n := blocks / bitmapEntries
	if blocks%bitmapEntries != 0 {
		n++
	}
	return n
}

// counts returns a branch for a tree of the counts that do not fit into bitmaps.
func (c *checker) counts(t *tree, blocks uint64) *branch {
	b := &branch{kind: refCounts, t: t, device: -1}
	b.leaf = func(n node, block uint64) (bool, error) {
		for i := range n.len() {
			if k := n.key(i); k >= blocks {
				c.entry(t, block, -1, k, k, citeCounts, fmt.Sprintf("the count of one of only %d blocks", blocks))
			}
		}
		return true, nil
	}
	return b
}

// metadataIndex checks the block that lists the bitmaps of the metadata.
func (c *checker) metadataIndex() error {
	at, blocks := c.pool.Metadata.BitmapRoot, c.pool.Metadata.Blocks
	broken := func(format string, args ...any) {
		c.brokenMap[metadataSpace] = true
		c.add(Fault{Kind: Corruption, Struct: metadataIndex.name, Block: at, Device: -1, Cite: citeIndex, Msg: fmt.Sprintf(format, args...)})
	}
	if blocks > maxBlocks {
		broken("%d blocks do not fit into an index of %d bitmaps", blocks, metadataBitmaps)
	}
	if at == 0 || at >= c.m.dev.blocks {
		broken("the index is not one of the metadata blocks 1 to %d", max(c.m.dev.blocks, 1)-1)
		return nil
	}
	c.blocks.use(at)
	b := make([]byte, BlockSize)
	err := c.m.dev.read(b, at, metadataIndex.name)
	if err == nil {
		err = indexKind.verify(b, at, metadataIndex.name)
	}
	if err != nil {
		return c.judge(err, func(err error) { broken("%s", message(err)) })
	}
	for i := range min(bitmapsFor(blocks), metadataBitmaps) {
		good, err := c.bitmap(metadataIndex, at, i, decodeIndexEntry(b[indexHeaderSize+indexEntrySize*i:]), blocks)
		if err != nil {
			return err
		}
		c.brokenMap[metadataSpace] = c.brokenMap[metadataSpace] || !good
	}
	return nil
}

// bitmap checks the bitmap to which e points, entry number i of an index in the given block. It
// reports whether the bitmap could be read.
func (c *checker) bitmap(t *tree, index, i uint64, e indexEntry, blocks uint64) (bool, error) {
	first := i * bitmapEntries
	n := min(bitmapEntries, blocks-first)
	fault := func(block uint64, cite, format string, args ...any) {
		c.entry(t, block, -1, first, first+n-1, cite, fmt.Sprintf(format, args...))
	}
	if e.block == 0 || e.block >= c.m.dev.blocks {
		fault(index, citeBitmaps, "bitmap %d in block %d: not one of the metadata blocks 1 to %d", i, e.block, max(c.m.dev.blocks, 1)-1)
		return false, nil
	}
	c.blocks.use(e.block)
	b := make([]byte, BlockSize)
	err := c.m.dev.read(b, e.block, t.name)
	if err == nil {
		err = bitmapKind.verify(b, e.block, t.name)
	}
	if err != nil {
		return false, c.judge(err, func(err error) { fault(e.block, citeBitmaps, "bitmap %d: %s", i, message(err)) })
	}
	// The kernel counts entries after the last block as free; thin_restore does not.
	free := spaceBitmap(b).free(int(n))
	switch have := int(e.free); {
	case have == free || have == spaceBitmap(b).free(bitmapEntries):
	case have < free: // thin_restore writes this
		c.note(t.name, index, citeFree, "nr_free of bitmap %d is %d, and %d are free: some will not be found", i, e.free, free)
	default:
		fault(index, citeFree, "nr_free of bitmap %d is %d, and %d are free", i, e.free, free)
	}
	return true, nil
}
