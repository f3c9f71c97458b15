package thin

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"math/bits"
	"slices"
)

const (
	dataWindow = 1 << 22 // data blocks counted at a time
	// maxPairs is the largest number of mappings that are sorted. For few mappings, sorting is
	// cheaper than windows.
	maxPairs = 1 << 20
	// maxWindows limits how often the leaves are read.
	maxWindows = 1024
	// maxSuspects limits the number of data blocks that are searched for in the devices.
	maxSuspects = 1 << 20
)

// spread is the set of windows of the data that contain a mapped block.
type spread map[uint64]struct{}

func (s *spread) add(block uint64) {
	if *s == nil {
		*s = spread{}
	}
	(*s)[block/dataWindow] = struct{}{}
}

// eachLeaf calls do for every leaf of a mapping tree that was found sound, in the order of the
// blocks.
func (c *checker) eachLeaf(do func(n node)) error {
	const most = 64
	buf := make([]byte, most*BlockSize)
	leaves, t := c.blocks.leaves, newTree("thin mapping tree", 8)
	for b := uint64(0); b < c.m.dev.blocks; {
		if leaves[b/64]>>(b%64) == 0 {
			b = (b/64 + 1) * 64
			continue
		}
		b += uint64(bits.TrailingZeros64(leaves[b/64] >> (b % 64)))
		n := uint64(1)
		for n < most && b+n < c.m.dev.blocks && leaves.has(b+n) {
			n++
		}
		if err := context.Cause(c.ctx); err != nil {
			return err
		}
		if err := c.m.dev.read(buf[:n*BlockSize], b, t.name); err != nil {
			return err
		}
		for i := range n {
			leaf := buf[i*BlockSize:][:BlockSize]
			if err := verifyNode(leaf, b+i, t); err != nil {
				return errors.Join(errChanged, err)
			}
			do(leaf)
		}
		b += n
	}
	return nil
}

// pair is a mapping: the data block and the key.
type pair struct{ block, key uint64 }

// eachUsed calls do for every data block in use, in ascending order. refs is how many entries of
// different leaves name it, and keysDiffer whether these have different keys.
func (c *checker) eachUsed(do func(block uint64, refs uint32, keysDiffer bool)) error {
	if c.stats.Mappings <= maxPairs {
		return c.sortPairs(do)
	}
	windows := slices.Sorted(maps.Keys(c.spread))
	if len(windows) > maxWindows {
		c.note("data block", noBlock, citeCounts, "of %d ranges of %d data blocks in use only the first %d were looked at", len(windows), dataWindow, maxWindows)
		windows = windows[:maxWindows]
	}
	if len(windows) == 0 {
		return nil
	}
	// The first keys are kept in 32 bits; the largest value stands for all larger ones.
	refs, keys, differ := make([]uint16, dataWindow), make([]uint32, dataWindow), make(bitset, dataWindow/64)
	more := map[uint64]uint32{}
	for _, w := range windows {
		clear(refs)
		clear(differ)
		clear(more)
		err := c.eachLeaf(func(n node) {
			values := n.values()
			for i := range n.len() {
				block := mapping(le.Uint64(values[8*i:])).block()
				if block/dataWindow != w || block >= c.pool.Data.Blocks {
					continue
				}
				b, key := block%dataWindow, uint32(min(n.key(i), math.MaxUint32))
				switch {
				case refs[b] == 0:
					keys[b] = key
				case keys[b] != key || key == math.MaxUint32:
					differ.set(b)
				}
				if refs[b] < math.MaxUint16 {
					refs[b]++
				} else {
					more[b]++
				}
			}
		})
		if err != nil {
			return err
		}
		for b, n := range refs {
			if n != 0 {
				do(w*dataWindow+uint64(b), uint32(n)+more[uint64(b)], differ.has(uint64(b)))
			}
		}
	}
	return nil
}

// sortPairs is eachUsed for few mappings.
func (c *checker) sortPairs(do func(block uint64, refs uint32, keysDiffer bool)) error {
	pairs := make([]pair, 0, c.stats.Mappings)
	err := c.eachLeaf(func(n node) {
		for i := range n.len() {
			if block := mapping(n.u64(i)).block(); block < c.pool.Data.Blocks {
				pairs = append(pairs, pair{block, n.key(i)})
			}
		}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Or(cmp.Compare(a.block, b.block), cmp.Compare(a.key, b.key)) })
	for i := 0; i < len(pairs); {
		j := i + 1
		for j < len(pairs) && pairs[j].block == pairs[i].block {
			j++
		}
		do(pairs[i].block, uint32(j-i), pairs[i].key != pairs[j-1].key)
		i = j
	}
	return nil
}

// dataCounts compares the counts of the data blocks, and collects the blocks that are mapped at
// different keys.
func (c *checker) dataCounts() error {
	if c.unusable {
		c.note("data block", noBlock, citeCounts, "counts are not compared: the superblock is damaged")
		return nil
	}
	run := countRun{c: c, name: "data block"}
	var stored *storedCounts
	block, count := uint64(noBlock), uint32(0)
	var err error
	if c.brokenMap[dataSpace] {
		c.note("data block", noBlock, citeCounts, "counts are not compared: the space map is damaged")
	} else {
		index := c.m.walk(c.pool.Data.BitmapRoot, bitmaps, dataIndex, 0, 0, math.MaxUint64)
		defer index.close()
		stored, err = c.stored(c.pool.Data, dataCountTree, func(uint64) (uint64, error) {
			n, i, err := index.next()
			if n == nil {
				return noBlock, err
			}
			return decodeIndexEntry(n.values()[indexEntrySize*i:]).block, err
		})
		if err != nil {
			return err
		}
		defer stored.counts.close()
		if block, count, err = stored.next(); err != nil {
			return err
		}
	}
	// upTo judges the blocks before limit that are counted but not used.
	upTo := func(limit uint64) {
		for err == nil && block < limit {
			run.compare(block, count, 0)
			block, count, err = stored.next()
		}
	}
	used := c.eachUsed(func(b uint64, refs uint32, keysDiffer bool) {
		c.stats.DataUsed++
		if keysDiffer {
			c.suspect(b)
		}
		if stored == nil {
			return
		}
		upTo(b)
		if err == nil && block == b {
			run.compare(b, count, refs)
			block, count, err = stored.next()
		} else if err == nil {
			run.compare(b, 0, refs)
		}
	})
	if used != nil || stored == nil {
		return used
	}
	upTo(noBlock)
	if err != nil {
		return err
	}
	run.end(c.pool.Data, stored)
	return nil
}

func (c *checker) suspect(block uint64) {
	if len(c.suspects) < maxSuspects {
		c.suspects = append(c.suspects, block)
		return
	}
	c.tooManySuspects = true
}
