// Package thin reads the metadata of a device-mapper thin pool: its devices, each as a sparse.View,
// and what changed between two of them, from the metadata alone.
//
// The metadata are blocks of 4096 bytes, with block n at byte n*4096. All integers are little
// endian. Everything is reached from the superblock in block 0, or from its copy that a metadata
// snapshot holds:
//
//	superblock ──▶ device tree ──▶ mapping tree of each device ──▶ data blocks
//	           ──▶ details tree: a record for each device
//	           ──▶ space maps: how often each metadata and data block is used
//
// The trees are B-trees whose nodes are copied before they change. So the mapping trees of a device
// and its snapshots share everything that neither has written to since. If two trees point to the
// same node, they are equal below it, and Changed does not read it.
//
// The package takes an io.ReaderAt and a size, never a path. It only reads, and refuses what it
// does not know: see docs/thin.md. Format facts are from Linux: drivers/md/dm-thin-metadata.c and
// drivers/md/persistent-data/, whose structures the comments name.
package thin
