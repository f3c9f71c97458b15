package vmstate

import (
	"encoding/binary"
	"fmt"
	"slices"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	streamMagic   = 0x5145564d // "QEVM"
	streamVersion = 3
)

// Types of sections (QEMU_VM_*).
const (
	vmEOF           = 0x00
	vmStart         = 0x01
	vmPart          = 0x02
	vmEnd           = 0x03
	vmFull          = 0x04
	vmSubsection    = 0x05
	vmDescription   = 0x06
	vmConfiguration = 0x07
	vmCommand       = 0x08
	vmFooter        = 0x7e
)

// parser goes through a stream once.
type parser struct {
	s   *State
	c   *cursor
	opt Options

	begin     int64 // offset of the stream
	measuring bool  // stop at the list of RAM blocks
	listing   bool  // stop after it

	mapped        bool   // capability mapped-ram
	ignoreShared  bool   // capability x-ignore-shared
	pageBits      bool   // the configuration has the page size
	current       *Block // the block of records with CONTINUE
	ramTotal      int64
	ramInstance   uint32
	ramID         uint32
	ramSeen       bool
	ramEnd        bool // the END of RAM was seen
	tempEnd       int64
	filled        [fillPages]bool // which pages of one byte value are in the temporary file
	page          []byte
	inflate       inflater
	sections      map[uint32]string // the iterable ones
	footers       int               // 0 not known, 1 there are, -1 there are none
	desc          *description
	seen          map[deviceKey]int // number of sections of devices so far
	descSearched  bool
	atEnd         *description // the one at the end of the file
	stepsLeft     int
	guesses       *guesses // about footers
	strict        bool     // make no guesses
	restAfterPart int      // number of rest.pieces before those that follow the last part of RAM
}

func newParser(s *State, start int64, opt Options) *parser {
	return &parser{s: s, c: newCursor(s.src, start, s.size), opt: opt, begin: start, sections: map[uint32]string{}, seen: map[deviceKey]int{}, stepsLeft: maxSteps, guesses: &guesses{}}
}

// stream reads the header and all sections.
func (p *parser) stream() error {
	magic, err := p.c.u32("migration stream header")
	if err != nil {
		return err
	}
	version, err := p.c.u32("migration stream header")
	if err != nil {
		return err
	}
	switch {
	case magic != streamMagic:
		return &sparse.FormatError{Struct: "migration stream header", Field: "magic", Off: p.begin, Value: magic, Msg: "not QEVM"}
	case version != streamVersion:
		return &sparse.FormatError{Struct: "migration stream header", Field: "version", Off: p.begin + 4, Value: version, Msg: "only version 3 is known"}
	}
	p.s.Version, p.s.PageSize, p.s.rest = version, defaultPageSize, &rest{}
	if err := p.configuration(); err != nil {
		return err
	}
	if err := p.endDescription(); err != nil {
		return err
	}
	return p.allSections()
}

// headDone reports whether everything that is wanted has been read.
func (p *parser) headDone() bool { return (p.measuring || p.listing) && p.ramSeen }

func (p *parser) allSections() error {
	for {
		done, err := p.section()
		if err != nil || done {
			return err
		}
	}
}

// section reads the item at the cursor.
func (p *parser) section() (done bool, err error) {
	at := p.c.pos
	b, err := p.c.peek("section", 1)
	if err != nil {
		return false, err
	}
	switch kind := b[0]; kind {
	case vmEOF:
		p.c.pos++
		return true, p.finish(at)
	case vmCommand:
		if err := p.command(); err != nil {
			return false, err
		}
		return false, p.s.rest.add(at, p.c.pos)
	case vmStart:
		err = p.start(at)
	case vmPart, vmEnd:
		err = p.part(at, kind)
	case vmFull:
		return p.full(at)
	default:
		return false, &sparse.FormatError{Struct: "section", Field: "type", Off: at, Value: kind, Msg: "unknown"}
	}
	return p.headDone(), err
}

