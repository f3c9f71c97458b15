package qcow2

// The rules that faults of a check violate: the section of QEMU's docs/interop/qcow2.rst and the
// rule as worded there. docs/check.md lists them in this order.
const (
	citeHeaderLength  = `Header, header_length: "For version 3 it's at least 104 bytes and must be a multiple of 8."`
	citePadding       = `Header padding: "This padding must be zeroed"`
	citeAutoBitmaps   = `Header, autoclear_features bit 0: "It is an error if this bit is set without the bitmaps extension present."`
	citeAutoRawFile   = `Header, autoclear_features bit 1: "This bit may only be set if the External Data File bit (incompatible feature bit 1) is also set."`
	citeRawBacking    = `Header, backing_file_offset: "backing files are incompatible with raw external data files (auto-clear feature bit 1)."`
	citeDirty         = `Header, incompatible_features bit 0: "If this bit is set then refcounts may be inconsistent"`
	citeCorrupt       = `Header, incompatible_features bit 1: "If this bit is set then any data structure may be corrupt"`
	citeDataFileRules = `Header, incompatible_features bit 2: "neither compressed clusters nor internal snapshots are supported."`
	citeDataFileFixed = `Header, incompatible_features bit 2: "The offset field in the Standard Cluster Descriptor must match the guest offset"`
	citeLUKSPresent   = `Full disk encryption header pointer: "The full disk encryption header must be present if, and only if, the crypt_method header requires metadata."`
	citeLUKSAligned   = `Full disk encryption header pointer: "Must be aligned to a cluster boundary."`

	citeAllocation   = `introduction: "A cluster is the unit in which all allocations are done, both for actual guest data and for image metadata."`
	citeRefcount     = `Host cluster management: "A refcount of 0 means that the cluster is free, 1 means that it is used, and >= 2 means that it is used and any write access must perform a COW (copy on write) operation."`
	citeRefEntryBits = `Host cluster management, refcount table entry: "Bit 0 - 8: Reserved (set to 0)"`
	citeRefEntry     = `Host cluster management, refcount table entry: "Bits 9-63 of the offset into the image file at which the refcount block starts. Must be aligned to a cluster boundary."`
	citeRefBlockSize = `Host cluster management: "refcount blocks and are exactly one cluster in size"`

	citeL1Contiguous = `Cluster mapping: "The L1 table has a variable size (stored in the header) and may use multiple clusters, however it must be contiguous in the image file."`
	citeL1Reserved   = `Cluster mapping, L1 table entry: "Bit 0 - 8: Reserved (set to 0)", "56 - 62: Reserved (set to 0)"`
	citeL1Offset     = `Cluster mapping, L1 table entry: "Bits 9-55 of the offset into the image file at which the L2 table starts. Must be aligned to a cluster boundary."`
	citeL1Copied     = `Cluster mapping, L1 table entry: "0 for an L2 table that is unused or requires COW, 1 if its refcount is exactly one."`
	citeL2Size       = `Cluster mapping: "L2 tables are exactly one cluster in size."`
	citeL2Copied     = `Cluster mapping, L2 table entry: "0 for clusters that are unused, compressed or require COW. 1 for standard clusters whose refcount is exactly one."`
	citeL2DataFile   = `Cluster mapping, L2 table entry: "With external data files, all guest clusters have an implicit refcount of 1 [...], so this bit should be 1 for all allocated clusters."`
	citeL2ZeroBit    = `Cluster mapping, Standard Cluster Descriptor: "With version 2 or with extended L2 entries (see the next section), this is always 0."`
	citeL2Reserved   = `Cluster mapping, Standard Cluster Descriptor: "1 - 8: Reserved (set to 0)", "56 - 61: Reserved (set to 0)"`
	citeL2Offset     = `Cluster mapping, Standard Cluster Descriptor: "Bits 9-55 of host cluster offset. Must be aligned to a cluster boundary."`
	citeL2NoOffset   = `Cluster mapping, Standard Cluster Descriptor: "The offset may only be 0 with bit 63 set (indicating a host cluster offset of 0) when an external data file is used."`
	citeZipOffset    = `Cluster mapping, Compressed Clusters Descriptor: "If cluster_bits is small enough that this field includes bits beyond 55, those upper bits must be set to 0."`
	citeZipSectors   = `Cluster mapping, Compressed Clusters Descriptor: "Number of additional 512-byte sectors used for the compressed data, beyond the sector containing the offset in the previous field."`
	citeSubAlloc     = `Extended L2 Entries, allocation status: "In this case the host cluster offset field must contain a valid offset."`
	citeSubZero      = `Extended L2 Entries, reads as zeros: "In this case the allocation status bit must be unset."`
	citeSubZip       = `Extended L2 Entries, bitmap for compressed clusters: "Bit 0 - 63: Reserved (set to 0)"`

	citeSnapshotTable = `Snapshots: "A directory of all snapshots is stored in the snapshot table, a contiguous area in the image file, whose starting offset and length are given by the header fields snapshots_offset and nb_snapshots."`
	citeSnapshotPlace = `Header, snapshots_offset: "Offset into the image file at which the snapshot table starts. Must be aligned to a cluster boundary."`
	citeSnapshotL1    = `Snapshots, snapshot table entry: "Offset into the image file at which the L1 table for the snapshot starts. Must be aligned to a cluster boundary."`
	citeSnapshotCopy  = `Snapshots: "When creating a snapshot, the L1 table should be copied"`
	citeSnapshotExtra = `Snapshots, snapshot table entry: "Version 3 images must include extra data at least up to byte 55."`
	citeSnapshotID    = `Snapshots, snapshot table entry: "Length of the unique ID string describing the snapshot"`
	citeSnapshotDisk  = `Cluster mapping: "Given an offset into the virtual disk, the offset into the image file can be obtained as follows: [...] l2_table = load_cluster(l1_table[l1_index]);"`
	citeSnapshotState = `Snapshots, snapshot table entry: "If there is VM state, it starts at the first cluster described by first L1 table entry that doesn't describe a regular guest cluster"`
	citeSnapshotKnown = `Snapshots, snapshot table entry: "Extra data for future extensions. Unknown fields must be ignored." (of more than 1024 bytes QEMU says that the table is damaged: block/qcow2.h, QCOW_MAX_SNAPSHOT_EXTRA_DATA)`

	citeBitmapsOff     = `Header, autoclear_features bit 0: "If the bitmaps extension is present but this bit is unset, the bitmaps extension data must be considered inconsistent."`
	citeBitmapCount    = `Bitmaps extension, nb_bitmaps: "Must be greater than or equal to 1."`
	citeBitmapReserved = `Bitmaps extension: "Reserved, must be zero."`
	citeBitmapDirSize  = `Bitmaps extension, bitmap_directory_size: "It is the cumulative size of all (nb_bitmaps) bitmap directory entries."`
	citeBitmapDir      = `Bitmaps extension, bitmap_directory_offset: "Must be aligned to a cluster boundary."`
	citeBitmapArea     = `Bitmap directory: "The bitmap directory is a contiguous area in the image file"`
	citeBitmapTable    = `Bitmap directory, bitmap_table_offset: "Must be aligned to a cluster boundary."`
	citeBitmapFlags    = `Bitmap directory, flags: "Bits 3 - 31 are reserved and must be 0."`
	citeBitmapInUse    = `Bitmap directory, flags, in_use: "The bitmap was not saved correctly and may be inconsistent."`
	citeBitmapAuto     = `Bitmap directory, flags, auto: "The type of this bitmap must be 'dirty tracking bitmap'."`
	citeBitmapType     = `Bitmap directory, type: "Values 0, 2 - 255 are reserved."`
	citeBitmapGran     = `Bitmap directory, granularity_bits: "Valid values: 0 - 63. Note: QEMU currently supports only values 9 - 31."`
	citeBitmapNoName   = `Bitmap directory, name_size: "Size of the bitmap name. Must be non-zero. Note: QEMU currently doesn't support values greater than 1023."`
	citeBitmapExtra    = `Bitmap directory, extra_data_size: "For now, as no extra data is defined, extra_data_size is reserved and should be zero."`
	citeBitmapName     = `Bitmap directory, name: "Must be unique among all bitmap names within the bitmaps extension."`
	citeBitmapPadding  = `Bitmap directory, padding: "All bytes of the padding must be zero."`
	citeBitmapSize     = `Bitmaps: "each bitmap size is equal to the virtual disk size."`
	citeBitmapWhole    = `Bitmap table: "Each bitmap table has a variable size (stored in the bitmap directory entry) and may use multiple clusters, however, it must be contiguous in the image file."`
	citeBitmapBit0     = `Bitmap table, entry: "Bit 0: Reserved and must be zero if bits 9 - 55 are non-zero."`
	citeBitmapBits     = `Bitmap table, entry: "1 - 8: Reserved and must be zero.", "56 - 63: Reserved and must be zero."`
	citeBitmapOffset   = `Bitmap table, entry: "Bits 9 - 55 of the host cluster offset. Must be aligned to a cluster boundary."`
	citeBitmapTail     = `Bitmap data: "If the size of the bitmap data is not a multiple of the cluster size then the last cluster of the bitmap data contains some unused tail bits. These bits must be zero."`
)
