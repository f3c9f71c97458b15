package hostlvm

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Disk is a block device of this host with LVM's label on it, opened for
// reading.
type Disk struct {
	*Direct
	PV     string   // id in the label, without dashes; the label's checksum is the reader's business
	Groups []string // ids of the groups whose volumes in use lie on the device
}

// labelID looks for a label in the first four sectors, as LVM does, and
// returns the id in it, "" if there is none.
func labelID(r io.ReaderAt, size int64) (string, error) {
	const (
		sector  = 512
		sectors = 4
		idSize  = 32
	)
	b := make([]byte, min(sectors*sector, size))
	if n, err := r.ReadAt(b, 0); n < len(b) {
		return "", err
	}
	for i := int64(0); (i+1)*sector <= int64(len(b)); i++ {
		s := b[i*sector : (i+1)*sector]
		header := binary.LittleEndian.Uint32(s[20:])
		if string(s[:8]) == "LABELONE" && string(s[24:32]) == "LVM2 001" &&
			binary.LittleEndian.Uint64(s[8:]) == uint64(i) && header <= sector-idSize {
			return string(s[header : header+idSize]), nil
		}
	}
	return "", nil
}

// raidMember says whether a device has the superblock of a Linux md array: a
// leg of a mirror whose superblock is at its end begins with the mirror's
// content, the label included, of whatever age.
func raidMember(r io.ReaderAt, size int64) (bool, error) {
	const (
		magic   = 0xa92b4efc      // MD_SB_MAGIC
		nearEnd = int64(64 << 10) // version 0.90: the last 64 KiB that begin at such a multiple
	)
	for _, at := range []int64{size&^(nearEnd-1) - nearEnd, (size - 8<<10) &^ 4095, 0, 4 << 10} {
		if at < 0 || at+8 > size {
			continue
		}
		var b [8]byte
		if n, err := r.ReadAt(b[:], at); n < len(b) {
			return false, err
		}
		le, be := binary.LittleEndian, binary.BigEndian
		if le.Uint32(b[:]) == magic && le.Uint32(b[4:]) <= 1 || be.Uint32(b[:]) == magic && be.Uint32(b[4:]) == 0 {
			return true, nil
		}
	}
	return false, nil
}

// dropDuplicates closes and leaves out disks of whose label there is another
// copy, if volumes in use lie on exactly one of the copies: that one is what
// LVM itself works with. Other duplicates stay, and Assemble refuses their
// group.
func dropDuplicates(disks []*Disk) (kept []*Disk, notes []string) {
	used := map[string][]*Disk{}
	for _, d := range disks {
		if len(d.Groups) > 0 {
			used[d.PV] = append(used[d.PV], d)
		}
	}
	for _, d := range disks {
		if u := used[d.PV]; len(u) == 1 && u[0] != d {
			notes = append(notes, fmt.Sprintf("%s is a copy of %s, which is in use: left out", d.Name(), u[0].Name()))
			d.Close()
			continue
		}
		kept = append(kept, d)
	}
	slices.SortFunc(kept, func(a, b *Disk) int { return strings.Compare(a.Name(), b.Name()) })
	return kept, notes
}

// CloseDisks closes what Disks opened.
func CloseDisks(disks []*Disk) {
	for _, d := range disks {
		d.Close() // only ever read
	}
}
