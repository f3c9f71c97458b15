package vmstate

import (
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"cbt/sparse"
)

// maxDict is the largest dictionary or window of a decompressor, in bytes: that of `xz -8`. libvirt
// calls xz and zstd without a level, which gives 8 MiB or less.
const maxDict = 32 << 20

// unpackers has the compressed formats of a libvirt save image.
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

// Limits on the size of an unpacked stream.
const (
	// unpackFactor is how many times a stream may contain all of RAM. A machine that runs while it
	// is saved has pages saved again and again.
	unpackFactor = 16
	// ratioSlack is the number of bytes that any stream may unpack to, however small it is.
	ratioSlack = 16 << 20
)

// unpackSlack is room for everything that is not RAM: devices and their description.
var unpackSlack int64 = maxDeviceData + maxDescription

// maxRatio is how many bytes one packed byte may unpack to, in formats that have no limit of their
// own. It is about twice the ratio of memory filled with one byte value (bzip2 7,800, xz 1,700,
// zstd 970). gzip gets to 1,032, lzop to some 250.
var maxRatio = map[string]int64{"bzip2": 16000, "xz": 4000, "zstd": 4000}

// unpackFrom unpacks the source from start on into a temporary file, and makes that file the
// source. The RAM size that the stream gives, and the number of packed bytes, limit how much is
// written. With opt.HeadOnly it reads only the head, if that is possible.
func (s *State) unpackFrom(format string, start int64, opt Options) (headOnly bool, err error) {
	src := &failing{r: io.NewSectionReader(s.src, start, s.size-start)}
	r, err := unpackers[format](src)
	if err != nil {
		return false, src.judge(err, start)
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	fault := func(msg string, args ...any) error {
		return &sparse.FormatError{Struct: "compressed stream", Off: start, Msg: fmt.Sprintf(msg, args...)}
	}
	h, err := readHead(r, opt)
	switch {
	case err != nil && !isFormat(err):
		return false, src.judge(err, start)
	case err != nil:
		return false, fmt.Errorf("in what it unpacks to: %w", err)
	case opt.HeadOnly && s.headOnly(h.bytes, opt):
		return true, nil
	}
	if s.unpack, err = newTemp(opt, "an unpacked stream"); err != nil {
		return false, err
	}
	limit, ratio := h.ram*unpackFactor+unpackSlack, maxRatio[format]
	buf, at := h.bytes, int64(0)
	for whole := h.whole; ; {
		if _, err := s.unpack.WriteAt(buf, at); err != nil {
			return false, fmt.Errorf("temporary file: %w", err)
		}
		at += int64(len(buf))
		if whole {
			break
		}
		if cap(buf) != unpackChunk {
			buf = make([]byte, unpackChunk)
		}
		n, err := fill(r, buf[:unpackChunk])
		if buf, whole = buf[:n], err == io.EOF; err != nil && !whole {
			return false, src.judge(err, start)
		}
		switch now := at + int64(n); {
		case now > limit:
			return false, fault("unpacks to more than %d bytes, and its RAM has %d: this is not a saved machine", limit, h.ram)
		case ratio > 0 && now > ratioSlack && (now-ratioSlack)/ratio > src.n:
			return false, fault("%d packed bytes make more than %d, more than %d each, as no memory does: it may be made to fill the disk (`tail -c +%d FILE | %s -dc` unpacks it to a stream that can be read, if it is not)", src.n, at, ratio, start+1, format)
		}
	}
	s.src, s.size = s.unpack, at
	return false, nil
}

const unpackChunk = 1 << 20

// fill is like io.ReadFull, but passes on the reader's error: io.EOF is the end of packed data,
// io.ErrUnexpectedEOF means that they are cut.
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

// failing remembers the error of a reader, so that a failing disk is not mistaken for bad data.
type failing struct {
	r   io.Reader
	n   int64 // bytes read
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.n += int64(n)
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

// page unpacks the one page that is packed in b.
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
