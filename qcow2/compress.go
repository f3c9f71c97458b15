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

// maxZstdWindow is the most memory, in bytes, that a decoder may keep for one frame. QEMU
// compresses a cluster in one piece, so its windows are no larger than a cluster. RFC 8878
// recommends that decoders accept 8 MiB.
const maxZstdWindow = 8 << 20

// decoder decompresses one cluster. Only one goroutine may use it at a time.
type decoder interface {
	io.Reader
	reset(src *bytes.Reader) error
}

type deflateDecoder struct{ io.ReadCloser }

func (d deflateDecoder) reset(src *bytes.Reader) error {
	return d.ReadCloser.(flate.Resetter).Reset(src, nil)
}

type zstdDecoder struct{ *zstd.Decoder }

// reset hides every method of src except Read. From the others the decoder would learn that it may
// decode everything ahead, including the garbage after a frame.
func (d zstdDecoder) reset(src *bytes.Reader) error {
	return d.Decoder.Reset(struct{ io.Reader }{src})
}

var deflateDecoders = sync.Pool{New: func() any {
	return deflateDecoder{flate.NewReader(bytes.NewReader(nil))}
}}

var zstdDecoders = sync.Pool{New: func() any {
	// Without concurrency a decoder has no goroutines, so the pool may drop it.
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		panic("qcow2: internal error: zstd decoder: " + err.Error())
	}
	return zstdDecoder{d}
}}

// compressedBuffers holds buffers for compressed clusters as read from the file.
var compressedBuffers = sync.Pool{New: func() any { return new([]byte) }}

// decompress fills p, a whole cluster, from the compressed cluster that e describes; guest is its
// offset on the disk. The data may end before their last sector does. So if the file ends inside
// that sector, this is a fault only if decoding needs the missing bytes. What follows the cluster's
// data is not looked at either.
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

// cluster returns the content of a compressed cluster; the bytes must not be changed.
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
