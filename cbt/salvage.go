package cbt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"sort"

	"cbt/sparse"
)

// PieceKind says what is known about a run of bytes of a damaged delta's image.
type PieceKind uint8

const (
	PieceLost      PieceKind = iota // the delta may have said something about them
	PieceData                       // the bytes are there and have the right checksum
	PieceZero                       // the delta says that they are zeros
	PieceUnchanged                  // the delta says nothing about them
)

// Piece is a run of bytes of one stream.
type Piece struct {
	Stream   int   // number in the header
	Off, Len int64 // bytes of the image
	Kind     PieceKind
	// Unsure: the piece was found after a gap, without an index, only because it looks right. It
	// may belong to another delta that was stored on the disk that this one is of.
	Unsure bool
	Data   []byte // of PieceData; valid until the callback returns
}

// Salvaged says what Salvage found besides the pieces.
type Salvaged struct {
	Header  *Header // nil: lost, and with it the names and sizes of the streams
	Index   bool    // the index was whole and showed where the chunks are
	Chunks  int64   // whole ones
	Damaged int64   // chunks with a whole table but damaged data
	Skipped int64   // bytes of the file between the parts that were recognised
	Whole   bool    // the chunks were read up to the last one
}

// Salvage finds what is whole in a delta of size bytes that may be damaged anywhere, and cut off at
// either end. It calls found for each piece, with streams in the order of the header and offsets
// ascending. If the header is there the pieces have no gaps. If it is lost, found is called only
// for what is there.
//
// If the index is whole, chunks are read from where it says. Otherwise Salvage walks from frame to
// frame. After a gap it looks for the next table byte by byte. A table is recognised by its form,
// by a CRC that fits some possible sequence number, and by coming next in the image. A disk may
// itself have held a delta, and then a table inside the payload of a lost chunk looks just as good.
// So what is found after a gap is unsure until more follows it than a payload can hold.
//
// Salvage needs little memory, and time in proportion to size. It returns errors of r and of found,
// and ctx's. Damage is not an error.
func Salvage(ctx context.Context, r io.ReaderAt, size int64, found func(Piece) error) (Salvaged, error) {
	s := &salvager{ctx: ctx, r: r, size: size, found: found}
	err := s.run()
	return s.result, err
}

type salvager struct {
	ctx    context.Context
	r      io.ReaderAt
	size   int64
	found  func(Piece) error
	result Salvaged

	streams []Stream // nil: the header is lost
	stream  int      // of what was handed on last
	pos     int64
	joined  bool  // nothing is missing after that
	work    int64 // bytes that were looked at in vain
	buf     []byte
	payload []byte
	window  []byte
}

// foundChunk is a chunk whose table is whole.
type foundChunk struct {
	table  *table
	off    int64 // of the data frame
	joined bool  // nothing is missing before it
}

func (s *salvager) run() error {
	off := int64(len(magicFrame))
	if n, err := s.header(off); err != nil {
		return err
	} else if n > 0 {
		off += n
		s.joined = true
	} else {
		off = 0
	}
	if refs, shift := s.index(); refs != nil {
		s.result.Index = true
		return s.byIndex(refs, shift)
	}
	if err := s.ctx.Err(); err != nil {
		return context.Cause(s.ctx)
	}
	return s.walk(off)
}

// at reads n bytes at off, or as many as the file has.
func (s *salvager) at(off, n int64) ([]byte, error) {
	n = max(min(n, s.size-off), 0)
	if int64(cap(s.buf)) < n {
		s.buf = make([]byte, n)
	}
	b := s.buf[:n]
	if n == 0 {
		return b, nil
	}
	_, err := sparse.ReadFull(s.r, b, off)
	return b, err
}

// header reads the header at off, if there is one, and returns its length.
func (s *salvager) header(off int64) (int64, error) {
	head, err := s.at(off, frameHeadSize)
	if err != nil || len(head) < frameHeadSize {
		return 0, err
	}
	t, n, err := decodeFrameHead(head, off)
	if err != nil || t != headerFrame {
		return 0, nil
	}
	b, err := s.at(off, n)
	if err != nil {
		return 0, err
	}
	s.work += n
	body, err := openFrame(b, headerFrame, 0, off)
	if err != nil {
		return 0, nil
	}
	h, err := decodeHeader(body)
	if err != nil {
		return 0, nil
	}
	s.result.Header, s.streams = &h, h.Streams
	return n, nil
}

