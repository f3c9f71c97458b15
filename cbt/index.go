package cbt

import (
	"fmt"

	"cbt/sparse"
)

const (
	leafEntries   = 1024
	leafHeadSize  = 16
	leafEntrySize = 40
	rootHeadSize  = 16
	rootEntrySize = 32
	totalsSize    = 32
)

// chunkRef is a leaf's entry: where a chunk lies and what it covers.
type chunkRef struct {
	off        int64 // of the table, in the file
	start, end int64 // in the image
	stream     int
	tableLen   int // bytes of the frame
	dataLen    int // bytes of the frame
	crc        uint32
}

func (c chunkRef) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(c.off))
	b = le.AppendUint64(b, uint64(c.start))
	b = le.AppendUint64(b, uint64(c.end))
	b = le.AppendUint32(b, uint32(c.stream))
	b = le.AppendUint32(b, uint32(c.tableLen))
	b = le.AppendUint32(b, uint32(c.dataLen))
	return le.AppendUint32(b, c.crc)
}

func decodeChunkRef(b []byte) chunkRef {
	return chunkRef{
		off:      int64(le.Uint64(b)),
		start:    int64(le.Uint64(b[8:])),
		end:      int64(le.Uint64(b[16:])),
		stream:   int(le.Uint32(b[24:])),
		tableLen: int(le.Uint32(b[28:])),
		dataLen:  int(le.Uint32(b[32:])),
		crc:      le.Uint32(b[36:]),
	}
}

// follows reports whether c may come after prev: right after it in the file, and in the image after
// it or in a later stream.
func (c chunkRef) follows(prev chunkRef, streams []Stream) bool {
	return c.off == prev.off+int64(prev.tableLen)+int64(prev.dataLen) &&
		(c.stream == prev.stream && c.start >= prev.end || c.stream > prev.stream) &&
		c.stream < len(streams) &&
		c.start >= 0 && c.start < c.end && c.end <= streams[c.stream].Size &&
		c.tableLen >= frameOverhead+tableHeadSize && int64(c.tableLen) <= tableFrame.maxFrameSize() &&
		c.dataLen >= 0 && c.dataLen <= maxDataFrame
}

// single returns the extent of a chunk whose table, though not read, can hold no other. Such a
// table has room for one extent without old CRCs, which then covers all that the chunk does.
// Reading the payload still needs the table.
func (c chunkRef) single(size int64) (extent, bool) {
	e := extent{off: c.start, n: c.end - c.start, zero: c.dataLen == 0}
	most := int64(maxPayload)
	if e.zero {
		most = maxExtentLen
	}
	fits := e.off%BlockSize == 0 && (e.n%BlockSize == 0 || e.end() == size) && e.n <= most
	return e, fits && c.tableLen == frameOverhead+tableHeadSize+extentSize
}

// appendLeaf appends a leaf of entries, already encoded, of which the first is for chunk first.
func appendLeaf(b []byte, first uint64, entries []byte, seq uint64) []byte {
	b = beginFrame(b, leafFrame)
	b = le.AppendUint64(b, first)
	b = le.AppendUint32(b, uint32(len(entries)/leafEntrySize))
	b = le.AppendUint32(b, 0)
	b = append(b, entries...)
	return sealFrame(b, seq)
}

// decodeLeaf decodes a leaf that must begin with chunk first.
func decodeLeaf(body []byte, first uint64, streams []Stream, off int64) ([]chunkRef, error) {
	bad := func(field string, v any, msg string) ([]chunkRef, error) {
		return nil, &sparse.FormatError{Struct: "delta index leaf", Field: field, Off: off, Value: v, Msg: msg}
	}
	if len(body) < leafHeadSize {
		return bad("length", len(body), "too short")
	}
	n := le.Uint32(body[8:])
	switch {
	case le.Uint64(body) != first:
		return bad("first chunk", le.Uint64(body), fmt.Sprintf("should be %d", first))
	case n == 0 || n > leafEntries || len(body) != leafHeadSize+int(n)*leafEntrySize:
		return bad("entries", n, "does not fit the length")
	case le.Uint32(body[12:]) != 0:
		return bad("reserved", le.Uint32(body[12:]), "not zero")
	}
	refs := make([]chunkRef, n)
	for i := range refs {
		refs[i] = decodeChunkRef(body[leafHeadSize+i*leafEntrySize:])
		prev := chunkRef{off: refs[i].off}
		if i > 0 {
			prev = refs[i-1]
		}
		if !refs[i].follows(prev, streams) {
			return bad("entry", i, "does not follow the one before")
		}
	}
	return refs, nil
}

