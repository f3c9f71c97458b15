package sparse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"cbt/internal/ordered"
)

const (
	// blockSize is the unit, counted from offset 0 of the image, in which contents are compared and
	// checked for zeros.
	blockSize = 4 << 10

	// chunkSize is how much one goroutine reads at once.
	chunkSize = 1 << 20

	// zeroSize is how much is zeroed between two checks of the context.
	zeroSize = 256 << 20
)

// CopyOptions says how to copy. The zero value overwrites whatever the target holds.
type CopyOptions struct {
	// Workers is the number of goroutines that read and write; 0 means
	// GOMAXPROCS.
	Workers int

	// Fresh says that the target already reads as zeros over the whole size of the image, so zeros
	// are left out.
	Fresh bool

	// Compare reads the target first and writes only the 4 KiB blocks that differ. It cannot be
	// used with Fresh.
	Compare bool

	// Progress, if not nil, is called by the goroutine that called Copy, with the number of bytes
	// of the image done so far. The number never falls, and in the end it is the size of the image.
	Progress func(done int64)
}

// CopyStats counts bytes. Written, Zeroed and Skipped add up to the size of the image once all of
// it is copied.
type CopyStats struct {
	Read    int64 // from the image
	Written int64 // as data
	Zeroed  int64 // with Target.Zero
	Skipped int64 // left as the target had them
}

func (s *CopyStats) add(t CopyStats) {
	s.Read += t.Read
	s.Written += t.Written
	s.Zeroed += t.Zeroed
	s.Skipped += t.Skipped
}

// Copy makes the first src.Size() bytes of dst hold src, and leaves what dst has after them. It
// neither grows dst, which must be large enough, nor syncs it. Only Data extents are read. Those of
// their 4 KiB blocks that hold only zeros are treated as holes, so that dst becomes sparse.
//
// Ranges are read and written out of order. Each worker holds at most 1 MiB of the image, and as
// much of the target with Compare. That bounds the memory, whatever the size of the image.
//
// The first error, in the order of the image, ends the copy. It is returned with the counts up to
// then. A short read is an error, and so is a panic of src or dst. After an error the content of
// dst is undefined. When ctx is done, Copy returns its cause.
func Copy(ctx context.Context, dst Target, src View, opt CopyOptions) (CopyStats, error) {
	var total CopyStats
	size := src.Size()
	switch {
	case opt.Fresh && opt.Compare:
		return total, errors.New("copy: a fresh target is not compared")
	case dst.Size() < size:
		return total, fmt.Errorf("copy: an image of %d bytes does not fit in a target of %d", size, dst.Size())
	}
	workers := opt.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}

	c := &copier{dst: dst, src: src, opt: opt, buffers: newBuffers(workers)}
	var done int64
	err := ordered.Map(ctx, workers,
		func(_ context.Context, emit func(Extent) error) error { return c.plan(size, emit) },
		func(_ context.Context, e Extent) (CopyStats, error) { return c.extent(e) },
		func(s CopyStats) error {
			total.add(s)
			if opt.Progress != nil {
				done += s.Written + s.Zeroed + s.Skipped
				opt.Progress(done)
			}
			return nil
		})
	return total, err
}

type copier struct {
	dst     Target
	src     View
	opt     CopyOptions
	buffers buffers
}

// plan cuts the image into jobs.
func (c *copier) plan(size int64, emit func(Extent) error) error {
	for e, err := range c.src.Extents(0, size) {
		if err != nil {
			return err
		}
		for e.Len > 0 {
			job := Extent{e.Off, c.jobLen(e), e.Kind}
			if err := emit(job); err != nil {
				return err
			}
			e.Off, e.Len = job.End(), e.Len-job.Len
		}
	}
	return nil
}

// jobLen returns how much of e is one job: up to the next multiple of a step.
func (c *copier) jobLen(e Extent) int64 {
	step := int64(chunkSize)
	if e.Kind.ReadsZero() && !c.opt.Compare {
		if c.opt.Fresh {
			return e.Len
		}
		step = zeroSize
	}
	return min(e.Len, step-e.Off%step)
}

func (c *copier) extent(e Extent) (s CopyStats, err error) {
	zero := e.Kind.ReadsZero()
	switch {
	case zero && c.opt.Fresh:
		s.Skipped = e.Len
		return s, nil
	case zero && !c.opt.Compare:
		return s, c.put(toZero, nil, e.Off, e.Len, &s)
	}

	b := c.buffers.get()
	defer c.buffers.put(b)
	var want, have []byte
	if !zero {
		if want, err = b.read(0, c.src, e.Off, e.Len); err != nil {
			return s, err
		}
		s.Read = e.Len
	}
	if c.opt.Compare {
		if have, err = b.read(1, c.dst, e.Off, e.Len); err != nil {
			return s, fmt.Errorf("target: %w", err)
		}
	}
	return s, c.blocks(want, have, e.Off, e.Len, &s)
}

// A verdict is what is done with a block.
type verdict int

const (
	toSkip verdict = iota
	toZero
	toWrite
)

// judge decides on a block that must hold want (nil: zeros) and holds have (nil: unknown).
func (c *copier) judge(want, have []byte) verdict {
	zero := want == nil || IsZero(want)
	switch {
	case zero && (c.opt.Fresh || have != nil && IsZero(have)):
		return toSkip
	case zero:
		return toZero
	case have != nil && bytes.Equal(want, have):
		return toSkip
	}
	return toWrite
}

// blocks judges each block of [off, off+n), and carries out runs of one verdict at once.
func (c *copier) blocks(want, have []byte, off, n int64, s *CopyStats) error {
	part := func(p []byte, from, to int64) []byte {
		if p == nil {
			return nil
		}
		return p[from:to]
	}
	run, start := toSkip, int64(0)
	for from := int64(0); from < n; {
		to := min(n, from+blockSize-(off+from)%blockSize)
		v := c.judge(part(want, from, to), part(have, from, to))
		if v != run {
			if err := c.put(run, part(want, start, from), off+start, from-start, s); err != nil {
				return err
			}
			run, start = v, from
		}
		from = to
	}
	return c.put(run, part(want, start, n), off+start, n-start, s)
}

// put carries out a verdict on [off, off+n).
func (c *copier) put(v verdict, p []byte, off, n int64, s *CopyStats) error {
	switch {
	case n == 0:
	case v == toSkip:
		s.Skipped += n
	case v == toZero:
		if err := c.dst.Zero(off, n); err != nil {
			return err
		}
		s.Zeroed += n
	default:
		if err := writeFull(c.dst, p, off); err != nil {
			return fmt.Errorf("write of %d bytes at %d: %w", n, off, err)
		}
		s.Written += n
	}
	return nil
}

// buffers are handed from worker to worker. Their memory is allocated when first needed.
type buffers chan *buffer

type buffer [2][]byte

func newBuffers(n int) buffers {
	b := make(buffers, n)
	for range n {
		b <- new(buffer)
	}
	return b
}

func (b buffers) get() *buffer  { return <-b }
func (b buffers) put(p *buffer) { b <- p }

// read fills the i-th part of the buffer with n bytes of r.
func (b *buffer) read(i int, r io.ReaderAt, off, n int64) ([]byte, error) {
	if b[i] == nil {
		b[i] = make([]byte, chunkSize)
	}
	p := b[i][:n]
	if got, err := ReadFull(r, p, off); err != nil {
		return nil, fmt.Errorf("read of %d bytes at %d, after %d: %w", n, off, got, err)
	}
	return p, nil
}