// place is a chunk that the index names.
type place struct {
	chunkRef
	seq uint64
}

// index finds the trailer at the end, the root before it, and all leaves. shift is how far they
// have moved because bytes before them are missing.
func (s *salvager) index() (leaves func(func(place) error) error, shift int64) {
	b, err := s.at(s.size-trailerSize, trailerSize)
	if err != nil || len(b) != trailerSize {
		return nil, 0
	}
	end := s.size - trailerSize
	tr := &trailer{seq: le.Uint64(b[32:]), root: int64(le.Uint64(b[16:]))}
	if _, err := openFrame(b, trailerFrame, tr.seq, end); err != nil || [8]byte(b[8:]) != trailerMark || tr.seq < 2 {
		return nil, 0
	}
	chunks := chunksBefore(tr.seq - 1)
	count := (chunks + leafEntries - 1) / leafEntries
	if count > maxBody/rootEntrySize {
		return nil, 0
	}
	from, to := 1, maxStreams
	if s.streams != nil {
		from, to = len(s.streams), len(s.streams)
	}
	var body []byte
	off := int64(-1)
	for n := from; n <= to && body == nil; n++ {
		size := int64(frameOverhead+rootHeadSize) + int64(count)*rootEntrySize + int64(n)*totalsSize
		if size > end {
			break
		}
		if b, err = s.at(end-size, frameHeadSize); err != nil {
			return nil, 0
		}
		if t, m, err := decodeFrameHead(b, 0); err != nil || t != rootFrame || m != size {
			continue
		}
		if b, err = s.at(end-size, size); err != nil {
			return nil, 0
		}
		if x, err := openFrame(b, rootFrame, tr.seq-1, end-size); err == nil {
			body, off = bytes.Clone(x), end-size
		}
	}
	if body == nil || le.Uint64(body) != chunks || uint64(le.Uint32(body[8:])) != count {
		return nil, 0
	}
	shift = off - tr.root
	visit := func(found func(place) error) error {
		for i := range count {
			e := body[rootHeadSize+i*rootEntrySize:]
			at, entries := int64(le.Uint64(e))+shift, int64(le.Uint32(e[20:]))
			if entries > leafEntries || at < 0 || at > off {
				return errNoIndex
			}
			b, err := s.at(at, frameOverhead+leafHeadSize+entries*leafEntrySize)
			if err != nil {
				return err
			}
			leaf, err := openFrame(b, leafFrame, 1+chunks+i, at)
			if err != nil || len(leaf) != leafHeadSize+int(entries)*leafEntrySize {
				return errNoIndex
			}
			leaf = bytes.Clone(leaf[leafHeadSize:])
			for k := range entries {
				p := place{decodeChunkRef(leaf[k*leafEntrySize:]), 1 + i*leafEntries + uint64(k)}
				if err := found(p); err != nil {
					return err
				}
			}
		}
		return nil
	}
	// All of it must be there: half an index does not show what is missing.
	if err := visit(func(place) error { return nil }); err != nil {
		return nil, 0
	}
	return visit, shift
}

var errNoIndex = errors.New("the index is damaged")

// chunksBefore returns the number of chunks of a delta whose root has this sequence number; 0 if
// there is no such delta.
func chunksBefore(root uint64) uint64 {
	if root > math.MaxInt64 {
		return 0
	}
	of := func(chunks uint64) uint64 { return 1 + chunks + (chunks+leafEntries-1)/leafEntries }
	return uint64(sort.Search(int(root), func(n int) bool { return of(uint64(n)) >= root }))
}

// byIndex takes the chunks from where the index says they are.
func (s *salvager) byIndex(visit func(func(place) error) error, shift int64) error {
	s.joined = true // the index names whatever is missing
	err := visit(func(p place) error {
		if err := s.ctx.Err(); err != nil {
			return context.Cause(s.ctx)
		}
		// The missing bytes may come after the chunk, and then it has not moved.
		off := p.off
		t, err := s.tableAt(off, p)
		if err == nil && t == nil && shift != 0 {
			off += shift
			t, err = s.tableAt(off, p)
		}
		if err != nil {
			return err
		}
		if t == nil || !(mark{stream: s.stream, pos: s.pos}).before(t) {
			return s.lost(p.chunkRef)
		}
		return s.take(foundChunk{t, off + int64(p.tableLen), true}, false)
	})
	if err != nil {
		return err
	}
	s.result.Whole = true
	return s.end()
}

