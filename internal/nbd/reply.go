package nbd

import (
	"encoding/binary"

	"cbt/sparse"
)

// add adds p to the reply; it stays as it is until that is sent.
func (r *request) add(p []byte) {
	if len(p) > 0 {
		r.pieces = append(r.pieces, p)
		r.size += int64(len(p))
	}
}

// reset takes back what was added.
func (r *request) reset() {
	clear(r.pieces)
	r.pieces, r.size = r.pieces[:0], 0
}

// simple starts a simple reply.
func (r *request) simple(code errno) {
	b := r.heads[:simpleReplySize]
	binary.BigEndian.PutUint32(b, magicSimple)
	binary.BigEndian.PutUint32(b[4:], uint32(code))
	binary.BigEndian.PutUint64(b[8:], r.cookie)
	r.add(b)
}

// chunk writes the header of a chunk with n bytes behind it into b.
func (r *request) chunk(b []byte, flags, kind uint16, n int) {
	binary.BigEndian.PutUint32(b, magicChunk)
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], r.cookie)
	binary.BigEndian.PutUint32(b[16:], uint32(n))
}

// ack replies that r was done, without data.
func (r *request) ack() {
	if !r.s.structured {
		r.simple(0)
		return
	}
	r.chunk(r.heads[:chunkHeaderSize], chunkDone, chunkNone, 0)
	r.add(r.heads[:chunkHeaderSize])
}

// fail makes the reply an error, whatever it was before. What was held for
// data is given back when it was sent.
func (r *request) fail(code errno, why string) {
	r.reset()
	if !r.s.structured {
		r.simple(code)
		return
	}
	b := r.heads[:chunkHeaderSize+6]
	r.chunk(b, chunkDone, chunkError, 6+len(why))
	binary.BigEndian.PutUint32(b[20:], uint32(code))
	binary.BigEndian.PutUint16(b[24:], uint16(len(why)))
	r.add(append(b, why...))
}

// content adds chunk i of a reply to a read: the bytes p of c, or a hole if it
// is one or p has nothing but zeros.
func (r *request) content(c sparse.Extent, p []byte, i int, last bool) {
	var flags uint16
	if last {
		flags = chunkDone
	}
	b := r.heads[i*offsetHoleSize:]
	binary.BigEndian.PutUint64(b[chunkHeaderSize:], uint64(c.Off))
	if sparse.IsZero(p) {
		r.chunk(b, flags, chunkOffsetHole, offsetHoleSize-chunkHeaderSize)
		binary.BigEndian.PutUint32(b[offsetDataHeader:], uint32(c.Len))
		r.add(b[:offsetHoleSize])
		return
	}
	r.chunk(b, flags, chunkOffsetData, 8+len(p))
	r.add(b[:offsetDataHeader])
	r.add(p)
}
