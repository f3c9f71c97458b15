package testthin

import (
	"iter"
	"slices"
	"sort"
)

// node is a node of a mapping tree. Trees share nodes.
type node struct {
	block uint64
	txn   int
	leaf  bool
	keys  []uint64
	vals  []uint64 // of a leaf
	kids  []*node
}

func (p *Pool) newLeaf() *node { return &node{block: p.alloc(), txn: p.txn, leaf: true} }

// own returns n if this transaction made it, else a copy.
func (p *Pool) own(n *node) *node {
	if n.txn == p.txn {
		return n
	}
	return &node{p.alloc(), p.txn, n.leaf, slices.Clone(n.keys), slices.Clone(n.vals), slices.Clone(n.kids)}
}

func (n *node) find(key uint64) (int, bool) {
	i := sort.Search(len(n.keys), func(i int) bool { return n.keys[i] >= key })
	return i, i < len(n.keys) && n.keys[i] == key
}

// child is the child whose range key is in.
func (n *node) child(key uint64) int {
	i, ok := n.find(key)
	if !ok {
		i--
	}
	return max(i, 0)
}

func (n *node) lookup(key uint64) (uint64, bool) {
	for !n.leaf {
		n = n.kids[n.child(key)]
	}
	i, ok := n.find(key)
	if !ok {
		return 0, false
	}
	return n.vals[i], true
}

// insert returns the new root.
func (p *Pool) insert(root *node, key, val uint64) *node {
	left, right := p.put(root, key, val)
	if right == nil {
		return left
	}
	return &node{block: p.alloc(), txn: p.txn, keys: []uint64{left.keys[0], right.keys[0]}, kids: []*node{left, right}}
}

// put returns what takes the place of n: one node or, if it was full, two.
func (p *Pool) put(n *node, key, val uint64) (left, right *node) {
	n = p.own(n)
	if n.leaf {
		i, ok := n.find(key)
		if ok {
			n.vals[i] = val
			return n, nil
		}
		n.keys = slices.Insert(n.keys, i, key)
		n.vals = slices.Insert(n.vals, i, val)
	} else {
		i := n.child(key)
		n.keys[i] = min(n.keys[i], key)
		var more *node
		if n.kids[i], more = p.put(n.kids[i], key, val); more != nil {
			n.keys = slices.Insert(n.keys, i+1, more.keys[0])
			n.kids = slices.Insert(n.kids, i+1, more)
		}
	}
	if len(n.keys) <= p.Fill {
		return n, nil
	}
	return n, p.split(n)
}

// remove returns what takes the place of n, nil if nothing is left.
func (p *Pool) remove(n *node, key uint64) *node {
	n = p.own(n)
	if n.leaf {
		i, _ := n.find(key)
		n.keys, n.vals = slices.Delete(n.keys, i, i+1), slices.Delete(n.vals, i, i+1)
	} else {
		i := n.child(key)
		n.kids[i] = p.remove(n.kids[i], key)
		switch {
		case n.kids[i] == nil:
			n.keys, n.kids = slices.Delete(n.keys, i, i+1), slices.Delete(n.kids, i, i+1)
		case len(n.kids[i].keys) < p.Fill/3 && len(n.kids) > 1:
			p.balance(n, min(i, len(n.kids)-2))
		}
	}
	if len(n.keys) == 0 {
		return nil
	}
	return n
}

// balance makes one of children i and i+1 of n, or two of one size.
func (p *Pool) balance(n *node, i int) {
	l, r := p.own(n.kids[i]), n.kids[i+1]
	keys, vals, kids := append(l.keys, r.keys...), append(l.vals, r.vals...), append(l.kids, r.kids...)
	l.keys, l.vals, l.kids, n.kids[i] = keys, vals, kids, l
	if len(keys) <= p.Fill {
		n.keys, n.kids = slices.Delete(n.keys, i+1, i+2), slices.Delete(n.kids, i+1, i+2)
		return
	}
	n.kids[i+1] = p.split(l)
	n.keys[i+1] = n.kids[i+1].keys[0]
}

// split moves the second half of n to a new node.
func (p *Pool) split(n *node) *node {
	half := len(n.keys) / 2
	right := &node{block: p.alloc(), txn: p.txn, leaf: n.leaf, keys: slices.Clone(n.keys[half:])}
	n.keys = n.keys[:half]
	if n.leaf {
		right.vals, n.vals = slices.Clone(n.vals[half:]), n.vals[:half]
	} else {
		right.kids, n.kids = slices.Clone(n.kids[half:]), n.kids[:half]
	}
	return right
}

// walk visits n and, where visit says so, what is below it.
func (n *node) walk(visit func(*node) bool) {
	if visit(n) {
		for _, k := range n.kids {
			k.walk(visit)
		}
	}
}

// built is a node of a tree that is made at once.
type built struct {
	block     uint64
	leaf      bool
	valueSize int
	keys      []uint64
	vals      [][]byte
	kids      []*built
}

// build makes a tree of the given entries.
func (p *Pool) build(keys []uint64, vals [][]byte, valueSize int) *built {
	most := min(p.Fill, maxEntries(valueSize))
	var level []*built
	for lo, hi := range evenly(len(keys), most) {
		level = append(level, &built{p.alloc(), true, valueSize, keys[lo:hi], vals[lo:hi], nil})
	}
	for len(level) > 1 {
		var above []*built
		for lo, hi := range evenly(len(level), p.Fill) {
			kids := level[lo:hi]
			b := &built{block: p.alloc(), valueSize: 8, kids: kids}
			for _, k := range kids {
				b.keys = append(b.keys, k.keys[0])
				b.vals = append(b.vals, le.AppendUint64(nil, k.block))
			}
			above = append(above, b)
		}
		level = above
	}
	return level[0]
}

func (b *built) walk(visit func(*built)) {
	visit(b)
	for _, k := range b.kids {
		k.walk(visit)
	}
}

// evenly cuts n things into parts of at most so many, one if there is nothing.
func evenly(n, most int) iter.Seq2[int, int] {
	return func(yield func(lo, hi int) bool) {
		parts := max(1, (n+most-1)/most)
		for i := range parts {
			if !yield(n*i/parts, n*(i+1)/parts) {
				return
			}
		}
	}
}
