package thin

import (
	"encoding/binary"
	"math/bits"
)

const (
	bitmapHeaderSize = 16 // struct disk_bitmap_header, dm-space-map-common.h
	bitmapEntries    = (BlockSize - bitmapHeaderSize) * 4
	metadataBitmaps  = 255 // MAX_METADATA_BITMAPS, dm-space-map-metadata.h
	indexHeaderSize  = 16  // struct disk_metadata_index
	indexEntrySize   = 16  // struct disk_index_entry
	inTree           = 3   // as a count in a bitmap: the count is in the tree of counts
)

// indexEntry tells where a bitmap is (struct disk_index_entry in dm-space-map-common.h). The
// struct's third field, none_free_before, is only a hint.
type indexEntry struct {
	block uint64
	free  uint32
}

func decodeIndexEntry(b []byte) indexEntry {
	return indexEntry{le.Uint64(b), le.Uint32(b[8:])}
}

// spaceBitmap is a bitmap block. It has two bits for each block, and the lower one is worth more
// (sm_lookup_bitmap in dm-space-map-common.c).
type spaceBitmap []byte

// count returns the count of entry i, or 3 if it is more than 2.
func (b spaceBitmap) count(i int) uint32 {
	two := b[bitmapHeaderSize+i/4] >> (2 * (i % 4)) & 3
	return uint32(two>>1 | two&1<<1)
}

// next returns the first entry from i on whose count is not 0, or n.
func (b spaceBitmap) next(i, n int) int {
	for i < n {
		if i%32 == 0 && i+32 <= bitmapEntries && binary.LittleEndian.Uint64(b[bitmapHeaderSize+i/4:]) == 0 {
			i += 32
			continue
		}
		if b.count(i) != 0 {
			return i
		}
		i++
	}
	return n
}

// free returns how many of the first n entries are 0.
func (b spaceBitmap) free(n int) int {
	free := 0
	for i := range n / 32 {
		word := binary.LittleEndian.Uint64(b[bitmapHeaderSize+8*i:])
		used := (word | word>>1) & 0x5555555555555555
		free += 32 - bits.OnesCount64(used)
	}
	for i := n / 32 * 32; i < n; i++ {
		if b.count(i) == 0 {
			free++
		}
	}
	return free
}
