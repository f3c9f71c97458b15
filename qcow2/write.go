package qcow2

import (
	"context"
	"fmt"
	"io"
	"math/bits"
	"runtime"
	"sync"

	"cbt/internal/ordered"
	"cbt/sparse"
)

// WriteOptions sets how Write lays out an image. The zero value gives what qemu-img create gives
// without options.
type WriteOptions struct {
	// ClusterSize is a power of two from 512 bytes to 2 MiB; 0 means 64 KiB.
	ClusterSize int64
	// Workers is the number of goroutines that read the view; 0 means GOMAXPROCS. It has no effect
	// on the image.
	Workers int
	// Progress, if not nil, is called with the guest offset up to which the view has been written.
	// The offsets ascend, and the last one is v.Size(). It is called from the goroutine that called
	// Write.
	Progress func(done int64)
}

// Write stores v in w as a qcow2 image of version 3, without a backing file and without snapshots.
// w must be empty: what Write leaves out must read as zeros. Guest clusters that hold only zeros
// stay unallocated, whatever kind v gives them. The same content always gives the same bytes.
//
// The virtual size is v.Size() rounded up to 512 bytes, as qemu-img does it: QEMU counts sectors
// and would not show the rest of the last one.
//
// The header is written last, so an interrupted Write leaves no valid qcow2 image. Write does not
// sync. It holds one L2 table, the L1 table and a few MiB in memory. It returns an error if the
// image exceeds QEMU's limits for its tables at this cluster size: 32 MiB of L1 table and 8 MiB of
// refcount table.
func Write(ctx context.Context, w io.WriterAt, v sparse.View, opt WriteOptions) error {
	out, err := newImageWriter(w, v.Size(), opt.ClusterSize)
	if err != nil {
		return err
	}
	workers := opt.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	chunkSize := max(writeChunk, out.cluster)
	buffers := sync.Pool{New: func() any {
		b := make([]byte, chunkSize)
		return &b
	}}
	err = ordered.Map(ctx, workers,
		func(ctx context.Context, emit func(span) error) error {
			return dataChunks(v, out.cluster, chunkSize, emit)
		},
		func(ctx context.Context, s span) (*chunk, error) {
			return readChunk(v, s, out.cluster, buffers.Get().(*[]byte))
		},
		func(c *chunk) error {
			defer buffers.Put(c.buf)
			if err := out.put(c); err != nil {
				return err
			}
			if opt.Progress != nil {
				opt.Progress(c.span.off + c.span.len)
			}
			return nil
		})
	if err != nil {
		return err
	}
	if err := out.finish(); err != nil {
		return err
	}
	if opt.Progress != nil {
		opt.Progress(v.Size())
	}
	return nil
}

// writeChunk is how many bytes a worker reads at once, unless clusters are larger.
const writeChunk = 1 << 20

// span is a run of guest bytes that starts at a cluster boundary.
type span struct{ off, len int64 }

// chunk is the content of a span: whole clusters, the last one padded with zeros.
type chunk struct {
	span span
	buf  *[]byte
	data []byte // (*buf)[:whole clusters]
	zero []bool // for each cluster, whether it is all zeros
}

// dataChunks emits the clusters in which v has data, in spans that do not cross a multiple of
// chunkSize.
func dataChunks(v sparse.View, cluster, chunkSize int64, emit func(span) error) error {
	size, done := v.Size(), int64(0)
	for e, err := range v.Extents(0, size) {
		if err != nil {
			return err
		}
		if e.Kind.ReadsZero() {
			continue
		}
		// Two extents may share a cluster: everything before done has been emitted.
		pos := max(e.Off&^(cluster-1), done)
		end := size
		if e.End() < size-cluster {
			end = roundUp(e.End(), cluster)
		}
		for pos < end {
			n := min(end-pos, chunkSize-pos%chunkSize)
			if err := emit(span{pos, n}); err != nil {
				return err
			}
			pos += n
		}
		done = max(done, pos)
	}
	return nil
}

func readChunk(v sparse.View, s span, cluster int64, buf *[]byte) (*chunk, error) {
	c := &chunk{span: s, buf: buf, data: (*buf)[:roundUp(s.len, cluster)]}
	if _, err := sparse.ReadFull(v, c.data[:s.len], s.off); err != nil {
		return nil, fmt.Errorf("read %d bytes at %d: %w", s.len, s.off, err)
	}
	clear(c.data[s.len:])
	c.zero = make([]bool, int64(len(c.data))/cluster)
	for i := range c.zero {
		c.zero[i] = sparse.IsZero(c.data[int64(i)*cluster : int64(i+1)*cluster])
	}
	return c, nil
}

// roundUp rounds n up to a multiple of unit, a power of two.
func roundUp(n, unit int64) int64 { return (n + unit - 1) &^ (unit - 1) }

// log2 returns the binary logarithm of n, a power of two.
func log2(n int64) int { return bits.TrailingZeros64(uint64(n)) }
