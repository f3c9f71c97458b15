// Package testthin makes metadata of thin pools for tests, as the kernel does:
// snapshots share the nodes of their mapping trees, writes copy the path to
// what they change, and the space maps count it all. It knows nothing of the
// package that reads them. The same calls give the same bytes.
package testthin

import (
	"maps"
	"slices"
)

// Pool is a thin pool that lives in memory. Its methods panic when asked for
// what is not there: they are called by tests.
type Pool struct {
	Sectors     uint32 // of a data block
	DataBlocks  uint64
	Blocks      int // metadata blocks
	Fill        int // most entries of a node, a multiple of 3 up to 252: few make high trees
	Time        uint32
	Transaction uint64
	Flags       uint32

	devices map[uint32]*device
	txn     int // nodes of this transaction change in place
	next    uint64
	data    uint64 // the last data block given out
	dataRef map[uint64]int
	held    *held
}

type device struct {
	root                   *node
	model                  map[uint64]uint64 // virtual block: data block
	transaction            uint64
	created, snapshottedAt uint32
}

// held is a metadata snapshot.
type held struct {
	block        uint64
	super        []byte
	top, details *built
	roots        map[uint32]*node
}

// New returns a pool of so many data blocks of 64 KiB and metadata blocks.
func New(dataBlocks uint64, blocks, fill int) *Pool {
	if fill < 3 || fill > 252 || fill%3 != 0 {
		panic("testthin: no such number of entries")
	}
	return &Pool{
		Sectors: 128, DataBlocks: dataBlocks, Blocks: blocks, Fill: fill,
		devices: map[uint32]*device{}, next: 1, dataRef: map[uint64]int{},
	}
}

func (p *Pool) alloc() uint64 {
	b := p.next
	p.next++
	if p.next > uint64(p.Blocks) {
		panic("testthin: metadata are full")
	}
	return b
}

func (p *Pool) device(id uint32) *device {
	d := p.devices[id]
	if d == nil {
		panic("testthin: no such device")
	}
	return d
}

// Create makes an empty device.
func (p *Pool) Create(id uint32) {
	p.Transaction++
	p.devices[id] = &device{
		root: p.newLeaf(), model: map[uint64]uint64{},
		transaction: p.Transaction, created: p.Time, snapshottedAt: p.Time,
	}
}

// Snapshot makes a device that shares the tree of origin.
func (p *Pool) Snapshot(origin, id uint32) {
	p.Transaction++
	p.Time++
	p.txn++
	o := p.device(origin)
	o.snapshottedAt = p.Time
	p.devices[id] = &device{
		root: o.root, model: maps.Clone(o.model),
		transaction: p.Transaction, created: p.Time, snapshottedAt: p.Time,
	}
}

// Delete removes a device.
func (p *Pool) Delete(id uint32) {
	p.Transaction++
	p.txn++
	p.device(id)
	delete(p.devices, id)
}

// Commit makes later writes copy what they change.
func (p *Pool) Commit() { p.txn++ }

// Write writes to a block: in place, if the device owns it, else to a new one.
func (p *Pool) Write(id uint32, block uint64) {
	d := p.device(id)
	if v, ok := d.root.lookup(block); ok && uint32(v&(1<<24-1)) >= d.snapshottedAt {
		return
	}
	p.data++
	if p.data > p.DataBlocks {
		panic("testthin: the pool is full")
	}
	p.Map(id, block, p.data-1, p.Time)
}

// Map maps a block to any data block at any time, sound or not.
func (p *Pool) Map(id uint32, block, data uint64, time uint32) {
	d := p.device(id)
	d.root = p.insert(d.root, block, data<<24|uint64(time))
	d.model[block] = data
}

// Discard unmaps a block.
func (p *Pool) Discard(id uint32, block uint64) {
	d := p.device(id)
	if _, ok := d.root.lookup(block); !ok {
		return
	}
	root := p.remove(d.root, block)
	for root != nil && !root.leaf && len(root.kids) == 1 {
		root = root.kids[0]
	}
	if root == nil {
		root = p.newLeaf()
	}
	d.root = root
	delete(d.model, block)
}

// Mappings are the virtual blocks of a device and their data blocks.
func (p *Pool) Mappings(id uint32) map[uint64]uint64 { return p.device(id).model }

// Devices are the ids.
func (p *Pool) Devices() []uint32 { return slices.Sorted(maps.Keys(p.devices)) }

// Path are the metadata blocks from the root of the device's mapping tree to
// the leaf where block is or would be.
func (p *Pool) Path(id uint32, block uint64) (path []uint64) {
	n := p.device(id).root
	for {
		path = append(path, n.block)
		if n.leaf {
			return path
		}
		n = n.kids[n.child(block)]
	}
}

// Leaves are the metadata blocks of the leaves of the device's mapping tree.
func (p *Pool) Leaves(id uint32) (leaves []uint64) {
	p.device(id).root.walk(func(n *node) bool {
		if n.leaf {
			leaves = append(leaves, n.block)
		}
		return true
	})
	return leaves
}
