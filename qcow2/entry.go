package qcow2

// Bits of L1, L2 and bitmap table entries.
const (
	entryCopied     uint64 = 1 << 63 // the refcount is 1; reliable only in the active state
	entryCompressed uint64 = 1 << 62
	entryZero       uint64 = 1 << 0 // reads as zeros; version 3 without subclusters
	entryOffset     uint64 = 0x00ff_ffff_ffff_fe00

	l1Reserved = ^(entryCopied | entryOffset)
	l2Reserved = ^(entryCopied | entryCompressed | entryZero | entryOffset)

	subclusters  = 32
	allocatedAll = 1<<subclusters - 1 // the lower half of an extended entry's bitmap
)

// l1Entry points to an L2 table.
//
//	63 COPIED  62..56 reserved  55..9 offset of the table  8..0 reserved
type l1Entry uint64

// offset returns where the L2 table starts; 0 if everything is unallocated.
func (e l1Entry) offset() uint64 { return uint64(e) & entryOffset }

// fault returns what is wrong with the entry, or "".
func (e l1Entry) fault(clusterBits uint32) string {
	switch {
	case uint64(e)&l1Reserved != 0:
		return "reserved bits set"
	case e.offset()&(1<<clusterBits-1) != 0:
		return "offset of the L2 table not cluster aligned"
	}
	return ""
}

// l2Entry describes one guest cluster.
//
//	standard:   63 COPIED  62 0  61..56 reserved  55..9 host offset  8..1 reserved  0 zero
//	compressed: 63 0       62 1  61..x further sectors  x-1..0 host offset, x = 70 - cluster_bits
type l2Entry uint64

func (e l2Entry) compressed() bool { return uint64(e)&entryCompressed != 0 }
func (e l2Entry) copied() bool     { return uint64(e)&entryCopied != 0 }
func (e l2Entry) zero() bool       { return uint64(e)&entryZero != 0 }

// offset returns the host offset of a standard cluster.
func (e l2Entry) offset() uint64 { return uint64(e) & entryOffset }

// compressedData returns where a compressed cluster lies in the file and the largest number of
// bytes it may take. These go up to the end of its last sector, which may lie past the end of the
// file and may also hold a part of another cluster.
func (e l2Entry) compressedData(clusterBits uint32) (off, limit uint64) {
	x := 70 - clusterBits
	off = uint64(e) & (1<<x - 1)
	sectors := uint64(e) &^ (entryCopied | entryCompressed) >> x
	return off, (sectors+1)*512 - off&511
}

// kind is the type of a cluster or a subcluster, as its L2 entry gives it.
type kind uint8

const (
	unallocated kind = iota // reads from the backing file, or as zeros
	zeros                   // reads as zeros, allocated or not
	stored                  // at the host offset
	deflated                // compressed
	mixed                   // subclusters differ
)

// layout holds the properties of an image that decoding an L2 entry depends on.
type layout struct {
	version     uint32
	clusterBits uint32
	extended    bool
	dataFile    bool
}

func (h *Header) layout() layout {
	return layout{h.Version, h.ClusterBits, h.ExtendedL2(), h.HasDataFile()}
}

// cluster decodes entry e, with the bitmap of an extended entry. host is the offset of a standard
// cluster in the file (the external data file, if there is one), or -1 if there is none. It is also
// set where the cluster's bytes are not used. fault is what is wrong with the entry, or "".
func (l layout) cluster(e l2Entry, bitmap uint64) (k kind, host int64, fault string) {
	if e.compressed() {
		return l.compressedCluster(e, bitmap)
	}
	host = int64(e.offset())
	if host == 0 && !(l.dataFile && e.copied()) {
		host = -1
	}
	switch {
	case uint64(e)&l2Reserved != 0:
		return 0, 0, "reserved bits set"
	case host >= 0 && host&(1<<l.clusterBits-1) != 0:
		return 0, 0, "host offset not cluster aligned"
	case l.extended:
		return l.extendedCluster(e, bitmap, host)
	case e.zero() && l.version < 3:
		return 0, 0, "zero flag in a version 2 image"
	case e.zero():
		if e.offset() == 0 { // nothing is allocated for it, not even in a data file
			host = -1
		}
		return zeros, host, ""
	case host < 0:
		return unallocated, host, ""
	}
	return stored, host, ""
}

func (l layout) compressedCluster(e l2Entry, bitmap uint64) (kind, int64, string) {
	off, _ := e.compressedData(l.clusterBits)
	switch {
	case l.dataFile:
		return 0, 0, "compressed cluster in an image with an external data file"
	case bitmap != 0:
		return 0, 0, "subcluster bitmap of a compressed cluster"
	case off>>56 != 0:
		return 0, 0, "reserved bits set"
	}
	return deflated, -1, ""
}

func (l layout) extendedCluster(e l2Entry, bitmap uint64, host int64) (kind, int64, string) {
	allocated, zero := bitmap&allocatedAll, bitmap>>subclusters
	switch {
	case e.zero():
		return 0, 0, "zero flag in an extended entry"
	case allocated&zero != 0:
		return 0, 0, "subclusters both allocated and zero"
	case host < 0 && allocated != 0:
		return 0, 0, "subclusters allocated without a host offset"
	case allocated == allocatedAll:
		return stored, host, ""
	case zero == allocatedAll:
		return zeros, host, ""
	case bitmap == 0:
		return unallocated, host, ""
	}
	return mixed, host, ""
}

// subcluster returns the kind of subcluster i of a mixed cluster with this bitmap.
func subcluster(bitmap uint64, i int) kind {
	switch {
	case bitmap>>(subclusters+i)&1 != 0:
		return zeros
	case bitmap>>i&1 != 0:
		return stored
	}
	return unallocated
}
