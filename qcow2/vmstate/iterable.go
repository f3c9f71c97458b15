package vmstate

import (
	"fmt"
	"strings"

	"cbt/sparse"
)

// Iterable sections have no length and no description, and each kind ends in its own way. QEMU has
// those of the source files named here, and ram, dirty-bitmap and block.
var iterables = map[string]func(*parser) error{
	"ram":                     (*parser).ram,
	"dirty-bitmap":            (*parser).dirtyBitmap,
	"block":                   (*parser).blockMigration,
	"pbs-state":               (*parser).pbsState,
	"spapr/htab":              (*parser).hashTable,
	"s390-storage_attributes": (*parser).storageAttributes,
}

// payload reads the payload of an iterable section.
func (p *parser) payload(name string) error {
	if read := iterables[name]; read != nil {
		return read(p)
	}
	if name == "vfio" || strings.HasSuffix(name, "/vfio") {
		return p.vfio()
	}
	return fmt.Errorf("machine state: section %q at 0x%x cannot be read: its length is not known", name, p.c.pos)
}

// hashTable skips page table entries of a pseries machine without a radix tree (hw/ppc/spapr.c).
// The section starts with a word. If that is zero, chunks follow. Otherwise it is the size of the
// table, or says that there is none, and nothing follows.
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

// mark is the meaning of a word of a section.
type mark int

const (
	markEnd   mark = iota + 1 // the section ends
	markAlone                 // the word stands alone
	markData                  // a length follows, and that many bytes
)

// passMarked skips a section of words. The bits of mask in each word give its meaning according to
// marks. Errors call these bits field.
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

// storageAttributes skips the storage attributes of an s390x machine: runs with one byte for each
// page.
func (p *parser) storageAttributes() error {
	return p.passMarked("s390-storage_attributes section", "flags", 0xfff, map[uint64]mark{
		attributesEOS:  markEnd,
		attributesMore: markData,
		attributesDone: markAlone,
	})
}

// Words of a section of a passed-through device (hw/vfio/migration.c).
const (
	vfioEnd      = 0xffffffffef100001
	vfioSetup    = 0xffffffffef100003
	vfioData     = 0xffffffffef100004
	vfioInitSent = 0xffffffffef100005 // instead of the end
)

// vfio skips the data of a passed-through device. Its configuration comes later, in a described
// section of its own.
func (p *parser) vfio() error {
	return p.passMarked("vfio section", "flag", 1<<64-1, map[uint64]mark{
		vfioEnd:      markEnd,
		vfioSetup:    markAlone,
		vfioData:     markData,
		vfioInitSent: markEnd,
	})
}
