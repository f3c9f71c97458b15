package vmstate

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"cbt/sparse"
)

const (
	ramVersion = 4
	maxBlocks  = 1024
)

// Flags of a record of the ram section (RAM_SAVE_FLAG_*).
const (
	ramFull         = 0x001
	ramZero         = 0x002
	ramMemSize      = 0x004
	ramPage         = 0x008
	ramEOS          = 0x010
	ramContinue     = 0x020
	ramXBZRLE       = 0x040
	ramHook         = 0x080
	ramCompressed   = 0x100
	ramMultifdFlush = 0x200
)

var ramFlags = []struct {
	flag uint64
	name string
}{{ramFull, "FULL"}, {ramHook, "HOOK (RDMA)"}}

// ram reads the records of a ram section up to its end.
func (p *parser) ram() error {
	const what = "ram record"
	mask := uint64(p.s.PageSize - 1)
	for {
		at := p.c.pos
		b, err := p.c.peek(what, 8)
		if err != nil {
			return err
		}
		word := binary.BigEndian.Uint64(b)
		p.c.pos += 8
		off, flags := word&^mask, word&mask
		switch flags &^ ramContinue {
		case ramEOS:
			return nil
		case ramMultifdFlush:
			continue
		case ramMemSize:
			if err := p.blockList(off); err != nil || p.headDone() {
				return err
			}
			continue
		case ramZero, ramPage, ramXBZRLE, ramCompressed:
		default:
			for _, f := range ramFlags {
				if flags&f.flag != 0 {
					return fmt.Errorf("ram record at 0x%x: flag %s is not supported", at, f.name)
				}
			}
			return &sparse.FormatError{Struct: what, Field: "flags", Off: at, Value: flags, Msg: "unknown flags, or flags that exclude each other"}
		}
		if p.mapped {
			return &sparse.FormatError{Struct: what, Off: at, Field: "flags", Value: flags, Msg: "a page in a mapped-ram stream"}
		}
		page, err := p.target(at, off, flags)
		if err != nil {
			return err
		}
		switch flags &^ ramContinue {
		case ramZero:
			err = p.zeroRecord(page)
		case ramPage:
			err = p.pageRecord(page)
		case ramXBZRLE:
			err = p.xbzrleRecord(page)
		default:
			err = p.compressedRecord(page)
		}
		if err != nil {
			return err
		}
	}
}

// target reads the name of the block, unless it is that of the previous record, and returns the
// page that the record is about.
func (p *parser) target(at int64, off, flags uint64) (page int64, err error) {
	const what = "ram record"
	if flags&ramContinue == 0 {
		n, err := p.c.u8(what)
		if err != nil {
			return 0, err
		}
		name, err := p.c.take(what, int(n))
		if err != nil {
			return 0, err
		}
		if p.current == nil || p.current.Name != string(name) {
			p.current = p.s.Block(string(name))
			if p.current == nil {
				return 0, &sparse.FormatError{Struct: what, Field: "block", Off: at, Value: string(name), Msg: "no such RAM block"}
			}
		}
	}
	switch {
	case p.current == nil:
		return 0, &sparse.FormatError{Struct: what, Field: "flags", Off: at, Value: flags, Msg: "it continues a block, and there is none before it"}
	case off >= uint64(p.current.length):
		return 0, &sparse.FormatError{Struct: what, Field: "offset", Off: at, Value: off, Msg: fmt.Sprintf("past the end of block %q of %d bytes", p.current.Name, p.current.length)}
	}
	if p.current.index.pageSize != 0 {
		return 0, &sparse.FormatError{Struct: what, Field: "block", Off: at, Value: p.current.Name, Msg: "a record of a block that is mapped"}
	}
	p.current.told = true
	return int64(off) / p.s.PageSize, nil
}

func (p *parser) zeroRecord(page int64) error {
	fill, err := p.c.u8("ram zero record")
	if err != nil || fill == 0 {
		p.current.index.set(page, 0)
		return err
	}
	if p.opt.HeadOnly {
		p.skim(page)
		return nil
	}
	// A page filled with one byte value is kept once for each value.
	if err := p.openTemp(); err != nil {
		return err
	}
	pl := place(int64(fill)*p.s.PageSize) | inTemp
	if !p.filled[fill] {
		p.filled[fill] = true
		for i := range p.page {
			p.page[i] = fill
		}
		if err := p.writeTemp(pl); err != nil {
			return err
		}
	}
	p.current.index.set(page, pl)
	return nil
}

func (p *parser) pageRecord(page int64) error {
	at := p.c.pos
	b, err := p.c.take("ram page record", int(p.s.PageSize))
	if err != nil {
		return err
	}
	if sparse.IsZero(b) {
		p.current.index.set(page, 0)
	} else {
		p.current.index.set(page, place(at))
	}
	return nil
}

func (p *parser) xbzrleRecord(page int64) error {
	const what = "ram xbzrle record"
	at := p.c.pos
	flag, err := p.c.u8(what)
	if err != nil {
		return err
	}
	n, err := p.c.u16(what)
	if err != nil {
		return err
	}
	switch {
	case flag != 1:
		return &sparse.FormatError{Struct: what, Field: "encoding", Off: at, Value: flag, Msg: "only 1 is known"}
	case int64(n) > p.s.PageSize:
		return &sparse.FormatError{Struct: what, Field: "length", Off: at + 1, Value: n, Msg: "longer than a page"}
	}
	if p.opt.HeadOnly {
		p.skim(page)
		return p.c.skip(what, uint64(n))
	}
	if pl := p.current.index.get(page); pl == 0 {
		clear(p.page)
	} else if err := p.s.readPlace(p.page, pl, 0); err != nil {
		return err
	}
	enc, err := p.c.take(what, int(n))
	if err != nil {
		return err
	}
	if err := decodeXBZRLE(p.page, enc); err != nil {
		return &sparse.FormatError{Struct: what, Off: at, Err: err}
	}
	return p.keep(page)
}

