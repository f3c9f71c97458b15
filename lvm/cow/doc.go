// Package cow reads the persistent exception store of dm-snapshot, which holds a thick LVM
// snapshot. It gives the snapshot's content over its origin, and tells which chunks of the two may
// differ.
//
// A store is an array of chunks; all integers are little endian. Chunk 0 is the header. After it
// come exception areas of one chunk, each followed by the chunks that it describes. B is the size
// of a chunk in bytes, E = B/16 the number of records of an area:
//
//	chunk 0   1       2 .. E+1   E+2     E+3 .. 2E+2   2E+3
//	header    area 0  data       area 1  data          area 2 ...
//
// A record means that chunk old of the origin, as the snapshot sees it, lies in chunk new of the
// store. The first record with new = 0 ends the table. Chunks without a record are read from the
// origin as it is now; docs/thick.md explains the consequences.
//
// The package takes an io.ReaderAt and a size. It only reads, and refuses what it does not know.
// Format facts are from the kernel's drivers/md/dm-snap-persistent.c and dm-snap.c, called "the
// kernel" below.
package cow
