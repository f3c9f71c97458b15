package cbt

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/dsnet/golib/hashmerge"

	"cbt/internal/ordered"
	"cbt/sparse"
)

// VerifyOptions tunes Verify.
type VerifyOptions struct {
	Workers  int              // as in Options
	Progress func(done int64) // bytes of the file
}

// Verify reads a delta from its first byte to its end, in one pass, and makes every check that the
// format allows. An error is a *sparse.FormatError (it may wrap ErrTruncated), an
// *UnknownFeatureError, or one of r's.
func Verify(ctx context.Context, r io.Reader, opt VerifyOptions) (Header, Summary, error) {
	s := &scanner{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New(), progress: opt.Progress}
	if err := s.readHeader(); err != nil {
		return Header{}, Summary{}, err
	}
	if opt.Workers <= 0 {
		opt.Workers = min(runtime.GOMAXPROCS(0), maxWorkers)
	}
	s.order.streams = s.header.Streams
	s.totals = make([]Totals, len(s.header.Streams))
	check := func(_ context.Context, c *scanned) (*scanned, error) {
		if c.table.payload == 0 {
			return c, nil
		}
		c.buf.payload = c.buf.payload[:c.table.payload]
		return c, decodeDataFrame(c.buf.payload, c.buf.frame[c.ref.tableLen:], c.table.crc, c.ref.off+int64(c.ref.tableLen))
	}
	err := ordered.Map(ctx, opt.Workers, s.chunks, check, func(c *scanned) error {
		scanPool.Put(c.buf)
		return nil
	})
	if err != nil {
		return Header{}, Summary{}, err
	}
	sum, err := s.finish()
	if err != nil {
		return Header{}, Summary{}, err
	}
	return s.header, sum, nil
}

// ReadHeader reads the header at the beginning of a delta. It may read ahead in r, but looks at
// nothing after the header. The errors are those of Open.
func ReadHeader(r io.Reader) (Header, error) {
	s := &scanner{r: bufio.NewReader(r), sum: sha256.New()}
	err := s.readHeader()
	return s.header, err
}

// scanner reads a delta in the order of its bytes.
type scanner struct {
	r        *bufio.Reader
	sum      hash.Hash
	off      int64
	seq      uint64
	header   Header
	order    order
	totals   []Totals
	payload  int64
	crc      uint32
	leaves   []leafSum // what the leaves must hold
	progress func(int64)
}

// leafSum is what is remembered of a leaf until the index comes: 24 bytes for each gigabyte of
// payload.
type leafSum struct {
	start   int64
	stream  int32
	entries int32
	crc     uint32 // of the encoded entries
}

// scanned is a chunk on its way to be checked.
type scanned struct {
	table *table
	ref   chunkRef
	buf   *chunkBuffers
}

var scanPool = sync.Pool{New: func() any {
	return &chunkBuffers{payload: make([]byte, 0, maxPayload), frame: make([]byte, 0, maxDataFrame+4096)}
}}

// fill reads len(p) bytes. If the file ends before that, the error is ErrTruncated.
func (s *scanner) fill(p []byte) error {
	n, err := io.ReadFull(s.r, p)
	s.sum.Write(p[:n])
	s.off += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return &sparse.FormatError{Struct: "delta", Off: s.off, Err: ErrTruncated}
	}
	if s.progress != nil {
		s.progress(s.off)
	}
	return err
}

// frame appends the next skippable frame to b. Its length is checked against the bounds of its
// type, and memory grows only as bytes arrive.
func (s *scanner) frame(b []byte) (frameType, []byte, error) {
	start := len(b)
	b = append(b, make([]byte, frameHeadSize)...)
	if err := s.fill(b[start:]); err != nil {
		return 0, nil, err
	}
	t, n, err := decodeFrameHead(b[start:], s.off-frameHeadSize)
	if err != nil {
		return 0, nil, err
	}
	for rest := n - frameHeadSize; rest > 0; {
		step := int(min(rest, 1<<20))
		b = append(b, make([]byte, step)...)
		if err := s.fill(b[len(b)-step:]); err != nil {
			return 0, nil, err
		}
		rest -= int64(step)
	}
	return t, b, nil
}

func (s *scanner) readHeader() error {
	head := make([]byte, len(magicFrame))
	if err := s.fill(head); err != nil {
		return err
	}
	if string(head) != string(magicFrame) {
		return &sparse.FormatError{Struct: "delta", Off: 0, Msg: "does not begin like one"}
	}
	_, b, err := s.frame(nil)
	if err != nil {
		return err
	}
	body, err := openFrame(b, headerFrame, 0, int64(len(head)))
	if err != nil {
		return err
	}
	s.header, err = decodeHeader(body)
	s.seq = 1
	return err
}

