package qcow2

import (
	"encoding/binary"
	"fmt"
	"math"

	"cbt/sparse"
)

// noBlock stands for a refcount block that cannot be read as one.
const noBlock = -1

// refcountTable counts the refcount table and the blocks that it leads to. It runs first. If
// something else uses one of their clusters, the fault is then reported at the entry that names it.
func (c *checker) refcountTable() {
	off, n := int64(c.h.RefcountTableOffset), int64(c.h.RefcountTableClusters)*c.cluster
	c.use(where{"header", 48, -1}, off, uint64(n), usedRefTable)
	c.eachEntry(off, n/8, func(i int64, e uint64) {
		for int64(len(c.blocks)) < i {
			c.blocks = append(c.blocks, 0)
		}
		c.blocks = append(c.blocks, c.refcountBlock(where{"refcount table entry", off + i*8, -1}, e))
	})
}

// refcountBlock checks an entry of the refcount table. It returns the offset of the block, or 0 if
// there is none, or noBlock.
func (c *checker) refcountBlock(at where, e uint64) int64 {
	if e&511 != 0 {
		c.corrupt(at, citeRefEntryBits, "reserved bits are set: 0x%016x", e)
	}
	off := e &^ 511
	switch {
	case off == 0:
		return 0
	case off%uint64(c.cluster) != 0:
		c.corrupt(at, citeRefEntry, "offset 0x%x is not cluster aligned: the refcounts there are not checked", off)
		return noBlock
	case off >= uint64(c.end):
		c.corrupt(at, citeRefEntry, "offset 0x%x is past the end of the file: the refcounts there are not checked", off)
		return noBlock
	case int64(off) > c.size-c.cluster:
		c.corrupt(at, citeRefBlockSize, "the block at 0x%x is cut by the end of the file", off)
	}
	if c.use(at, int64(off), uint64(c.cluster), usedRefBlock) != 0 {
		return noBlock
	}
	return int64(off)
}

// refcounts compares the stored refcounts with the references that were counted.
func (c *checker) refcounts() {
	c.used.sort()
	perBlock := c.cluster * 8 >> c.h.RefcountOrder
	run := refRun{checker: c, blind: c.err != nil}
	buf := make([]byte, c.cluster)
	for i, off := range c.blocks {
		if c.ctx.Err() != nil {
			return
		}
		lo := int64(i) * perBlock
		n := min(perBlock, math.MaxInt64/c.cluster-lo) // a block may reach past all possible offsets
		switch {
		case off == noBlock:
		case off == 0:
			c.used.each(lo, lo+perBlock, func(cl int64, u cell) { run.compare(cl, 0, u) })
		case !c.read(buf, off):
		case sparse.IsZero(buf):
			c.used.each(lo, lo+perBlock, func(cl int64, u cell) { run.compare(cl, 0, u) })
		default:
			for j := range n {
				run.compare(lo+j, refcountAt(buf, j, c.h.RefcountOrder), c.used.at(lo+j))
			}
		}
	}
	c.used.each(int64(len(c.blocks))*perBlock, math.MaxInt64, func(cl int64, u cell) { run.compare(cl, 0, u) })
	run.flush()
}

// refcountAt returns entry i of a refcount block. Entries are big endian from 16 bits on; entries
// smaller than a byte start at its least significant bits.
func refcountAt(block []byte, i int64, order uint32) uint64 {
	switch order {
	case 3:
		return uint64(block[i])
	case 4:
		return uint64(binary.BigEndian.Uint16(block[i*2:]))
	case 5:
		return uint64(binary.BigEndian.Uint32(block[i*4:]))
	case 6:
		return binary.BigEndian.Uint64(block[i*8:])
	}
	bits := int64(1) << order
	return uint64(block[i*bits/8]>>(i*bits%8)) & (1<<bits - 1)
}

// refRun joins neighbouring clusters that have the same wrong refcount.
type refRun struct {
	*checker
	blind           bool // some table was not read, so clusters that look leaked may belong to it
	first, n        int64
	stored, counted uint64
}

// compare compares the stored refcount of a cluster with its references. Clusters come in ascending
// order.
func (r *refRun) compare(cl int64, stored uint64, u cell) {
	counted := r.used.count(cl, u)
	if stored == 0 && u == 0 {
		return
	}
	r.stats.ImageEnd = max(r.stats.ImageEnd, (cl+1)*r.cluster)
	if one := stored == 1; one && u&copiedClear != 0 || !one && u&copiedSet != 0 {
		r.copiedFaults = true
		u |= copiedWrong
		if one {
			u |= storedOne
		}
		r.used.set(cl, u)
	}
	if stored == counted || stored > counted && r.blind {
		return
	}
	if r.n > 0 && cl == r.first+r.n && stored == r.stored && counted == r.counted {
		r.n++
		return
	}
	r.flush()
	r.first, r.n, r.stored, r.counted = cl, 1, stored, counted
}

func (r *refRun) flush() {
	if r.n == 0 {
		return
	}
	f := Fault{Kind: Leak, Struct: "cluster", Off: r.first * r.cluster, Len: r.n * r.cluster, Guest: -1, Cite: citeRefcount}
	if r.stored < r.counted {
		f.Kind = Corruption
	}
	f.Msg = refcountMsg(r.n, r.stored, r.counted)
	if f.Off >= r.end {
		f.Msg += ", past the end of the file"
	}
	r.add(f, r.n)
	r.n = 0
}

func refcountMsg(n int64, stored, counted uint64) string {
	msg := fmt.Sprintf("refcount %d, references %d", stored, counted)
	if n > 1 {
		msg = fmt.Sprintf("%d clusters: %s", n, msg)
	}
	return msg
}
