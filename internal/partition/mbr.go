package partition

import (
	"encoding/binary"
	"errors"
	"fmt"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	mbrSize      = 512
	mbrEntries   = 446 // offset
	mbrEntrySize = 16

	typeProtective = 0xee

	// maxLinks is how many records of a chain may follow one another without a
	// partition in them; the kernel stops there too.
	maxLinks = 100
)

// mbrEntry is one of the four of an MBR or of an extended boot record; sectors.
type mbrEntry struct {
	boot     byte // 0x80: active; 0: not
	kind     byte
	start, n uint32
}

// decodeMBREntry takes mbrEntrySize bytes; the addresses in cylinders, heads and
// sectors are left out, as everybody does.
func decodeMBREntry(b []byte) mbrEntry {
	return mbrEntry{b[0], b[4], binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])}
}

func (e mbrEntry) used() bool     { return e.kind != 0 && e.n != 0 }
func (e mbrEntry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

type mbrRecord [4]mbrEntry

// decodeMBR takes a sector and says whether it is an MBR or an extended boot
// record.
func decodeMBR(b []byte) (r mbrRecord, ok bool) {
	if b[510] != 0x55 || b[511] != 0xaa {
		return r, false
	}
	for i := range r {
		r[i] = decodeMBREntry(b[mbrEntries+i*mbrEntrySize:])
	}
	return r, true
}

// protective reports whether the disk says that it has a GPT.
func (r mbrRecord) protective() bool {
	for _, e := range r {
		if e.kind == typeProtective {
			return true
		}
	}
	return false
}

func (d disk) readMBR(mbr mbrRecord, sector int64) (*Table, error) {
	for _, e := range mbr {
		// The boot sector of a file system has the same two bytes at its end.
		if e.boot != 0 && e.boot != 0x80 {
			return nil, ErrNoTable
		}
	}
	t := &Table{Kind: MBR, SectorSize: sector}
	next := 5
	var logical []mbrEntry
	for i, e := range mbr {
		switch {
		case !e.used():
		case e.extended():
			logical = append(logical, e)
		default:
			t.add(d, Partition{Number: i + 1, Type: mbrType(e.kind)}, uint64(e.start), uint64(e.n))
		}
	}
	for _, e := range logical {
		if err := d.readChain(t, e, &next); err != nil {
			return nil, err
		}
	}
	t.warnOfPast(d)
	return t, nil
}

func mbrType(kind byte) string { return fmt.Sprintf("%02x", kind) }

// readChain follows the records of an extended partition as the kernel does. Each
// lies in a sector of its own and speaks of one logical partition, whose place
// counts from there, and of the next record, whose place counts from the start of
// the extended partition. next is the number of the next logical partition.
func (d disk) readChain(t *Table, ext mbrEntry, next *int) error {
	sector := make([]byte, mbrSize)
	seen := map[uint64]bool{}
	at, empty, n := uint64(ext.start), 0, uint64(ext.n)
	for {
		if seen[at] {
			t.warnf("the chain of logical partitions comes back to sector %d", at)
			return nil
		}
		seen[at] = true
		if empty++; empty > maxLinks {
			t.warnf("the chain of logical partitions is too long at sector %d", at)
			return nil
		}
		err := binfmt.Fill(d.r, d.size, "extended boot record", sector, at*uint64(t.SectorSize))
		var bad *sparse.FormatError
		switch {
		case errors.As(err, &bad):
			t.past.records = true
			t.past.notes = append(t.past.notes, err.Error())
			return nil
		case err != nil:
			return err
		}
		record, ok := decodeMBR(sector)
		if !ok {
			t.warnf("the chain of logical partitions ends at sector %d, which is no extended boot record", at)
			return nil
		}
		for i, e := range record {
			if !e.used() || e.extended() {
				continue
			}
			start := at + uint64(e.start)
			// The third and fourth entries may be rubbish.
			if i >= 2 && (uint64(e.start)+uint64(e.n) > n || start+uint64(e.n) > uint64(ext.start)+uint64(ext.n)) {
				continue
			}
			t.add(d, Partition{Number: *next, Type: mbrType(e.kind)}, start, uint64(e.n))
			*next++
			empty = 0
		}
		link := record.link()
		if link == nil || *next > maxNumber+1 {
			return nil
		}
		at, n = uint64(ext.start)+uint64(link.start), uint64(link.n)
	}
}

// link is the entry that leads to the next record, nil at the end of the chain.
func (r mbrRecord) link() *mbrEntry {
	for i := range r {
		if r[i].used() && r[i].extended() {
			return &r[i]
		}
	}
	return nil
}
