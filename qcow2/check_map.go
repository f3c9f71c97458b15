package qcow2

import (
	"encoding/binary"
	"fmt"
)

// l1Table is the L1 table of the active state, which comes first in the list, or of a snapshot.
type l1Table struct {
	off     int64
	entries int64
	owner   string // "" or " of snapshot ...", for messages
}

// l2Table is an L2 table. It is walked once, no matter how many L1 entries lead to it.
type l2Table struct {
	off   int64
	refs  uint64
	l1    int32 // the first of the L1 tables that lead to it
	index int32 // its entry in that L1 table
}

func (c *checker) activeL1() {
	t := l1Table{int64(c.h.L1TableOffset), int64(c.h.L1Size), ""}
	c.use(where{"header", 40, -1}, t.off, uint64(t.entries)*8, usedL1)
	c.walkL1(t)
}

// eachEntry calls yield for every entry that is not 0 of a table of 64-bit words. It stops where
// the file cannot be read and when the check is cancelled.
func (c *checker) eachEntry(off, entries int64, yield func(i int64, e uint64)) {
	buf := make([]byte, min(entries*8, 64<<10))
	for i := int64(0); i < entries; {
		n := min(entries-i, int64(len(buf)/8))
		if c.ctx.Err() != nil || off+i*8 >= c.size || !c.read(buf[:n*8], off+i*8) {
			return
		}
		for j := range n {
			if e := binary.BigEndian.Uint64(buf[j*8:]); e != 0 {
				yield(i+j, e)
			}
		}
		i += n
	}
}

// walkL1 checks the entries of an L1 table and records the L2 tables.
func (c *checker) walkL1(t l1Table) {
	id, active := int32(len(c.l1s)), len(c.l1s) == 0
	c.l1s = append(c.l1s, t)
	structure := "L1 entry" + t.owner
	c.eachEntry(t.off, t.entries, func(i int64, e uint64) {
		at := where{structure, t.off + i*8, i * c.h.L1Span()}
		if e&l1Reserved != 0 {
			c.corrupt(at, citeL1Reserved, "reserved bits are set: 0x%016x", e)
		}
		off := int64(e & entryOffset)
		switch {
		case off == 0:
			if e&entryCopied != 0 {
				c.corrupt(at, citeL1Copied, "COPIED is set and there is no L2 table: 0x%016x", e)
			}
			return
		case off%c.cluster != 0:
			c.corrupt(at, citeL1Offset, "L2 table offset 0x%x is not cluster aligned; not followed", off)
			return
		case off >= c.end:
			c.corrupt(at, citeL1Offset, "L2 table offset 0x%x is past the end of the file", off)
			return
		case off > c.size-c.cluster:
			c.corrupt(at, citeL2Size, "the L2 table at 0x%x is cut by the end of the file", off)
		}
		const core = usedHeader | usedL1 | usedRefTable | usedRefBlock
		if c.use(at, off, uint64(c.cluster), usedL2)&core != 0 {
			return // its bytes are not L2 entries
		}
		if active {
			c.markCopied(off/c.cluster, e)
		}
		if n, ok := c.l2At[off]; ok {
			c.l2s[n].refs++
			return
		}
		c.l2At[off] = len(c.l2s)
		c.l2s = append(c.l2s, l2Table{off, 1, id, int32(i)})
	})
}

func (c *checker) markCopied(cluster int64, e uint64) {
	if e&entryCopied != 0 {
		c.used.set(cluster, c.used.at(cluster)|copiedSet)
	} else {
		c.used.set(cluster, c.used.at(cluster)|copiedClear)
	}
}

func (c *checker) l2Tables() {
	w := l2Walk{checker: c, size: c.h.L2EntrySize(), extended: c.h.ExtendedL2(), dataFile: c.h.HasDataFile()}
	buf := make([]byte, c.cluster)
	for _, t := range c.l2s {
		if c.ctx.Err() != nil {
			return
		}
		if !c.read(buf, t.off) {
			continue
		}
		w.table, w.active = t, t.l1 == 0
		w.structure = "L2 entry" + c.l1s[t.l1].owner
		c.stats.L2Tables++
		w.entries(buf)
	}
}

// copied adds a corruption for each entry of the active state whose COPIED bit does not agree with
// the stored refcount: it must be set if that is 1, and only then.
func (c *checker) copied() {
	if !c.copiedFaults {
		return
	}
	wrong := func(structure, cite string, at int64, guest int64, e uint64) {
		off := int64(e & entryOffset)
		cell := c.used.at(off / c.cluster)
		isCopied, one := e&entryCopied != 0, cell&storedOne != 0
		if off == 0 || off >= c.end || cell&copiedWrong == 0 || isCopied == one {
			return
		}
		not := ""
		if !one {
			not = "not "
		}
		c.corrupt(where{structure, at, guest}, cite, "COPIED is %t and the refcount of cluster 0x%x is %s1", isCopied, off, not)
	}
	l1 := c.l1s[0]
	c.eachEntry(l1.off, l1.entries, func(i int64, e uint64) {
		if e&entryOffset%uint64(c.cluster) == 0 {
			wrong("L1 entry", citeL1Copied, l1.off+i*8, i*c.h.L1Span(), e)
		}
	})
	if c.h.HasDataFile() {
		return
	}
	buf, size := make([]byte, c.cluster), c.h.L2EntrySize()
	for _, t := range c.l2s {
		if t.l1 != 0 || c.ctx.Err() != nil || !c.read(buf, t.off) {
			continue
		}
		for i := range c.h.L2Entries() {
			e := binary.BigEndian.Uint64(buf[i*size:])
			if e&entryCompressed == 0 && e&entryOffset%uint64(c.cluster) == 0 {
				wrong("L2 entry", citeL2Copied, t.off+i*size, int64(t.index)*c.h.L1Span()+i*c.cluster, e)
			}
		}
	}
}

// short quotes a name from the file for a message, cut to 64 bytes.
func short(name []byte) string {
	if len(name) > 64 {
		return fmt.Sprintf("%q...", name[:64])
	}
	return fmt.Sprintf("%q", name)
}
