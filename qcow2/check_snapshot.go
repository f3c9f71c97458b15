package qcow2

import (
	"encoding/binary"
	"fmt"
	"math"
)

const checkSnapshotExtra = 16 // bytes of extra data up to byte 55 of the entry

// snapshots checks the snapshot table and the L1 tables that it leads to.
func (c *checker) snapshots() {
	n, off := int64(c.h.NbSnapshots), c.h.SnapshotsOffset
	at := where{"header", 64, -1}
	if n > 0 && c.h.HasDataFile() {
		c.corrupt(at, citeDataFileRules, "%d snapshots in an image with an external data file", n)
	}
	switch {
	case off%uint64(c.cluster) != 0:
		c.corrupt(at, citeSnapshotPlace, "snapshots_offset 0x%x is not cluster aligned; not followed", off)
		return
	case off > math.MaxInt64:
		c.corrupt(at, citeSnapshotPlace, "snapshots_offset 0x%x is not a valid file offset", off)
		return
	case n == 0:
		return
	case n > maxSnapshots:
		c.corrupt(where{"header", 60, -1}, citeSnapshotTable, "nb_snapshots %d is more than %d; not followed", n, maxSnapshots)
		return
	case !c.inside(at, off, uint64(n)*snapshotSize, citeSnapshotTable):
		return
	}
	c.ids = map[string]bool{}
	pos := int64(off)
	var tables []l1Table
	for i := range n {
		if c.ctx.Err() != nil {
			return
		}
		t, size := c.snapshot(i, pos)
		if size == 0 {
			break
		}
		if t.entries > 0 {
			tables = append(tables, t)
		}
		c.stats.Snapshots++
		// The gap up to the next entry is part of the table. The gap after the last entry lies in
		// the same cluster.
		if pos = roundUp(pos+size, 8); pos-int64(off) > maxSnapshotTable {
			c.corrupt(at, citeSnapshotTable, "the table is longer than %d bytes after entry %d; not followed", maxSnapshotTable, i)
			break
		}
	}
	c.ids = nil
	c.use(at, int64(off), uint64(pos)-off, usedSnapshots)
	seen := map[l1Table]bool{}
	for _, t := range tables {
		at := where{"L1 table" + t.owner, t.off, -1}
		place := l1Table{off: t.off, entries: t.entries}
		if seen[place] {
			c.corrupt(at, citeSnapshotCopy, "is the L1 table of another snapshot too")
		}
		seen[place] = true
		if !c.inside(at, uint64(t.off), uint64(t.entries)*8, citeL1Contiguous) {
			t.entries = min(t.entries, max(0, c.size-t.off)/8)
		}
		if !c.spend(at, t.entries*8) {
			continue
		}
		c.use(at, t.off, uint64(t.entries)*8, usedL1)
		c.walkL1(t)
	}
}

// snapshot checks the entry at pos. It returns its L1 table, with no entries if the table cannot be
// followed, and the size of the entry in bytes, or 0 if the entry cannot be read.
//
//	0 l1_table_offset  8 l1_size  12 id length  14 name length  16 date
//	24 guest clock  32 vm_state_size  36 extra_data_size
//	40 vm_state_size, 64 bits  48 disk size  56 icount  ...  id  name
func (c *checker) snapshot(i, pos int64) (l1Table, int64) {
	at := where{fmt.Sprintf("snapshot table entry %d", i), pos, -1}
	var b [snapshotSize + checkSnapshotExtra]byte
	if !c.inside(at, uint64(pos), snapshotSize, citeSnapshotTable) || !c.read(b[:], pos) {
		return l1Table{}, 0
	}
	be := binary.BigEndian
	extra := int64(be.Uint32(b[36:]))
	idLen, nameLen := int64(be.Uint16(b[12:])), int64(be.Uint16(b[14:]))
	size := snapshotSize + extra + idLen + nameLen
	if !c.inside(at, uint64(pos), uint64(size), citeSnapshotTable) {
		return l1Table{}, 0
	}
	text := make([]byte, idLen+nameLen)
	if !c.read(text, pos+snapshotSize+extra) {
		return l1Table{}, 0
	}
	id, name := text[:idLen], text[idLen:]
	owner := fmt.Sprintf(" of snapshot %s (id %s)", short(name), short(id))
	at.structure += owner

	if c.h.Version >= 3 && extra < checkSnapshotExtra {
		c.corrupt(at, citeSnapshotExtra, "%d bytes of extra data", extra)
	}
	if extra > maxSnapshotExtra {
		c.corrupt(at, citeSnapshotKnown, "%d bytes of extra data", extra)
	}
	if c.ids[string(id)] {
		c.corrupt(at, citeSnapshotID, "another snapshot has this id")
	}
	c.ids[string(id)] = true

	t := l1Table{int64(be.Uint64(b[:])), int64(be.Uint32(b[8:])), owner}
	switch off := be.Uint64(b[:]); {
	case off%uint64(c.cluster) != 0 || off > math.MaxInt64:
		c.corrupt(at, citeSnapshotL1, "L1 table offset 0x%x is not cluster aligned; not followed", off)
		return l1Table{}, size
	case t.entries*8 > maxL1Bytes:
		c.corrupt(at, citeL1Contiguous, "%d entries of its L1 table are more than %d; not followed", t.entries, maxL1Bytes/8)
		return l1Table{}, size
	case t.entries > 0 && off == 0:
		c.corrupt(at, citeSnapshotL1, "the L1 table is at the place of the header; not followed")
		return l1Table{}, size
	}
	c.room(at, b[:], extra, t.entries)
	return t, size
}

// room checks that the L1 table of a snapshot has entries for its whole disk and for the machine
// state after it.
func (c *checker) room(at where, b []byte, extra, entries int64) {
	be := binary.BigEndian
	state, disk := uint64(be.Uint32(b[32:])), c.h.Size
	if extra >= 8 {
		state = be.Uint64(b[40:])
	}
	if extra >= 16 {
		disk = be.Uint64(b[48:])
	}
	span := uint64(c.h.L1Span())
	first := disk / span
	if disk%span != 0 {
		first++
	}
	// A snapshot without a size of its own has the size of today's disk.
	if first > uint64(entries) && extra >= 16 {
		c.corrupt(at, citeSnapshotDisk, "a disk of %d bytes needs more than %d L1 entries", disk, entries)
		return
	}
	if state == 0 {
		return
	}
	// entries*span is at most 2^22 * 2^39.
	if first > uint64(entries) || state > (uint64(entries)-first)*span {
		c.corrupt(at, citeSnapshotState, "%d bytes of state after a disk of %d bytes do not fit into %d L1 entries", state, disk, entries)
	}
}
