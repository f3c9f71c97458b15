package thin

import "fmt"

const (
	nodeHeaderSize = 32 // struct node_header, dm-btree-internal.h
	internalNode   = 1  // INTERNAL_NODE
	leafNode       = 2  // LEAF_NODE
	childSize      = 8  // size of a value of an internal node

	// maxHeight limits the height of a tree. With the fewest entries that the kernel leaves in a
	// node, 42, a mapping for each of the 2^40 data blocks needs 8 levels.
	maxHeight = 16
)

// tree describes the B-tree to which a node belongs.
type tree struct {
	name      string // "thin mapping tree of device 3"
	node      string // "thin mapping tree of device 3 node"
	valueSize int    // size of a value in a leaf, in bytes
}

func newTree(name string, valueSize int) *tree { return &tree{name, name + " node", valueSize} }

// node is a verified block: a node of a B-tree. After its header come max_entries keys and then
// max_entries values.
type node []byte

func (n node) leaf() bool          { return n[4] == leafNode }
func (n node) len() int            { return int(le.Uint32(n[16:])) }
func (n node) maxEntries() int     { return int(le.Uint32(n[20:])) }
func (n node) key(i int) uint64    { return le.Uint64(n[nodeHeaderSize+8*i:]) }
func (n node) values() []byte      { return n[nodeHeaderSize+8*n.maxEntries():] }
func (n node) child(i int) uint64  { return n.u64(i) }
func (n node) u64(i int) uint64    { return le.Uint64(n.values()[8*i:]) }
func (n node) record(i int) []byte { return n.values()[detailsSize*i:][:detailsSize] }
func (n node) count(i int) uint32  { return le.Uint32(n.values()[4*i:]) }

// verifyNode checks a block that was read as a node of t: checksum, block number, header, and that
// the keys ascend.
func verifyNode(b []byte, block uint64, t *tree) error {
	if err := nodeKind.verify(b, block, t.node); err != nil {
		return err
	}
	fault := func(field string, value any, format string, args ...any) error {
		return formatError(t.node, block, field, value, fmt.Sprintf(format, args...))
	}
	flags, entries, most, size := le.Uint32(b[4:]), le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint32(b[24:])
	want := t.valueSize
	switch flags {
	case internalNode:
		want = childSize
	case leafNode:
	default:
		return fault("flags", flags, "neither internal node nor leaf")
	}
	if size != uint32(want) {
		return fault("value_size", size, "want %d", want)
	}
	if uint64(most)*uint64(8+size) > BlockSize-nodeHeaderSize {
		return fault("max_entries", most, "do not fit into a block")
	}
	// calc_max_entries rounds to a multiple of 3; this determines where the values begin.
	if most%3 != 0 {
		return fault("max_entries", most, "not a multiple of 3")
	}
	if entries > most {
		return fault("nr_entries", entries, "more than max_entries %d", most)
	}
	if entries == 0 && flags == internalNode {
		return fault("nr_entries", entries, "an internal node without children")
	}
	n := node(b)
	if i := descent(n[nodeHeaderSize:][:8*entries]); i > 0 {
		return fault(fmt.Sprintf("key %d", i), n.key(i), "not above the one before, %#x", n.key(i-1))
	}
	return nil
}

// descent returns the index of the first key that is not above the one before it, or 0 if there is
// none. A large walk spends nearly all its time in loops like this one, which are written so that
// the compiler needs no bounds checks.
func descent(keys []byte) int {
	if len(keys) < 8 {
		return 0
	}
	before := le.Uint64(keys)
	for rest := keys[8:]; len(rest) >= 8; rest = rest[8:] {
		k := le.Uint64(rest)
		if k <= before {
			return (len(keys) - len(rest)) / 8
		}
		before = k
	}
	return 0
}

// dense reports whether the keys of entries i to end-1 follow one another without a gap. It relies
// on their order.
func (n node) dense(i, end int) bool { return n.key(end-1)-n.key(i) == uint64(end-1-i) }

// find returns the first entry whose key is at least key.
func (n node) find(key uint64) int {
	lo, hi := 0, n.len()
	for lo < hi {
		if mid := int(uint(lo+hi) / 2); n.key(mid) < key {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// findChild returns the last child whose keys may include key, or 0 if there is none.
func (n node) findChild(key uint64) int {
	i := n.find(key)
	if i == n.len() || n.key(i) > key {
		i = max(0, i-1)
	}
	return i
}

// place is where a node belongs in a tree: its keys must be in [lo, hi].
type place struct {
	lo, hi uint64
	depth  int // 0 for the root
}

// within checks that the keys of n, read from block, fit its place.
func (n node) within(p place, block uint64, t *tree) error {
	entries := n.len()
	if entries == 0 {
		if p.depth > 0 {
			return formatError(t.node, block, "nr_entries", uint32(0), "empty, and not the root")
		}
		return nil
	}
	for _, i := range [...]int{0, entries - 1} {
		if k := n.key(i); k < p.lo || k > p.hi {
			return formatError(t.node, block, fmt.Sprintf("key %d", i), k, fmt.Sprintf("outside the range of the parent's entry, %#x to %#x", p.lo, p.hi))
		}
	}
	return nil
}

// below returns the place of child i of n, which is at p.
func (n node) below(p place, i int) place {
	c := place{lo: n.key(i), hi: p.hi, depth: p.depth + 1}
	if i+1 < n.len() {
		c.hi = n.key(i+1) - 1
	}
	return c
}
