package qcow2

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

// maxZstdWindow is what a decoder may keep for one frame. QEMU compresses a
// cluster at once, so its windows are no larger than a cluster; RFC 8878
// recommends that decoders take 8 MiB.
const maxZstdWindow = 8 << 20

// decoder reads one cluster. It is used by one goroutine at a time.
type decoder interface {
	io.Reader
	reset(src *bytes.Reader) error
}

type deflateDecoder struct{ io.ReadCloser }

func (d deflateDecoder) reset(src *bytes.Reader) error {
	return d.ReadCloser.(flate.Resetter).Reset(src, nil)
}

type zstdDecoder struct{ *zstd.Decoder }

// reset hides everything but Read of src, by which the decoder would know that
// it may decode all of it ahead, up to and beyond the garbage behind a frame.
func (d zstdDecoder) reset(src *bytes.Reader) error {
	return d.Decoder.Reset(struct{ io.Reader }{src})
}

var deflateDecoders = sync.Pool{New: func() any {
	return deflateDecoder{flate.NewReader(bytes.NewReader(nil))}
}}

var zstdDecoders = sync.Pool{New: func() any {
	// Without concurrency a decoder has no goroutines, and may be forgotten.
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		panic("qcow2: internal error: zstd decoder: " + err.Error())
	}
	return zstdDecoder{d}
}}

// compressedBuffers holds what was read of the file.
var compressedBuffers = sync.Pool{New: func() any { return new([]byte) }}

// decompress fills p, a whole cluster, from the compressed cluster that e
// describes; guest is its offset on the disk. The data may end before the end
// of their last sector, so what the file does not have of that is not missed
// unless decoding needs it; nor is anything judged that follows the cluster.
func (img *Image) decompress(p []byte, e l2Entry, guest int64) error {
	off, limit := e.compressedData(img.header.ClusterBits)
	if !binfmt.Inside(off, 1, img.file.size) {
		return compressedError(off, guest, fmt.Sprintf("past the end of the file of %d bytes", img.file.size), nil)
	}
	n := int(min(limit, uint64(img.file.size)-off))
	buf := compressedBuffers.Get().(*[]byte)
	defer compressedBuffers.Put(buf)
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	src := (*buf)[:n]
	if err := img.file.fill("qcow2 compressed cluster", src, off); err != nil {
		return err
	}
	pool := &deflateDecoders
	if img.header.CompressionType == CompressionZstd {
		pool = &zstdDecoders
	}
	d := pool.Get().(decoder)
	defer pool.Put(d)
	err := d.reset(bytes.NewReader(src))
	if err == nil {
		_, err = io.ReadFull(d, p)
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return compressedError(off, guest, "data end before the cluster does", nil)
	}
	if err != nil {
		return compressedError(off, guest, "", err)
	}
	return nil
}

// cluster returns the content of a compressed cluster, which nobody may
// change.
func (img *Image) cluster(e l2Entry, guest int64) ([]byte, error) {
	size := img.header.ClusterSize()
	return img.clusters.Get(e, size, func() ([]byte, error) {
		b := make([]byte, size)
		return b, img.decompress(b, e, guest)
	})
}

func compressedError(off uint64, guest int64, msg string, err error) error {
	return &sparse.FormatError{Struct: "qcow2 compressed cluster", Field: "guest offset", Off: int64(off), Value: uint64(guest), Msg: msg, Err: err}
}
