package vmstate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"hash/crc32"
	"io"
)

const (
	lzopMagic    = "\x89LZO\x00\r\n\x1a\n"
	maxLzopBlock = 8 << 20 // lzop writes 256 KiB
)

// Flags of an lzop header.
const (
	lzopAdlerPlain  = 0x0001
	lzopAdlerPacked = 0x0002
	lzopExtra       = 0x0040
	lzopCRCPlain    = 0x0100
	lzopCRCPacked   = 0x0200
	lzopMultipart   = 0x0400
	lzopFilter      = 0x0800
	lzopHeaderCRC   = 0x1000
)

var errLzopSum = errors.New("lzop: wrong checksum")

// lzop reads an lzop file: a header, then blocks until one of length 0.
type lzop struct {
	r             *bufio.Reader
	flags         uint32
	plain, packed []byte
	left          []byte // of plain
	err           error
}

// newLzop reads the header:
//
//	magic (9), version, library version, version needed (2 each), method,
//	level, flags (4), mode, time, time (4 each), name with a length byte,
//	checksum (4)
func newLzop(src io.Reader) (io.Reader, error) {
	z := &lzop{r: bufio.NewReaderSize(src, 64<<10)}
	h := make([]byte, 9+6+2+4+12+1)
	if _, err := io.ReadFull(z.r, h); err != nil {
		return nil, unexpected(err)
	}
	version, method := binary.BigEndian.Uint16(h[9:]), h[15]
	z.flags = binary.BigEndian.Uint32(h[17:])
	switch {
	case string(h[:9]) != lzopMagic:
		return nil, errors.New("lzop: wrong magic")
	case version < 0x0940 || binary.BigEndian.Uint16(h[13:]) > 0x1040:
		return nil, fmt.Errorf("lzop: version %#x is not supported", version)
	case method < 1 || method > 3:
		return nil, fmt.Errorf("lzop: method %d is not LZO1X", method)
	case z.flags&(lzopExtra|lzopMultipart|lzopFilter) != 0:
		return nil, fmt.Errorf("lzop: flags %#x are not supported", z.flags)
	}
	rest := make([]byte, int(h[len(h)-1])+4)
	if _, err := io.ReadFull(z.r, rest); err != nil {
		return nil, unexpected(err)
	}
	h = append(h, rest[:len(rest)-4]...)
	sum := adler32.Checksum(h[9:])
	if z.flags&lzopHeaderCRC != 0 {
		sum = crc32.ChecksumIEEE(h[9:])
	}
	if sum != binary.BigEndian.Uint32(rest[len(rest)-4:]) {
		return nil, errLzopSum
	}
	return z, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (z *lzop) Read(p []byte) (int, error) {
	for len(z.left) == 0 && z.err == nil {
		z.err = z.block()
	}
	n := copy(p, z.left)
	z.left = z.left[n:]
	if n == 0 && len(p) > 0 {
		return 0, z.err
	}
	return n, nil
}

func (z *lzop) number() (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(z.r, b[:])
	return binary.BigEndian.Uint32(b[:]), unexpected(err)
}

// block reads a block: its length, its length in the file, the checksums that the flags name, and
// the data. Data that did not shrink are stored unpacked, without a checksum of the packed form.
func (z *lzop) block() error {
	n, err := z.number()
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	packed, err := z.number()
	if err != nil {
		return err
	}
	if n > maxLzopBlock || packed > n || packed == 0 {
		return fmt.Errorf("lzop: a block of %d bytes, packed %d", n, packed)
	}
	var sums [4]uint32
	for i, flag := range []uint32{lzopAdlerPlain, lzopCRCPlain, lzopAdlerPacked, lzopCRCPacked} {
		if z.flags&flag != 0 && (i < 2 || packed < n) {
			if sums[i], err = z.number(); err != nil {
				return err
			}
		}
	}
	if int(n) > cap(z.plain) {
		z.plain, z.packed = make([]byte, n), make([]byte, n)
	}
	dst, src := z.plain[:n], z.packed[:packed]
	if _, err := io.ReadFull(z.r, src); err != nil {
		return unexpected(err)
	}
	if packed == n {
		copy(dst, src)
	} else {
		if z.flags&lzopAdlerPacked != 0 && adler32.Checksum(src) != sums[2] || z.flags&lzopCRCPacked != 0 && crc32.ChecksumIEEE(src) != sums[3] {
			return errLzopSum
		}
		if err := lzo1x(dst, src); err != nil {
			return err
		}
	}
	if z.flags&lzopAdlerPlain != 0 && adler32.Checksum(dst) != sums[0] || z.flags&lzopCRCPlain != 0 && crc32.ChecksumIEEE(dst) != sums[1] {
		return errLzopSum
	}
	z.left = dst
	return nil
}
