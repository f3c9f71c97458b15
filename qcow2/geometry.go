package qcow2

// ClusterSize returns the size of a cluster in bytes.
func (h *Header) ClusterSize() int64 { return 1 << h.ClusterBits }

// ExtendedL2 reports whether L2 entries have 16 bytes, with subclusters.
func (h *Header) ExtendedL2() bool { return h.Incompatible&IncompatExtendedL2 != 0 }

// HasDataFile reports whether guest data are in an external data file.
func (h *Header) HasDataFile() bool { return h.Incompatible&IncompatDataFile != 0 }

// L2EntrySize returns the size of an L2 entry in bytes.
func (h *Header) L2EntrySize() int64 {
	if h.ExtendedL2() {
		return 16
	}
	return 8
}

// L2Entries returns the number of entries of an L2 table.
func (h *Header) L2Entries() int64 { return h.ClusterSize() / h.L2EntrySize() }

// L1Span returns the number of guest bytes that one L1 entry describes.
func (h *Header) L1Span() int64 { return h.ClusterSize() * h.L2Entries() }

// L1Needed returns the number of L1 entries for a disk of the given size in bytes. The machine
// state of a snapshot starts at the entry after these.
func (h *Header) L1Needed(diskSize int64) int64 {
	span := h.L1Span()
	n := diskSize / span
	if diskSize%span != 0 {
		n++
	}
	return n
}
