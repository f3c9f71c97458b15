package thin

// The places in Linux whose rules the faults violate. docs/thin.md lists them.
const (
	citeSuperblock   = "dm-thin-metadata.c, struct thin_disk_superblock and sb_check, __check_incompat_features"
	citeSpaceMapRoot = "dm-space-map-common.h, struct disk_sm_root: nr_blocks; sm_ll_open_metadata"
	citeFeatures     = "dm-thin-metadata.c, struct thin_disk_superblock: compat_flags, compat_ro_flags, flags"
	citeNeedsCheck   = "dm-thin-metadata.c, THIN_METADATA_NEEDS_CHECK_FLAG"
	citeHeld         = "dm-thin-metadata.c, __reserve_metadata_snap"
	citeNode         = "dm-btree-spine.c, node_check: blocknr, csum, max_entries, nr_entries, flags; dm-btree-internal.h, struct node_header"
	citeBlockRange   = "dm-btree-internal.h, struct btree_node: the values of an internal node are metadata blocks"
	citeCycle        = "dm-btree.c, dm_btree_lookup and dm_btree_del: a node below itself is never left"
	citeHeight       = "dm-btree-internal.h, struct node_header: flags; dm-btree.c, btree_split_beneath: only a new root makes a tree higher"
	citeKeyRange     = "dm-btree.c, lower_bound and btree_lookup_raw: a child's keys begin at its entry's and end before the next"
	citeUnderfull    = "dm-btree-remove.c, merge_threshold: a third of max_entries"
	citeShared       = "dm-transaction-manager.c, dm_tm_inc: trees share nodes"
	citeDeviceID     = "dm-thin.c, MAX_DEV_ID"
	citeDetails      = "dm-thin-metadata.c, struct disk_device_details; __create_thin, __delete_device: in both trees or in none"
	citeMappedBlocks = "dm-thin-metadata.c, struct disk_device_details: mapped_blocks"
	citeDataRange    = "dm-thin-metadata.c, unpack_block_time; dm-space-map-common.c, sm_ll_lookup_bitmap: block >= nr_blocks"
	citeTime         = "dm-thin-metadata.c, pack_block_time and struct thin_disk_superblock: time"
	citeTwice        = "dm-thin-metadata.c, __insert: every mapping is to a block of its own until a snapshot shares it"
	citeIndex        = "dm-space-map-common.h, struct disk_metadata_index; dm-space-map-common.c, index_check"
	citeBitmaps      = "dm-space-map-common.h, struct disk_index_entry and disk_bitmap_header; dm-space-map-common.c, dm_bitmap_check"
	citeFree         = "dm-space-map-common.h, struct disk_index_entry: nr_free"
	citeCounts       = "dm-space-map-common.c, sm_ll_lookup and sm_ll_mutate: the bitmap's two bits, or the tree of counts above 2"
	citeAllocated    = "dm-space-map-common.h, struct disk_sm_root: nr_allocated"
)
