package thin

const (
	bitmapHeaderSize = 16 // struct disk_bitmap_header, dm-space-map-common.h
	bitmapEntries    = (BlockSize - bitmapHeaderSize) * 4
	indexEntrySize   = 16  // struct disk_index_entry
	metadataIndexes  = 255 // MAX_METADATA_BITMAPS
)
