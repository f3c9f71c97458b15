package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

// Sizes and limits of the header. Limits that the specification does not give are QEMU's
// (block/qcow2.h, block/qcow2.c); no real image exceeds them.
const (
	Magic = "QFI\xfb"

	headerSizeV2  = 72
	headerSizeV3  = 104
	headerSizeMax = 112 // with compression_type and its padding

	minClusterBits         = 9
	maxClusterBits         = 21
	minExtendedClusterBits = 14
	maxRefcountOrder       = 6
	maxBackingName         = 1023
	maxL1Bytes             = 32 << 20
	maxRefcountTableBytes  = 8 << 20
	maxSnapshots           = 65536
)

// Encryption methods of the header.
const (
	CryptNone = 0
	CryptAES  = 1
	CryptLUKS = 2
)

// Compression types of the header.
const (
	CompressionDeflate = 0
	CompressionZstd    = 1
)

// Header is the header of an image. Fields that version 2 does not have hold the values that the
// specification gives for it.
type Header struct {
	Version               uint32 // 2 or 3
	BackingFileOffset     uint64 // 0: no backing file
	BackingFileSize       uint32 // of its name, in bytes
	ClusterBits           uint32 // a cluster has 1<<ClusterBits bytes
	Size                  uint64 // of the disk of the active state, in bytes
	CryptMethod           uint32 // CryptNone, CryptAES or CryptLUKS
	L1Size                uint32 // entries
	L1TableOffset         uint64 // in bytes, like all offsets here
	RefcountTableOffset   uint64
	RefcountTableClusters uint32 // in clusters
	NbSnapshots           uint32 // number of entries of the snapshot table
	SnapshotsOffset       uint64
	Incompatible          Incompatible
	Compatible            Compatible
	Autoclear             Autoclear
	RefcountOrder         uint32 // a refcount has 1<<RefcountOrder bits
	HeaderLength          uint32 // in bytes
	CompressionType       uint8  // CompressionDeflate or CompressionZstd

	BackingFile string // the name, as stored
}

// IsImage reports whether head, the first bytes of a file, belongs to a qcow2 image of any version.
func IsImage(head []byte) bool {
	return len(head) >= len(Magic) && string(head[:len(Magic)]) == Magic
}

// decodeHeader decodes the header proper from b, which needs at least headerSizeV2 bytes. From
// version 3 on, header_length says which fields are there.
//
//	0  magic    4  version              8  backing_file_offset
//	16 backing_file_size  20 cluster_bits  24 size
//	32 crypt_method  36 l1_size  40 l1_table_offset
//	48 refcount_table_offset  56 refcount_table_clusters  60 nb_snapshots
//	64 snapshots_offset                                        -- version 2 ends
//	72 incompatible  80 compatible  88 autoclear
//	96 refcount_order  100 header_length                       -- required
//	104 compression_type  105 padding
func decodeHeader(b []byte) (Header, error) {
	if !IsImage(b) {
		return Header{}, &sparse.FormatError{Struct: "qcow2 header", Field: "magic", Value: b[:min(len(b), len(Magic))], Msg: "not a qcow2 image"}
	}
	if len(b) < headerSizeV2 {
		return Header{}, &sparse.FormatError{Struct: "qcow2 header", Msg: fmt.Sprintf("cut after %d bytes", len(b))}
	}
	be := binary.BigEndian
	h := Header{
		Version:               be.Uint32(b[4:]),
		BackingFileOffset:     be.Uint64(b[8:]),
		BackingFileSize:       be.Uint32(b[16:]),
		ClusterBits:           be.Uint32(b[20:]),
		Size:                  be.Uint64(b[24:]),
		CryptMethod:           be.Uint32(b[32:]),
		L1Size:                be.Uint32(b[36:]),
		L1TableOffset:         be.Uint64(b[40:]),
		RefcountTableOffset:   be.Uint64(b[48:]),
		RefcountTableClusters: be.Uint32(b[56:]),
		NbSnapshots:           be.Uint32(b[60:]),
		SnapshotsOffset:       be.Uint64(b[64:]),
		RefcountOrder:         4,
		HeaderLength:          headerSizeV2,
	}
	switch {
	case h.Version == 2:
		return h, nil
	case h.Version != 3:
		return Header{}, headerError("version", 4, h.Version, "not 2 or 3")
	case len(b) < headerSizeV3:
		return Header{}, &sparse.FormatError{Struct: "qcow2 header", Msg: fmt.Sprintf("cut after %d bytes", len(b))}
	}
	h.Incompatible = Incompatible(be.Uint64(b[72:]))
	h.Compatible = Compatible(be.Uint64(b[80:]))
	h.Autoclear = Autoclear(be.Uint64(b[88:]))
	h.RefcountOrder = be.Uint32(b[96:])
	h.HeaderLength = be.Uint32(b[100:])
	if h.HeaderLength > headerSizeV3 {
		if len(b) <= headerSizeV3 {
			return Header{}, &sparse.FormatError{Struct: "qcow2 header", Msg: fmt.Sprintf("cut after %d bytes", len(b))}
		}
		h.CompressionType = b[104]
	}
	return h, nil
}

