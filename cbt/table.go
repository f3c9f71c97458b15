package cbt

import (
	"fmt"
	"math"

	"cbt/sparse"
)

// BlockSize is the unit of changes, in bytes: extents start at multiples of
// it and end at one or at the end of the image.
const BlockSize = 4096

const (
	maxPayload     = 1 << 20 // bytes of one chunk
	maxChunkBlocks = maxPayload / BlockSize
	maxExtents     = 4096 // of one chunk
	maxExtentLen   = 1 << 55

	tableHeadSize = 24
	extentSize    = 16

	flagZero    = 1
	flagChecked = 2
)

// extent is one run of a table: data or zeros, checked or not.
type extent struct {
	off, n  int64 // bytes
	zero    bool
	checked bool
}

func (e extent) end() int64 { return e.off + e.n }

// blocks returns the number of blocks that e touches. Each has one old CRC if e is checked.
func (e extent) blocks() int { return int((e.n + BlockSize - 1) / BlockSize) }

// table is the decoded extent table of one chunk.
type table struct {
	stream  int
	extents []extent
	old     []uint32 // CRC of each block of the checked extents at A
	payload int      // bytes
	crc     uint32   // of the payload
	dataLen int      // bytes of the data frame
}

func (t *table) start() int64 { return t.extents[0].off }
func (t *table) end() int64   { return t.extents[len(t.extents)-1].end() }

// appendFrame appends the table as the skippable frame with sequence number seq.
func (t *table) appendFrame(b []byte, seq uint64) []byte {
	b = beginFrame(b, tableFrame)
	b = le.AppendUint32(b, uint32(t.stream))
	b = le.AppendUint32(b, uint32(len(t.extents)))
	b = le.AppendUint32(b, uint32(len(t.old)))
	b = le.AppendUint32(b, uint32(t.payload))
	b = le.AppendUint32(b, t.crc)
	b = le.AppendUint32(b, uint32(t.dataLen))
	for _, e := range t.extents {
		var flags uint64
		if e.zero {
			flags |= flagZero
		}
		if e.checked {
			flags |= flagChecked
		}
		b = le.AppendUint64(b, uint64(e.off))
		b = le.AppendUint64(b, uint64(e.n)<<8|flags)
	}
	for _, c := range t.old {
		b = le.AppendUint32(b, c)
	}
	return sealFrame(b, seq)
}

// decodeTable decodes and validates a table's body. off is the frame's place in the file. The
// caller must check that it fits its neighbours. If streams is nil the header is not known, and all
// is accepted that only a header could refuse.
func decodeTable(body []byte, streams []Stream, off int64) (*table, error) {
	bad := func(field string, v any, msg string) (*table, error) {
		return nil, &sparse.FormatError{Struct: "delta table", Field: field, Off: off, Value: v, Msg: msg}
	}
	if len(body) < tableHeadSize {
		return bad("length", len(body), "too short")
	}
	stream, n, c := le.Uint32(body), le.Uint32(body[4:]), le.Uint32(body[8:])
	payload, dataLen := le.Uint32(body[12:]), le.Uint32(body[20:])
	of := Stream{Size: math.MaxInt64, From: &Base{}}
	switch {
	case streams == nil && stream < maxStreams:
	case int64(stream) >= int64(len(streams)):
		return bad("stream", stream, fmt.Sprintf("the header has %d", len(streams)))
	default:
		of = streams[stream]
	}
	switch {
	case n == 0 || n > maxExtents:
		return bad("extents", n, fmt.Sprintf("must be 1 to %d", maxExtents))
	case c > maxChunkBlocks:
		return bad("old CRCs", c, "too many")
	case payload > maxPayload:
		return bad("payload length", payload, "too large")
	case (payload == 0) != (dataLen == 0) || dataLen > maxDataFrame:
		return bad("data frame length", dataLen, "does not fit the payload")
	case len(body) != tableHeadSize+int(n)*extentSize+int(c)*4:
		return bad("length", len(body), "does not fit the number of extents and CRCs")
	}
	t := &table{
		stream:  int(stream),
		extents: make([]extent, n),
		old:     make([]uint32, c),
		payload: int(payload),
		crc:     le.Uint32(body[16:]),
		dataLen: int(dataLen),
	}
	size := of.Size
	var pos, data int64
	checks := 0
	body = body[tableHeadSize:]
	for i := range t.extents {
		word := le.Uint64(body[8:])
		e := extent{off: int64(le.Uint64(body)), n: int64(word >> 8), zero: word&flagZero != 0, checked: word&flagChecked != 0}
		body = body[extentSize:]
		switch {
		case word&0xff&^(flagZero|flagChecked) != 0 || e.zero && e.checked:
			return bad("extent flags", word&0xff, "unknown combination")
		case e.checked && of.Full:
			return bad("extent flags", word&0xff, "checked, but the stream is full and replaces nothing")
		case e.n == 0:
			return bad("extent length", 0, "is empty")
		case e.off < pos || e.off%BlockSize != 0:
			return bad("extent offset", uint64(e.off), "does not ascend in whole blocks")
		case e.n > maxExtentLen || e.off > size || e.n > size-e.off:
			return bad("extent length", uint64(e.n), fmt.Sprintf("reaches past the image's %d bytes", size))
		case e.n%BlockSize != 0 && e.end() != size && (streams != nil || i < len(t.extents)-1):
			return bad("extent length", uint64(e.n), "ends inside a block")
		}
		pos = e.end()
		if !e.zero {
			data += e.n
		}
		if data > maxPayload {
			return bad("payload length", payload, "less than its extents hold")
		}
		if e.checked {
			checks += e.blocks()
		}
		t.extents[i] = e
	}
	if data != int64(payload) {
		return bad("payload length", payload, fmt.Sprintf("its extents hold %d", data))
	}
	if checks != int(c) {
		return bad("old CRCs", c, fmt.Sprintf("its extents have %d checked blocks", checks))
	}
	for i := range t.old {
		t.old[i] = le.Uint32(body[4*i:])
	}
	return t, nil
}