// header reads the ID, name, instance and version of a section that starts.
func (p *parser) header() (id uint32, name string, instance, version uint32, err error) {
	p.c.pos++
	if id, err = p.c.u32("section header"); err != nil {
		return
	}
	if name, err = p.c.counted("section header"); err != nil {
		return
	}
	if instance, err = p.c.u32("section header"); err != nil {
		return
	}
	version, err = p.c.u32("section header")
	return
}

// footer skips the footer of section id. Either all sections have one, or none.
func (p *parser) footer(id uint32) error {
	at := p.c.pos
	there := false
	if p.c.left() > 0 {
		b, err := p.c.peek("section footer", 1)
		if err != nil {
			return err
		}
		there = b[0] == vmFooter
	}
	if p.footers == 0 {
		p.footers = -1
		if there {
			p.footers = 1
		}
	}
	if p.footers < 0 {
		return nil
	}
	if !there {
		return &sparse.FormatError{Struct: "section footer", Off: at, Msg: fmt.Sprintf("missing: section %d does not end here", id)}
	}
	p.c.pos++
	got, err := p.c.u32("section footer")
	if err != nil {
		return err
	}
	if got != id {
		return &sparse.FormatError{Struct: "section footer", Field: "section_id", Off: at, Value: got, Msg: fmt.Sprintf("the section's is %#x", id)}
	}
	return nil
}

// start reads a SECTION_START: the first section of something iterable.
func (p *parser) start(at int64) error {
	id, name, instance, version, err := p.header()
	if err != nil {
		return err
	}
	if _, twice := p.sections[id]; twice || len(p.sections) >= 1<<12 {
		return &sparse.FormatError{Struct: "section header", Field: "section_id", Off: at, Value: id, Msg: "started twice, or too many sections"}
	}
	p.sections[id] = name
	if name == "ram" {
		if p.ramSeen {
			return &sparse.FormatError{Struct: "section header", Off: at, Value: name, Msg: "started twice"}
		}
		if version != ramVersion {
			return &sparse.FormatError{Struct: "ram section", Field: "version_id", Off: at, Value: version, Msg: "only version 4 is known"}
		}
		p.ramID, p.ramInstance = id, instance
		p.s.rest.ram, p.s.rest.ramID, p.s.rest.ramInstance = len(p.s.rest.pieces), id, instance
	}
	if err := p.payload(name); err != nil {
		return err
	}
	if p.headDone() {
		return nil
	}
	if err := p.footer(id); err != nil {
		return err
	}
	if name == "ram" {
		p.restAfterPart = len(p.s.rest.pieces)
		return nil
	}
	return p.s.rest.add(at, p.c.pos)
}

// part reads a SECTION_PART or a SECTION_END.
func (p *parser) part(at int64, kind byte) error {
	p.c.pos++
	id, err := p.c.u32("section header")
	if err != nil {
		return err
	}
	name, ok := p.sections[id]
	if !ok {
		return &sparse.FormatError{Struct: "section header", Field: "section_id", Off: at, Value: id, Msg: "no section with this number was started"}
	}
	if name == "ram" && p.ramEnd {
		return &sparse.FormatError{Struct: "ram section", Off: at, Msg: "it comes after the end of RAM"}
	}
	if err := p.payload(name); err != nil {
		return err
	}
	if err := p.footer(id); err != nil {
		return err
	}
	if name != "ram" {
		return p.s.rest.add(at, p.c.pos)
	}
	p.ramEnd = kind == vmEnd
	p.restAfterPart = len(p.s.rest.pieces)
	return nil
}

