package cbt

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"cbt/sparse"
)

// ErrTruncated is in the error (see errors.Is) for a delta that does not end with a trailer.
var ErrTruncated = errors.New("truncated, or not a delta")

// Delta is a delta in a file, read in any order through its index. It is safe for concurrent use.
// Open checks header, index root and trailer, and each read the frames that it needs; only Verify
// checks every byte.
type Delta struct {
	Header Header

	r       io.ReaderAt
	trailer trailer
	size    int64
	root    root
	cache   *decoded
	ends    *Ends
}

// Open reads the ends of a delta, the first size bytes of r: header, index root and trailer. While
// the delta is used these bytes must not change, and r must be safe for concurrent use.
//
// If the delta is damaged, or is not one, the error is a *sparse.FormatError (ErrTruncated if there
// is no trailer). If a later version wrote it, it is an *UnknownFeatureError. Errors of r are
// passed on.
func Open(r io.ReaderAt, size int64) (*Delta, error) {
	if size < int64(len(magicFrame))+trailerSize {
		return nil, &sparse.FormatError{Struct: "delta", Off: 0, Field: "size", Value: size, Err: ErrTruncated}
	}
	head := make([]byte, len(magicFrame)+frameHeadSize)
	if _, err := sparse.ReadFull(r, head, 0); err != nil {
		return nil, err
	}
	if !IsDelta(head) {
		return nil, &sparse.FormatError{Struct: "delta", Off: 0, Msg: "does not begin like one"}
	}
	off := int64(len(magicFrame))
	_, n, err := decodeFrameHead(head[off:], off)
	if err != nil {
		return nil, err
	}
	d := &Delta{r: r, size: size, cache: newDecoded()}
	frame, err := d.readAt(off, n)
	if err != nil {
		return nil, err
	}
	body, err := openFrame(frame, headerFrame, 0, off)
	if err != nil {
		return nil, err
	}
	if d.Header, err = decodeHeader(body); err != nil {
		return nil, err
	}

	end := size - trailerSize
	if frame, err = d.readAt(end, trailerSize); err != nil {
		return nil, err
	}
	if t, n, err := decodeFrameHead(frame, end); err != nil || t != trailerFrame || n != trailerSize {
		return nil, &sparse.FormatError{Struct: "delta trailer", Off: end, Err: ErrTruncated}
	}
	tr, err := decodeTrailer(frame, end)
	if err != nil {
		return nil, err
	}
	d.trailer = *tr
	if frame, err = d.readAt(tr.root, end-tr.root); err != nil {
		return nil, err
	}
	if body, err = openFrame(frame, rootFrame, tr.seq-1, tr.root); err != nil {
		return nil, err
	}
	rt, err := decodeRoot(body, d.Header.Streams, tr.root)
	if err != nil {
		return nil, err
	}
	d.root = *rt
	if want := 1 + rt.chunks + uint64(len(rt.leaves)) + 1; tr.seq != want {
		return nil, &sparse.FormatError{Struct: "delta trailer", Field: "sequence number", Off: end, Value: tr.seq, Msg: fmt.Sprintf("should be %d", want)}
	}
	d.ends = &Ends{Header: d.Header, ID: d.ID(), Size: d.size, Payload: d.Payload()}
	return d, nil
}

// IsDelta reports whether a file that begins with head claims to be a delta.
func IsDelta(head []byte) bool {
	n := len(magicFrame)
	return len(head) >= n+4 && string(head[:n]) == string(magicFrame) && le.Uint32(head[n:]) == skippableMagic
}

// ID returns the SHA-256 that the trailer names. Only Verify compares it with the bytes.
func (d *Delta) ID() ID { return d.trailer.sum }

// Size returns the size of the file in bytes.
func (d *Delta) Size() int64 { return d.size }

// Reader returns a reader of the file from its first byte to its end.
func (d *Delta) Reader() io.Reader { return io.NewSectionReader(d.r, 0, d.size) }

// Payload returns the number of bytes in data extents.
func (d *Delta) Payload() int64 { return d.trailer.payload }

// Totals returns what each stream holds, in header order.
func (d *Delta) Totals() []Totals { return d.root.totals }

// Stream returns the index of the named stream, or -1.
func (d *Delta) Stream(name string) int { return d.ends.Stream(name) }

// readAt reads a part of the file. The type of its frame, or two places in the file, have bounded n
// before; the end of the file bounds it again.
func (d *Delta) readAt(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > d.size || n > d.size-off || n > frameOverhead+maxBody {
		return nil, &sparse.FormatError{Struct: "delta", Off: off, Field: "length", Value: n, Msg: "reaches past the end of the file"}
	}
	b := make([]byte, n)
	_, err := sparse.ReadFull(d.r, b, off)
	return b, err
}

// leaf returns the index entries of leaf i.
func (d *Delta) leaf(i int) ([]chunkRef, error) {
	l := d.root.leaves[i]
	n := int64(frameOverhead + leafHeadSize + l.entries*leafEntrySize)
	return d.cache.leaves.Get(partKey{d, uint64(i)}, int64(l.entries)*64, func() ([]chunkRef, error) {
		b, err := d.readAt(l.off, n)
		if err != nil {
			return nil, err
		}
		body, err := openFrame(b, leafFrame, 1+d.root.chunks+uint64(i), l.off)
		if err != nil {
			return nil, err
		}
		refs, err := decodeLeaf(body, uint64(i)*leafEntries, d.Header.Streams, l.off)
		if err != nil {
			return nil, err
		}
		if refs[0].start != l.start || refs[0].stream != l.stream || le.Uint32(b[len(b)-frameTailSize:]) != l.crc {
			return nil, &sparse.FormatError{Struct: "delta index leaf", Off: l.off, Msg: "is not the one that the root names"}
		}
		if last := refs[len(refs)-1]; i+1 < len(d.root.leaves) {
			if next := d.root.leaves[i+1]; last.stream > next.stream || last.stream == next.stream && last.end > next.start {
				return nil, &sparse.FormatError{Struct: "delta index leaf", Off: l.off, Msg: "overlaps the next one"}
			}
		}
		return refs, nil
	})
}

