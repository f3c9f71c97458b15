package vmstate

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

const (
	xzMagic       = "\xfd7zXZ\x00"
	xzFooterMagic = "YZ"
	lzma2Filter   = 0x21
)

var errXZ = errors.New("damaged xz file")

// xzReader reads the container of an xz file; package lzma reads what is in it. The container is
// read here because package xz allocates a dictionary as large as each block asks for, up to 4 GiB.
type xzReader struct {
	r     *counting
	check byte
	block io.Reader // nil between blocks
	start int64     // offset of the block
	sum   hash.Hash
	found int // number of blocks of the stream so far
	err   error
}

// counting counts the bytes read; it can also read single bytes.
type counting struct {
	*bufio.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counting) ReadByte() (byte, error) {
	b, err := c.Reader.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func newXZ(src io.Reader) (io.Reader, error) {
	x := &xzReader{r: &counting{Reader: bufio.NewReaderSize(src, 64<<10)}}
	return x, x.header()
}

// full reads n bytes, all of which must be there.
func (x *xzReader) full(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(x.r, b)
	return b, unexpected(err)
}

// header reads the header of a stream: magic (6), flags (2), CRC of the flags (4).
func (x *xzReader) header() error {
	b, err := x.full(12)
	if err != nil {
		return err
	}
	if string(b[:6]) != xzMagic || b[6] != 0 || crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return errXZ
	}
	x.check, x.found = b[7], 0
	switch x.check {
	case 0, 1, 4, 10:
		return nil
	}
	return fmt.Errorf("xz: check %d is not supported", x.check)
}

func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(p)
		if x.sum != nil {
			x.sum.Write(p[:n])
		}
		if err == io.EOF {
			err = x.endBlock()
			x.block = nil
		}
		x.err = unexpected(err)
		if n > 0 {
			return n, nil
		}
	}
	if x.err == errXZEnd {
		return 0, io.EOF
	}
	return 0, x.err
}

var errXZEnd = errors.New("end of the xz file")

// next goes to the next block or the next stream. At the end it returns errXZEnd.
func (x *xzReader) next() error {
	x.start = x.r.n
	size, err := x.r.ReadByte()
	if err != nil {
		return unexpected(err)
	}
	if size == 0 {
		return x.index()
	}
	rest, err := x.full(int(size)*4 + 3)
	if err != nil {
		return err
	}
	b := append([]byte{size}, rest...)
	head := b[:len(b)-4]
	if crc32.ChecksumIEEE(head) != binary.LittleEndian.Uint32(b[len(head):]) {
		return errXZ
	}
	flags, fields := head[1], head[2:]
	if flags&0x3f != 0 {
		return errors.New("xz: only blocks of LZMA2 without another filter are supported")
	}
	for _, size := range []byte{0x40, 0x80} {
		if flags&size != 0 {
			var n int
			if _, n = binary.Uvarint(fields); n <= 0 {
				return errXZ
			}
			fields = fields[n:]
		}
	}
	if len(fields) < 3 || fields[0] != lzma2Filter || fields[1] != 1 {
		return errors.New("xz: only blocks of LZMA2 without another filter are supported")
	}
	dict, err := lzma.DecodeDictCap(fields[2])
	if err != nil {
		return err
	}
	if dict > maxDict {
		return fmt.Errorf("xz: a dictionary of %d bytes, limit %d", dict, maxDict)
	}
	x.found++
	switch x.check {
	case 0:
		x.sum = nil
	case 1:
		x.sum = crc32.NewIEEE()
	case 4:
		x.sum = crc64.New(crc64.MakeTable(crc64.ECMA))
	default:
		x.sum = sha256.New()
	}
	x.block, err = lzma.Reader2Config{DictCap: max(int(dict), lzma.MinDictCap)}.NewReader2(x.r)
	return err
}

// endBlock reads the padding and the check after a block.
func (x *xzReader) endBlock() error {
	if err := x.padding(); err != nil {
		return err
	}
	if x.sum == nil {
		return nil
	}
	got, err := x.full(x.sum.Size())
	if err != nil {
		return err
	}
	want := x.sum.Sum(nil)
	if x.check != 10 { // CRCs are little endian
		for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
			want[i], want[j] = want[j], want[i]
		}
	}
	if string(got) != string(want) {
		return errors.New("xz: wrong checksum")
	}
	return nil
}

func (x *xzReader) padding() error {
	for (x.r.n-x.start)%4 != 0 {
		if b, err := x.r.ReadByte(); err != nil || b != 0 {
			return errXZ
		}
	}
	return nil
}

// index reads the index and the footer of a stream. It checks that the index lists the right number
// of blocks, but not their sizes: every block has its own check.
func (x *xzReader) index() error {
	n, err := binary.ReadUvarint(x.r)
	if err != nil || n != uint64(x.found) {
		return errXZ
	}
	for range 2 * n {
		if _, err := binary.ReadUvarint(x.r); err != nil {
			return errXZ
		}
	}
	if err := x.padding(); err != nil {
		return err
	}
	b, err := x.full(4 + 12)
	if err != nil {
		return err
	}
	footer := b[4:]
	if string(footer[10:]) != xzFooterMagic || crc32.ChecksumIEEE(footer[4:10]) != binary.LittleEndian.Uint32(footer) || footer[9] != x.check {
		return errXZ
	}
	for {
		b, err := x.r.Peek(4)
		if len(b) == 0 && err == io.EOF {
			return errXZEnd
		}
		if err != nil {
			return unexpected(err)
		}
		if string(b) != "\x00\x00\x00\x00" {
			return x.header()
		}
		x.full(4)
	}
}
