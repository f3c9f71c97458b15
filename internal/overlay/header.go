package overlay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"cbt/sparse"
)

// ErrOtherBase says that an overlay was made over another image.
var ErrOtherBase = errors.New("the overlay was made over another image, or another state of it")

// ErrOtherTimes says that an overlay was made over this image, but that the
// part of its identity behind the + was another one: it may have been written to.
var ErrOtherTimes = errors.New("the overlay was made over this image, which may have been written to since")

const (
	headerSize = 4096
	dataAlign  = 1 << 20
	magic      = "cbt-ovl\x01"
)

// The header, little-endian:
//
//	 0  magic, its last byte the version
//	 8  block size, 4 bytes
//	12  zero, 4 bytes
//	16  size of the image in bytes, 8 bytes
//	24  SHA-256 of the base's identity, up to its +
//	56  CRC-32C of the bytes before, 4 bytes
//	60  zero, 4 bytes
//	64  SHA-256 of what is behind the +; zeros: there was nothing
//	96  CRC-32C of the bytes before, 4 bytes; zero if there was nothing; zeros follow
const (
	headerUsed = 60
	timesUsed  = 100
)

type header struct {
	size        int64
	base, times [sha256.Size]byte
}

func hashOf(identity string) [sha256.Size]byte { return sha256.Sum256([]byte(identity)) }

func newHeader(size int64, identity string) header {
	base, times, ok := strings.Cut(identity, "+")
	h := header{size: size, base: hashOf(base)}
	if ok {
		h.times = hashOf(times)
	}
	return h
}

func (h *header) encode() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, BlockSize)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.size))
	b = append(b, h.base[:]...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	if h.times != [sha256.Size]byte{} {
		b = append(b[:64], h.times[:]...)
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	}
	return b[:headerSize]
}

// check says whether file begins with this header.
func (h *header) check(file io.ReaderAt) error {
	b := make([]byte, headerSize)
	if _, err := sparse.ReadFull(file, b, 0); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	le := binary.LittleEndian
	bad := func(field string, v any, msg string) error {
		return &sparse.FormatError{Struct: "overlay", Off: 0, Field: field, Value: v, Msg: msg}
	}
	want := h.encode()
	switch {
	case !bytes.Equal(b[:8], []byte(magic)):
		return bad("magic", fmt.Sprintf("%q", b[:8]), "is no overlay, and not empty")
	case le.Uint32(b[56:]) != crc32.Checksum(b[:56], crc32.MakeTable(crc32.Castagnoli)):
		return bad("checksum", le.Uint32(b[56:]), "does not fit the header")
	case le.Uint32(b[8:]) != BlockSize:
		return bad("block size", le.Uint32(b[8:]), fmt.Sprintf("should be %d", BlockSize))
	case !bytes.Equal(b[16:56], want[16:56]):
		return ErrOtherBase
	case le.Uint32(b[12:]) != 0 || len(bytes.Trim(b[headerUsed:64], "\x00"))+len(bytes.Trim(b[timesUsed:], "\x00")) > 0:
		return bad("reserved", nil, "not zero")
	case len(bytes.Trim(b[64:timesUsed], "\x00")) == 0:
		return nil // of a version that did not note this, or there was nothing
	case le.Uint32(b[96:]) != crc32.Checksum(b[:96], crc32.MakeTable(crc32.Castagnoli)):
		return bad("second checksum", le.Uint32(b[96:]), "does not fit the header")
	case !bytes.Equal(b, want):
		return ErrOtherTimes
	}
	return nil
}

// IsOverlay says whether a file that begins with head is an overlay, of this
// version.
func IsOverlay(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }
