package overlay

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"

	"cbt/sparse"
)

// Summary is what an overlay tells without its base.
type Summary struct {
	Size    int64  // of the image, in bytes
	Written int64  // bytes that are in the file
	Zeroed  int64  // bytes that are zeros
	Base    string // the SHA-256 of the base's identity
}

// maxSummary bounds the image whose blocks are counted: 256 MiB of bits.
const maxSummary = 1 << 42

// Describe reads an overlay in size bytes of r. It reads all bits; of an image of
// more than 4 TiB it counts nothing.
func Describe(r io.ReaderAt, size int64) (*Summary, error) {
	b := make([]byte, headerUsed)
	if _, err := sparse.ReadFull(r, b, 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	bad := func(field string, v any, msg string) error {
		return &sparse.FormatError{Struct: "overlay", Off: 0, Field: field, Value: v, Msg: msg}
	}
	total := le.Uint64(b[16:])
	switch {
	case !IsOverlay(b):
		return nil, bad("magic", fmt.Sprintf("%q", b[:8]), "is no overlay")
	case le.Uint32(b[56:]) != crc32.Checksum(b[:56], crc32.MakeTable(crc32.Castagnoli)):
		return nil, bad("checksum", le.Uint32(b[56:]), "does not fit the header")
	case le.Uint32(b[8:]) != BlockSize:
		return nil, bad("block size", le.Uint32(b[8:]), fmt.Sprintf("should be %d", BlockSize))
	case total > maxSize:
		return nil, bad("size", total, fmt.Sprintf("more than %d", int64(maxSize)))
	}
	s := &Summary{Size: int64(total), Base: fmt.Sprintf("%x", b[24:56])}
	if s.Size > maxSummary {
		return s, nil
	}
	page := make([]byte, pageSize)
	for n := int64(0); n < (s.Size+pageSpan-1)/pageSpan; n++ {
		if _, err := sparse.ReadFull(r, page, headerSize+n*pageSize); err != nil {
			return nil, err
		}
		for i := 0; i < pageSize; i += bytesOfWord {
			word := le.Uint64(page[i:])
			s.Written += int64(bits.OnesCount64(word&evenBits)) * BlockSize
			s.Zeroed += int64(bits.OnesCount64(word&^evenBits)) * BlockSize
		}
	}
	return s, nil
}
