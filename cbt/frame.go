package cbt

import (
	"encoding/binary"
	"hash/crc32"

	"cbt/sparse"
)

var le = binary.LittleEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crcOf(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// frameType is the low nibble of a skippable frame's magic number.
type frameType uint8

const (
	headerFrame frameType = iota
	tableFrame
	leafFrame
	rootFrame
	trailerFrame
)

func (t frameType) String() string {
	switch t {
	case headerFrame:
		return "delta header"
	case tableFrame:
		return "delta table"
	case leafFrame:
		return "delta index leaf"
	case rootFrame:
		return "delta index root"
	case trailerFrame:
		return "delta trailer"
	}
	return "delta frame of unknown type"
}

const (
	skippableMagic = 0x184D2A50
	frameHeadSize  = 8
	frameTailSize  = 4
	frameOverhead  = frameHeadSize + frameTailSize

	maxHeaderBody = 1 << 20
	maxBody       = 64 << 20
)

// maxFrameSize returns the size, in bytes, of the largest frame of type t.
func (t frameType) maxFrameSize() int64 {
	switch t {
	case headerFrame:
		return frameOverhead + maxHeaderBody
	case tableFrame:
		return frameOverhead + tableHeadSize + maxExtents*extentSize + maxChunkBlocks*4
	case leafFrame:
		return frameOverhead + leafHeadSize + leafEntries*leafEntrySize
	case trailerFrame:
		return trailerSize
	}
	return frameOverhead + maxBody
}

// magicFrame is an empty LZ4 frame: it makes every delta an LZ4 file for
// tools that look only at its first bytes.
var magicFrame = []byte{0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, 0, 0, 0, 0}

// beginFrame appends the head of a skippable frame. sealFrame completes it once the body was
// appended.
func beginFrame(b []byte, t frameType) []byte {
	b = le.AppendUint32(b, skippableMagic+uint32(t))
	return append(b, 0, 0, 0, 0)
}

// sealFrame fills in the length of the frame, which is all of b, and appends its CRC.
func sealFrame(b []byte, seq uint64) []byte {
	le.PutUint32(b[4:], uint32(len(b)-frameHeadSize+frameTailSize))
	return le.AppendUint32(b, frameCRC(b, seq))
}

// frameCRC returns the CRC of the sequence number and of b, a frame without its last 4 bytes.
func frameCRC(b []byte, seq uint64) uint32 {
	var s [8]byte
	le.PutUint64(s[:], seq)
	return crc32.Update(crcOf(s[:]), castagnoli, b)
}

// decodeFrameHead reads the first 8 bytes of a skippable frame at file offset
// off and returns its type and its size in bytes, head and CRC included.
func decodeFrameHead(b []byte, off int64) (frameType, int64, error) {
	magic := le.Uint32(b)
	t := frameType(magic & 0xf)
	if magic&^0xf != skippableMagic || t > trailerFrame {
		return 0, 0, &sparse.FormatError{Struct: "delta frame", Field: "magic", Off: off, Value: magic, Msg: "no part of a delta begins like this"}
	}
	size := int64(le.Uint32(b[4:])) + frameHeadSize
	if size < frameOverhead || size > t.maxFrameSize() {
		return 0, 0, &sparse.FormatError{Struct: t.String(), Field: "length", Off: off, Value: size, Msg: "out of bounds"}
	}
	return t, size, nil
}

// openFrame checks a whole skippable frame, read from file offset off, and
// returns its body.
func openFrame(b []byte, want frameType, seq uint64, off int64) ([]byte, error) {
	if len(b) < frameOverhead {
		return nil, &sparse.FormatError{Struct: want.String(), Off: off, Msg: "truncated"}
	}
	t, size, err := decodeFrameHead(b, off)
	if err != nil {
		return nil, err
	}
	if t != want {
		return nil, &sparse.FormatError{Struct: want.String(), Off: off, Msg: "a " + t.String() + " stands in its place"}
	}
	if size != int64(len(b)) {
		return nil, &sparse.FormatError{Struct: t.String(), Field: "length", Off: off, Value: size, Msg: "does not fit its place"}
	}
	body := b[:size-frameTailSize]
	if got := le.Uint32(b[len(body):]); got != frameCRC(body, seq) {
		return nil, &sparse.FormatError{Struct: t.String(), Field: "CRC", Off: off, Value: got, Msg: "damaged, or out of its place"}
	}
	return body[frameHeadSize:], nil
}
