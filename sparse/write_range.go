package sparse

import (
	"context"
	"io"
	"runtime"
	"sync"

	"cbt/internal/ordered"
)

// rangeChunk is how many bytes are read at once.
const rangeChunk = 1 << 20

var zeroChunk [64 << 10]byte

// WriteRange writes the bytes [off, off+n) of v to w, in order. It reads ahead with as many
// goroutines as there are processors, and holds a few MiB. It calls progress with the number of
// bytes of each write. If ctx ends, its cause is returned.
func WriteRange(ctx context.Context, w io.Writer, v View, off, n int64, progress func(n int64)) error {
	buffers := sync.Pool{New: func() any { return new([rangeChunk]byte) }}
	type chunk struct {
		Extent
		buf *[rangeChunk]byte
	}
	return ordered.Map(ctx, runtime.GOMAXPROCS(0),
		func(_ context.Context, emit func(Extent) error) error {
			for e, err := range v.Extents(off, n) {
				if err != nil {
					return err
				}
				for e.Len > 0 {
					part := e
					if !e.Kind.ReadsZero() {
						part.Len = min(e.Len, rangeChunk)
					}
					if err := emit(part); err != nil {
						return err
					}
					e.Off, e.Len = part.End(), e.Len-part.Len
				}
			}
			return nil
		},
		func(_ context.Context, e Extent) (chunk, error) {
			if e.Kind.ReadsZero() {
				return chunk{Extent: e}, nil
			}
			c := chunk{e, buffers.Get().(*[rangeChunk]byte)}
			_, err := ReadFull(v, c.buf[:e.Len], e.Off)
			return c, err
		},
		func(c chunk) error {
			if c.buf == nil {
				return streamZeros(ctx, w, c.Len, progress)
			}
			defer buffers.Put(c.buf)
			_, err := w.Write(c.buf[:c.Len])
			progress(c.Len)
			return err
		})
}

func streamZeros(ctx context.Context, w io.Writer, n int64, progress func(n int64)) error {
	for n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		part := min(n, int64(len(zeroChunk)))
		if _, err := w.Write(zeroChunk[:part]); err != nil {
			return err
		}
		progress(part)
		n -= part
	}
	return nil
}