// full reads a SECTION_FULL: the state of a device. Without a description of the devices, the rest
// of the file is kept as it is.
func (p *parser) full(at int64) (done bool, err error) {
	desc, err := p.description(at)
	if err != nil {
		return false, err
	}
	if desc == nil {
		return true, p.opaque(at)
	}
	id, name, instance, version, err := p.header()
	if err != nil {
		return false, err
	}
	// Something iterable may have a described section too, as vfio has.
	if other, iterable := p.sections[id]; iterable && (other != name || name == "ram") {
		return false, &sparse.FormatError{Struct: "section header", Field: "section_id", Off: at, Value: id, Msg: "another section has this number"}
	}
	key := deviceKey{name, instance}
	d := desc.device(key, p.seen[key])
	p.seen[key]++
	if d == nil {
		return false, &sparse.FormatError{Struct: "device section", Off: at, Value: name, Msg: fmt.Sprintf("instance %d is not in the description of the devices", instance)}
	}
	if d.versioned && d.version != version {
		return false, &sparse.FormatError{Struct: "device section", Field: "version_id", Off: at, Value: version, Msg: fmt.Sprintf("%q has %d in the description of the devices", name, d.version)}
	}
	begin, decoded := p.c.pos, len(p.s.decodable)
	err = p.skipStruct(&d.structure, p.s.decode(name, instance))
	size := p.c.pos - begin
	if err == nil {
		err = p.footer(id)
	}
	if err != nil {
		end, found := p.findFooter(begin, id)
		if !found {
			return false, fmt.Errorf("device %q: %w", name, err)
		}
		// The places of its fields are not known.
		p.s.decodable = p.s.decodable[:decoded]
		size, p.c.pos = end-begin, end
		if err := p.footer(id); err != nil {
			return false, err
		}
	}
	p.s.Devices = append(p.s.Devices, Device{name, instance, version, size})
	return false, p.s.rest.add(at, p.c.pos)
}

// opaque keeps everything from at on, unread.
func (p *parser) opaque(at int64) error {
	if !p.ramSeen {
		return fmt.Errorf("machine state: a device section at 0x%x comes before RAM, and nothing describes the devices", at)
	}
	if p.c.end-at < 2 {
		return p.c.cut("device section")
	}
	p.c.pos = p.c.end
	if err := p.s.rest.add(at, p.c.end); err != nil {
		return err
	}
	return p.complete()
}

// finish reads what follows the end of the sections. The byte that marks the end is at eof.
func (p *parser) finish(eof int64) error {
	if p.c.left() > 0 {
		b, err := p.c.peek("description of the devices", 1)
		if err != nil {
			return err
		}
		if b[0] == vmDescription {
			if p.desc == nil {
				if p.desc, err = p.readDescription(p.c.pos, 0); err != nil {
					return err
				}
			}
			if p.desc == nil || p.desc.off != p.c.pos {
				return &sparse.FormatError{Struct: "description of the devices", Off: p.c.pos, Msg: "it is not where the sections end"}
			}
			p.c.pos = p.desc.end
			p.s.Described = true
		}
	}
	if p.desc != nil && !p.s.Described {
		return &sparse.FormatError{Struct: "description of the devices", Off: p.desc.off, Msg: fmt.Sprintf("the sections end at 0x%x, not where it begins", eof)}
	}
	if err := p.keepEnd(eof); err != nil {
		return err
	}
	return p.complete()
}

// keepEnd keeps everything from the end of the sections on: the description without the
// configuration, which depends on how the pages are stored.
func (p *parser) keepEnd(eof int64) error {
	if !p.s.Described || p.desc.configTo == 0 {
		return p.s.rest.add(eof, p.c.pos)
	}
	text, err := binfmt.Read(p.c.r, p.c.end, "description of the devices", uint64(p.desc.off+descHeader), uint64(p.desc.end-p.desc.off-descHeader), maxDescription)
	if err != nil {
		return err
	}
	text = slices.Delete(text, int(p.desc.configFrom), int(p.desc.configTo))
	p.s.rest.tail = append(binary.BigEndian.AppendUint32([]byte{vmDescription}, uint32(len(text))), text...)
	return p.s.rest.add(eof, p.desc.off)
}

// complete checks what only the end can show.
func (p *parser) complete() error {
	if !p.ramSeen {
		return &sparse.FormatError{Struct: "machine state", Off: p.begin, Msg: "it has no RAM"}
	}
	if p.mapped && !p.ramEnd {
		// QEMU writes the bitmaps there, and never does so in a background snapshot.
		return &sparse.FormatError{Struct: "machine state", Off: p.begin, Msg: "mapped-ram without an end of RAM: nothing says which pages are stored"}
	}
	p.s.rest.afterRAM = p.restAfterPart
	p.s.rest.footers = p.footers > 0
	return p.finishBlocks()
}
