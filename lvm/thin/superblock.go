package thin

import (
	"errors"
	"fmt"
	"math"
)

// Superblock is the root of all metadata (struct thin_disk_superblock in dm-thin-metadata.c). For a
// held metadata snapshot it is the copy, combined with the space maps, the flags and the held root
// of the pool's own superblock.
type Superblock struct {
	Block         uint64 // its place: 0, or the copy's block
	Flags         uint32
	UUID          [16]byte
	Magic         uint64
	Version       uint32
	Time          uint32 // counts the snapshots of the pool
	TransactionID uint64 // counted by LVM
	HeldRoot      uint64 // block of the metadata snapshot's superblock, 0 if there is none
	Data          SpaceMap
	Metadata      SpaceMap
	MappingRoot   uint64 // metadata block of the device tree
	DetailsRoot   uint64 // metadata block of the tree of records

	DataBlockSize     int64  // in bytes
	MetadataBlockSize int64  // in bytes
	FormattedBlocks   uint64 // number of metadata blocks when the pool was made; not kept up to date

	CompatFlags, CompatROFlags, IncompatFlags uint32
}

// SpaceMap counts the uses of blocks (struct disk_sm_root in
// dm-space-map-common.h).
type SpaceMap struct {
	Blocks       uint64 // total number
	Allocated    uint64 // number in use
	BitmapRoot   uint64 // metadata block
	RefCountRoot uint64 // metadata block
}

// NeedsCheck reports whether an operation of the kernel failed. The kernel then refuses to write
// until thin_check has been run.
func (s *Superblock) NeedsCheck() bool { return s.Flags&flagNeedsCheck != 0 }

const (
	superblockSize = 0x16C

	superblockMagic   = 27022010 // THIN_SUPERBLOCK_MAGIC
	superblockVersion = 2
	flagNeedsCheck    = 1 // THIN_METADATA_NEEDS_CHECK_FLAG

	sectorSize         = 512
	minDataBlockSize   = 128 * sectorSize     // DATA_DEV_BLOCK_SIZE_MIN_SECTORS
	maxDataBlockSize   = 2097152 * sectorSize // DATA_DEV_BLOCK_SIZE_MAX_SECTORS
	timeBits           = 24                   // bits of a mapping
	maxTime            = 1<<timeBits - 1
	maxDataBlocks      = 1 << (64 - timeBits)
	maxDeviceID        = 1<<24 - 1 // MAX_DEV_ID in dm-thin.c
	unknownCompatFlags = "unknown feature bits"
)

// ErrUnformatted means that the superblock is all zeros: the pool was never used.
var ErrUnformatted = errors.New("the thin pool's metadata are not formatted: the superblock is all zeros")

func decodeSuperblock(b []byte) Superblock {
	b = b[:superblockSize]
	return Superblock{
		Flags:             le.Uint32(b[0x004:]),
		Block:             le.Uint64(b[0x008:]),
		UUID:              [16]byte(b[0x010:]),
		Magic:             le.Uint64(b[0x020:]),
		Version:           le.Uint32(b[0x028:]),
		Time:              le.Uint32(b[0x02C:]),
		TransactionID:     le.Uint64(b[0x030:]),
		HeldRoot:          le.Uint64(b[0x038:]),
		Data:              decodeSpaceMap(b[0x040:]),
		Metadata:          decodeSpaceMap(b[0x0C0:]),
		MappingRoot:       le.Uint64(b[0x140:]),
		DetailsRoot:       le.Uint64(b[0x148:]),
		DataBlockSize:     int64(le.Uint32(b[0x150:])) * sectorSize,
		MetadataBlockSize: int64(le.Uint32(b[0x154:])) * sectorSize,
		FormattedBlocks:   le.Uint64(b[0x158:]),
		CompatFlags:       le.Uint32(b[0x160:]),
		CompatROFlags:     le.Uint32(b[0x164:]),
		IncompatFlags:     le.Uint32(b[0x168:]),
	}
}

