package fsys

import (
	"bytes"
	"math/bits"
)

// NTFS: the boot sector leads to the table of files, whose third record is
// $LogFile. That begins with two copies of a restart page (Linux's
// fs/ntfs/logfile.h).
const (
	ntfsName       = "NTFS    "
	ntfsSectorAt   = 0x0b // u16, bytes
	ntfsClusterAt  = 0x0d // u8, sectors; above 128 the negative of a power of two
	ntfsTableAt    = 0x30 // u64, cluster
	ntfsRecordAt   = 0x40 // i8, clusters; below 0 the negative of a power of two, in bytes
	ntfsLogFile    = 2
	maxFileRecord  = 64 << 10
	restartPage    = 4096
	attributeData  = 0x80
	attributeEnd   = 0xffffffff
	restartAreaAt  = 0x18 // u16
	restartClient  = 12   // u16, of the area: the first client in use
	restartFlags   = 14   // u16
	restartClean   = 2
	restartNobody  = 0xffff
	fixupStride    = 512
	attributesAt   = 0x14 // u16
	runsAt         = 0x20 // u16, of an attribute
	attributeSize  = 4    // u32
	attributeFar   = 8    // u8: its content is elsewhere
	attributeNamed = 9    // u8
)

// lookNTFS goes by the flag of the log that says that its volume is clean, and
// by the list of those who use it.
func lookNTFS(v volume) (s System, err error) {
	b, err := v.read(0, 512)
	if b == nil || string(b[3:11]) != ntfsName {
		return s, err
	}
	s.Kind, s.State, s.Why = "ntfs", Unknown, "its log was not found"
	cluster, record := ntfsSizes(b)
	table := le.Uint64(b[ntfsTableAt:])
	if cluster == 0 || record == 0 || table > uint64(v.size)/cluster {
		return s, nil
	}
	file, err := v.read(table*cluster+ntfsLogFile*record, record)
	if file == nil || !fixup(file, "FILE") {
		return s, err
	}
	first, ok := firstRun(file)
	if !ok || first > uint64(v.size)/cluster {
		return s, nil
	}
	var newest uint64
	seen := false
	for i := range uint64(2) {
		page, err := v.read(first*cluster+i*restartPage, restartPage)
		if err != nil {
			return s, err
		}
		if page == nil {
			break
		}
		if i == 0 && len(bytes.Trim(page, "\xff")) == 0 {
			s.State, s.Why = Settled, "its log is empty"
			return s, nil
		}
		if !fixup(page, "RSTR") {
			continue
		}
		at := int(le.Uint16(page[restartAreaAt:]))
		if at < restartAreaAt+2 || at+16 > fixupStride-2 {
			continue
		}
		area := page[at:]
		if lsn := le.Uint64(area); seen && lsn <= newest {
			continue
		} else {
			newest, seen = lsn, true
		}
		if le.Uint16(area[restartClient:]) == restartNobody || le.Uint16(area[restartFlags:])&restartClean != 0 {
			s.State, s.Why = Settled, "its log says that the volume is clean"
		} else {
			s.State, s.Why = Pending, "its log says that the volume is in use"
		}
	}
	return s, nil
}

// ntfsSizes are those of a cluster and of a record of the table, 0 if damaged.
func ntfsSizes(b []byte) (cluster, record uint64) {
	sector, n := uint64(le.Uint16(b[ntfsSectorAt:])), b[ntfsClusterAt]
	if sector < 256 || sector > 4096 || bits.OnesCount64(sector) != 1 {
		return 0, 0
	}
	switch {
	case n > 128 && -int8(n) <= 12:
		cluster = sector << -int8(n)
	case n <= 128 && bits.OnesCount8(n) == 1:
		cluster = sector * uint64(n)
	default:
		return 0, 0
	}
	switch r := int8(b[ntfsRecordAt]); {
	case r > 0:
		record = uint64(r) * cluster
	case r <= -9 && r >= -16:
		record = 1 << -r
	}
	if record > maxFileRecord || record < fixupStride {
		record = 0
	}
	return cluster, record
}

// fixup puts back the last two bytes of each 512: what stands there shows
// whether all of a record was written.
func fixup(b []byte, magic string) bool {
	at, n := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if string(b[:4]) != magic || n < 1 || at < 8 || at+2*n > fixupStride-2 || (n-1)*fixupStride > len(b) {
		return false
	}
	for i := 1; i < n; i++ {
		end := b[i*fixupStride-2:][:2]
		if !bytes.Equal(end, b[at:at+2]) {
			return false
		}
		copy(end, b[at+2*i:])
	}
	return true
}

// firstRun is where the content of a file begins: the first of the runs of
// clusters of its attribute $DATA.
func firstRun(file []byte) (cluster uint64, ok bool) {
	at := int(le.Uint16(file[attributesAt:]))
	for at >= 0 && at+runsAt+2 <= len(file) {
		a := file[at:]
		kind, size := le.Uint32(a), int(le.Uint32(a[attributeSize:]))
		if kind == attributeEnd || size < 24 || size > len(a) {
			return 0, false
		}
		if kind != attributeData || a[attributeNamed] != 0 {
			at += size
			continue
		}
		runs := int(le.Uint16(a[runsAt:]))
		if a[attributeFar] != 1 || runs >= size {
			return 0, false
		}
		p := a[runs:size]
		lengthBytes, placeBytes := int(p[0]&15), int(p[0]>>4)
		if lengthBytes == 0 || placeBytes == 0 || placeBytes > 7 || 1+lengthBytes+placeBytes > len(p) {
			return 0, false
		}
		for i := range placeBytes {
			cluster |= uint64(p[1+lengthBytes+i]) << (8 * i)
		}
		return cluster, true
	}
	return 0, false
}
