// Package qcow2 reads qcow2 images, versions 2 and 3. It presents the active state and every
// internal snapshot as a sparse.View, and finds what changed between two of them from metadata
// alone.
//
// An image is a header with extensions in the first cluster, and tables that the header points to.
// All integers are big endian, and every table starts at a cluster boundary:
//
//	header ──▶ L1 table ──▶ L2 tables ──▶ data clusters
//	       ──▶ snapshot table ──▶ an L1 table for each snapshot
//	       ──▶ refcount table ──▶ refcount blocks
//	       ──▶ bitmap directory ──▶ bitmap tables ──▶ bitmap data
//
// Guest offset g is found through entry g / (cluster_size*l2_entries) of the L1 table and entry (g
// / cluster_size) mod l2_entries of the L2 table found there. A snapshot is one more L1 table, with
// its own disk size. L2 tables and data clusters are shared until one of them is written to.
//
// The package takes an io.ReaderAt and a size and never opens a path: the names of backing and data
// files that an image holds are passed to callbacks. It only reads, and refuses what it does not
// know: see docs/qcow2.md. Format facts come from QEMU's docs/interop/qcow2.rst, called "the
// specification" below, and from QEMU's block/qcow2*.c where the specification is silent.
package qcow2
