package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	gptSignature  = "EFI PART"
	gptHeaderSize = 92
	gptEntrySize  = 128

	// maxGPTArray is the kernel's limit too, 32,768 entries. Usual are 128.
	maxGPTArray = 4 << 20
)

// gptHeader is a header, primary or backup. LBA are sector numbers.
type gptHeader struct {
	headerSize   uint32
	crc          uint32
	myLBA        uint64
	alternateLBA uint64
	entriesLBA   uint64
	entries      uint32
	entrySize    uint32
	entriesCRC   uint32
}

// decodeGPTHeader takes at least gptHeaderSize bytes.
func decodeGPTHeader(b []byte) gptHeader {
	le := binary.LittleEndian
	return gptHeader{
		headerSize:   le.Uint32(b[12:]),
		crc:          le.Uint32(b[16:]),
		myLBA:        le.Uint64(b[24:]),
		alternateLBA: le.Uint64(b[32:]),
		entriesLBA:   le.Uint64(b[72:]),
		entries:      le.Uint32(b[80:]),
		entrySize:    le.Uint32(b[84:]),
		entriesCRC:   le.Uint32(b[88:]),
	}
}

// validate checks a header that b, a whole sector, holds at sector lba.
func (h *gptHeader) validate(b []byte, lba uint64) error {
	bad := func(field string, value any, msg string) error {
		return &sparse.FormatError{Struct: "GPT header", Field: field, Off: int64(lba) * int64(len(b)), Value: value, Msg: msg}
	}
	switch {
	case string(b[:8]) != gptSignature:
		return bad("signature", b[:8], "not "+gptSignature)
	case h.headerSize < gptHeaderSize || int(h.headerSize) > len(b):
		return bad("HeaderSize", h.headerSize, fmt.Sprintf("not between %d and a sector", gptHeaderSize))
	}
	sum := crc32.ChecksumIEEE(b[:16])
	sum = crc32.Update(sum, crc32.IEEETable, make([]byte, 4))
	sum = crc32.Update(sum, crc32.IEEETable, b[20:h.headerSize])
	switch {
	case sum != h.crc:
		return bad("HeaderCRC32", h.crc, fmt.Sprintf("its bytes have %#x", sum))
	case h.myLBA != lba:
		return bad("MyLBA", h.myLBA, fmt.Sprintf("found at %#x", lba))
	case h.entrySize < gptEntrySize || h.entrySize&(h.entrySize-1) != 0:
		return bad("SizeOfPartitionEntry", h.entrySize, "not 128 times a power of two")
	case uint64(h.entries)*uint64(h.entrySize) > maxGPTArray:
		return bad("NumberOfPartitionEntries", h.entries, fmt.Sprintf("more than %d bytes", maxGPTArray))
	}
	return nil
}

// readGPT takes the first good copy: the primary ones, then the backups.
func (d disk) readGPT(sizes []int64) (*Table, error) {
	faults := map[int64]error{}
	var backups []func() (*Table, error)
	for _, sector := range sizes {
		t, alternate, err := d.readGPTAt(sector, 1)
		if t != nil || !isFormat(err) {
			return t, err
		}
		faults[sector] = err
		last := uint64(d.size/sector) - 1
		if alternate > 1 && alternate < last {
			backups = append(backups, func() (*Table, error) { return d.backup(sector, alternate) })
		}
		backups = append(backups, func() (*Table, error) { return d.backup(sector, last) })
	}
	for _, backup := range backups {
		t, err := backup()
		if err == nil {
			t.warnf("the backup of the partition table is used, the primary one is bad: %v", faults[t.SectorSize])
			return t, nil
		}
		if !isFormat(err) {
			return nil, err
		}
	}
	return nil, &sparse.FormatError{Struct: "GPT", Off: -1, Msg: "the MBR says that there is one, but primary and backup are bad", Err: faults[sizes[0]]}
}

func isFormat(err error) bool {
	var bad *sparse.FormatError
	return errors.As(err, &bad)
}

func (d disk) backup(sector int64, lba uint64) (*Table, error) {
	t, _, err := d.readGPTAt(sector, lba)
	return t, err
}

// readGPTAt reads the copy whose header is in sector lba. alternate is where that
// says the other one is, 0 if the header is bad.
func (d disk) readGPTAt(sector int64, lba uint64) (t *Table, alternate uint64, err error) {
	b := make([]byte, sector)
	if lba >= uint64(d.size/sector) {
		return nil, 0, &sparse.FormatError{Struct: "GPT header", Off: -1, Value: lba, Msg: "a sector behind the end of the disk"}
	}
	if err := binfmt.Fill(d.r, d.size, "GPT header", b, lba*uint64(sector)); err != nil {
		return nil, 0, err
	}
	h := decodeGPTHeader(b)
	if err := h.validate(b, lba); err != nil {
		return nil, 0, err
	}
	if h.entriesLBA >= uint64(d.size/sector) {
		return nil, h.alternateLBA, &sparse.FormatError{Struct: "GPT header", Field: "PartitionEntryLBA", Off: int64(lba) * sector, Value: h.entriesLBA,
			Msg: "behind the end of the disk"}
	}
	at := h.entriesLBA * uint64(sector)
	array, err := binfmt.Read(d.r, d.size, "GPT entries", at, uint64(h.entries)*uint64(h.entrySize), maxGPTArray)
	if err != nil {
		return nil, h.alternateLBA, err
	}
	if sum := crc32.ChecksumIEEE(array); sum != h.entriesCRC {
		return nil, h.alternateLBA, &sparse.FormatError{Struct: "GPT entries", Field: "PartitionEntryArrayCRC32", Off: int64(at), Value: h.entriesCRC,
			Msg: fmt.Sprintf("their bytes have %#x", sum)}
	}
	t = &Table{Kind: GPT, SectorSize: sector}
	for i := range int(h.entries) {
		e := decodeGPTEntry(array[i*int(h.entrySize):])
		switch {
		case e.kind == [16]byte{}:
		case e.first > e.last:
			t.warnf("partition %d begins at sector %d and ends at %d", i+1, e.first, e.last)
		case e.last-e.first == 1<<64-1:
			t.warnf("partition %d has all sectors that there could be", i+1)
		default:
			t.add(d, Partition{Number: i + 1, Type: guid(e.kind), Name: e.name}, e.first, e.last-e.first+1)
		}
	}
	t.warnOfPast(d)
	return t, h.alternateLBA, nil
}

// gptEntry is one partition; sectors, both ends included.
type gptEntry struct {
	kind        [16]byte // all zero: unused
	first, last uint64
	name        string
}

// decodeGPTEntry takes at least gptEntrySize bytes.
func decodeGPTEntry(b []byte) gptEntry {
	var name []uint16
	for i := 56; i < gptEntrySize; i += 2 {
		c := binary.LittleEndian.Uint16(b[i:])
		if c == 0 {
			break
		}
		name = append(name, c)
	}
	return gptEntry{
		kind:  [16]byte(b[0:16]),
		first: binary.LittleEndian.Uint64(b[32:]),
		last:  binary.LittleEndian.Uint64(b[40:]),
		name:  string(utf16.Decode(name)),
	}
}

// guid is the usual text: the first three groups are little-endian numbers.
func guid(b [16]byte) string {
	le := binary.LittleEndian
	return strings.ToUpper(fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b[0:]), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:]))
}