// ref returns the index entry of chunk k.
func (d *Delta) ref(k uint64) (chunkRef, error) {
	refs, err := d.leaf(int(k / leafEntries))
	if err != nil {
		return chunkRef{}, err
	}
	return refs[k%leafEntries], nil
}

// firstLeaf returns the leaf with the first chunk of a stream that ends after off, if there is one.
// That chunk may also be the first of the next leaf.
func (d *Delta) firstLeaf(stream int, off int64) int {
	leaves := d.root.leaves
	after := sort.Search(len(leaves), func(i int) bool {
		return leaves[i].stream > stream || leaves[i].stream == stream && leaves[i].start > off
	})
	return max(0, after-1)
}

// seek returns the number of the first chunk of a stream that ends after off; any later number if
// there is none. All errors of the index show here.
func (d *Delta) seek(stream int, off int64) (uint64, error) {
	if len(d.root.leaves) == 0 {
		return 0, nil
	}
	first := d.firstLeaf(stream, off)
	refs, err := d.leaf(first)
	if err != nil {
		return 0, err
	}
	return uint64(first)*leafEntries + uint64(firstRef(refs, stream, off)), nil
}

// firstRef returns the index in refs of the first chunk of a stream that ends after off, or any
// later one if there is none.
func firstRef(refs []chunkRef, stream int, off int64) int {
	return sort.Search(len(refs), func(i int) bool {
		return refs[i].stream > stream || refs[i].stream == stream && refs[i].end > off
	})
}

// table returns the table of chunk k.
func (d *Delta) table(k uint64) (*table, error) {
	ref, err := d.ref(k)
	if err != nil {
		return nil, err
	}
	return d.cache.tables.Get(partKey{d, k}, int64(ref.tableLen)*2, func() (*table, error) { return d.readTable(k, ref) })
}

// readTable reads the table of chunk k without the cache.
func (d *Delta) readTable(k uint64, ref chunkRef) (*table, error) {
	b, err := d.readAt(ref.off, int64(ref.tableLen))
	if err != nil {
		return nil, err
	}
	body, err := openFrame(b, tableFrame, k+1, ref.off)
	if err != nil {
		return nil, err
	}
	t, err := decodeTable(body, d.Header.Streams, ref.off)
	if err != nil {
		return nil, err
	}
	if t.stream != ref.stream || t.start() != ref.start || t.end() != ref.end || t.dataLen != ref.dataLen || le.Uint32(b[len(b)-frameTailSize:]) != ref.crc {
		return nil, &sparse.FormatError{Struct: "delta table", Off: ref.off, Msg: "is not the one that the index names"}
	}
	return t, nil
}

// payload lends the n bytes of chunk k, through the cache, until giveBack is called. frame says
// where they lie. If it is nil the table is read for that, and for n.
func (d *Delta) payload(k uint64, n int, frame *dataFrame) (data []byte, giveBack func(), err error) {
	return d.cache.payloads.Borrow(partKey{d, k}, d.cache.room(n), func() ([]byte, error) {
		if frame == nil {
			t, err := d.table(k)
			if err != nil {
				return nil, err
			}
			f, err := d.frameOf(k, t)
			if err != nil {
				return nil, err
			}
			n, frame = t.payload, &f
		}
		buf := framePool.Get().(*[]byte)
		defer framePool.Put(buf)
		return d.decode(frame, d.cache.buffer(n), *buf)
	})
}

var framePool = sync.Pool{New: func() any {
	b := make([]byte, maxDataFrame)
	return &b
}}

// payloadOf lends the payload of the chunk that holds p, a data extent.
func (d *Delta) payloadOf(p part) (data []byte, giveBack func(), err error) {
	if p.table == nil {
		ref, err := d.ref(p.k)
		if err != nil {
			return nil, func() {}, err
		}
		return d.payload(p.k, int(ref.end-ref.start), nil)
	}
	f, err := d.frameOf(p.k, p.table)
	if err != nil {
		return nil, func() {}, err
	}
	return d.payload(p.k, p.table.payload, &f)
}

// dataFrame is the place of a chunk's payload in the file, and the CRC of the payload.
type dataFrame struct {
	off int64
	len int
	crc uint32
}

// frameOf returns the data frame of chunk k, whose table is t.
func (d *Delta) frameOf(k uint64, t *table) (dataFrame, error) {
	ref, err := d.ref(k)
	return dataFrame{ref.off + int64(ref.tableLen), ref.dataLen, t.crc}, err
}

// decode reads and decodes a payload into p, which it fills. It uses buf for the compressed bytes
// if that is large enough.
func (d *Delta) decode(f *dataFrame, p, buf []byte) ([]byte, error) {
	if cap(buf) < f.len {
		buf = make([]byte, f.len)
	}
	buf = buf[:f.len]
	if _, err := sparse.ReadFull(d.r, buf, f.off); err != nil {
		return nil, err
	}
	return p, decodeDataFrame(p, buf, f.crc, f.off)
}
