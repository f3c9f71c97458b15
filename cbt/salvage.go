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

// PieceKind says what is known of a run of bytes of a damaged delta's image.
type PieceKind uint8

const (
	PieceLost      PieceKind = iota // the delta may have said something about it
	PieceData                       // its bytes are there and have the right checksum
	PieceZero                       // the delta says that it is zeros
	PieceUnchanged                  // the delta says nothing about it
)

// Piece is a run of bytes of one stream.
type Piece struct {
	Stream   int   // number in the header
	Off, Len int64 // bytes of the image
	Kind     PieceKind
	// Unsure: found by its looks alone, behind a gap, where the index is gone.
	// It may be of another delta, which lay on the disk that this one is of.
	Unsure bool
	Data   []byte // of PieceData; valid until the callback returns
}

// Salvaged says what Salvage found besides the pieces.
type Salvaged struct {
	Header  *Header // nil: lost, so that names and sizes of the streams are unknown
	Index   bool    // the index was whole and told where the chunks are
	Chunks  int64   // whole ones
	Damaged int64   // chunks whose table is whole and whose bytes are not
	Skipped int64   // bytes of the file between what was recognised
	Whole   bool    // the chunks were read up to the last one
}

// Salvage finds what is whole in a delta of size bytes that may be damaged
// anywhere: header, index or trailer may be cut off. It calls found for each
// piece, streams in the order of the header, offsets ascending, without gaps as
// far as the header is there; of streams whose header is lost only for what is
// there.
//
// With a whole index the chunks are looked for where that says; else the frames
// are walked, and behind a gap the next table is looked for, byte by byte, and
// recognised by its looks, by a sequence number that its CRC fits to, and by
// coming next in the image. A table that lies in the payload of a lost chunk,
// because the disk held a delta itself, has all that too: what is found behind
// a gap is unsure until more of it follows than a payload can hold.
//
// It needs little memory and time in proportion to size. An error is one of r,
// of found, or ctx's; damage is none.
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
	stream  int      // what was handed on last
	pos     int64
	joined  bool  // nothing is missing behind that
	work    int64 // bytes that were looked at in vain
	buf     []byte
	payload []byte
	window  []byte
}

// foundChunk is one whose table is whole.
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

// at reads n bytes, or as many as there are.
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

// place is where a chunk is, of those that the index names.
type place struct {
	chunkRef
	seq uint64
}

// index finds the trailer at the end, the root before it and all leaves. They
// may be shifted, by what is missing before them.
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
	// All of it has to be there: half an index does not tell what is missing.
	if err := visit(func(place) error { return nil }); err != nil {
		return nil, 0
	}
	return visit, shift
}

var errNoIndex = errors.New("the index is damaged")

// chunksBefore is the number of chunks of a delta whose root has this number.
func chunksBefore(root uint64) uint64 {
	if root > math.MaxInt64 {
		return 0
	}
	of := func(chunks uint64) uint64 { return 1 + chunks + (chunks+leafEntries-1)/leafEntries }
	return uint64(sort.Search(int(root), func(n int) bool { return of(uint64(n)) >= root }))
}

// byIndex takes the chunks from where the index says that they are.
func (s *salvager) byIndex(visit func(func(place) error) error, shift int64) error {
	s.joined = true // whatever is missing, the index names
	err := visit(func(p place) error {
		if err := s.ctx.Err(); err != nil {
			return context.Cause(s.ctx)
		}
		// What is missing may be behind the chunk, and moves it not.
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

// tableAt reads the table that the index means, if it is at off.
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

// lost is a chunk that is gone, of which the index tells where it was.
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

// take hands a chunk on.
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
		// Between the extents of one table nothing is missing.
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

// decode returns the payload of a chunk, nil if it is damaged.
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

// gap says what is known of the bytes up to off of a stream: that nothing about
// them was in the delta, if no chunk is missing.
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

// end says what is known of the rest.
func (s *salvager) end() error {
	if s.streams == nil {
		return nil
	}
	last := len(s.streams) - 1
	return s.gap(last, s.streams[last].Size, s.result.Whole && s.joined)
}
