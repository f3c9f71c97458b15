package cbt

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"os"

	"github.com/dsnet/golib/hashmerge"
)

// ID is the SHA-256 of a delta up to its trailer.
type ID [sha256.Size]byte

// String returns the 64 lower-case hexadecimal digits of id. All commands, file names and records
// write an ID this way.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Summary says what a delta holds.
type Summary struct {
	ID      ID
	Size    int64 // bytes of the whole file
	Payload int64 // bytes before compression
	Streams []Totals
}

// writer writes the parts of a delta in order. After an error it does nothing but return that
// error.
type writer struct {
	w       io.Writer
	sum     hash.Hash
	header  Header
	order   order
	off     int64
	seq     uint64
	index   spill
	chunks  uint64
	payload int64
	crc     uint32
	totals  []Totals
	buf     []byte
	err     error
}

func newWriter(w io.Writer, h Header) (*writer, error) {
	frame, err := h.appendFrame(nil)
	if err != nil {
		return nil, err
	}
	dw := &writer{w: w, sum: sha256.New(), header: h, seq: 1, index: spill{limit: spillLimit}, totals: make([]Totals, len(h.Streams))}
	dw.order.streams = h.Streams
	dw.write(magicFrame)
	dw.write(frame)
	return dw, dw.err
}

func (w *writer) write(p []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	w.sum.Write(p)
	w.off += int64(n)
	w.err = err
}

// chunk writes a table and its data frame. The frame is empty if the table has no payload.
func (w *writer) chunk(t *table, data []byte) error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.order.next(t, w.off); w.err != nil {
		return w.err
	}
	t.dataLen = len(data)
	w.buf = t.appendFrame(w.buf[:0], w.seq)
	ref := chunkRef{
		off: w.off, start: t.start(), end: t.end(), stream: t.stream,
		tableLen: len(w.buf), dataLen: len(data), crc: le.Uint32(w.buf[len(w.buf)-frameTailSize:]),
	}
	w.write(w.buf)
	w.write(data)
	w.seq++
	w.totals[t.stream].add(t)
	if t.payload > 0 {
		w.crc = hashmerge.CombineCRC32(crc32.Castagnoli, w.crc, t.crc, int64(t.payload))
		w.payload += int64(t.payload)
	}
	if w.err == nil {
		w.err = w.index.append(ref.append(nil))
	}
	w.chunks++
	return w.err
}

// close writes index and trailer. It does not close the underlying writer.
func (w *writer) close() (Summary, error) {
	defer w.index.close()
	if w.err != nil {
		return Summary{}, w.err
	}
	if w.err = w.order.end(w.off); w.err != nil {
		return Summary{}, w.err
	}
	r := root{chunks: w.chunks, totals: w.totals}
	entries := make([]byte, 0, leafEntries*leafEntrySize)
	for first := uint64(0); first < w.chunks && w.err == nil; first += leafEntries {
		entries = entries[:min(leafEntries, w.chunks-first)*leafEntrySize]
		if w.err = w.index.read(entries, int64(first)*leafEntrySize); w.err != nil {
			break
		}
		head := decodeChunkRef(entries)
		w.buf = appendLeaf(w.buf[:0], first, entries, w.seq)
		r.leaves = append(r.leaves, leafRef{
			off: w.off, start: head.start, stream: head.stream,
			entries: len(entries) / leafEntrySize, crc: le.Uint32(w.buf[len(w.buf)-frameTailSize:]),
		})
		w.write(w.buf)
		w.seq++
	}
	tr := trailer{root: w.off, payload: w.payload, seq: w.seq + 1, crc: w.crc}
	w.write(r.appendFrame(w.buf[:0], w.seq))
	w.sum.Sum(tr.sum[:0])
	w.write(tr.appendFrame(w.buf[:0]))
	if w.err != nil {
		return Summary{}, w.err
	}
	s := Summary{ID: tr.sum, Size: w.off, Payload: w.payload, Streams: w.totals}
	w.err = errors.New("delta is complete")
	return s, nil
}

// spill holds the index entries until the end of the delta: the first 32 MiB
// (700 GiB of payload) in memory, the rest in an unlinked file.
type spill struct {
	limit int // bytes
	mem   []byte
	file  *os.File
	size  int64  // bytes in the file
	tail  []byte // what follows the bytes in the file
}

const (
	spillLimit = 32 << 20
	spillBatch = 1 << 20
)

func (s *spill) append(p []byte) error {
	if s.file == nil && len(s.mem)+len(p) <= s.limit {
		s.mem = append(s.mem, p...)
		return nil
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "cbt-index-*")
		if err != nil {
			return err
		}
		s.file = f
		os.Remove(f.Name())
	}
	s.tail = append(s.tail, p...)
	if len(s.tail) < spillBatch {
		return nil
	}
	return s.flush()
}

func (s *spill) flush() error {
	n, err := s.file.WriteAt(s.tail, s.size)
	s.size += int64(n)
	s.tail = s.tail[:0]
	return err
}

// read reads entries. The limit is not a multiple of an entry's size, but append keeps entries
// whole, so none straddles the end of the part in memory.
func (s *spill) read(p []byte, off int64) error {
	n := 0
	if off < int64(len(s.mem)) {
		n = copy(p, s.mem[off:])
	}
	if n == len(p) {
		return nil
	}
	if len(s.tail) > 0 {
		if err := s.flush(); err != nil {
			return err
		}
	}
	_, err := s.file.ReadAt(p[n:], off+int64(n)-int64(len(s.mem)))
	return err
}

func (s *spill) close() {
	if s.file != nil {
		s.file.Close()
	}
}
