package vmstate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"cbt/sparse"
)

// A compressed stream is judged by its head, which ends with the list of RAM blocks. Devices that
// are restored before RAM can make it longer.
const (
	headSize    = 64 << 10
	maxHeadSize = 4 << 20
)

// head is the beginning of an unpacked stream.
type head struct {
	bytes []byte
	whole bool  // the stream ends here
	ram   int64 // bytes of RAM
}

// readHead reads a stream until it tells how much RAM there is. If it is not a migration stream, or
// does not tell, the error is a *sparse.FormatError with offsets in the unpacked stream.
func readHead(r io.Reader, opt Options) (head, error) {
	h := head{bytes: make([]byte, 0, headSize)}
	for {
		have := len(h.bytes)
		n, err := fill(r, h.bytes[have:cap(h.bytes)])
		h.bytes, h.whole = h.bytes[:have+n], err == io.EOF
		if err != nil && !h.whole {
			return h, err
		}
		if len(h.bytes) < 8 || binary.BigEndian.Uint32(h.bytes) != streamMagic {
			return h, &sparse.FormatError{Struct: "compressed stream", Off: -1, Msg: "it unpacks to no migration stream"}
		}
		if version := binary.BigEndian.Uint32(h.bytes[4:]); version != streamVersion {
			return h, &sparse.FormatError{Struct: "migration stream header", Field: "version", Off: 4, Value: version, Msg: "only version 3 is known"}
		}
		total, at := ramIn(h.bytes, opt)
		switch {
		case at >= 0 && total > uint64(opt.MaxRAM):
			return h, &sparse.FormatError{Struct: "RAM block list", Field: "total", Off: int64(at), Value: total, Msg: fmt.Sprintf("more than the limit of %d bytes", opt.MaxRAM)}
		case at >= 0 || h.whole:
			h.ram = int64(total)
			return h, nil
		case len(h.bytes) >= maxHeadSize:
			return h, &sparse.FormatError{Struct: "machine state", Off: 0, Msg: fmt.Sprintf("no RAM in its first %d bytes", len(h.bytes))}
		}
		h.bytes = append(make([]byte, 0, 4*cap(h.bytes)), h.bytes...)
	}
}

// ramIn returns the size of RAM in bytes that the stream beginning with b gives, and its offset. at
// is negative if b does not contain it.
func ramIn(b []byte, opt Options) (total uint64, at int) {
	p := newParser(&State{src: bytes.NewReader(b), size: int64(len(b))}, 0, opt)
	p.measuring = true
	if p.stream() == nil && p.ramSeen {
		return uint64(p.ramTotal), int(p.c.pos) - 8
	}
	// Devices of unknown length may come first.
	const name = "\x03ram"
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(name))
		if i < 0 || from+i+len(name)+16 > len(b) {
			return 0, -1
		}
		at := from + i
		from = at + 1
		rest := b[at+len(name):]
		word := binary.BigEndian.Uint64(rest[8:])
		if at >= 5 && b[at-5] == vmStart && binary.BigEndian.Uint32(rest[4:]) == ramVersion && word&(1<<10-1) == ramMemSize {
			return word &^ (1<<10 - 1), at + len(name) + 8
		}
	}
}

// headOnly fills s from the head of a stream, and reports whether that succeeded.
func (s *State) headOnly(b []byte, opt Options) bool {
	only := *s
	only.src, only.size, only.HeadOnly = bytes.NewReader(b), int64(len(b)), true
	p := newParser(&only, 0, opt)
	p.listing = true
	if p.stream() != nil || !p.ramSeen {
		return false
	}
	for _, b := range only.Blocks {
		b.state = s
	}
	*s = only
	return true
}
