package vmstate

import (
	"fmt"

	"cbt/sparse"
)

// Flags of a chunk of a dirty-bitmap section (DIRTY_BITMAP_MIG_FLAG_*).
const (
	bitmapEOS        = 0x01
	bitmapZeroes     = 0x02
	bitmapName       = 0x04
	bitmapDevice     = 0x08
	bitmapStart      = 0x10
	bitmapComplete   = 0x20
	bitmapBits       = 0x40
	bitmapExtraFlags = 0x80
)

// dirtyBitmap skips the chunks of a dirty-bitmap section.
func (p *parser) dirtyBitmap() error {
	const what = "dirty-bitmap chunk"
	for {
		at := p.c.pos
		b, err := p.c.u8(what)
		if err != nil {
			return err
		}
		flags := uint32(b)
		if flags&bitmapExtraFlags != 0 {
			return &sparse.FormatError{Struct: what, Field: "flags", Off: at, Value: flags, Msg: "flags of more than a byte are not known"}
		}
		if flags&bitmapEOS != 0 {
			return nil
		}
		for _, f := range []uint32{bitmapDevice, bitmapName} {
			if flags&f != 0 {
				if _, err := p.c.counted(what); err != nil {
					return err
				}
			}
		}
		switch {
		case flags&bitmapStart != 0:
			err = p.c.skip(what, 4+1) // granularity, flags
		case flags&bitmapBits != 0:
			if err = p.c.skip(what, 8+4); err == nil && flags&bitmapZeroes == 0 { // first sector, sectors
				var n uint64
				if n, err = p.c.u64(what); err == nil {
					err = p.c.skip(what, n)
				}
			}
		case flags&bitmapComplete == 0 && flags&(bitmapDevice|bitmapName) == 0:
			return &sparse.FormatError{Struct: what, Field: "flags", Off: at, Value: flags, Msg: "nothing follows"}
		}
		if err != nil {
			return err
		}
	}
}

// Flags of a record of a block section (BLK_MIG_FLAG_*).
const (
	blkDevice   = 0x01
	blkEOS      = 0x02
	blkProgress = 0x04
	blkZero     = 0x08
	blkSize     = 1 << 20
)

// blockMigration skips the disk blocks in a block section, which QEMU wrote up to 9.0.
func (p *parser) blockMigration() error {
	const what = "block migration record"
	for {
		at := p.c.pos
		word, err := p.c.u64(what)
		if err != nil {
			return err
		}
		switch flags := word & 0x1ff; flags {
		case blkEOS:
			return nil
		case blkProgress:
		case blkDevice, blkDevice | blkZero:
			if _, err := p.c.counted(what); err != nil {
				return err
			}
			if flags&blkZero == 0 {
				if err := p.c.skip(what, blkSize); err != nil {
					return err
				}
			}
		default:
			return &sparse.FormatError{Struct: what, Field: "flags", Off: at, Value: flags, Msg: "unknown"}
		}
	}
}

// pbsState skips what Proxmox' QEMU records about its last backup.
func (p *parser) pbsState() error {
	n, err := p.c.u64("pbs-state section")
	if err != nil {
		return err
	}
	return p.c.skip("pbs-state section", n)
}

// maxSteps limits the work that a description can cause.
const maxSteps = 1 << 24

// skipStruct skips the fields of a structure and its subsections. It records the places of the
// fields in d, unless that is nil.
func (p *parser) skipStruct(st *structure, d *decodable) error {
	for i := range st.fields {
		at := p.c.pos
		if err := p.skipField(&st.fields[i]); err != nil {
			return err
		}
		d.note(st.fields[i].name, at, p.c.pos)
	}
	for i := range st.subsections {
		sub := &st.subsections[i]
		p.stepsLeft--
		at := p.c.pos
		kind, err := p.c.u8("device subsection")
		if err != nil {
			return err
		}
		name, err := p.c.counted("device subsection")
		if err != nil {
			return err
		}
		version, err := p.c.u32("device subsection")
		if err != nil {
			return err
		}
		if kind != vmSubsection || name != sub.name || version != sub.version {
			return &sparse.FormatError{Struct: "device subsection", Off: at, Value: name, Msg: fmt.Sprintf("the description of the devices has %q, version %d, here", sub.name, sub.version)}
		}
		if err := p.skipStruct(&sub.structure, nil); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) skipField(f *field) error {
	if f.null() {
		return p.skipNull(f.repeat)
	}
	if f.inner == nil {
		p.stepsLeft--
		if f.size > 0 && f.repeat > uint64(p.c.end)/f.size {
			return p.c.cut("device field")
		}
		return p.c.skip("device field", f.repeat*f.size)
	}
	for range f.repeat {
		if p.stepsLeft--; p.stepsLeft < 0 {
			return &sparse.FormatError{Struct: "device section", Off: p.c.pos, Msg: fmt.Sprintf("described by more than %d steps", maxSteps)}
		}
		if err := p.skipStruct(f.inner, nil); err != nil {
			return err
		}
	}
	return nil
}