// Validate checks every field that reading depends on, except for the feature bits, against the
// limits of the format and against the size of the file in bytes. The error is a
// *sparse.FormatError.
func (h *Header) Validate(fileSize int64) error { return h.validate(fileSize, false) }

// validate does what Validate does. With allowCut it accepts an active L1 table that the end of the
// file cuts.
func (h *Header) validate(fileSize int64, allowCut bool) error {
	if h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits {
		return headerError("cluster_bits", 20, h.ClusterBits, fmt.Sprintf("not in %d..%d", minClusterBits, maxClusterBits))
	}
	cluster := uint64(1) << h.ClusterBits
	if h.Version == 3 {
		switch {
		case h.HeaderLength < headerSizeV3:
			return headerError("header_length", 100, h.HeaderLength, fmt.Sprintf("less than %d", headerSizeV3))
		case uint64(h.HeaderLength) > cluster:
			return headerError("header_length", 100, h.HeaderLength, fmt.Sprintf("more than a cluster of %d bytes", cluster))
		case h.RefcountOrder > maxRefcountOrder:
			return headerError("refcount_order", 96, h.RefcountOrder, fmt.Sprintf("more than %d", maxRefcountOrder))
		}
	}
	if err := h.validateCompression(); err != nil {
		return err
	}
	if h.ExtendedL2() && h.ClusterBits < minExtendedClusterBits {
		return headerError("cluster_bits", 20, h.ClusterBits, fmt.Sprintf("less than %d with extended L2 entries", minExtendedClusterBits))
	}
	if err := h.validateBackingName(); err != nil {
		return err
	}
	if err := h.validateTables(fileSize, allowCut); err != nil {
		return err
	}
	return h.validateSize()
}

func (h *Header) validateCompression() error {
	switch bit := h.Incompatible&IncompatCompression != 0; {
	case h.CompressionType > CompressionZstd:
		return headerError("compression_type", 104, h.CompressionType, "unknown compression")
	case bit && h.CompressionType == CompressionDeflate:
		return headerError("compression_type", 104, h.CompressionType, "is deflate, but the incompatible feature bit for another compression is set")
	case !bit && h.CompressionType != CompressionDeflate:
		return headerError("compression_type", 104, h.CompressionType, "is not deflate, but the incompatible feature bit for that is not set")
	}
	return nil
}

func (h *Header) validateBackingName() error {
	cluster := uint64(1) << h.ClusterBits
	switch {
	case h.BackingFileOffset == 0:
		return nil
	case h.BackingFileOffset > cluster:
		return headerError("backing_file_offset", 8, h.BackingFileOffset, "not in the first cluster")
	case h.BackingFileSize > maxBackingName || uint64(h.BackingFileSize) > cluster-h.BackingFileOffset:
		return headerError("backing_file_size", 16, h.BackingFileSize, fmt.Sprintf("more than %d bytes or past the first cluster", maxBackingName))
	}
	return nil
}

