package qcow2

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"

	"cbt/sparse"
)

const (
	snapshotSize      = 40       // bytes of an entry without extra data, ID and name
	snapshotExtraSize = 24       // bytes of the extra data that the specification defines
	maxSnapshotExtra  = 1024     // QEMU's limit
	maxSnapshotTable  = 64 << 20 // QEMU's limit
)

// Snapshot is an entry of the snapshot table. The format allows IDs and names to be reused, so only
// all fields together identify a snapshot.
type Snapshot struct {
	ID, Name    string
	Date        time.Time     // UTC, to the nanosecond
	VMClock     time.Duration // how long the guest had run
	VMStateSize uint64        // bytes of machine state; 0 if there is none
	DiskSize    int64         // bytes
	L1Offset    int64         // of its L1 table in the file, in bytes
	L1Entries   int           // of 8 bytes each
	ICount      uint64        // instructions counted; all ones if they were not counted or the field is absent
	Offset      int64         // of the entry in the file, in bytes
}

// readSnapshots reads the snapshot table. It refuses entries that are cut, and values that cannot
// be a size or an offset. Whether the L1 tables lie in a possible place is checked only when they
// are used.
func (h *Header) readSnapshots(r io.ReaderAt, size int64) ([]Snapshot, error) {
	if h.NbSnapshots == 0 {
		return nil, nil
	}
	pos := int64(h.SnapshotsOffset)
	table := bufio.NewReader(io.NewSectionReader(r, pos, min(size-pos, maxSnapshotTable)))
	var list []Snapshot
	for i := range h.NbSnapshots {
		s, n, err := h.readSnapshot(table, pos)
		if err != nil {
			return nil, fmt.Errorf("qcow2 snapshot %d of %d: %w", i+1, h.NbSnapshots, err)
		}
		list = append(list, s)
		pos += n
	}
	return list, nil
}

// readSnapshot reads the entry at off and returns it with its length in bytes, padding included.
func (h *Header) readSnapshot(table *bufio.Reader, off int64) (Snapshot, int64, error) {
	var head [snapshotSize]byte
	if _, err := io.ReadFull(table, head[:]); err != nil {
		return Snapshot{}, 0, snapshotCut(off, err)
	}
	idLen := int64(binary.BigEndian.Uint16(head[12:]))
	nameLen := int64(binary.BigEndian.Uint16(head[14:]))
	extraLen := int64(binary.BigEndian.Uint32(head[36:]))
	if extraLen > maxSnapshotExtra {
		return Snapshot{}, 0, snapshotError("extra_data_size", off+36, extraLen, fmt.Sprintf("more than %d", maxSnapshotExtra))
	}
	b := make([]byte, snapshotSize+extraLen+idLen+nameLen)
	copy(b, head[:])
	if _, err := io.ReadFull(table, b[snapshotSize:]); err != nil {
		return Snapshot{}, 0, snapshotCut(off, err)
	}
	// The padding of the last entry may lie past the end of the file.
	padding := -len(b) & 7
	if _, err := table.Discard(padding); err != nil && err != io.EOF {
		return Snapshot{}, 0, snapshotCut(off, err)
	}
	s, err := h.decodeSnapshot(b, off)
	return s, int64(len(b) + padding), err
}

// decodeSnapshot decodes the entry in b, which starts at off in the file and whose lengths are
// known to fit.
//
//	0 l1_table_offset  8 l1_size  12 id length  14 name length
//	16 date, seconds  20 date, nanoseconds  24 guest clock, ns
//	32 vm_state_size (32 bits)  36 extra_data_size
//	40 extra: vm_state_size  48 extra: disk size  56 extra: icount  ...
//	then id and name, padded to 8
func (h *Header) decodeSnapshot(b []byte, off int64) (Snapshot, error) {
	be := binary.BigEndian
	s := Snapshot{
		L1Entries:   int(be.Uint32(b[8:])),
		Date:        time.Unix(int64(be.Uint32(b[16:])), int64(be.Uint32(b[20:]))).UTC(),
		VMClock:     time.Duration(be.Uint64(b[24:])),
		VMStateSize: uint64(be.Uint32(b[32:])),
		DiskSize:    int64(h.Size),
		ICount:      math.MaxUint64,
		Offset:      off,
	}
	l1 := be.Uint64(b)
	extra := b[snapshotSize:][:be.Uint32(b[36:])]
	disk := h.Size
	if len(extra) >= 8 {
		s.VMStateSize = be.Uint64(extra)
	}
	if len(extra) >= 16 {
		disk = be.Uint64(extra[8:])
	}
	if len(extra) >= snapshotExtraSize {
		s.ICount = be.Uint64(extra[16:])
	}
	switch {
	case l1 > math.MaxInt64:
		return Snapshot{}, snapshotError("l1_table_offset", off, l1, "more than 2^63-1")
	case disk > math.MaxInt64:
		return Snapshot{}, snapshotError("disk size", off+48, disk, "more than 2^63-1")
	}
	s.L1Offset, s.DiskSize = int64(l1), int64(disk)
	names := b[snapshotSize+len(extra):]
	idLen := be.Uint16(b[12:])
	s.ID, s.Name = string(names[:idLen]), string(names[idLen:])
	return s, nil
}

// validate checks what reading the snapshot depends on. Like QEMU, this package notices such faults
// only when the snapshot is used.
func (s *Snapshot) validate(h *Header, fileSize int64, allowCut bool) error {
	if h.HasDataFile() {
		return &sparse.FormatError{Struct: "qcow2 snapshot", Off: s.Offset, Msg: "internal snapshots do not exist with an external data file"}
	}
	if uint64(s.L1Entries)*8 > maxL1Bytes {
		return snapshotError("l1_size", s.Offset+8, uint64(s.L1Entries), fmt.Sprintf("more than %d entries", maxL1Bytes/8))
	}
	if err := h.cutL1(uint64(s.L1Offset), uint64(s.L1Entries)*8, fileSize); err != nil {
		if !allowCut {
			return &sparse.FormatError{Struct: "qcow2 snapshot table entry", Field: "l1_table_offset", Off: s.Offset, Value: uint64(s.L1Offset), Err: err}
		}
	} else if msg := h.tableFault(uint64(s.L1Offset), uint64(s.L1Entries)*8, fileSize); msg != "" {
		return snapshotError("l1_table_offset", s.Offset, uint64(s.L1Offset), msg)
	}
	if need := h.L1Needed(s.DiskSize); need > int64(s.L1Entries) {
		return snapshotError("l1_size", s.Offset+8, uint64(s.L1Entries), fmt.Sprintf("a disk of %d bytes needs %d entries", s.DiskSize, need))
	}
	return nil
}

func snapshotError(field string, at int64, value any, msg string) error {
	return &sparse.FormatError{Struct: "qcow2 snapshot table entry", Field: field, Off: at, Value: value, Msg: msg}
}

// snapshotCut returns the error for a table that ends inside the entry at off. If err is an error
// of reading the file, it returns that instead.
func snapshotCut(off int64, err error) error {
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("qcow2 snapshot table entry at 0x%x: %w", off, err)
	}
	return &sparse.FormatError{Struct: "qcow2 snapshot table entry", Off: off, Msg: fmt.Sprintf("cut by the end of the file or the limit of %d bytes", maxSnapshotTable)}
}
