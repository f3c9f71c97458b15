package thin

// walk goes through the entries of a tree with keys in [lo, hi], in ascending order. At any moment
// its top is a subtree that was not read yet, or an entry of a leaf, or nothing at the end. A
// subtree can be skipped unread or expanded. Nodes that may follow are read ahead, many at once.
// close must be called.
type walk struct {
	m      *Metadata
	kind   leafKind
	t      *tree
	lo, hi uint64
	height int // 0 until it is known
	root   uint64
	begun  bool // the root was expanded or skipped

	frames [maxHeight]frame
	depth  int // frames in use
	ahead  ahead
	// other is the walk that runs beside this one: nodes that both can skip are not read ahead.
	other *walk
}

// frame is a node on the path from the root, at entry i.
type frame struct {
	node  node
	block uint64
	place place
	i     int
}

// walk returns a walk that starts at the root of a tree. A height of 0 means that it is not known.
func (m *Metadata) walk(root uint64, k leafKind, t *tree, height int, lo, hi uint64) *walk {
	return &walk{m: m, kind: k, t: t, lo: lo, hi: hi, height: height, root: root}
}

// close waits for reads in progress.
func (w *walk) close() { w.ahead.wait() }

// atSubtree reports whether the top is a subtree. If so, it returns its block and the lowest key
// that it may contain.
func (w *walk) atSubtree() (block, key uint64, ok bool) {
	if !w.begun {
		return w.root, 0, true
	}
	if w.depth == 0 {
		return 0, 0, false
	}
	f := &w.frames[w.depth-1]
	if f.node.leaf() {
		return 0, 0, false
	}
	return f.node.child(f.i), f.node.key(f.i), true
}

// atEntry returns the leaf to which the entry at the top belongs, or nil if the top is not an
// entry.
func (w *walk) atEntry() *frame {
	if !w.begun || w.depth == 0 || !w.frames[w.depth-1].node.leaf() {
		return nil
	}
	return &w.frames[w.depth-1]
}

// levels returns how many levels the subtree at the top has, if that is known.
func (w *walk) levels() int {
	if !w.begun {
		return w.height
	}
	return w.height - w.depth
}

// skip leaves the subtree at the top unread.
func (w *walk) skip() {
	if !w.begun {
		w.begun = true
		return
	}
	w.ahead.stop()
	w.frames[w.depth-1].i++
	w.settle()
}

// settle drops frames that have reached their end, and all frames once hi is passed.
func (w *walk) settle() {
	for w.depth > 0 {
		f := &w.frames[w.depth-1]
		if f.i < f.node.len() {
			if f.node.key(f.i) > w.hi {
				w.depth = 0
			}
			return
		}
		if w.depth--; w.depth > 0 {
			w.frames[w.depth-1].i++
		}
	}
}

// expand reads the root of the subtree at the top and enters it.
func (w *walk) expand() error {
	block, _, _ := w.atSubtree()
	p := place{hi: 1<<64 - 1}
	if w.begun {
		f := &w.frames[w.depth-1]
		p = f.node.below(f.place, f.i)
	}
	if p.depth == maxHeight {
		return tooHigh(w.t, block)
	}
	n, err := w.load(block, p)
	if err != nil {
		return err
	}
	if err := n.within(p, block, w.t); err != nil {
		return err
	}
	if err := w.checkHeight(n, block, p); err != nil {
		return err
	}
	i := 0
	if w.lo > p.lo {
		if i = n.findChild(w.lo); n.leaf() {
			i = n.find(w.lo)
		}
	}
	w.begun = true
	w.frames[w.depth] = frame{n, block, p, i}
	w.depth++
	w.settle()
	return nil
}

// load reads a node. Internal nodes go through the cache, because they are needed again; leaves are
// read ahead.
func (w *walk) load(block uint64, p place) (node, error) {
	if p.depth > 0 && w.height == p.depth+1 {
		return w.ahead.next(w)
	}
	return w.m.node(block, w.kind, w.t)
}

// checkHeight checks that all leaves are at the same depth and that no node is below itself.
func (w *walk) checkHeight(n node, block uint64, p place) error {
	for _, f := range w.frames[:w.depth] {
		if f.block == block {
			return formatError(w.t.node, block, "", nil, "the node hangs below itself")
		}
	}
	if n.leaf() {
		if w.height == 0 {
			w.height = p.depth + 1
		}
		if w.height != p.depth+1 {
			return formatError(w.t.node, block, "flags", uint32(leafNode), "a leaf, and others are deeper")
		}
	} else if w.height == p.depth+1 {
		return formatError(w.t.node, block, "flags", uint32(internalNode), "an internal node as deep as other leaves")
	}
	return nil
}

// entries yields the leaves of the rest of the walk, each with its entries i to end-1 that are in
// [lo, hi], until yield returns false.
func (w *walk) entries(yield func(n node, i, end int) bool) error {
	for {
		if f := w.atEntry(); f != nil {
			end := f.node.len()
			if f.node.key(end-1) > w.hi {
				end = f.node.find(w.hi + 1)
			}
			if !yield(f.node, f.i, end) {
				return nil
			}
			f.i = end
			w.settle()
			continue
		}
		if _, _, ok := w.atSubtree(); !ok {
			return nil
		}
		if err := w.expand(); err != nil {
			return err
		}
	}
}

// next returns the next entry: a leaf and the index of the entry, or a nil leaf at the end. The
// leaf is valid until the next call.
func (w *walk) next() (node, int, error) {
	for {
		if f := w.atEntry(); f != nil {
			n, i := f.node, f.i
			f.i++
			w.settle()
			return n, i, nil
		}
		if _, _, ok := w.atSubtree(); !ok {
			return nil, 0, nil
		}
		if err := w.expand(); err != nil {
			return nil, 0, err
		}
	}
}

// over reports whether nothing is left.
func (w *walk) over() bool { return w.begun && w.depth == 0 }

// key returns the key of the entry that the frame is at.
func (f *frame) key() uint64 { return f.node.key(f.i) }
