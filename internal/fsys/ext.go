package fsys

import (
	"encoding/binary"
	"hash/crc32"
)

var le = binary.LittleEndian

// The superblock of ext2, ext3 and ext4 (fs/ext4/ext4.h: struct ext4_super_block).
const (
	extOffset = 1024
	extSize   = 1024

	extMagicAt    = 0x38 // u16
	extStateAt    = 0x3a // u16
	extCompatAt   = 0x5c // u32
	extIncompatAt = 0x60 // u32
	extROCompatAt = 0x64 // u32
	extChecksumAt = 0x3fc

	extMagic        = 0xef53
	extValid        = 1     // state: unmounted; a file system with a journal always has it
	extHasJournal   = 4     // compatible
	extRecover      = 4     // incompatible: the journal is to be replayed
	extJournalDev   = 8     // incompatible: this is a journal of another device
	extExtents      = 0x40  // incompatible
	extMetadataCsum = 0x400 // read-only compatible
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// lookExt goes by the feature needs_recovery, which the kernel sets while a file
// system is mounted for writing and clears when it is unmounted or frozen.
func lookExt(v volume) (s System, err error) {
	b, err := v.read(extOffset, extSize)
	if b == nil || le.Uint16(b[extMagicAt:]) != extMagic {
		return s, err
	}
	compat, incompat := le.Uint32(b[extCompatAt:]), le.Uint32(b[extIncompatAt:])
	journal := compat&extHasJournal != 0
	s.Kind = "ext2"
	switch {
	case incompat&extExtents != 0:
		s.Kind = "ext4"
	case journal:
		s.Kind = "ext3"
	}
	sum := le.Uint32(b[extROCompatAt:])&extMetadataCsum != 0
	switch {
	case incompat&extJournalDev != 0:
		return System{}, nil
	case sum && ^crc32.Checksum(b[:extChecksumAt], castagnoli) != le.Uint32(b[extChecksumAt:]):
		s.State, s.Why = Unknown, "the checksum of its superblock is wrong"
	case journal && incompat&extRecover != 0:
		s.State, s.Why = Pending, "its superblock says needs_recovery"
	case journal:
		s.State, s.Why = Settled, "its superblock does not say needs_recovery"
	case le.Uint16(b[extStateAt:])&extValid != 0:
		s.State, s.Why = Settled, "it was unmounted"
	default: // a freeze does not show
		s.State, s.Why = Unknown, "it has no journal, and was mounted"
	}
	return s, nil
}
