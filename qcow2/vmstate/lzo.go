package vmstate

import "errors"

var errLZO = errors.New("damaged LZO1X data")

// lzoInput is the packed data. Reading past its end sets bad.
type lzoInput struct {
	b   []byte
	bad bool
}

func (in *lzoInput) byte() int {
	if len(in.b) == 0 {
		in.bad = true
		return 0
	}
	c := in.b[0]
	in.b = in.b[1:]
	return int(c)
}

func (in *lzoInput) word() int { return in.byte() | in.byte()<<8 }

// long reads a length that did not fit into its instruction: 255 for each zero byte, then the first
// byte that is not zero.
func (in *lzoInput) long(base int) int {
	for !in.bad {
		c := in.byte()
		if c != 0 {
			return base + c
		}
		base += 255
	}
	return 0
}

// lzo1x unpacks LZO1X data, which must fill dst exactly. The instructions are those of Linux'
// Documentation/staging/lzo.rst. Up to three literals follow a match, and their number decides the
// meaning of a following byte below 16.
func lzo1x(dst, src []byte) error {
	in := &lzoInput{b: src}
	op := 0
	literals := func(n int) bool {
		if n > len(in.b) || n > len(dst)-op {
			return false
		}
		copy(dst[op:], in.b[:n])
		op, in.b = op+n, in.b[n:]
		return true
	}
	state := 0 // number of the latest literals: 0 to 3, or 4 for more
	if len(src) > 0 && src[0] > 17 {
		in.byte()
		n := int(src[0]) - 17
		if !literals(n) {
			return errLZO
		}
		state = min(n, 4)
	}
	for !in.bad {
		var length, distance, trail int
		switch c := in.byte(); {
		case c < 16 && state == 0:
			n := c
			if n == 0 {
				n = in.long(15)
			}
			if in.bad || !literals(n+3) {
				return errLZO
			}
			state = 4
			continue
		case c < 16:
			length, distance, trail = 2, 1+c>>2+in.byte()<<2, c&3
			if state == 4 {
				length, distance = 3, distance+2048
			}
		case c < 32:
			length = c & 7
			if length == 0 {
				length = in.long(7)
			}
			w := in.word()
			length, distance, trail = length+2, (c&8)<<11+w>>2, w&3
			if distance == 0 {
				if in.bad || length != 3 || op != len(dst) || len(in.b) != 0 {
					return errLZO
				}
				return nil
			}
			distance += 16384
		case c < 64:
			length = c & 31
			if length == 0 {
				length = in.long(31)
			}
			w := in.word()
			length, distance, trail = length+2, 1+w>>2, w&3
		default:
			length, distance, trail = c>>5+1, 1+c>>2&7+in.byte()<<3, c&3
		}
		if in.bad || distance > op || length > len(dst)-op {
			return errLZO
		}
		// Source and destination may overlap; then the bytes repeat.
		for end := op + length; op < end; op++ {
			dst[op] = dst[op-distance]
		}
		if !literals(trail) {
			return errLZO
		}
		state = trail
	}
	return errLZO
}
