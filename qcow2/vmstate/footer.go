package vmstate

import (
	"bytes"
	"encoding/binary"

	"cbt/sparse"
)

// guesses counts the cost of finding footers. A state that needs more than the limits is refused.
type guesses struct {
	tries   int   // footers after which everything was parsed
	looks   int   // places that look like a footer
	scanned int64 // in bytes
}

const (
	maxTries   = 64
	maxLooks   = 1 << 14
	maxScanned = 2 * maxDeviceData
)

func (g *guesses) spent() bool {
	return g.tries >= maxTries || g.looks >= maxLooks || g.scanned >= maxScanned
}

// nullMarker is the byte that stands for a null pointer in a stream (VMS_NULLPTR_MARKER).
const nullMarker = '0'

// skipNull skips n null pointers. QEMU describes an array by its first element only, so the others
// need not be null; then it returns an error.
func (p *parser) skipNull(n uint64) error {
	const what = "device field"
	for ; n > 0; n-- {
		at := p.c.pos
		b, err := p.c.u8(what)
		if err != nil {
			return err
		}
		if b != nullMarker {
			return &sparse.FormatError{Struct: what, Off: at, Value: b, Msg: "described as a pointer to nothing"}
		}
	}
	return nil
}

// findFooter looks for the footer of a device's section whose payload, from begin on, does not
// match its description. QEMU describes arrays of pointers by their first element, and those of
// s390x have holes. A footer is the right one if everything after it fits the description and ends
// where the description begins. Footers after which no other has to be found in this way are
// preferred. RAM must have ended, so that nothing inside it can be taken for a footer.
func (p *parser) findFooter(begin int64, id uint32) (at int64, found bool) {
	if p.footers <= 0 || !p.ramSeen || p.desc == nil || p.desc.off <= begin || p.strict {
		return 0, false
	}
	if at, found = p.footerBefore(begin, id, true); !found {
		at, found = p.footerBefore(begin, id, false)
	}
	return at, found
}

// footerBefore returns the first such footer. With strict, no footer after it may be found in this
// way.
func (p *parser) footerBefore(begin int64, id uint32, strict bool) (at int64, found bool) {
	footer := binary.BigEndian.AppendUint32([]byte{vmFooter}, id)
	c := newCursor(p.c.r, begin, min(p.desc.off, begin+maxDeviceData))
	for c.left() >= int64(len(footer))+1 && !p.guesses.spent() {
		n := int(min(int64(len(c.room)), c.left()))
		b, err := c.peek("device section", n)
		if err != nil {
			return 0, false
		}
		i := bytes.Index(b, footer)
		if i < 0 {
			p.guesses.scanned += int64(n)
			c.pos += int64(n - len(footer) + 1)
			continue
		}
		at = c.pos + int64(i)
		c.pos = at + 1
		p.guesses.scanned += int64(i)
		p.guesses.looks++
		next := at + int64(len(footer))
		if !p.sectionAt(next) {
			continue
		}
		p.guesses.tries++
		try := *p
		try.strict = strict
		if try.fits(next, p.desc) {
			return at, true
		}
	}
	return 0, false
}

// sectionAt reports whether a section of a described device begins at off, or the sections end
// there.
func (p *parser) sectionAt(off int64) bool {
	try := *p
	try.c = newCursor(p.c.r, off, min(p.c.end, off+300))
	b, err := try.c.peek("section", 1)
	if err != nil || b[0] == vmEOF {
		return err == nil
	}
	if b[0] != vmFull {
		return false
	}
	_, name, instance, _, err := try.header()
	return err == nil && len(p.desc.devices[deviceKey{name, instance}]) > 0
}
