package cbt

import (
	"crypto/sha256"

	"cbt/sparse"
)

const trailerSize = 84

var trailerMark = [8]byte([]byte("CBTDELTA"))

// trailer is the last frame of a delta.
type trailer struct {
	root    int64  // file offset
	payload int64  // bytes in all chunks
	seq     uint64 // its own sequence number
	crc     uint32 // of the whole payload
	sum     [sha256.Size]byte
}

func (t *trailer) appendFrame(b []byte) []byte {
	b = beginFrame(b, trailerFrame)
	b = append(b, trailerMark[:]...)
	b = le.AppendUint64(b, uint64(t.root))
	b = le.AppendUint64(b, uint64(t.payload))
	b = le.AppendUint64(b, t.seq)
	b = le.AppendUint32(b, t.crc)
	b = le.AppendUint32(b, 0)
	b = append(b, t.sum[:]...)
	return sealFrame(b, t.seq)
}

// decodeTrailer decodes a whole trailer frame that lies at file offset off.
func decodeTrailer(b []byte, off int64) (*trailer, error) {
	bad := func(field string, v any, msg string) (*trailer, error) {
		return nil, &sparse.FormatError{Struct: "delta trailer", Field: field, Off: off, Value: v, Msg: msg}
	}
	if len(b) != trailerSize {
		return bad("length", len(b), "truncated")
	}
	t := &trailer{
		root:    int64(le.Uint64(b[16:])),
		payload: int64(le.Uint64(b[24:])),
		seq:     le.Uint64(b[32:]),
		crc:     le.Uint32(b[40:]),
		sum:     [sha256.Size]byte(b[48:]),
	}
	if _, err := openFrame(b, trailerFrame, t.seq, off); err != nil {
		return nil, err
	}
	switch {
	case [8]byte(b[8:]) != trailerMark:
		return bad("mark", b[8:16], "wrong")
	case le.Uint32(b[44:]) != 0:
		return bad("reserved", le.Uint32(b[44:]), "not zero")
	case t.root < int64(len(magicFrame)) || t.root > off-frameOverhead:
		return bad("root offset", uint64(t.root), "outside the file")
	case t.payload < 0:
		return bad("payload length", uint64(t.payload), "negative")
	}
	return t, nil
}
