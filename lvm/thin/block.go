package thin

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

var le = binary.LittleEndian

// BlockSize is the size of a metadata block in bytes (THIN_METADATA_BLOCK_SIZE).
const BlockSize = 4096

// maxBlocks is how many metadata blocks a pool can use: 255 bitmaps of 16320 entries
// (MAX_METADATA_BITMAPS in dm-space-map-metadata.h). Further blocks are ignored.
const maxBlocks = 255 * bitmapEntries

// blockKind is the type of a block, as its checksum shows it: the sum is combined with a different
// number for each kind.
type blockKind uint32

const (
	superblockKind blockKind = 160774 // SUPERBLOCK_CSUM_XOR, dm-thin-metadata.c
	nodeKind       blockKind = 121107 // BTREE_CSUM_XOR, dm-btree-spine.c
	bitmapKind     blockKind = 240779 // BITMAP_CSUM_XOR, dm-space-map-common.c
	indexKind      blockKind = 160478 // INDEX_CSUM_XOR, dm-space-map-common.c
)

func (k blockKind) String() string {
	switch k {
	case superblockKind:
		return "a superblock"
	case nodeKind:
		return "a B-tree node"
	case bitmapKind:
		return "a space map bitmap"
	case indexKind:
		return "a space map index"
	}
	return "nothing of a thin pool"
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the value that bytes 0 to 3 of a block b of this kind must have: the CRC-32C of
// the rest, without the final inversion, combined with the number of the kind (dm_bm_checksum).
func (k blockKind) checksum(b []byte) uint32 {
	return ^crc32.Checksum(b[4:BlockSize], castagnoli) ^ uint32(k)
}

// verify checks the checksum of b, read from the given block, and the block number in it. what
// names the structure in errors.
func (k blockKind) verify(b []byte, block uint64, what string) error {
	sum := le.Uint32(b)
	if want := k.checksum(b); sum != want {
		// Knowing for which kind the sum would be right helps more than knowing that it is wrong.
		is := blockKind(sum ^ want ^ uint32(k))
		switch is {
		case superblockKind, nodeKind, bitmapKind, indexKind:
			return formatError(what, block, "", nil, fmt.Sprintf("the block is %v by its checksum", is))
		}
		return formatError(what, block, "csum", sum, fmt.Sprintf("checksum is %#x", want))
	}
	if at := le.Uint64(b[8:]); at != block {
		return formatError(what, block, "blocknr", at, fmt.Sprintf("the block is number %#x", block))
	}
	return nil
}

// formatError returns the error for a fault of the structure what in a metadata block.
func formatError(what string, block uint64, field string, value any, msg string) error {
	off := int64(-1)
	if block < 1<<50 {
		off = int64(block) * BlockSize
	}
	return &sparse.FormatError{Struct: what, Field: field, Off: off, Value: value, Msg: msg}
}

// device is the metadata device.
type device struct {
	r      io.ReaderAt
	size   int64  // in bytes
	blocks uint64 // number of usable blocks; all of them until the superblock has been read
}

func newDevice(r io.ReaderAt, size int64) device {
	return device{r: r, size: size, blocks: min(uint64(max(size, 0))/BlockSize, maxBlocks)}
}

// read fills b with whole blocks, starting at the given block.
func (d *device) read(b []byte, block uint64, what string) error {
	if block >= d.blocks || uint64(len(b)/BlockSize) > d.blocks-block {
		return formatError(what, block, "", nil, fmt.Sprintf("block %d is not among the %d blocks of the metadata", block, d.blocks))
	}
	return binfmt.Fill(d.r, d.size, what, b, block*BlockSize)
}
