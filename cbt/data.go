package cbt

import (
	"fmt"
	"slices"
	"sync"

	"github.com/pierrec/lz4/v4"

	"cbt/sparse"
)

const (
	dataHeadSize = 11
	dataOverhead = dataHeadSize + 4
	maxDataFrame = dataOverhead + maxPayload
	storedBit    = 1 << 31
)

// dataFrameHead is an LZ4 frame header: independent blocks of at most 1 MiB,
// no checksums. The frame is written and read here rather than by a frame
// library, because cbt's frames have exactly one form and any other is damage.
var dataFrameHead = [7]byte{0x04, 0x22, 0x4d, 0x18, 0x60, 0x60, 0x51}

var compressors = sync.Pool{New: func() any { return new(lz4.Compressor) }}

// appendDataFrame appends payload, 1 byte to 1 MiB, as an LZ4 frame. The
// result depends on nothing but the payload.
func appendDataFrame(b, payload []byte) ([]byte, error) {
	start := len(b)
	b = append(b, dataFrameHead[:]...)
	b = append(b, 0, 0, 0, 0)
	b = slices.Grow(b, len(payload)+4)
	// A block as long as the payload gains nothing, so one byte less is the limit.
	c := compressors.Get().(*lz4.Compressor)
	n, err := c.CompressBlock(payload, b[len(b):len(b)+len(payload)-1])
	compressors.Put(c)
	if err != nil && err != lz4.ErrInvalidSourceShortBuffer {
		return nil, fmt.Errorf("compressing a chunk: %w", err)
	}
	size := uint32(n)
	if err == nil && n > 0 {
		b = b[:len(b)+n]
	} else {
		b = append(b, payload...)
		size = uint32(len(payload)) | storedBit
	}
	le.PutUint32(b[start+len(dataFrameHead):], size)
	return append(b, 0, 0, 0, 0), nil
}

// decodeDataFrame decodes the whole data frame b into payload, whose length
// is known from the table. off is the frame's place in the file.
func decodeDataFrame(payload, b []byte, crc uint32, off int64) error {
	bad := func(field string, v any, msg string) error {
		return &sparse.FormatError{Struct: "delta data frame", Field: field, Off: off, Value: v, Msg: msg}
	}
	if len(b) < dataOverhead || [7]byte(b) != dataFrameHead {
		return bad("magic", b[:min(len(b), 7)], "not the frame of a chunk")
	}
	size := le.Uint32(b[len(dataFrameHead):])
	if int64(size&^storedBit)+dataOverhead != int64(len(b)) {
		return bad("block length", size, "does not fit the frame")
	}
	block := b[dataHeadSize : len(b)-4]
	if end := le.Uint32(b[len(b)-4:]); end != 0 {
		return bad("end mark", end, "not zero")
	}
	if size&storedBit != 0 {
		if copy(payload, block) != len(block) || len(block) != len(payload) {
			return bad("block length", size, "does not fit the payload")
		}
	} else if n, err := lz4.UncompressBlock(block, payload); err != nil || n != len(payload) {
		return bad("block", nil, "does not decompress to its payload")
	}
	if got := crcOf(payload); got != crc {
		return bad("payload CRC", got, fmt.Sprintf("the table says %#x", crc))
	}
	return nil
}
