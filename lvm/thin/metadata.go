package thin

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"cbt/internal/lru"
	"cbt/sparse"
)

// cacheSize limits the nodes that Metadata keeps, in bytes.
const cacheSize = 4 << 20

// ErrNotHeld means that no metadata snapshot is held.
var ErrNotHeld = errors.New("the pool holds no metadata snapshot")

var errChanged = fmt.Errorf("the thin pool's metadata %w", sparse.ErrChanged)

// Options set how metadata are opened.
type Options struct {
	// Held selects the trees of the metadata snapshot that the pool holds. Only these stay as they
	// are while the pool is in use.
	Held bool
}

// Metadata are the metadata of a thin pool as one superblock describes them. All methods are safe
// for concurrent use. Unless a method's comment gives more, at most 4 MiB of nodes are kept in
// memory.
type Metadata struct {
	dev   device
	held  bool
	super Superblock
	sums  [2]uint32 // checksums of block 0 and of the held copy
	nodes *lru.Cache[nodeKey, node]
	read  atomic.Int64
}

// nodeKey distinguishes a node read for one kind of tree from the same block read for another: it
// must be verified for each kind.
type nodeKey struct {
	block uint64
	leaf  leafKind
}

// leafKind is the type of the entries in a tree's leaves.
type leafKind uint8

const (
	roots     leafKind = iota // device id: root of a mapping tree
	details                   // device id: record
	mappings                  // virtual block: data block and time
	bitmaps                   // bitmap of a space map: index entry
	refCounts                 // block: how often it is used, from 3 on
)

// Open reads the superblock of the metadata in r, a device or file of size bytes. The error is
// ErrUnformatted for a pool that was never used. It is ErrNotHeld if opt asks for a metadata
// snapshot and none is held, and a *sparse.FormatError for a superblock that is wrong or unknown.
func Open(r io.ReaderAt, size int64, opt Options) (*Metadata, error) {
	m := &Metadata{dev: newDevice(r, size), held: opt.Held, nodes: lru.New[nodeKey, node](cacheSize)}
	if err := m.readSuperblocks(); err != nil {
		return nil, err
	}
	return m, nil
}

// readSuperblocks reads block 0 and, if asked for, the held copy.
func (m *Metadata) readSuperblocks() error {
	pool, sum, err := m.readSuperblock(0)
	if err != nil {
		return err
	}
	m.super, m.sums[0] = pool, sum
	// The limit is neither what the device could hold nor the size when the pool was made: the
	// space map knows how many blocks are in use.
	m.dev.blocks = min(m.dev.blocks, pool.Metadata.Blocks)
	if err := pool.Validate(m.dev.blocks); err != nil {
		return err
	}
	if !m.held {
		return nil
	}
	if pool.HeldRoot == 0 {
		return ErrNotHeld
	}
	if pool.HeldRoot >= m.dev.blocks {
		return formatError(superblockName(0), 0, "held_root", pool.HeldRoot, fmt.Sprintf("not one of the metadata blocks 1 to %d", m.dev.blocks-1))
	}
	held, sum, err := m.readSuperblock(pool.HeldRoot)
	if err != nil {
		return err
	}
	if err := held.Validate(m.dev.blocks); err != nil {
		return err
	}
	held.heldFaults(&pool, func(e error) {
		if err == nil {
			err = e
		}
	})
	held.Flags, held.HeldRoot, held.Data, held.Metadata = pool.Flags, pool.HeldRoot, pool.Data, pool.Metadata
	m.super, m.sums[1] = held, sum
	return err
}

func (m *Metadata) readSuperblock(block uint64) (s Superblock, sum uint32, err error) {
	b := make([]byte, BlockSize)
	if err := m.dev.read(b, block, superblockName(block)); err != nil {
		return s, 0, err
	}
	if err := verifySuperblock(b, block); err != nil {
		return s, 0, err
	}
	return decodeSuperblock(b), le.Uint32(b), nil
}

// Superblock returns the superblock that was read when the metadata were opened.
func (m *Metadata) Superblock() Superblock { return m.super }

// Held reports whether the trees are those of the metadata snapshot.
func (m *Metadata) Held() bool { return m.held }

// NodesRead returns how many B-tree nodes have been read so far; nodes found in memory do not
// count.
func (m *Metadata) NodesRead() int64 { return m.read.Load() }

// Recheck reads the superblock again. It returns an error that is sparse.ErrChanged unless it is
// the same byte for byte. With Held, the same metadata snapshot must still be held, and nothing
// else in the pool matters.
func (m *Metadata) Recheck() error {
	now := Metadata{dev: newDevice(m.dev.r, m.dev.size), held: m.held}
	if err := now.readSuperblocks(); err != nil {
		return fmt.Errorf("%w: %w", errChanged, err)
	}
	switch was, is := &m.super, &now.super; {
	case m.held && (is.HeldRoot != was.HeldRoot || now.sums[1] != m.sums[1]):
		return fmt.Errorf("%w: another metadata snapshot is held", errChanged)
	case m.held:
		return nil
	case is.TransactionID != was.TransactionID:
		return fmt.Errorf("%w: transaction %d, was %d", errChanged, is.TransactionID, was.TransactionID)
	case *is != *was || now.sums != m.sums:
		return fmt.Errorf("%w: superblock", errChanged)
	}
	return nil
}

// tree returns the description of a tree of this kind; id is the device of a mapping tree.
func (k leafKind) tree(id uint32) *tree {
	switch k {
	case roots:
		return newTree("thin device tree", 8)
	case details:
		return newTree("thin details tree", detailsSize)
	}
	return newTree(fmt.Sprintf("thin mapping tree of device %d", id), 8)
}

// verify checks a block that was read as a node of a tree of this kind.
func (m *Metadata) verify(b []byte, block uint64, k leafKind, t *tree) error {
	if err := verifyNode(b, block, t); err != nil {
		return err
	}
	if n := node(b); k == mappings && n.leaf() {
		return verifyMappings(n, block, t, m.super.Data.Blocks, m.super.Time)
	}
	return nil
}

// node returns a verified node, from memory if it is there. The caller checks that its keys are
// within its place.
func (m *Metadata) node(block uint64, k leafKind, t *tree) (node, error) {
	return m.nodes.Get(nodeKey{block, k}, BlockSize, func() (node, error) {
		b := make([]byte, BlockSize)
		m.read.Add(1)
		if err := m.dev.read(b, block, t.node); err != nil {
			return nil, err
		}
		return b, m.verify(b, block, k, t)
	})
}

// lookup returns the leaf of a tree that would contain key, and the index of the key's entry in it,
// or -1 if there is none.
func (m *Metadata) lookup(root uint64, k leafKind, t *tree, key uint64) (node, int, error) {
	block, p := root, place{hi: 1<<64 - 1}
	for ; p.depth < maxHeight; p.depth++ {
		n, err := m.node(block, k, t)
		if err != nil {
			return nil, -1, err
		}
		if err := n.within(p, block, t); err != nil {
			return nil, -1, err
		}
		if n.leaf() {
			if i := n.find(key); i < n.len() && n.key(i) == key {
				return n, i, nil
			}
			return n, -1, nil
		}
		i := n.findChild(key)
		depth := p.depth
		block, p = n.child(i), n.below(p, i)
		p.depth = depth
	}
	return nil, -1, tooHigh(t, block)
}

func tooHigh(t *tree, block uint64) error {
	return formatError(t.node, block, "", nil, fmt.Sprintf("the tree is higher than %d levels", maxHeight))
}
