package cow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	// Magic is the first four bytes, "SnAp", as an integer.
	Magic = 0x70416e53

	headerSize = 16 // struct disk_header
	version    = 1  // SNAPSHOT_DISK_VERSION
	sectorSize = 512

	// maxChunkSectors is the largest power of two that the kernel accepts
	// (dm_exception_store_set_chunk_size). LVM stops at 512 KiB.
	maxChunkSectors = 1 << 21
)

var (
	// ErrUninitialized means that a store has no header yet, because the snapshot was never active.
	// The kernel treats it as one without exceptions.
	ErrUninitialized = errors.New("the snapshot was never active")

	// ErrInvalidated means that the kernel has given up a snapshot because its store was full or
	// could not be written. Its content is lost.
	ErrInvalidated = errors.New("the snapshot is invalid: its store was full or failed")
)

// Header is the start of a store (struct disk_header).
type Header struct {
	Magic     uint32
	Valid     uint32 // 1; 0 once the snapshot is lost
	Version   uint32
	ChunkSize uint32 // in sectors
}

// IsStore reports whether head, the first bytes of a file, belongs to a store, valid or not.
func IsStore(head []byte) bool {
	return len(head) >= 4 && binary.LittleEndian.Uint32(head) == Magic
}

// decodeHeader decodes headerSize bytes.
func decodeHeader(b []byte) Header {
	return Header{
		Magic:     binary.LittleEndian.Uint32(b[0:]),
		Valid:     binary.LittleEndian.Uint32(b[4:]),
		Version:   binary.LittleEndian.Uint32(b[8:]),
		ChunkSize: binary.LittleEndian.Uint32(b[12:]),
	}
}

// Validate checks a header; size is the size of the store in bytes. The error is a
// *sparse.FormatError.
func (h *Header) Validate(size int64) error {
	switch {
	case h.Magic == 0:
		return headerError("magic", 0, h.Magic, "no store", ErrUninitialized)
	case h.Magic != Magic:
		return headerError("magic", 0, h.Magic, fmt.Sprintf("not %#x", uint32(Magic)), nil)
	case h.Version != version:
		return headerError("version", 8, h.Version, "not 1, the only one known", nil)
	case h.Valid == 0:
		return headerError("valid", 4, h.Valid, "", ErrInvalidated)
	case h.Valid != 1:
		return headerError("valid", 4, h.Valid, "neither 0 nor 1", nil)
	case h.ChunkSize == 0 || h.ChunkSize&(h.ChunkSize-1) != 0:
		return headerError("chunk_size", 12, h.ChunkSize, "not a power of two", nil)
	case h.ChunkSize > maxChunkSectors:
		return headerError("chunk_size", 12, h.ChunkSize, fmt.Sprintf("more than %d sectors", maxChunkSectors), nil)
	case h.chunkBytes() > size/2:
		return headerError("chunk_size", 12, h.ChunkSize, fmt.Sprintf("header and first area do not fit in a store of %d bytes", size), nil)
	}
	return nil
}

func (h *Header) chunkBytes() int64 { return int64(h.ChunkSize) * sectorSize }

func headerError(field string, at int64, value uint32, msg string, cause error) error {
	return &sparse.FormatError{Struct: "exception store header", Field: field, Off: at, Value: value, Msg: msg, Err: cause}
}

// readHeader reads and validates the header. It reads whole blocks, as a device opened with
// O_DIRECT requires.
func readHeader(r io.ReaderAt, size int64) (Header, error) {
	block := make([]byte, min(max(size, headerSize), 4096))
	if err := binfmt.Fill(r, size, "exception store header", block, 0); err != nil {
		return Header{}, err
	}
	h := decodeHeader(block)
	if err := h.Validate(size); err != nil {
		return Header{}, err
	}
	return h, nil
}