// leafRef is the root's entry for one leaf.
type leafRef struct {
	off     int64 // of the leaf, in the file
	start   int64 // of its first chunk, in the image
	stream  int   // of its first chunk
	entries int
	crc     uint32
}

// Totals counts what one stream of a delta holds.
type Totals struct {
	Chunks  int64 // parts of the file, each a table and its payload
	Data    int64 // bytes
	Zero    int64 // bytes that a zero extent covers
	Checked int64 // bytes of data with a CRC of what they replace
}

func (t *Totals) add(tab *table) {
	t.Chunks++
	for _, e := range tab.extents {
		switch {
		case e.zero:
			t.Zero += e.n
		case e.checked:
			t.Checked += e.n
			fallthrough
		default:
			t.Data += e.n
		}
	}
}

// root is the top of the index.
type root struct {
	chunks uint64
	leaves []leafRef
	totals []Totals
}

func (r *root) appendFrame(b []byte, seq uint64) []byte {
	b = beginFrame(b, rootFrame)
	b = le.AppendUint64(b, r.chunks)
	b = le.AppendUint32(b, uint32(len(r.leaves)))
	b = le.AppendUint32(b, uint32(len(r.totals)))
	for _, l := range r.leaves {
		b = le.AppendUint64(b, uint64(l.off))
		b = le.AppendUint64(b, uint64(l.start))
		b = le.AppendUint32(b, uint32(l.stream))
		b = le.AppendUint32(b, uint32(l.entries))
		b = le.AppendUint32(b, l.crc)
		b = le.AppendUint32(b, 0)
	}
	for _, t := range r.totals {
		b = le.AppendUint64(b, uint64(t.Chunks))
		b = le.AppendUint64(b, uint64(t.Data))
		b = le.AppendUint64(b, uint64(t.Zero))
		b = le.AppendUint64(b, uint64(t.Checked))
	}
	return sealFrame(b, seq)
}

func decodeRoot(body []byte, streams []Stream, off int64) (*root, error) {
	bad := func(field string, v any, msg string) (*root, error) {
		return nil, &sparse.FormatError{Struct: "delta index root", Field: field, Off: off, Value: v, Msg: msg}
	}
	if len(body) < rootHeadSize {
		return bad("length", len(body), "too short")
	}
	chunks, nl, ns := le.Uint64(body), int64(le.Uint32(body[8:])), int64(le.Uint32(body[12:]))
	switch {
	case ns != int64(len(streams)):
		return bad("streams", ns, fmt.Sprintf("the header has %d", len(streams)))
	case int64(len(body)) != rootHeadSize+nl*rootEntrySize+ns*totalsSize:
		return bad("leaves", nl, "does not fit the length")
	case chunks > uint64(nl)*leafEntries || nl > 0 && chunks <= uint64(nl-1)*leafEntries:
		return bad("chunks", chunks, "does not fit the number of leaves")
	}
	r := &root{chunks: chunks, leaves: make([]leafRef, nl), totals: make([]Totals, ns)}
	body = body[rootHeadSize:]
	for i := range r.leaves {
		l := leafRef{
			off:     int64(le.Uint64(body)),
			start:   int64(le.Uint64(body[8:])),
			stream:  int(le.Uint32(body[16:])),
			entries: int(le.Uint32(body[20:])),
			crc:     le.Uint32(body[24:]),
		}
		want := min(leafEntries, chunks-uint64(i)*leafEntries)
		switch {
		case uint64(l.entries) != want || le.Uint32(body[28:]) != 0:
			return bad("entry", i, "has the wrong number of chunks")
		case l.stream < 0 || l.stream >= len(streams) || l.start < 0 || l.start >= streams[l.stream].Size:
			return bad("entry", i, "names no place in a stream")
		case i > 0 && (l.stream < r.leaves[i-1].stream || l.stream == r.leaves[i-1].stream && l.start <= r.leaves[i-1].start):
			return bad("entry", i, "does not follow the one before")
		}
		r.leaves[i] = l
		body = body[rootEntrySize:]
	}
	for i := range r.totals {
		r.totals[i] = Totals{
			Chunks:  int64(le.Uint64(body)),
			Data:    int64(le.Uint64(body[8:])),
			Zero:    int64(le.Uint64(body[16:])),
			Checked: int64(le.Uint64(body[24:])),
		}
		body = body[totalsSize:]
	}
	return r, nil
}
