package thin

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
)

// mappedTwice looks for data blocks that one device maps at two places. It searches only for blocks
// that are mapped at different keys anywhere, which the kernel never does: a snapshot maps shared
// blocks at the same keys as its origin. So the trees are walked only for pools that are damaged,
// or that were not made by the kernel.
func (c *checker) mappedTwice() error {
	if len(c.suspects) == 0 {
		return nil
	}
	if c.tooManySuspects {
		c.note("data block", noBlock, citeTwice, "only %d of the data blocks that are mapped at different places were looked for in each device", maxSuspects)
	}
	// The values of mappings have been judged already.
	c.m.super.Data.Blocks, c.m.super.Time = maxDataBlocks, maxTime
	looked := make(bitset, (c.m.dev.blocks+63)/64)
	nodes := 16*c.stats.Nodes + 1<<16
	for _, s := range []*Superblock{&c.pool, c.held} {
		if s == nil {
			continue
		}
		top := c.m.walk(s.MappingRoot, roots, roots.tree(0), 0, 0, math.MaxUint64)
		for {
			n, i, err := top.next()
			if err != nil || n == nil {
				// A damaged device tree has been reported already.
				top.close()
				if err != nil && !isFormatError(err) {
					return err
				}
				break
			}
			id, root := n.key(i), n.child(i)
			if root >= c.m.dev.blocks || looked.has(root) {
				continue
			}
			looked.set(root)
			if err := c.twice(uint32(id), root, &nodes); err != nil {
				top.close()
				return err
			}
			if nodes <= 0 {
				top.close()
				c.note("data block", noBlock, citeTwice, "the devices from %d on were not searched for data blocks mapped twice: the trees share too much", id)
				return nil
			}
		}
	}
	return nil
}

// twice searches one device. It reads at most *nodes nodes and subtracts those that it read.
func (c *checker) twice(id uint32, root uint64, nodes *int64) error {
	t := mappings.tree(id)
	w := c.m.walk(root, mappings, t, 0, 0, math.MaxUint64)
	defer w.close()
	var found []pair
	var block uint64
	stopped := false
	err := w.entries(func(n node, i, end int) bool {
		if *nodes--; *nodes <= 0 || c.ctx.Err() != nil {
			stopped = true
			return false
		}
		for ; i < end; i++ {
			block = mapping(n.u64(i)).block()
			if _, ok := slices.BinarySearch(c.suspects, block); ok && len(found) < 2*maxSuspects {
				found = append(found, pair{block, n.key(i)})
			}
		}
		return true
	})
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	if stopped || err != nil && isFormatError(err) {
		err = nil // damage has been reported already; what came before it counts
	}
	slices.SortFunc(found, func(a, b pair) int { return cmp.Or(cmp.Compare(a.block, b.block), cmp.Compare(a.key, b.key)) })
	for i := 1; i < len(found); i++ {
		if a, b := found[i-1], found[i]; a.block == b.block {
			c.entry(t, noBlock, int64(id), a.key, b.key, citeTwice, fmt.Sprintf("keys %d and %d are both mapped to data block %d", a.key, b.key, b.block))
		}
	}
	return err
}
