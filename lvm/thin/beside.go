package thin

// path is the last internal node on a walk's path, and its parent. If the former is the root, the
// parent has no node.
type path struct{ low, up frame }

// path returns the path of w, whose top is a subtree.
func (w *walk) path() (p path) {
	p.low = w.frames[w.depth-1]
	if w.depth > 1 {
		p.up = w.frames[w.depth-2]
	}
	return p
}

// following returns p moved to the next internal node. ok is false if that node is not certain to
// be needed, or is not below the same parent.
func (p path) following(w *walk, o beside) (_ path, ok bool) {
	i := p.up.i + 1
	if p.up.node == nil || i >= p.up.node.len() {
		return p, false
	}
	key, block := p.up.node.key(i), p.up.node.child(i)
	if key > w.hi || o.mayShareNode(key, block) {
		return p, false
	}
	n, err := w.m.node(block, w.kind, w.t)
	if err != nil || n.leaf() {
		return p, false // the walk reports an error when it gets there
	}
	p.low, p.up.i = frame{node: n, block: block, place: p.up.node.below(p.up.place, i)}, i
	return p, true
}

// beside is the position of a walk in the tree beside another one, at one moment. Whatever both
// trees have in the same place may be skipped unread.
type beside struct {
	w    *walk // only those parts of it are used that do not change
	none bool  // nothing is left there
	path
}

// beside returns the position of w. It is valid until w goes on to the leaves of another node.
func (w *walk) beside() beside {
	b := beside{w: w}
	switch {
	case w == nil || w.begun && w.depth == 0:
		b.none = true
		return b
	case !w.begun:
		return b
	}
	d := w.depth - 1
	if w.frames[d].node.leaf() {
		d--
	}
	switch {
	case d < 0: // the root is a leaf, and is being read
		b.none = true
	case w.height == 0 || w.frames[d].place.depth == w.height-2:
		if b.low = w.frames[d]; d > 0 {
			b.up = w.frames[d-1]
		}
	case w.frames[d].place.depth == w.height-3:
		b.up = w.frames[d]
	}
	return b
}

// mayShare reports whether this tree has, or may have, the leaf of another tree in the same place.
// key is the key of the leaf's entry in that tree. Keys must ascend from call to call.
func (b *beside) mayShare(key, block uint64) bool {
	if b.none {
		return false
	}
	if b.low.node == nil || key > b.low.place.hi {
		if b.up.node == nil || key > b.up.place.hi {
			return true
		}
		i := b.up.node.findChild(key)
		n, err := b.w.m.node(b.up.node.child(i), b.w.kind, b.w.t)
		if err != nil || n.leaf() {
			return true
		}
		b.low = frame{node: n, place: b.up.node.below(b.up.place, i)}
	}
	return b.low.node.child(b.low.node.findChild(key)) == block
}

// mayShareNode is mayShare for an internal node directly above leaves.
func (b *beside) mayShareNode(key, block uint64) bool {
	if b.none {
		return false
	}
	if b.up.node == nil || key > b.up.place.hi {
		return true
	}
	return b.up.node.child(b.up.node.findChild(key)) == block
}
