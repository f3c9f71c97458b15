package qcow2

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"cbt/sparse"
)

// bitmaps checks the bitmap directory, and the tables and data that it leads to.
func (c *checker) bitmaps() {
	if c.h.Autoclear&AutoclearBitmaps == 0 {
		if c.ext.has(ExtensionBitmaps) {
			c.fault(Note, where{"header", 88, -1}, citeBitmapsOff, "the bitmaps are not consistent: the program that wrote last does not know them")
		}
		return
	}
	x := c.ext.bitmaps
	if x == nil {
		c.corrupt(where{"header", 88, -1}, citeAutoBitmaps, "the bitmaps bit is set and there is no bitmaps extension of %d bytes", bitmapsSize)
		return
	}
	at := where{"bitmaps extension", x.off, -1}
	if x.reserved != 0 {
		c.corrupt(at, citeBitmapReserved, "reserved field is 0x%x", x.reserved)
	}
	if x.count == 0 {
		c.corrupt(at, citeBitmapCount, "no bitmaps")
	}
	off, size := x.directoryOffset, x.directorySize
	switch {
	case off%uint64(c.cluster) != 0 || off > math.MaxInt64:
		c.corrupt(at, citeBitmapDir, "directory offset 0x%x is not cluster aligned; not followed", off)
		return
	case size > maxBitmapDirectory:
		c.corrupt(at, citeBitmapDirSize, "a directory of %d bytes is more than %d; not followed", size, maxBitmapDirectory)
		return
	case !c.inside(at, off, size, citeBitmapArea):
		return
	}
	c.use(at, int64(off), size, usedBitmapDir)
	pos, end := int64(off), int64(off+size)
	names := map[string]bool{}
	for i := range int64(x.count) {
		if c.ctx.Err() != nil {
			return
		}
		n := c.bitmap(i, pos, end, names)
		if n == 0 {
			return
		}
		c.stats.Bitmaps++
		pos += n
	}
	if pos != end {
		c.corrupt(at, citeBitmapDirSize, "%d entries are %d bytes, the directory is %d", x.count, pos-int64(off), size)
	}
}

// bitmap checks the directory entry at pos and returns its size in bytes, or 0 if it does not end
// before end.
//
//	0 bitmap_table_offset  8 bitmap_table_size  12 flags  16 type
//	17 granularity_bits  18 name_size  20 extra_data_size  24 extra  name
func (c *checker) bitmap(i, pos, end int64, names map[string]bool) int64 {
	at := where{fmt.Sprintf("bitmap directory entry %d", i), pos, -1}
	var b [bitmapSize]byte
	if end-pos < bitmapSize {
		c.corrupt(at, citeBitmapDirSize, "the directory ends before it")
		return 0
	}
	if !c.read(b[:], pos) {
		return 0
	}
	be := binary.BigEndian
	m := bitmapFacts{
		table: be.Uint64(b[:]), entries: int64(be.Uint32(b[8:])), flags: BitmapFlags(be.Uint32(b[12:])),
		kind: b[16], granularity: b[17], extra: int64(be.Uint32(b[20:])),
	}
	nameLen := int64(be.Uint16(b[18:]))
	size := bitmapSize + m.extra + nameLen
	padded := roundUp(size, 8)
	if padded > end-pos {
		c.corrupt(at, citeBitmapDirSize, "an entry of %d bytes is longer than the directory", padded)
		return 0
	}
	text := make([]byte, nameLen+padded-size)
	if !c.read(text, pos+bitmapSize+m.extra) {
		return 0
	}
	name := text[:nameLen]
	m.owner = " of bitmap " + short(name)
	at.structure += m.owner
	if slices.ContainsFunc(text[nameLen:], func(b byte) bool { return b != 0 }) {
		c.corrupt(at, citeBitmapPadding, "padding is not zero")
	}
	if nameLen == 0 || nameLen > maxBitmapName {
		c.corrupt(at, citeBitmapNoName, "a name of %d bytes", nameLen)
	}
	if names[string(name)] {
		c.corrupt(at, citeBitmapName, "another bitmap has this name")
	}
	names[string(name)] = true
	if m.flags&bitmapReserved != 0 {
		c.corrupt(at, citeBitmapFlags, "flags 0x%x", uint32(m.flags))
	}
	if m.flags&BitmapInUse != 0 {
		c.fault(Note, at, citeBitmapInUse, "in use: its bits cannot be relied on")
	}
	if m.kind != bitmapDirty {
		c.corrupt(at, citeBitmapType, "type %d", m.kind)
		if m.flags&BitmapAuto != 0 {
			c.corrupt(at, citeBitmapAuto, "auto is set and the type is %d", m.kind)
		}
	}
	if m.extra != 0 {
		kind := Corruption
		if m.flags&BitmapExtraDataCompatible != 0 {
			kind = Note
		}
		c.fault(kind, at, citeBitmapExtra, "%d bytes of extra data", m.extra)
	}
	if m.granularity < minGranularityBits || m.granularity > maxGranularityBits {
		c.corrupt(at, citeBitmapGran, "granularity_bits %d", m.granularity)
		m.granularity = 0
	}
	c.bitmapTable(at, m)
	return padded
}

