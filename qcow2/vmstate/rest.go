package vmstate

import (
	"encoding/binary"
	"fmt"
	"io"
	"sort"

	"cbt/sparse"
)

// maxPieces limits the memory that a stream of tiny sections can take.
const maxPieces = 1 << 20

// rest is the state without RAM: what is needed to write a stream again.
type rest struct {
	prefix   []byte  // header and configuration
	pieces   []piece // all sections except those of RAM, in the order of the stream
	ram      int     // number of pieces before the START of RAM
	afterRAM int     // number of pieces before its last section
	tail     []byte  // follows all pieces: the description, if it differs from that of the source

	ramID, ramInstance uint32
	footers            bool
	ignoreShared       bool
}

// piece is n bytes of the source.
type piece struct{ off, n int64 }

func (r *rest) add(from, to int64) error {
	if k := len(r.pieces); k > 0 && r.pieces[k-1].off+r.pieces[k-1].n == from {
		r.pieces[k-1].n += to - from
		return nil
	}
	if len(r.pieces) == maxPieces {
		return &sparse.FormatError{Struct: "section", Off: from, Msg: fmt.Sprintf("more than %d, with RAM between them", maxPieces)}
	}
	r.pieces = append(r.pieces, piece{from, to - from})
	return nil
}

// ramStart returns the first section of RAM, with the list of blocks.
func (s *State) ramStart() []byte {
	be := binary.BigEndian
	b := s.ramTotal()
	for _, x := range s.Blocks {
		b = append(b, byte(len(x.Name)))
		b = append(b, x.Name...)
		b = be.AppendUint64(b, uint64(x.length))
		if s.rest.ignoreShared {
			b = be.AppendUint64(b, x.Address)
		}
	}
	return s.sectionEnd(b)
}

// ramTotal returns that section up to the list.
func (s *State) ramTotal() []byte {
	be := binary.BigEndian
	b := be.AppendUint32([]byte{vmStart}, s.rest.ramID)
	b = append(b, "\x03ram"...)
	b = be.AppendUint32(b, s.rest.ramInstance)
	b = be.AppendUint32(b, ramVersion)
	total := uint64(0)
	for _, x := range s.Blocks {
		total += uint64(x.length)
	}
	return be.AppendUint64(b, total|ramMemSize)
}

// sectionEnd appends the end of a section of RAM to b.
func (s *State) sectionEnd(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, ramEOS)
	if s.rest.footers {
		b = binary.BigEndian.AppendUint32(append(b, vmFooter), s.rest.ramID)
	}
	return b
}

func (s *State) ramHeader(kind byte) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, s.rest.ramID)
}

// joined presents pieces and texts, one after another, as an image.
type joined struct {
	src   io.ReaderAt
	parts []joinedPart
	size  int64
}

type joinedPart struct {
	at   int64 // in the image
	text []byte
	off  int64 // in src, if there is no text
}

func (j *joined) text(b []byte) {
	j.parts = append(j.parts, joinedPart{at: j.size, text: b})
	j.size += int64(len(b))
}

func (j *joined) pieces(list []piece) {
	for _, p := range list {
		j.parts = append(j.parts, joinedPart{at: j.size, off: p.off})
		j.size += p.n
	}
}

func (j *joined) Size() int64 { return j.size }

func (j *joined) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, j.size); err != nil {
		return sparse.Fail(err)
	}
	if n == 0 {
		return sparse.Of()
	}
	return sparse.Of(sparse.Extent{Off: off, Len: n, Kind: sparse.Data})
}

func (j *joined) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, j.size)
	for done := 0; done < len(p); {
		at := off + int64(done)
		i := sort.Search(len(j.parts), func(i int) bool { return j.parts[i].at > at }) - 1
		part, end := &j.parts[i], j.size
		if i+1 < len(j.parts) {
			end = j.parts[i+1].at
		}
		b := p[done:][:min(int64(len(p)-done), end-at)]
		if part.text != nil {
			copy(b, part.text[at-part.at:])
		} else if n, err := sparse.ReadFull(j.src, b, part.off+at-part.at); err != nil {
			return done + n, err
		}
		done += len(b)
	}
	return len(p), eof
}