func decodeSpaceMap(b []byte) SpaceMap {
	return SpaceMap{
		Blocks:       le.Uint64(b),
		Allocated:    le.Uint64(b[8:]),
		BitmapRoot:   le.Uint64(b[16:]),
		RefCountRoot: le.Uint64(b[24:]),
	}
}

// superblockName returns the name of the superblock in a block, for errors.
func superblockName(block uint64) string {
	if block == 0 {
		return "thin superblock"
	}
	return "held thin superblock"
}

// verifySuperblock checks what must hold before any field has a meaning: that b, read from the
// given block, is a superblock.
func verifySuperblock(b []byte, block uint64) error {
	name := superblockName(block)
	if block == 0 && allZero(b) {
		return ErrUnformatted
	}
	return superblockKind.verify(b, block, name)
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// faults calls report for every wrong field, in the order of the fields. blocks is the number of
// metadata blocks.
func (s *Superblock) faults(blocks uint64, report func(error)) {
	name := superblockName(s.Block)
	fault := func(field string, value any, format string, args ...any) {
		report(formatError(name, s.Block, field, value, fmt.Sprintf(format, args...)))
	}
	if s.Magic != superblockMagic {
		fault("magic", s.Magic, "want %#x", superblockMagic)
	}
	if s.Version != superblockVersion {
		fault("version", s.Version, "only version %d is known", superblockVersion)
	}
	if s.Time > maxTime {
		fault("time", s.Time, "mappings hold only %d bits of it", timeBits)
	}
	if s.DataBlockSize < minDataBlockSize || s.DataBlockSize > maxDataBlockSize || s.DataBlockSize%minDataBlockSize != 0 {
		fault("data_block_size", uint32(s.DataBlockSize/sectorSize), "not a multiple of 128 sectors from 128 to 2097152")
	}
	if s.MetadataBlockSize != BlockSize {
		fault("metadata_block_size", uint32(s.MetadataBlockSize/sectorSize), "not 8 sectors")
	}
	if s.Data.Blocks > maxDataBlocks || s.Data.Blocks > math.MaxInt64/uint64(max(s.DataBlockSize, 1)) {
		fault("data_space_map_root.nr_blocks", s.Data.Blocks, "more than a pool can have")
	}
	for _, root := range []struct {
		field string
		block uint64
	}{{"data_mapping_root", s.MappingRoot}, {"device_details_root", s.DetailsRoot}} {
		if root.block == 0 || root.block >= blocks {
			fault(root.field, root.block, "not one of the metadata blocks 1 to %d", max(blocks, 1)-1)
		}
	}
	if s.IncompatFlags != 0 {
		fault("incompat_flags", s.IncompatFlags, unknownCompatFlags)
	}
}

// Validate returns the first fault of the superblock of metadata with this many blocks, or nil.
func (s *Superblock) Validate(blocks uint64) error {
	var first error
	s.faults(blocks, func(err error) {
		if first == nil {
			first = err
		}
	})
	return first
}

// heldFaults calls report for every field of a metadata snapshot's superblock that is wrong, given
// the pool's own (__reserve_metadata_snap in dm-thin-metadata.c).
func (s *Superblock) heldFaults(pool *Superblock, report func(error)) {
	fault := func(field string, value any, msg string) {
		report(formatError(superblockName(s.Block), s.Block, field, value, msg))
	}
	if s.Time > pool.Time {
		fault("time", s.Time, fmt.Sprintf("later than the pool's, %d", pool.Time))
	}
	if s.HeldRoot != 0 {
		fault("held_root", s.HeldRoot, "a metadata snapshot holds none itself")
	}
	if s.Data != (SpaceMap{}) || s.Metadata != (SpaceMap{}) {
		fault("space map roots", nil, "a metadata snapshot has none")
	}
	if s.DataBlockSize != pool.DataBlockSize {
		fault("data_block_size", uint32(s.DataBlockSize/sectorSize), fmt.Sprintf("the pool's is %#x", pool.DataBlockSize/sectorSize))
	}
}
