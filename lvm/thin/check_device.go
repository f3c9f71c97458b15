package thin

import (
	"fmt"
	"math"
)

// trees checks the trees of the pool's superblock and of the held one.
func (c *checker) trees() error {
	for _, s := range []*Superblock{&c.pool, c.held} {
		if s == nil {
			continue
		}
		soundRecords, err := c.tree(s.DetailsRoot, &branch{kind: details, t: details.tree(0), device: -1, leaf: c.records})
		if err != nil {
			return err
		}
		soundRoots, err := c.tree(s.MappingRoot, &branch{kind: roots, t: roots.tree(0), device: -1, leaf: c.devices})
		if err != nil {
			return err
		}
		if !soundRecords || !soundRoots {
			c.note(superblockName(s.Block), s.Block, citeDetails, "the records of the devices are not compared with their mappings: a tree is damaged")
			continue
		}
		if err := c.compareRecords(s); err != nil {
			return err
		}
	}
	return nil
}

// tree checks a whole tree and reports whether it is sound.
func (c *checker) tree(root uint64, b *branch) (sound bool, err error) {
	s, err := c.subtree(b, root, place{hi: math.MaxUint64})
	return !s.damaged, err
}

// records checks the entries of a leaf of the details tree.
func (c *checker) records(n node, block uint64) (bool, error) {
	ok := true
	for i := range n.len() {
		id := n.key(i)
		if id > maxDeviceID {
			c.entry(details.tree(0), block, -1, id, id, citeDeviceID, "a device id of more than 24 bits")
			ok = false
			continue
		}
		d := decodeDetails(uint32(id), n.record(i))
		if err := d.Validate(c.m.super.Time); err != nil {
			c.entry(details.tree(0), block, int64(id), id, id, citeDetails, message(err))
		}
	}
	return ok, nil
}

// entry reports a fault of the entries of a leaf with keys first to last.
func (c *checker) entry(t *tree, block uint64, device int64, first, last uint64, cite, msg string) {
	c.add(Fault{Kind: Corruption, Struct: t.name, Block: block, Device: device, Keys: true, First: first, Last: last, Cite: cite, Msg: msg})
}

// devices checks the entries of a leaf of the device tree, with the mapping trees that they point
// to.
func (c *checker) devices(n node, block uint64) (bool, error) {
	ok := true
	for i := range n.len() {
		id := n.key(i)
		if id > maxDeviceID {
			c.entry(roots.tree(0), block, -1, id, id, citeDeviceID, "a device id of more than 24 bits")
			ok = false
			continue
		}
		b := &branch{kind: mappings, t: mappings.tree(uint32(id)), device: int64(id)}
		b.leaf = func(n node, block uint64) (bool, error) { return c.mappings(b, n, block), nil }
		if _, err := c.tree(n.child(i), b); err != nil {
			return ok, err
		}
	}
	return ok, nil
}

// mappings checks the entries of a leaf of a mapping tree.
func (c *checker) mappings(b *branch, n node, block uint64) bool {
	c.blocks.leaves.set(block)
	c.stats.Mappings += int64(n.len())
	if c.unusable {
		return true
	}
	ok := true
	for i := 0; i < n.len(); {
		m := mapping(n.u64(i))
		cite, msg := c.mappingFault(m)
		if msg == "" {
			c.spread.add(m.block())
			i++
			continue
		}
		// Of neighbouring entries with the same fault, only the value of the first is named.
		first := i
		for i++; i < n.len(); i++ {
			if next, _ := c.mappingFault(mapping(n.u64(i))); next != cite {
				break
			}
		}
		c.entry(b.t, block, b.device, n.key(first), n.key(i-1), cite, msg)
		ok = false
	}
	return ok
}

func (c *checker) mappingFault(m mapping) (cite, msg string) {
	switch {
	case m.block() >= c.pool.Data.Blocks:
		return citeDataRange, fmt.Sprintf("data block %d is not among the pool's %d", m.block(), c.pool.Data.Blocks)
	case m.time() > c.m.super.Time:
		return citeTime, fmt.Sprintf("mapped at time %d, and the pool's time is %d", m.time(), c.m.super.Time)
	}
	return "", ""
}

// compareRecords compares the records of the devices with their trees: which devices exist, and how
// many blocks they map.
func (c *checker) compareRecords(s *Superblock) error {
	records := c.m.walk(s.DetailsRoot, details, details.tree(0), 0, 0, math.MaxUint64)
	defer records.close()
	top := c.m.walk(s.MappingRoot, roots, roots.tree(0), 0, 0, math.MaxUint64)
	defer top.close()
	r, i, err := records.next()
	if err != nil {
		return err
	}
	t, j, err := top.next()
	for err == nil && (r != nil || t != nil) {
		switch {
		case t == nil || r != nil && r.key(i) < t.key(j):
			c.entry(details.tree(0), noBlock, int64(r.key(i)), r.key(i), r.key(i), citeDetails, "a device that is not in the device tree")
			r, i, err = records.next()
			continue
		case r == nil || t.key(j) < r.key(i):
			c.entry(roots.tree(0), noBlock, int64(t.key(j)), t.key(j), t.key(j), citeDetails, "a device that is not in the details tree")
			t, j, err = top.next()
			continue
		}
		if s.Block == 0 {
			c.stats.Devices++
		}
		root := t.child(j)
		d := decodeDetails(uint32(r.key(i)), r.record(i))
		if root < c.m.dev.blocks && c.blocks.info[root] != 0 && c.blocks.info[root]&damaged == 0 && d.MappedBlocks != uint64(c.blocks.entries[root]) {
			c.entry(details.tree(0), noBlock, int64(d.ID), uint64(d.ID), uint64(d.ID), citeMappedBlocks, fmt.Sprintf("mapped_blocks is %d, and %d are mapped", d.MappedBlocks, c.blocks.entries[root]))
		}
		if r, i, err = records.next(); err == nil {
			t, j, err = top.next()
		}
	}
	return err
}
