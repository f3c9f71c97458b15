package testthin

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"
)

const (
	blockSize     = 4096
	bitmapEntries = 16320
)

// Kind is the number that a block's checksum is mixed with.
type Kind uint32

// The kinds of blocks.
const (
	Superblock Kind = 160774
	Node       Kind = 121107
	Index      Kind = 160478
	Bitmap     Kind = 240779
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Seal gives a block the right checksum.
func Seal(b []byte, k Kind) {
	le.PutUint32(b, ^crc32.Checksum(b[4:blockSize], castagnoli)^uint32(k))
}

func maxEntries(valueSize int) int { return (blockSize - 32) / (8 + valueSize) / 3 * 3 }

// Image is the bytes of a metadata device.
type Image []byte

// Block is a metadata block.
func (m Image) Block(n uint64) []byte { return m[n*blockSize:][:blockSize] }

// Edit changes a block and seals it.
func (m Image) Edit(n uint64, k Kind, edit func(b []byte)) {
	edit(m.Block(n))
	Seal(m.Block(n), k)
}

// Value is the place of the value of entry i of a node of 8-byte values.
func Value(b []byte, i int) []byte {
	return b[32+8*int(le.Uint32(b[20:]))+8*i:][:8]
}

// Key is the place of key i of a node.
func Key(b []byte, i int) []byte { return b[32+8*i:][:8] }

func (m Image) node(block uint64, leaf bool, valueSize, most int, keys []uint64, val func(i int) []byte) {
	b := m.Block(block)
	le.PutUint32(b[4:], 1)
	if leaf {
		le.PutUint32(b[4:], 2)
	}
	le.PutUint64(b[8:], block)
	le.PutUint32(b[16:], uint32(len(keys)))
	le.PutUint32(b[20:], uint32(most))
	le.PutUint32(b[24:], uint32(valueSize))
	// What is behind the entries in use is never looked at.
	for i := 32; i < blockSize; i++ {
		b[i] = 0xA5
	}
	for i, k := range keys {
		le.PutUint64(b[32+8*i:], k)
		copy(b[32+8*most+valueSize*i:][:valueSize], val(i))
	}
	Seal(b, Node)
}

func (m Image) built(t *built, fill int) {
	t.walk(func(b *built) {
		m.node(b.block, b.leaf, b.valueSize, min(fill, maxEntries(b.valueSize)), b.keys, func(i int) []byte { return b.vals[i] })
	})
}

// trees makes the device tree and the details tree of now.
func (p *Pool) trees() (top, details *built) {
	var keys []uint64
	var roots, records [][]byte
	for _, id := range p.Devices() {
		d := p.devices[id]
		keys = append(keys, uint64(id))
		roots = append(roots, le.AppendUint64(nil, d.root.block))
		r := le.AppendUint64(nil, uint64(len(d.model)))
		r = le.AppendUint64(r, d.transaction)
		r = le.AppendUint32(r, d.created)
		records = append(records, le.AppendUint32(r, d.snapshottedAt))
	}
	return p.build(keys, roots, 8), p.build(keys, records, 24)
}

// Hold takes a metadata snapshot and returns its block.
func (p *Pool) Hold() uint64 {
	p.txn++
	h := &held{block: p.alloc(), roots: map[uint32]*node{}}
	h.top, h.details = p.trees()
	for id, d := range p.devices {
		h.roots[id] = d.root
	}
	h.super = p.super(h.block, h.top, h.details)
	p.held = h
	return h.block
}

// Release drops the metadata snapshot.
func (p *Pool) Release() { p.held = nil }

func (p *Pool) super(block uint64, top, details *built) []byte {
	b := make([]byte, blockSize)
	le.PutUint32(b[4:], p.Flags)
	le.PutUint64(b[8:], block)
	le.PutUint64(b[0x20:], 27022010)
	le.PutUint32(b[0x28:], 2)
	le.PutUint32(b[0x2C:], p.Time)
	le.PutUint64(b[0x30:], p.Transaction)
	le.PutUint64(b[0x140:], top.block)
	le.PutUint64(b[0x148:], details.block)
	le.PutUint32(b[0x150:], p.Sectors)
	le.PutUint32(b[0x154:], 8)
	le.PutUint64(b[0x158:], uint64(p.Blocks))
	return b
}

// Image lays the metadata out. Blocks that were given out keep their numbers;
// the rest is made anew behind them each time.
func (p *Pool) Image() Image {
	next := p.next
	defer func() { p.next = next }()
	m := make(Image, p.Blocks*blockSize)
	c := counts{m: m, fill: p.Fill, meta: map[uint64]int{0: 1}, data: map[uint64]int{}}

	top, details := p.trees()
	c.built(top)
	c.built(details)
	for _, d := range p.devices {
		c.root(d.root)
	}
	super := p.super(0, top, details)
	if h := p.held; h != nil {
		le.PutUint64(super[0x38:], h.block)
		copy(m.Block(h.block), h.super)
		Seal(m.Block(h.block), Superblock)
		c.meta[h.block]++
		c.built(h.top)
		c.built(h.details)
		for _, r := range h.roots {
			c.root(r)
		}
	}
	p.dataMap(&c, super[0x40:])
	p.metadataMap(&c, super[0xC0:])
	copy(m.Block(0), super)
	Seal(m.Block(0), Superblock)
	return m
}

// counts is how often blocks are used.
type counts struct {
	m          Image
	fill       int
	meta, data map[uint64]int
}

// built counts the nodes of a tree whose root is used once.
func (c *counts) built(t *built) {
	c.m.built(t, c.fill)
	t.walk(func(b *built) { c.meta[b.block]++ })
}

// root counts one more use of a mapping tree.
func (c *counts) root(n *node) {
	n.walk(func(n *node) bool {
		c.meta[n.block]++
		if c.meta[n.block] > 1 {
			return false
		}
		if n.leaf {
			for _, v := range n.vals {
				c.data[v>>24]++
			}
		}
		c.m.node(n.block, n.leaf, 8, c.fill, n.keys, func(i int) []byte {
			if n.leaf {
				return le.AppendUint64(nil, n.vals[i])
			}
			return le.AppendUint64(nil, n.kids[i].block)
		})
		return true
	})
}

// refTree makes the tree of the counts that do not fit into two bits.
func (p *Pool) refTree(used map[uint64]int) *built {
	var keys []uint64
	var vals [][]byte
	for _, b := range slices.Sorted(maps.Keys(used)) {
		if used[b] > 2 {
			keys = append(keys, b)
			vals = append(vals, le.AppendUint32(nil, uint32(used[b])))
		}
	}
	return p.build(keys, vals, 4)
}

func (p *Pool) dataMap(c *counts, root []byte) {
	refs := p.refTree(c.data)
	var keys []uint64
	var vals [][]byte
	for i := uint64(0); i*bitmapEntries < p.DataBlocks; i++ {
		block := p.alloc()
		c.meta[block]++
		keys = append(keys, i)
		vals = append(vals, le.AppendUint64(nil, block))
	}
	bitmaps := p.build(keys, vals, 16)
	for i, v := range vals {
		free := c.m.bitmap(le.Uint64(v), uint64(i)*bitmapEntries, p.DataBlocks, c.data)
		vals[i] = le.AppendUint32(le.AppendUint32(v, free), 0)
	}
	c.built(bitmaps)
	c.built(refs)
	putSpaceMap(root, p.DataBlocks, c.data, bitmaps.block, refs.block)
}

func (p *Pool) metadataMap(c *counts, root []byte) {
	refs := p.refTree(c.meta)
	index := p.alloc()
	c.meta[index]++
	c.built(refs)
	bitmaps := make([]uint64, (p.Blocks+bitmapEntries-1)/bitmapEntries)
	for i := range bitmaps {
		bitmaps[i] = p.alloc()
		c.meta[bitmaps[i]]++
	}
	b := c.m.Block(index)
	le.PutUint64(b[8:], index)
	for i, block := range bitmaps {
		free := c.m.bitmap(block, uint64(i)*bitmapEntries, uint64(p.Blocks), c.meta)
		le.PutUint64(b[16+16*i:], block)
		le.PutUint32(b[24+16*i:], free)
	}
	Seal(b, Index)
	putSpaceMap(root, uint64(p.Blocks), c.meta, index, refs.block)
}

func putSpaceMap(b []byte, blocks uint64, used map[uint64]int, bitmapRoot, refRoot uint64) {
	le.PutUint64(b, blocks)
	le.PutUint64(b[8:], uint64(len(used)))
	le.PutUint64(b[16:], bitmapRoot)
	le.PutUint64(b[24:], refRoot)
}

// bitmap writes the counts from block first on and returns how many are free.
func (m Image) bitmap(at, first, blocks uint64, used map[uint64]int) (free uint32) {
	b := m.Block(at)
	le.PutUint64(b[8:], at)
	for i := range min(bitmapEntries, blocks-first) {
		switch n := used[first+i]; n {
		case 0:
			free++
		default:
			// The lower bit is the higher one of the count.
			code := [4]byte{0, 2, 1, 3}[min(n, 3)]
			b[16+i/4] |= code << (2 * (i % 4))
		}
	}
	Seal(b, Bitmap)
	return free
}
