// Package cow reads the persistent exception store of dm-snapshot, which
// holds a thick LVM snapshot: the snapshot's content over its origin, and which
// chunks of the two may differ.
//
// A store is an array of chunks, all integers little endian. Chunk 0 is the
// header. Exception areas of one chunk each follow, with the chunks that they
// speak of between them; B is the bytes of a chunk, E = B/16 the records of an
// area:
//
//	chunk 0   1       2 .. E+1   E+2     E+3 .. 2E+2   2E+3
//	header    area 0  data       area 1  data          area 2 ...
//
// A record says that chunk old of the origin, as the snapshot sees it, lies in
// chunk new of the store. The first record with new = 0 ends the table. What has
// no record is read from the origin as it is now: docs/thick.md says what follows
// from that.
//
// The package takes an io.ReaderAt and a size, only reads, and refuses what it
// does not know. Format facts are from the kernel's
// drivers/md/dm-snap-persistent.c and dm-snap.c, called "the kernel" below.
package cow
