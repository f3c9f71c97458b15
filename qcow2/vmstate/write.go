package vmstate

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"cbt/sparse"
)

// Skeleton returns the state without the content of RAM: header, configuration, list of RAM blocks,
// and all other sections, in a fixed order. It is itself a stream that Open reads, of a machine
// whose RAM is all zeros. WriteStream of that State with the RAM of this one writes the same bytes
// as WriteStream of this one. Parts that only mapped-ram streams have are left out, so it does not
// matter how the pages were stored.
func (s *State) Skeleton() sparse.View {
	var marks []byte
	if s.rest.ignoreShared {
		marks = s.marks()
	}
	j, _ := s.canonical(marks)
	return j
}

// marks returns a section with the first page of every block that is not shared. Only its pages
// distinguish such a block from a shared one.
func (s *State) marks() []byte {
	b := s.ramHeader(vmPart)
	for _, x := range s.Blocks {
		if !x.Shared {
			b = binary.BigEndian.AppendUint64(b, ramZero)
			b = append(append(b, byte(len(x.Name))), x.Name...)
			b = append(b, 0)
		}
	}
	return s.sectionEnd(b)
}

// canonical returns the sections in order, with ram among them, and the offset of ram.
func (s *State) canonical(ram []byte) (*joined, int64) {
	j := &joined{src: s.src}
	j.text(s.rest.prefix)
	j.pieces(s.rest.pieces[:s.rest.ram])
	j.text(s.ramStart())
	at := j.size
	if ram != nil {
		j.text(ram)
	}
	j.pieces(s.rest.pieces[s.rest.ram:s.rest.afterRAM])
	j.text(s.sectionEnd(s.ramHeader(vmEnd)))
	j.pieces(s.rest.pieces[s.rest.afterRAM:])
	if s.rest.tail != nil {
		j.text(s.rest.tail)
	}
	return j, at
}

// Content returns the content of a block as an image of the block's size. A nil image stands for
// the content in the state.
type Content func(b *Block) (sparse.View, error)

// content returns the content of b according to ram, which may be nil.
func (b *Block) content(ram Content) (sparse.View, error) {
	if ram == nil {
		return b, nil
	}
	v, err := ram(b)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return b, nil
	}
	if v.Size() != b.length {
		return nil, blockError(b, fmt.Errorf("content of %d bytes for a block of %d", v.Size(), b.length))
	}
	return v, nil
}

func blockError(b *Block, err error) error { return fmt.Errorf("RAM block %q: %w", b.Name, err) }

// WriteStream writes the state as a migration stream that QEMU resumes with -incoming. It consists
// of the skeleton and one section with every page, block by block, in ascending order, with zero
// pages marked as such. The same skeleton and the same RAM give the same bytes, wherever they come
// from. If ram is nil, the content in the state is written.
func (s *State) WriteStream(w io.Writer, ram Content) error {
	out := bufio.NewWriterSize(w, 256<<10)
	j, at := s.canonical(nil)
	if _, err := io.Copy(out, io.NewSectionReader(j, 0, at)); err != nil {
		return err
	}
	if _, err := out.Write(s.ramHeader(vmPart)); err != nil {
		return err
	}
	pages := pageWriter{out: out, pageSize: s.PageSize}
	for _, b := range s.Blocks {
		if b.Shared {
			continue
		}
		v, err := b.content(ram)
		if err != nil {
			return err
		}
		if err := pages.block(b.Name, v); err != nil {
			return blockError(b, err)
		}
	}
	if _, err := out.Write(s.sectionEnd(nil)); err != nil {
		return err
	}
	if _, err := io.Copy(out, io.NewSectionReader(j, at, j.size-at)); err != nil {
		return err
	}
	return out.Flush()
}

// pageWriter writes records of pages.
type pageWriter struct {
	out      *bufio.Writer
	pageSize int64
	name     string // of the current block
	next     int64  // offset of the next page to write
	more     bool   // a record of this block was written
	buf      []byte
}

func (w *pageWriter) block(name string, v sparse.View) error {
	w.name, w.next, w.more = name, 0, false
	for e, err := range v.Extents(0, v.Size()) {
		if err != nil {
			return err
		}
		// A page that is not of one kind is read.
		if e.Kind.ReadsZero() {
			if w.next < e.Off && e.End() >= w.next+w.pageSize {
				if err := w.read(v, w.next+w.pageSize); err != nil {
					return err
				}
			}
			for ; w.next >= e.Off && w.next+w.pageSize <= e.End(); w.next += w.pageSize {
				if err := w.record(nil); err != nil {
					return err
				}
			}
			continue
		}
		if err := w.read(v, e.End()-e.End()%w.pageSize); err != nil {
			return err
		}
	}
	return w.read(v, v.Size())
}

// read writes the pages up to end, with the content of v.
func (w *pageWriter) read(v sparse.View, end int64) error {
	if w.buf == nil {
		w.buf = make([]byte, maxSpan)
	}
	for w.next < end {
		b := w.buf[:min(int64(len(w.buf)), end-w.next)]
		if _, err := sparse.ReadFull(v, b, w.next); err != nil {
			return err
		}
		for ; len(b) > 0; b, w.next = b[w.pageSize:], w.next+w.pageSize {
			if err := w.record(b[:w.pageSize]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *pageWriter) record(page []byte) error {
	if page != nil && sparse.IsZero(page) {
		page = nil
	}
	flags := uint64(ramPage)
	if page == nil {
		flags = ramZero
	}
	if w.more {
		flags |= ramContinue
	}
	var head [8 + 1 + 255 + 1]byte
	binary.BigEndian.PutUint64(head[:], uint64(w.next)|flags)
	b := head[:8]
	if !w.more {
		b = append(append(b, byte(len(w.name))), w.name...)
		w.more = true
	}
	if page == nil {
		b = append(b, 0)
	}
	if _, err := w.out.Write(b); err != nil {
		return err
	}
	_, err := w.out.Write(page)
	return err
}
