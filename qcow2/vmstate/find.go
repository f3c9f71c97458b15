package vmstate

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	descHeader    = 5         // type and length
	maxCandidates = 8         // descriptions that are tried
	maxDeviceData = 256 << 20 // how far after RAM a description is searched for, in bytes
)

// endDescription looks for the description at the very end of the file and takes the page size from
// it. The description is there unless the state lies inside something larger.
func (p *parser) endDescription() error {
	if p.measuring || p.listing {
		return nil
	}
	d, err := p.lastDescription()
	if d == nil || err != nil {
		return err
	}
	p.atEnd = d
	if n := d.pageSize; !p.pageBits && n >= 1<<10 && n <= 1<<16 && bits.OnesCount64(n) == 1 {
		p.s.PageSize = int64(n)
	}
	return nil
}

// lastDescription looks for a description that ends where the file ends. Its text has no control
// characters, so the last control character of the file is in the description's type or length.
func (p *parser) lastDescription() (*description, error) {
	const chunk = 64 << 10
	end := p.c.end
	buf := make([]byte, chunk)
	for hi := end; hi > p.c.pos && end-hi <= maxDescription; {
		lo := max(hi-chunk, p.c.pos)
		b := buf[:hi-lo]
		if err := binfmt.Fill(p.c.r, end, "description of the devices", b, uint64(lo)); err != nil {
			return nil, err
		}
		if hi == end && b[len(b)-1] != '}' {
			return nil, nil
		}
		if i := bytes.LastIndexFunc(b, func(r rune) bool { return r < ' ' }); i >= 0 {
			for at := lo + int64(i); at > lo+int64(i)-descHeader && at >= p.c.pos; at-- {
				if d, err := p.readDescription(at, end); d != nil || err != nil {
					return d, err
				}
			}
			return nil, nil
		}
		hi = lo
	}
	return nil, nil
}

func isFormat(err error) bool {
	_, ok := err.(*sparse.FormatError)
	return ok
}

// readDescription reads the description at off and returns nil if there is none. If end is not 0,
// the description must also end there.
func (p *parser) readDescription(off, end int64) (*description, error) {
	const what = "description of the devices"
	var head [descHeader + 1]byte
	if p.c.end-off < int64(len(head)) {
		return nil, nil
	}
	if err := binfmt.Fill(p.c.r, p.c.end, what, head[:], uint64(off)); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] != vmDescription || head[descHeader] != '{' || n > maxDescription || int64(n) > p.c.end-off-descHeader ||
		end != 0 && off+descHeader+int64(n) != end {
		return nil, nil
	}
	text, err := binfmt.Read(p.c.r, p.c.end, what, uint64(off+descHeader), uint64(n), maxDescription)
	if err != nil {
		return nil, err
	}
	d, err := parseDescription(text)
	if err != nil {
		return nil, &sparse.FormatError{Struct: what, Off: off, Err: err}
	}
	d.off, d.end = off, off+descHeader+int64(n)
	return d, nil
}

// description returns the description of the devices, whose first section is at off, or nil if
// there is none. The right description is one that all sections from off on fit.
func (p *parser) description(off int64) (*description, error) {
	if p.descSearched {
		return p.desc, nil
	}
	p.descSearched = true
	p.desc = p.atEnd
	if !p.ramSeen || p.desc != nil && p.fits(off, p.desc) {
		return p.desc, nil
	}
	// What follows RAM may have been written by the guest: such descriptions are tried, not
	// trusted.
	c := newCursor(p.c.r, off, min(p.c.end, off+maxDeviceData))
	for tried := 0; tried < maxCandidates && c.left() >= 2+descHeader; {
		n := int(min(int64(len(c.room)), c.left()))
		b, err := c.peek("device section", n)
		if err != nil {
			return nil, err
		}
		i := bytes.Index(b, []byte{vmEOF, vmDescription})
		if i < 0 {
			c.pos += int64(n) - 1
			continue
		}
		c.pos += int64(i) + 1
		d, err := p.readDescription(c.pos, 0)
		if err != nil && !isFormat(err) {
			return nil, err
		}
		if d == nil {
			continue
		}
		tried++
		if p.fits(off, d) {
			p.desc = d
			return d, nil
		}
		if p.desc == nil {
			p.desc = d // keep it, so that its faults can be reported
		}
	}
	return p.desc, nil
}

// fits reports whether the sections from off on are those that d describes.
func (p *parser) fits(off int64, d *description) bool {
	s := *p.s
	s.rest = &rest{pieces: slices.Clone(p.s.rest.pieces)}
	s.Devices, s.Blocks = nil, nil
	try := *p
	try.s, try.desc, try.c, try.ramEnd = &s, d, newCursor(p.c.r, off, p.c.end), true
	try.seen = maps.Clone(p.seen)
	return try.allSections() == nil && s.Described
}