// chunks reads all chunks and emits them. It stops before the first frame that is not a table.
func (s *scanner) chunks(ctx context.Context, emit func(*scanned) error) error {
	for {
		next, err := s.r.Peek(4)
		if err != nil && err != io.EOF {
			return err
		}
		if len(next) < 4 || le.Uint32(next) != skippableMagic+uint32(tableFrame) {
			return nil
		}
		c := &scanned{buf: scanPool.Get().(*chunkBuffers)}
		off := s.off
		_, b, err := s.frame(c.buf.frame[:0])
		if err != nil {
			return err
		}
		body, err := openFrame(b, tableFrame, s.seq, off)
		if err != nil {
			return err
		}
		if c.table, err = decodeTable(body, s.header.Streams, off); err != nil {
			return err
		}
		if err := s.order.next(c.table, off); err != nil {
			return err
		}
		c.ref = chunkRef{
			off: off, start: c.table.start(), end: c.table.end(), stream: c.table.stream,
			tableLen: len(b), dataLen: c.table.dataLen, crc: le.Uint32(b[len(b)-frameTailSize:]),
		}
		b = append(b, make([]byte, c.table.dataLen)...)
		c.buf.frame = b
		if err := s.fill(b[c.ref.tableLen:]); err != nil {
			return err
		}
		s.count(c)
		if err := emit(c); err != nil {
			return err
		}
	}
}

// count adds a chunk to the totals and to what the index must say.
func (s *scanner) count(c *scanned) {
	s.seq++
	s.totals[c.table.stream].add(c.table)
	if n := int64(c.table.payload); n > 0 {
		s.crc = hashmerge.CombineCRC32(crc32.Castagnoli, s.crc, c.table.crc, n)
		s.payload += n
	}
	if n := len(s.leaves); n == 0 || s.leaves[n-1].entries == leafEntries {
		s.leaves = append(s.leaves, leafSum{start: c.ref.start, stream: int32(c.ref.stream)})
	}
	l := &s.leaves[len(s.leaves)-1]
	l.entries++
	l.crc = crc32.Update(l.crc, castagnoli, c.ref.append(nil))
}

// finish reads index and trailer and compares them with what came before.
func (s *scanner) finish() (Summary, error) {
	if _, err := s.r.Peek(frameHeadSize); err == io.EOF {
		return Summary{}, &sparse.FormatError{Struct: "delta", Off: s.off, Err: ErrTruncated}
	}
	if err := s.order.end(s.off); err != nil {
		return Summary{}, err
	}
	wrong := func(t frameType, off int64) error {
		return &sparse.FormatError{Struct: t.String(), Off: off, Msg: "does not describe the chunks of this delta"}
	}
	want := root{chunks: s.seq - 1, totals: s.totals}
	for i, l := range s.leaves {
		off := s.off
		_, b, err := s.frame(nil)
		if err != nil {
			return Summary{}, err
		}
		body, err := openFrame(b, leafFrame, s.seq, off)
		if err != nil {
			return Summary{}, err
		}
		if _, err := decodeLeaf(body, uint64(i)*leafEntries, s.header.Streams, off); err != nil {
			return Summary{}, err
		}
		if crcOf(body[leafHeadSize:]) != l.crc {
			return Summary{}, wrong(leafFrame, off)
		}
		want.leaves = append(want.leaves, leafRef{off: off, start: l.start, stream: int(l.stream), entries: int(l.entries), crc: le.Uint32(b[len(b)-frameTailSize:])})
		s.seq++
	}
	rootOff := s.off
	_, b, err := s.frame(nil)
	if err != nil {
		return Summary{}, err
	}
	if _, err := openFrame(b, rootFrame, s.seq, rootOff); err != nil {
		return Summary{}, err
	}
	if string(b) != string(want.appendFrame(nil, s.seq)) {
		return Summary{}, wrong(rootFrame, rootOff)
	}

	sum := s.sum.Sum(nil)
	off := s.off
	if _, b, err = s.frame(nil); err != nil {
		return Summary{}, err
	}
	tr, err := decodeTrailer(b, off)
	if err != nil {
		return Summary{}, err
	}
	if tr.root != rootOff || tr.seq != s.seq+1 || tr.payload != s.payload || tr.crc != s.crc {
		return Summary{}, wrong(trailerFrame, off)
	}
	if string(sum) != string(tr.sum[:]) {
		return Summary{}, &sparse.FormatError{Struct: "delta", Field: "SHA-256", Off: 0, Value: fmt.Sprintf("%x", sum), Msg: "the trailer has another: bytes were changed"}
	}
	if _, err := s.r.ReadByte(); err == nil {
		return Summary{}, &sparse.FormatError{Struct: "delta", Off: s.off, Msg: "bytes after the trailer"}
	} else if !errors.Is(err, io.EOF) {
		return Summary{}, err
	}
	return Summary{ID: tr.sum, Size: s.off, Payload: s.payload, Streams: s.totals}, nil
}
