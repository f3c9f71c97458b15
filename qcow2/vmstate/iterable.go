package vmstate

import (
	"fmt"
	"strings"

	"cbt/sparse"
)

// Iterable sections have no length and no description: each kind has its own end.
// QEMU has those of the source files named here, and ram, dirty-bitmap and block.
var iterables = map[string]func(*parser) error{
	"ram":                     (*parser).ram,
	"dirty-bitmap":            (*parser).dirtyBitmap,
	"block":                   (*parser).blockMigration,
	"pbs-state":               (*parser).pbsState,
	"spapr/htab":              (*parser).hashTable,
	"s390-storage_attributes": (*parser).storageAttributes,
}

// payload reads what an iterable section holds.
func (p *parser) payload(name string) error {
	if read := iterables[name]; read != nil {
		return read(p)
	}
	if name == "vfio" || strings.HasSuffix(name, "/vfio") {
		return p.vfio()
	}
	return fmt.Errorf("machine state: section %q at 0x%x cannot be read: its length is not known", name, p.c.pos)
}

// hashTable passes over page table entries of a pseries machine without a radix
// tree (hw/ppc/spapr.c): a word that is the size of the table, or says that there
// is none, and is all then; or zero, and chunks behind it.
func (p *parser) hashTable() error {
	const what, entry = "spapr/htab section", 16
	header, err := p.c.u32(what)
	if err != nil || header != 0 {
		return err
	}
	for {
		index, err := p.c.u32(what)
		if err != nil {
			return err
		}
		valid, err := p.c.u16(what)
		if err != nil {
			return err
		}
		invalid, err := p.c.u16(what)
		if err != nil {
			return err
		}
		if index == 0 && valid == 0 && invalid == 0 {
			return nil
		}
		if err := p.c.skip(what, uint64(valid)*entry); err != nil {
			return err
		}
	}
}

// mark is what a word of a section means.
type mark int

const (
	markEnd   mark = iota + 1 // the section ends
	markAlone                 // nothing belongs to it
	markData                  // a length follows, and as many bytes
)

// passMarked passes over a section of words, of each of which the bits of mask say
// what it means. field is what errors call these bits.
func (p *parser) passMarked(what, field string, mask uint64, marks map[uint64]mark) error {
	for {
		at := p.c.pos
		word, err := p.c.u64(what)
		if err != nil {
			return err
		}
		switch marks[word&mask] {
		case markEnd:
			return nil
		case markAlone:
		case markData:
			n, err := p.c.u64(what)
			if err != nil {
				return err
			}
			if err := p.c.skip(what, n); err != nil {
				return err
			}
		default:
			return &sparse.FormatError{Struct: what, Field: field, Off: at, Value: word & mask, Msg: "unknown"}
		}
	}
}

// Flags of the storage attributes of s390x (hw/s390x/s390-stattrib.c).
const (
	attributesEOS  = 0x1
	attributesMore = 0x2
	attributesDone = 0x8
)

// storageAttributes passes over the storage attributes of an s390x machine: runs of
// a byte for a page each.
func (p *parser) storageAttributes() error {
	return p.passMarked("s390-storage_attributes section", "flags", 0xfff, map[uint64]mark{
		attributesEOS:  markEnd,
		attributesMore: markData,
		attributesDone: markAlone,
	})
}

// Words of a section of a device that is passed through (hw/vfio/migration.c).
const (
	vfioEnd      = 0xffffffffef100001
	vfioSetup    = 0xffffffffef100003
	vfioData     = 0xffffffffef100004
	vfioInitSent = 0xffffffffef100005 // in place of the end
)

// vfio passes over the data of a device that is passed through. Its configuration
// comes later, in a section of its own that is described.
func (p *parser) vfio() error {
	return p.passMarked("vfio section", "flag", 1<<64-1, map[uint64]mark{
		vfioEnd:      markEnd,
		vfioSetup:    markAlone,
		vfioData:     markData,
		vfioInitSent: markEnd,
	})
}