type bitmapFacts struct {
	table       uint64
	entries     int64
	flags       BitmapFlags
	kind        uint8
	granularity uint8 // 0: invalid, cannot be used
	extra       int64
	owner       string
}

func (c *checker) bitmapTable(at where, m bitmapFacts) {
	switch {
	case m.table%uint64(c.cluster) != 0 || m.table > math.MaxInt64:
		c.corrupt(at, citeBitmapTable, "table offset 0x%x is not cluster aligned; not followed", m.table)
		return
	case m.table == 0 && m.entries > 0:
		c.corrupt(at, citeBitmapTable, "the table is at the place of the header; not followed")
		return
	case !c.inside(at, m.table, uint64(m.entries)*8, citeBitmapWhole):
		return
	}
	if !c.spend(at, m.entries*8) {
		return
	}
	off := int64(m.table)
	c.use(at, off, uint64(m.entries)*8, usedBitmapTable)
	bits, need := int64(0), int64(-1)
	// The size of a bitmap that is in use may be out of date.
	if m.granularity > 0 && m.flags&BitmapInUse == 0 {
		bits = int64((c.h.Size + 1<<m.granularity - 1) >> m.granularity)
		need = ((bits+7)/8 + c.cluster - 1) / c.cluster
		if m.entries != need {
			c.corrupt(at, citeBitmapSize, "a table of %d entries; for a disk of %d bytes it needs %d", m.entries, c.h.Size, need)
		}
	}
	structure := "bitmap table entry" + m.owner
	c.eachEntry(off, m.entries, func(i int64, e uint64) {
		at := where{structure, off + i*8, -1}
		const reserved = 0xff00_0000_0000_01fe
		if e&reserved != 0 {
			c.corrupt(at, citeBitmapBits, "reserved bits are set: 0x%016x", e)
		}
		data := int64(e & entryOffset)
		switch {
		case data == 0:
			return
		case data%c.cluster != 0:
			c.corrupt(at, citeBitmapOffset, "offset 0x%x is not cluster aligned", data)
			return
		case data >= c.end:
			c.corrupt(at, citeBitmapOffset, "offset 0x%x is past the end of the file", data)
			return
		case e&1 != 0:
			c.corrupt(at, citeBitmapBit0, "bit 0 is set: 0x%016x", e)
		}
		c.use(at, data, uint64(c.cluster), usedBitmapData)
		if i == need-1 && m.entries == need {
			c.bitmapTail(at, data, bits-i*c.cluster*8)
		}
	})
}

// bitmapTail checks the last cluster of a bitmap, in which the first n bits are used.
func (c *checker) bitmapTail(at where, off, n int64) {
	tail := make([]byte, c.cluster-n/8)
	if len(tail) == 0 || !c.read(tail, off+n/8) {
		return
	}
	tail[0] &= 0xff << (n % 8)
	if !sparse.IsZero(tail) {
		c.corrupt(at, citeBitmapTail, "bits after the last one are set, in the cluster at 0x%x", off)
	}
}