// tableAt reads the table that the index means, if it is at off; else it returns nil.
func (s *salvager) tableAt(off int64, p place) (*table, error) {
	n := int64(p.tableLen)
	if off < 0 || off >= s.size || n > tableFrame.maxFrameSize() {
		return nil, nil
	}
	b, err := s.at(off, n)
	if err != nil {
		return nil, err
	}
	body, err := openFrame(b, tableFrame, p.seq, off)
	if err != nil {
		return nil, nil
	}
	t, err := decodeTable(body, s.streams, off)
	if err != nil {
		return nil, nil
	}
	return t, nil
}

// lost hands on the range of a chunk that the index names and that is gone.
func (s *salvager) lost(c chunkRef) error {
	if c.stream < s.stream || c.stream == s.stream && c.start < s.pos || c.start < 0 || c.end <= c.start ||
		s.streams != nil && (c.stream >= len(s.streams) || c.end > s.streams[c.stream].Size) || c.stream >= maxStreams {
		return nil
	}
	if err := s.gap(c.stream, c.start, true); err != nil {
		return err
	}
	s.pos = c.end
	return s.found(Piece{Stream: c.stream, Off: c.start, Len: c.end - c.start})
}

// take hands on a chunk.
func (s *salvager) take(c foundChunk, unsure bool) error {
	t := c.table
	if err := s.gap(t.stream, t.start(), c.joined); err != nil {
		return err
	}
	payload, err := s.decode(t, c.off)
	if err != nil {
		return err
	}
	if payload == nil && t.payload > 0 {
		s.result.Damaged++
	} else {
		s.result.Chunks++
	}
	at := int64(0)
	for _, e := range t.extents {
		// Nothing is missing between the extents of one table.
		if err := s.gap(t.stream, e.off, true); err != nil {
			return err
		}
		p := Piece{Stream: t.stream, Off: e.off, Len: e.n, Kind: PieceZero, Unsure: unsure}
		if !e.zero {
			p.Kind = PieceLost
			if payload != nil {
				p.Kind, p.Data = PieceData, payload[at:at+e.n]
			}
			at += e.n
		}
		s.pos = e.end()
		if err := s.found(p); err != nil {
			return err
		}
	}
	return nil
}

// decode returns the payload of a chunk, or nil if it is damaged.
func (s *salvager) decode(t *table, off int64) ([]byte, error) {
	if t.payload == 0 {
		return nil, nil
	}
	b, err := s.at(off, int64(t.dataLen))
	if err != nil {
		return nil, err
	}
	if cap(s.payload) < maxPayload {
		s.payload = make([]byte, maxPayload)
	}
	p := s.payload[:t.payload]
	if decodeDataFrame(p, b, t.crc, off) != nil {
		s.work += int64(t.dataLen)
		return nil, nil
	}
	return p, nil
}

// gap hands on the bytes up to off of a stream that no chunk covers. If no chunk is missing there,
// joined is set, and the delta said nothing about them.
func (s *salvager) gap(stream int, off int64, joined bool) error {
	for s.streams != nil && s.stream < stream {
		if err := s.gapIn(s.streams[s.stream].Size, joined); err != nil {
			return err
		}
		s.stream, s.pos = s.stream+1, 0
	}
	if s.stream < stream {
		s.stream, s.pos = stream, 0
	}
	if s.streams == nil {
		s.pos = max(s.pos, off)
		return nil
	}
	return s.gapIn(off, joined)
}

func (s *salvager) gapIn(to int64, joined bool) error {
	st := &s.streams[s.stream]
	for s.pos < to {
		p := Piece{Stream: s.stream, Off: s.pos, Len: to - s.pos}
		if growth := st.growth(); joined && s.pos < growth {
			p.Kind, p.Len = PieceUnchanged, min(to, growth)-s.pos
		}
		s.pos += p.Len
		if err := s.found(p); err != nil {
			return err
		}
	}
	return nil
}

// end hands on what remains of the streams.
func (s *salvager) end() error {
	if s.streams == nil {
		return nil
	}
	last := len(s.streams) - 1
	return s.gap(last, s.streams[last].Size, s.result.Whole && s.joined)
}