func (h *Header) validateTables(fileSize int64, allowCut bool) error {
	cluster := uint64(1) << h.ClusterBits
	switch {
	case uint64(h.L1Size)*8 > maxL1Bytes:
		return headerError("l1_size", 36, h.L1Size, fmt.Sprintf("more than %d entries", maxL1Bytes/8))
	case h.RefcountTableClusters == 0:
		return headerError("refcount_table_clusters", 56, h.RefcountTableClusters, "no refcount table")
	case uint64(h.RefcountTableClusters)*cluster > maxRefcountTableBytes:
		return headerError("refcount_table_clusters", 56, h.RefcountTableClusters, fmt.Sprintf("more than %d bytes", maxRefcountTableBytes))
	case h.NbSnapshots > maxSnapshots:
		return headerError("nb_snapshots", 60, h.NbSnapshots, fmt.Sprintf("more than %d", maxSnapshots))
	}
	for _, t := range []struct {
		field  string
		at     int64
		off, n uint64
	}{
		{"l1_table_offset", 40, h.L1TableOffset, uint64(h.L1Size) * 8},
		{"refcount_table_offset", 48, h.RefcountTableOffset, uint64(h.RefcountTableClusters) * cluster},
		{"snapshots_offset", 64, h.SnapshotsOffset, uint64(h.NbSnapshots) * snapshotSize},
	} {
		if err := h.cutL1(t.off, t.n, fileSize); t.at == 40 && err != nil {
			if allowCut {
				continue
			}
			return &sparse.FormatError{Struct: "qcow2 header", Field: t.field, Off: t.at, Value: t.off, Err: err}
		}
		if msg := h.tableFault(t.off, t.n, fileSize); msg != "" {
			return headerError(t.field, t.at, t.off, msg)
		}
	}
	return nil
}

// cutL1 returns an error that is ErrCutL1 if an L1 table of n bytes at off is only cut by the end
// of the file. Such a table starts inside the file, or at its very end, and everything else about
// it may be right. Otherwise it returns nil.
func (h *Header) cutL1(off, n uint64, fileSize int64) error {
	if off == 0 || off > uint64(fileSize) || h.tableFault(off, 0, fileSize) != "" || h.tableFault(off, n, fileSize) == "" {
		return nil
	}
	return &cutError{n, fileSize}
}

type cutError struct {
	n        uint64
	fileSize int64
}

func (e *cutError) Error() string        { return outside(e.n, e.fileSize) }
func (e *cutError) Is(target error) bool { return target == ErrCutL1 }

func outside(n uint64, fileSize int64) string {
	return fmt.Sprintf("%d bytes there are not inside the file of %d bytes", n, fileSize)
}

// tableFault returns what is wrong with a table of n bytes at off, or "".
func (h *Header) tableFault(off, n uint64, fileSize int64) string {
	switch {
	case off&(uint64(1)<<h.ClusterBits-1) != 0:
		return "not cluster aligned"
	case n > 0 && off == 0:
		return "a table at the place of the header"
	case n > 0 && !binfmt.Inside(off, n, fileSize):
		return outside(n, fileSize)
	}
	return ""
}

func (h *Header) validateSize() error {
	if h.Size > math.MaxInt64 {
		return headerError("size", 24, h.Size, "more than 2^63-1")
	}
	if need := h.L1Needed(int64(h.Size)); need > int64(h.L1Size) {
		return headerError("l1_size", 36, h.L1Size, fmt.Sprintf("a disk of %d bytes needs %d entries", h.Size, need))
	}
	return nil
}

// readHeader reads the header and checks nothing but its magic and version.
func readHeader(r io.ReaderAt, size int64) (Header, error) {
	b, err := binfmt.Read(r, size, "qcow2 header", 0, uint64(min(size, headerSizeMax)), headerSizeMax)
	if err != nil {
		return Header{}, err
	}
	return decodeHeader(b)
}

// readBackingName reads the name that backing_file_offset points to. The header must have been
// validated.
func (h *Header) readBackingName(r io.ReaderAt, size int64) error {
	if h.BackingFileOffset == 0 {
		return nil
	}
	name, err := binfmt.Read(r, size, "qcow2 backing file name", h.BackingFileOffset, uint64(h.BackingFileSize), maxBackingName)
	h.BackingFile = string(name)
	return err
}

func headerError(field string, at int64, value any, msg string) error {
	return &sparse.FormatError{Struct: "qcow2 header", Field: field, Off: at, Value: value, Msg: msg}
}
