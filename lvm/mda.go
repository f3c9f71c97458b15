package lvm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	mdaMagic      = " LVM2 x[5A%r0N*>"
	mdaVersion    = 1
	mdaHeaderSize = 512 // struct mda_header
	rawLocnOff    = 40  // of the array in mda_header
	rawLocnSize   = 24  // struct raw_locn
	rawIgnored    = 1   // its flag

	// maxText limits the text of a group. LVM's default areas hold half a megabyte; 16 MiB is some
	// 30,000 logical volumes.
	maxText = 16 << 20

	// maxAttempts limits how often an area is read again because it is being written to.
	maxAttempts = 8
)

// rawLocn tells where in a metadata area the committed text lies.
type rawLocn struct {
	off, size uint64 // off is relative to the area; size includes a final NUL
	sum       uint32
	flags     uint32
}

func (l rawLocn) ignored() bool { return l.flags&rawIgnored != 0 }

// decodeMDAHeader decodes and checks the header of the area at a. It returns the first slot of its
// array, the committed text. The second slot belongs to an update in progress and is not for
// readers.
//
//	0 CRC of [4,512)  4 magic  20 version  24 own offset  32 size of the area
//	40 raw_locn: 0 offset  8 size  16 CRC  20 flags
func decodeMDAHeader(b []byte, a Area) (rawLocn, error) {
	le := binary.LittleEndian
	switch {
	case le.Uint32(b) != checksum(b[4:mdaHeaderSize]):
		return rawLocn{}, mdaError(a, "checksum", le.Uint32(b), "does not match")
	case string(b[4:20]) != mdaMagic:
		return rawLocn{}, mdaError(a, "magic", b[4:20], "not a metadata area")
	case le.Uint32(b[20:]) != mdaVersion:
		return rawLocn{}, mdaError(a, "version", le.Uint32(b[20:]), "not 1")
	case le.Uint64(b[24:]) != uint64(a.Off):
		return rawLocn{}, mdaError(a, "start", le.Uint64(b[24:]), "not where the header lies")
	case le.Uint64(b[32:]) != uint64(a.Size):
		return rawLocn{}, mdaError(a, "size", le.Uint64(b[32:]), fmt.Sprintf("not the %d bytes of the PV header", a.Size))
	}
	p := b[rawLocnOff:]
	l := rawLocn{le.Uint64(p), le.Uint64(p[8:]), le.Uint32(p[16:]), le.Uint32(p[20:])}
	if l.off == 0 || l.ignored() {
		return l, nil
	}
	return l, l.validate(a)
}

func (l rawLocn) validate(a Area) error {
	room := uint64(a.Size) - mdaHeaderSize
	switch {
	case l.off < mdaHeaderSize || l.off >= uint64(a.Size):
		return mdaError(a, "text offset", l.off, fmt.Sprintf("not in the area of %d bytes", a.Size))
	case l.size == 0 || l.size > room:
		return mdaError(a, "text size", l.size, fmt.Sprintf("not in 1..%d", room))
	case l.size > maxText:
		return mdaError(a, "text size", l.size, fmt.Sprintf("more than the limit of %d", maxText))
	}
	return nil
}

func mdaError(a Area, field string, value any, msg string) error {
	return &sparse.FormatError{Struct: "LVM metadata area", Off: a.Off, Field: field, Value: value, Msg: msg}
}

// MetadataArea is one of a PV's metadata areas, with its content.
type MetadataArea struct {
	Area
	// Ignored areas hold no metadata, whatever is in them.
	Ignored bool
	// Text is the committed text, without its final NUL. It is nil if there is none because the
	// area is ignored, was never written to, or has a Fault.
	Text []byte
	// Fault is why a text that should be there could not be read.
	Fault error

	locn rawLocn
}

// readMDA reads one area. LVM writes a new text into free space and then replaces the header. So a
// text that does not match its checksum may have been overwritten since the header was read. Header
// and text are read again until they match or are the same twice in a row, at most maxAttempts
// times.
func readMDA(r io.ReaderAt, size int64, a Area) MetadataArea {
	m := MetadataArea{Area: a}
	if a.Size < 2*mdaHeaderSize {
		m.Fault = mdaError(a, "size", a.Size, "no room for a header and a text")
		return m
	}
	if !binfmt.Inside(uint64(a.Off), uint64(a.Size), size) {
		m.Fault = mdaError(a, "size", a.Size, fmt.Sprintf("the area is not inside the disk of %d bytes", size))
		return m
	}
	var lastHeader, lastText []byte
	for range maxAttempts {
		header, text := make([]byte, mdaHeaderSize), []byte(nil)
		if m.Fault = binfmt.Fill(r, size, "LVM metadata area", header, uint64(a.Off)); m.Fault != nil {
			return m
		}
		if m.locn, m.Fault = decodeMDAHeader(header, a); m.Fault == nil {
			m.Ignored = m.locn.ignored()
			if m.Ignored || m.locn.off == 0 {
				return m
			}
			if text, m.Fault = readText(r, size, a, m.locn); m.Fault != nil {
				return m
			}
			if sum := checksum(text); sum == m.locn.sum {
				// The length includes a NUL; what follows it is not text.
				m.Text, _, _ = bytes.Cut(text, []byte{0})
				return m
			}
			m.Fault = mdaError(a, "text checksum", m.locn.sum, fmt.Sprintf("does not match the %d bytes at 0x%x of the area", m.locn.size, m.locn.off))
		}
		if bytes.Equal(header, lastHeader) && bytes.Equal(text, lastText) {
			return m
		}
		lastHeader, lastText = header, text
	}
	return m
}

// readText reads a text, which may wrap around at the end of the area.
func readText(r io.ReaderAt, size int64, a Area, l rawLocn) ([]byte, error) {
	text := make([]byte, l.size)
	first := min(l.size, uint64(a.Size)-l.off)
	if err := binfmt.Fill(r, size, "LVM metadata text", text[:first], uint64(a.Off)+l.off); err != nil {
		return nil, err
	}
	return text, binfmt.Fill(r, size, "LVM metadata text", text[first:], uint64(a.Off)+mdaHeaderSize)
}
