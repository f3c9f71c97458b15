package vmstate

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	mappedHeaderSize = 28
	mappedVersion    = 1
)

// mappedBlock reads what mapped-ram stores after a block of the list (MappedRamHeader):
//
//	0 version  4 page_size  12 bitmap_offset  20 pages_offset
//
// Both offsets count from the beginning of the file, wherever the stream begins. A set bit in the
// bitmap means that the page with its number is stored. The next block follows the last page.
func (p *parser) mappedBlock(b *Block) error {
	const what = "mapped-ram header"
	at := p.c.pos
	h, err := p.c.take(what, mappedHeaderSize)
	if err != nil {
		return err
	}
	version, pageSize := binary.BigEndian.Uint32(h), binary.BigEndian.Uint64(h[4:])
	bitmap, pages := binary.BigEndian.Uint64(h[12:]), binary.BigEndian.Uint64(h[20:])
	fault := func(field string, value any, msg string) error {
		return &sparse.FormatError{Struct: what, Field: field, Off: at, Value: value, Msg: fmt.Sprintf("of block %q: %s", b.Name, msg)}
	}
	size := uint64(b.index.pages+63) / 64 * 8
	switch {
	case version != mappedVersion:
		return fault("version", version, "only version 1 is known")
	case pageSize != uint64(p.s.PageSize):
		return fault("page_size", pageSize, fmt.Sprintf("the stream's is %d", p.s.PageSize))
	case p.ignoreShared && bitmap == 0 && pages == 0:
		return nil // the block is not in the file
	case bitmap < uint64(p.c.pos) || !binfmt.Inside(bitmap, size, p.c.end):
		return fault("bitmap_offset", bitmap, fmt.Sprintf("its %d bytes are not inside the part of the file after the header", size))
	case pages < bitmap+size || pages >= math.MaxInt64 || !binfmt.Inside(pages, uint64(b.length), p.c.end):
		return fault("pages_offset", pages, fmt.Sprintf("its %d bytes are not inside the part of the file after the bitmap", b.length))
	}
	b.told = true
	b.index.fixed, b.index.pageSize = int64(pages), p.s.PageSize
	p.c.pos = int64(bitmap)
	for at := int64(0); at < b.index.pages; {
		n := min((b.index.pages-at+63)/64*8, windowSize)
		words, err := p.c.take("mapped-ram bitmap", int(n))
		if err != nil {
			return err
		}
		for ; len(words) > 0; words, at = words[8:], at+64 {
			w := binary.LittleEndian.Uint64(words)
			if at+int64(bits.Len64(w)) > b.index.pages {
				return fault("bitmap_offset", bitmap, "the bitmap has bits past the last page")
			}
			b.index.setFixed(at, w)
		}
	}
	p.c.pos = int64(pages) + b.length
	return nil
}
