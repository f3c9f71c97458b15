package vmstate

import (
	"encoding/binary"
	"errors"
	"io"

	"cbt/sparse"
)

// mappedAlign is the alignment of the pages of a block in the file, in bytes
// (MAPPED_RAM_FILE_OFFSET_ALIGNMENT in migration/ram.c).
const mappedAlign = 1 << 20

// WriteMapped writes the state as a file that QEMU 9.0 and later load with the capability
// mapped-ram: every page has its place in the file. w must be an empty file; zero pages are left as
// holes. ram has the same meaning as in WriteStream.
func (s *State) WriteMapped(w io.WriterAt, ram Content) error {
	if s.rest.ignoreShared {
		return errors.New("a state with x-ignore-shared cannot be written as mapped-ram")
	}
	if s.MachineType == "" {
		return errors.New("a state without a configuration cannot be written as mapped-ram, which the configuration would declare")
	}
	const name = "configuration/capabilities"
	be := binary.BigEndian
	capabilities := append([]byte{vmSubsection, byte(len(name))}, name...)
	capabilities = be.AppendUint32(be.AppendUint32(capabilities, 1), 1)
	capabilities = append(append(capabilities, byte(len("mapped-ram"))), "mapped-ram"...)

	front := &joined{src: s.src}
	front.text(s.rest.prefix)
	front.text(capabilities)
	front.pieces(s.rest.pieces[:s.rest.ram])
	front.text(s.ramTotal())
	if _, err := io.Copy(io.NewOffsetWriter(w, 0), io.NewSectionReader(front, 0, front.size)); err != nil {
		return err
	}
	at := front.size
	for _, b := range s.Blocks {
		v, err := b.content(ram)
		if err != nil {
			return err
		}
		if at, err = s.writeMappedBlock(w, at, b, v); err != nil {
			return blockError(b, err)
		}
	}
	end := s.sectionEnd(nil)
	if _, err := w.WriteAt(end, at); err != nil {
		return err
	}
	j, from := s.canonical(nil)
	_, err := io.Copy(io.NewOffsetWriter(w, at+int64(len(end))), io.NewSectionReader(j, from, j.size-from))
	return err
}

// writeMappedBlock writes a block's element of the list at offset at, then its bitmap and its
// pages. It returns the offset of the next element.
func (s *State) writeMappedBlock(w io.WriterAt, at int64, b *Block, v sparse.View) (int64, error) {
	be, le := binary.BigEndian, binary.LittleEndian
	e := be.AppendUint64(append([]byte{byte(len(b.Name))}, b.Name...), uint64(b.length))
	bitmap := at + int64(len(e)) + mappedHeaderSize
	pages := (bitmap + (b.index.pages+63)/64*8 + mappedAlign - 1) &^ (mappedAlign - 1)
	e = be.AppendUint64(be.AppendUint32(e, mappedVersion), uint64(s.PageSize))
	e = be.AppendUint64(be.AppendUint64(e, uint64(bitmap)), uint64(pages))
	if _, err := w.WriteAt(e, at); err != nil {
		return 0, err
	}
	span := max(maxSpan, 64*s.PageSize) // whole words of the bitmap
	buf, bits := make([]byte, span), make([]byte, span/s.PageSize/8)
	for off := int64(0); off < b.length; off += span {
		p := buf[:min(span, b.length-off)]
		if _, err := sparse.ReadFull(v, p, off); err != nil {
			return 0, err
		}
		n := (int64(len(p))/s.PageSize + 63) / 64 * 8
		bits := bits[:n]
		clear(bits)
		for i := int64(0); i*s.PageSize < int64(len(p)); i++ {
			if !sparse.IsZero(p[i*s.PageSize:][:s.PageSize]) {
				word := bits[i/64*8:]
				le.PutUint64(word, le.Uint64(word)|1<<(i%64))
			}
		}
		if _, err := w.WriteAt(bits, bitmap+off/s.PageSize/8); err != nil {
			return 0, err
		}
		if err := writePages(w, p, pages+off, s.PageSize); err != nil {
			return 0, err
		}
	}
	return pages + b.length, nil
}

// writePages writes the pages of p that are not zero, each run of them at once.
func writePages(w io.WriterAt, p []byte, at, pageSize int64) error {
	for from := int64(0); from < int64(len(p)); from += pageSize {
		to := from
		for to < int64(len(p)) && !sparse.IsZero(p[to:to+pageSize]) {
			to += pageSize
		}
		if to == from {
			continue
		}
		if _, err := w.WriteAt(p[from:to], at+from); err != nil {
			return err
		}
		from = to
	}
	return nil
}
