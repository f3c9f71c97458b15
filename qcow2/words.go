package qcow2

import "encoding/binary"

// notCopied masks off the COPIED bit of an entry that was loaded as if it were
// little endian.
const notCopied = ^uint64(0x80)

// firstDifference returns the offset, at or after at, of the first 8 bytes that differ between a
// and b, or len(a) if none do. The two are equally long. The masks even and odd select the bits
// that count in words at even and odd places. Comparing two large images spends most of its time
// here.
func firstDifference(a, b []byte, at int, even, odd uint64) int {
	b = b[:len(a)]
	le := binary.LittleEndian
	for at&15 == 0 && len(a)-at >= 64 {
		x, y := a[at:at+64:at+64], b[at:at+64:at+64]
		d := (le.Uint64(x) ^ le.Uint64(y)) | (le.Uint64(x[16:]) ^ le.Uint64(y[16:])) |
			(le.Uint64(x[32:]) ^ le.Uint64(y[32:])) | (le.Uint64(x[48:]) ^ le.Uint64(y[48:]))
		e := (le.Uint64(x[8:]) ^ le.Uint64(y[8:])) | (le.Uint64(x[24:]) ^ le.Uint64(y[24:])) |
			(le.Uint64(x[40:]) ^ le.Uint64(y[40:])) | (le.Uint64(x[56:]) ^ le.Uint64(y[56:]))
		if d&even|e&odd != 0 {
			break
		}
		at += 64
	}
	for ; len(a)-at >= 8; at += 8 {
		mask := even
		if at&8 != 0 {
			mask = odd
		}
		if (le.Uint64(a[at:])^le.Uint64(b[at:]))&mask != 0 {
			return at
		}
	}
	return len(a)
}
