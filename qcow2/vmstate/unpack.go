package vmstate

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"cbt/sparse"
)

// maxDict is the largest dictionary or window of a decompressor: that of
// `xz -8`. libvirt calls xz and zstd without a level: 8 MiB and less.
const maxDict = 32 << 20

// unpackers are the formats of a libvirt save image that are compressed.
var unpackers = map[string]func(io.Reader) (io.Reader, error){
	"gzip":  func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	"bzip2": func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil },
	"xz":    newXZ,
	"lzop":  newLzop,
	"zstd": func(r io.Reader) (io.Reader, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxDict), zstd.WithDecoderMaxMemory(maxDict))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	},
}

// Slack of an unpacked stream: a machine that runs while it is saved is saved
// again and again, page by page.
const (
	unpackFactor = 16
	unpackSlack  = 1 << 30
)

// unpackFrom unpacks what lies from start on into a temporary file, and makes
// that the source. A stream that gets much longer than its RAM is refused.
func (s *State) unpackFrom(unpacker func(io.Reader) (io.Reader, error), start int64, opt Options) error {
	src := &failing{r: io.NewSectionReader(s.src, start, s.size-start)}
	r, err := unpacker(src)
	if err != nil {
		return src.judge(err, start)
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	if s.unpack, err = newTemp(opt, "an unpacked stream"); err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	limit, known := opt.MaxRAM+unpackSlack, false
	at := int64(0)
	for {
		n, err := fill(r, buf)
		if _, err := s.unpack.WriteAt(buf[:n], at); err != nil {
			return fmt.Errorf("temporary file: %w", err)
		}
		at += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return src.judge(err, start)
		}
		if !known {
			known = true
			if at < 4 || binary.BigEndian.Uint32(buf) != streamMagic {
				return &sparse.FormatError{Struct: "compressed stream", Off: start, Msg: "it unpacks to no migration stream"}
			}
			if total, err := measure(s.unpack, at, opt); err == nil {
				limit = min(limit, total*unpackFactor+unpackSlack)
			}
		}
		if at > limit {
			return &sparse.FormatError{Struct: "compressed stream", Off: start, Msg: fmt.Sprintf("unpacks to more than %d bytes, which its RAM does not explain", limit)}
		}
	}
	s.src, s.size = s.unpack, at
	return nil
}

// fill is io.ReadFull, but passes on what the reader says: io.EOF is the end
// of packed data, io.ErrUnexpectedEOF that they are cut.
func fill(r io.Reader, b []byte) (n int, err error) {
	for empty := 0; n < len(b) && err == nil; {
		var k int
		k, err = r.Read(b[n:])
		if n += k; k == 0 && err == nil {
			if empty++; empty == 100 {
				err = io.ErrNoProgress
			}
		}
	}
	return n, err
}

// measure returns the bytes of RAM of the machine whose stream begins with n bytes of r.
func measure(r io.ReaderAt, n int64, opt Options) (int64, error) {
	p := newParser(&State{src: r, size: n}, 0, opt)
	p.measuring = true
	err := p.stream()
	return p.ramTotal, err
}

// failing remembers the error of a reader, so that a failing disk is not taken
// for bad data.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil {
		f.err = err
	}
	return n, err
}

func (f *failing) judge(err error, start int64) error {
	if f.err != nil && f.err != io.EOF {
		return f.err
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &sparse.FormatError{Struct: "compressed stream", Off: start, Err: err}
}

// inflater unpacks pages.
type inflater struct {
	r   io.ReadCloser
	src bytes.Reader
}

// page unpacks one page that is packed in b.
func (f *inflater) page(page, b []byte) error {
	f.src.Reset(b)
	var err error
	if f.r == nil {
		f.r, err = zlib.NewReader(&f.src)
	} else {
		err = f.r.(zlib.Resetter).Reset(&f.src, nil)
	}
	if err != nil {
		f.r = nil
		return err
	}
	if _, err := io.ReadFull(f.r, page); err != nil {
		return err
	}
	if n, err := f.r.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		if err == nil || err == io.EOF {
			err = errors.New("more than a page")
		}
		return err
	}
	return nil
}