func (p *parser) compressedRecord(page int64) error {
	const what = "ram compressed page record"
	at := p.c.pos
	n, err := p.c.u32(what)
	if err != nil {
		return err
	}
	if int64(n) > p.s.PageSize+p.s.PageSize/8+64 {
		return &sparse.FormatError{Struct: what, Field: "length", Off: at, Value: n, Msg: "longer than a packed page can be"}
	}
	if p.opt.HeadOnly {
		p.skim(page)
		return p.c.skip(what, uint64(n))
	}
	b, err := p.c.take(what, int(n))
	if err != nil {
		return err
	}
	if err := p.inflate.page(p.page, b); err != nil {
		return &sparse.FormatError{Struct: what, Off: at, Err: err}
	}
	return p.keep(page)
}

// skim records that a page is stored, without unpacking it.
func (p *parser) skim(page int64) {
	p.s.skimmed = true
	p.current.index.set(page, inTemp)
}

// keep makes p.page the content of page from here on.
func (p *parser) keep(page int64) error {
	if sparse.IsZero(p.page) {
		p.current.index.set(page, 0)
		return nil
	}
	if err := p.openTemp(); err != nil {
		return err
	}
	pl := p.current.index.get(page)
	if pl&inTemp == 0 || pl.offset() < fillPages*p.s.PageSize {
		pl = place(p.tempEnd) | inTemp
		p.tempEnd += p.s.PageSize
	}
	if err := p.writeTemp(pl); err != nil {
		return err
	}
	p.current.index.set(page, pl)
	return nil
}

// fillPages is the number of pages at the start of the temporary file: page n, from 1 on, is filled
// with byte n.
const fillPages = 256

func (p *parser) openTemp() error {
	if p.s.temp != nil {
		return nil
	}
	f, err := newTemp(p.opt, "unpacked pages")
	p.s.temp, p.tempEnd = f, fillPages*p.s.PageSize
	return err
}

func (p *parser) writeTemp(pl place) error {
	if _, err := p.s.temp.WriteAt(p.page, pl.offset()); err != nil {
		return fmt.Errorf("temporary file for unpacked pages: %w", err)
	}
	return nil
}

// blockList reads the list of RAM blocks, whose lengths add up to total.
func (p *parser) blockList(total uint64) error {
	const what = "RAM block list"
	at := p.c.pos
	if p.ramSeen {
		return &sparse.FormatError{Struct: what, Off: at, Msg: "there was one before"}
	}
	if total > uint64(p.opt.MaxRAM) {
		return &sparse.FormatError{Struct: what, Field: "total", Off: at - 8, Value: total, Msg: fmt.Sprintf("more than the limit of %d bytes", p.opt.MaxRAM)}
	}
	p.ramSeen, p.ramTotal = true, int64(total)
	if p.measuring {
		return nil
	}
	p.page = make([]byte, p.s.PageSize)
	for sum := uint64(0); sum < total; {
		if len(p.s.Blocks) == maxBlocks {
			return &sparse.FormatError{Struct: what, Off: p.c.pos, Msg: fmt.Sprintf("more than %d blocks", maxBlocks)}
		}
		b, err := p.blockElement(total - sum)
		if err != nil {
			return err
		}
		sum += uint64(b.length)
		p.s.Blocks = append(p.s.Blocks, b)
	}
	slices.SortStableFunc(p.s.Blocks, func(a, b *Block) int {
		return cmp.Or(-cmp.Compare(a.length, b.length), cmp.Compare(a.Name, b.Name))
	})
	return nil
}

// blockElement reads one block of the list, and with mapped-ram also where its pages are.
func (p *parser) blockElement(left uint64) (*Block, error) {
	const what = "RAM block"
	at := p.c.pos
	name, err := p.c.counted(what)
	if err != nil {
		return nil, err
	}
	length, err := p.c.u64(what)
	if err != nil {
		return nil, err
	}
	switch {
	case p.s.Block(name) != nil:
		return nil, &sparse.FormatError{Struct: what, Field: "idstr", Off: at, Value: name, Msg: "there is another block of this name"}
	case length == 0 || length > left:
		return nil, &sparse.FormatError{Struct: what, Field: "used_length", Off: at, Value: length, Msg: fmt.Sprintf("of block %q: the list has %d bytes left", name, left)}
	case length%uint64(p.s.PageSize) != 0:
		return nil, &sparse.FormatError{Struct: what, Field: "used_length", Off: at, Value: length, Msg: fmt.Sprintf("of block %q: not a multiple of the page size", name)}
	}
	b := &Block{Name: name, length: int64(length), state: p.s, index: newIndex(int64(length) / p.s.PageSize)}
	if p.ignoreShared {
		if b.Address, err = p.c.u64(what); err != nil {
			return nil, err
		}
	}
	if p.mapped {
		return b, p.mappedBlock(b)
	}
	return b, nil
}

// finishBlocks marks blocks as shared if the stream, with x-ignore-shared, has nothing of them.
func (p *parser) finishBlocks() error {
	for _, b := range p.s.Blocks {
		b.Shared = p.ignoreShared && !b.told
	}
	p.s.rest.ignoreShared = p.ignoreShared
	return nil
}
