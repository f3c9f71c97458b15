package thin

import (
	"context"
	"fmt"
	"slices"
)

// branch describes the tree that is being checked.
type branch struct {
	kind   leafKind
	t      *tree
	device int64 // the device of a mapping tree, else -1
	// leaf is called for each leaf that was not met before and whose node is sound. It reports
	// whether the leaf's entries are sound.
	leaf func(n node, block uint64) (ok bool, err error)
}

// below is what is known about a subtree.
type below struct {
	entries uint32
	height  int  // 0 if it could not be determined
	damaged bool // some of it is lost or cannot be trusted
}

// fault reports a fault of a node at p.
func (c *checker) fault(b *branch, block uint64, p place, cite, format string, args ...any) {
	c.add(Fault{
		Kind: Corruption, Struct: b.t.name, Block: block, Device: b.device,
		Keys: true, First: p.lo, Last: p.hi, Cite: cite, Msg: fmt.Sprintf(format, args...),
	})
}

// lost returns what is known about a subtree that cannot be walked.
func (c *checker) lost() below {
	c.broken = true
	return below{damaged: true}
}

// subtree checks the subtree whose root is block, at p.
func (c *checker) subtree(b *branch, block uint64, p place) (below, error) {
	if err := context.Cause(c.ctx); err != nil {
		return below{}, err
	}
	if block == 0 || block >= c.m.dev.blocks {
		c.fault(b, block, p, citeBlockRange, "not one of the metadata blocks 1 to %d", max(c.m.dev.blocks, 1)-1)
		return c.lost(), nil
	}
	if slices.Contains(c.path, block) {
		c.fault(b, block, p, citeCycle, "the node hangs below itself")
		return c.lost(), nil
	}
	if p.depth == maxHeight {
		c.fault(b, block, p, citeHeight, "the tree is higher than %d levels", maxHeight)
		return c.lost(), nil
	}
	c.blocks.use(block)
	if c.blocks.info[block] != 0 {
		return c.again(b, block, p)
	}
	c.path = append(c.path, block)
	defer func() { c.path = c.path[:len(c.path)-1] }()
	s, err := c.first(b, block, p)
	if err != nil {
		return s, err
	}
	info := newNodeInfo(b.kind, max(s.height, 1))
	if s.damaged {
		info |= damaged
	}
	c.blocks.info[block], c.blocks.entries[block] = info, s.entries
	return s, nil
}

// buffer returns a block for the node that the walk is at.
func (c *checker) buffer() []byte {
	for len(c.bufs) < len(c.path) {
		c.bufs = append(c.bufs, make([]byte, BlockSize))
	}
	return c.bufs[len(c.path)-1]
}

// first checks a node that was not met before, and everything below it.
func (c *checker) first(b *branch, block uint64, p place) (below, error) {
	n := node(c.buffer())
	c.stats.Nodes++
	err := c.m.dev.read(n, block, b.t.name)
	if err == nil {
		err = verifyNode(n, block, b.t)
	}
	if err != nil {
		s := c.lost()
		return s, c.judge(err, func(err error) { c.fault(b, block, p, citeNode, "%s", message(err)) })
	}
	s := below{height: 1, damaged: c.outside(b, n, block, p)}
	if least := n.maxEntries() / 3; p.depth > 0 && n.len() < least && n.len() > 0 {
		c.note(b.t.name, block, citeUnderfull, "%d entries in a node of %d: fewer than a third", n.len(), n.maxEntries())
	}
	if n.leaf() {
		s.entries = uint32(n.len())
		ok, err := b.leaf(n, block)
		s.damaged = s.damaged || !ok
		return s, err
	}
	s.height = 0
	for i := range n.len() {
		child := n.below(p, i)
		child.hi = max(child.hi, child.lo)
		k, err := c.subtree(b, n.child(i), child)
		if err != nil {
			return s, err
		}
		s.entries += k.entries
		s.damaged = s.damaged || k.damaged
		switch {
		case k.height == 0:
		case s.height == 0:
			s.height = k.height + 1
		case s.height != k.height+1:
			c.fault(b, n.child(i), child, citeHeight, "the leaves are %d levels down, others %d", k.height, s.height-1)
			s.damaged = true
		}
	}
	if s.height == 0 {
		s.height = 2
	}
	return s, nil
}

// outside reports the keys of a node that lie outside its place.
func (c *checker) outside(b *branch, n node, block uint64, p place) (found bool) {
	if n.len() == 0 && p.depth > 0 {
		c.fault(b, block, p, citeNode, "an empty node that is not the root")
		return true
	}
	for i := 0; i < n.len(); i++ {
		if k := n.key(i); k < p.lo || k > p.hi {
			last := k
			if !n.leaf() {
				last = max(k, n.below(p, i).hi)
			}
			c.add(Fault{
				Kind: Corruption, Struct: b.t.name, Block: block, Device: b.device, Keys: true, First: k, Last: last, Cite: citeKeyRange,
				Msg: fmt.Sprintf("key %d: outside the range of the parent's entry, %d to %d", i, p.lo, p.hi),
			})
			found = true
		}
	}
	return found
}

// again judges a node that this tree or another one has contained before.
func (c *checker) again(b *branch, block uint64, p place) (below, error) {
	info := c.blocks.info[block]
	s := below{entries: c.blocks.entries[block], height: info.height(), damaged: info&damaged != 0}
	if info.kind() != b.kind {
		c.fault(b, block, p, citeNode, "the node belongs to a tree of another kind")
		return c.lost(), nil
	}
	if s.damaged {
		c.fault(b, block, p, citeShared, "shares a damaged part that is reported elsewhere")
		return s, nil
	}
	if p.depth+s.height > maxHeight {
		c.fault(b, block, p, citeHeight, "the tree is higher than %d levels", maxHeight)
		return c.lost(), nil
	}
	// All keys below are at least the first one; the last one is found at the bottom.
	c.path = append(c.path, block)
	defer func() { c.path = c.path[:len(c.path)-1] }()
	n := node(c.buffer())
	for at, q := block, p; ; {
		err := c.m.dev.read(n, at, b.t.name)
		if err == nil {
			err = verifyNode(n, at, b.t)
		}
		if err != nil {
			return c.lost(), c.judge(err, func(err error) { c.fault(b, at, q, citeNode, "%s", message(err)) })
		}
		if q.depth == p.depth && c.outside(b, n, at, q) {
			s.damaged = true
			return s, nil
		}
		last := n.len() - 1
		if last < 0 {
			return s, nil
		}
		if n.key(last) > p.hi {
			c.outside(b, n, at, place{hi: p.hi, depth: q.depth})
			s.damaged = true
			return s, nil
		}
		if n.leaf() {
			return s, nil
		}
		at, q = n.child(last), n.below(q, last)
	}
}
