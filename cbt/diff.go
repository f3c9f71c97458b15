package cbt

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"

	"cbt/internal/ordered"
	"cbt/sparse"
)

// Source is where one stream of a delta comes from.
type Source struct {
	// New is the image at B. Its size must be the stream's.
	New sparse.View
	// Old is the image at A; nil if the stream is full or the bytes of A are not available. Its
	// size must be the stream's From.Size.
	Old sparse.View
	// Changed yields the changed extents with the kinds of New. Outside them the two images must be
	// equal; inside them they may be. For a full stream it is nil.
	Changed sparse.Seq
}

// Options tunes Write.
type Options struct {
	// Workers is how many goroutines read, compare and compress. The default is GOMAXPROCS, at most
	// 16. Each takes about 5 MiB of memory.
	Workers int
	// NoRefine takes the changed extents as they are: old bytes are not read, and nothing is
	// checked.
	NoRefine bool
	// Progress, if not nil, is called now and then from one goroutine. All bytes of the stream
	// before offset done have then been handled.
	Progress func(stream int, done int64)
	// Finish, if not nil, is called once everything was read and written, before the trailer makes
	// it a delta. So sources can be looked at again: if Finish returns an error, no trailer is
	// written.
	Finish func() error
}

const (
	maxWorkers = 16
	jobSize    = 512 << 10 // bytes of an image that one goroutine reads at a time
)

// Write reads the sources, one for each stream of h, and writes a delta to w in one pass. The bytes
// written depend only on h, the content of the images, and what the sources' Changed name. If ctx
// ends or an error occurs, what was written is not a delta: it has no trailer.
//
// Several goroutines read the sources at once; only the caller's writes to w. If Header.Validate
// refuses h, or the sources do not fit it, Write returns an error before it writes anything. Errors
// of the sources, of w and of Options.Finish are passed on, and the cause of ctx when it is done.
func Write(ctx context.Context, w io.Writer, h Header, sources []Source, opt Options) (Summary, error) {
	if err := checkSources(&h, sources); err != nil {
		return Summary{}, err
	}
	return writeStreams(ctx, w, h, opt, func(ctx context.Context, i int, opt Options, emit func(*chunk) error) error {
		return readStream(ctx, i, &h.Streams[i], sources[i], opt, emit)
	})
}

// writeStreams writes a delta of the chunks that read emits, one stream after the other. In the opt
// that read gets, Workers is filled in.
func writeStreams(ctx context.Context, w io.Writer, h Header, opt Options, read func(ctx context.Context, stream int, opt Options, emit func(*chunk) error) error) (Summary, error) {
	if opt.Workers <= 0 {
		opt.Workers = min(runtime.GOMAXPROCS(0), maxWorkers)
	}
	dw, err := newWriter(w, h)
	if err != nil {
		return Summary{}, err
	}
	defer dw.index.close()

	all := func(ctx context.Context, emit func(*chunk) error) error {
		for i := range h.Streams {
			if err := read(ctx, i, opt, emit); err != nil {
				return err
			}
		}
		return nil
	}
	err = ordered.Map(ctx, opt.Workers, all, compress, func(c *chunk) error {
		defer c.release()
		return dw.chunk(&c.table, c.frame)
	})
	if err == nil && opt.Finish != nil {
		err = opt.Finish()
	}
	if err != nil {
		return Summary{}, err
	}
	return dw.close()
}

func checkSources(h *Header, sources []Source) error {
	if err := h.Validate(); err != nil {
		return err
	}
	if len(sources) != len(h.Streams) {
		return fmt.Errorf("%d sources for %d streams", len(sources), len(h.Streams))
	}
	for i, s := range h.Streams {
		src := sources[i]
		switch {
		case src.New.Size() != s.Size:
			return fmt.Errorf("stream %s: image has %d bytes, header says %d", s.Name, src.New.Size(), s.Size)
		case s.Full && (src.Old != nil || src.Changed != nil):
			return fmt.Errorf("stream %s is full and has an old image", s.Name)
		case !s.Full && src.Changed == nil:
			return fmt.Errorf("stream %s has no changed extents", s.Name)
		case src.Old != nil && src.Old.Size() != s.From.Size:
			return fmt.Errorf("stream %s: old image has %d bytes, header says %d", s.Name, src.Old.Size(), s.From.Size)
		}
	}
	return nil
}

// readStream reads and compares one image and emits its chunks.
func readStream(ctx context.Context, stream int, s *Stream, src Source, opt Options, emit func(*chunk) error) error {
	grown := s.growth()
	if grown < s.Size {
		grown = floorBlock(grown)
	}
	todo := src.Changed
	if s.Full {
		todo = src.New.Extents(0, s.Size)
	} else if grown < s.Size {
		todo = sparse.Overlay(sparse.Clip(todo, 0, grown), src.New.Extents(grown, s.Size-grown))
	}
	old := src.Old
	if opt.NoRefine {
		old = nil
	}
	if old != nil {
		old = sparse.Resize(old, s.Size)
	}

	pack := packer{stream: stream, emit: emit}
	jobs := func(ctx context.Context, emit func(extent) error) error {
		for e, err := range wholeBlocks(todo, s.Size) {
			if err != nil {
				return err
			}
			if e.Kind == sparse.Zero {
				if err := zeroJobs(e, old, grown, emit); err != nil {
					return err
				}
				continue
			}
			for e.Len > 0 {
				n := min(e.Len, jobSize-e.Off%jobSize)
				if err := emit(extent{off: e.Off, n: n}); err != nil {
					return err
				}
				e.Off, e.Len = e.Off+n, e.Len-n
			}
		}
		return nil
	}
	work := func(ctx context.Context, job extent) (*piece, error) {
		return compareBlocks(job, src.New, old, grown)
	}
	err := ordered.Map(ctx, opt.Workers, jobs, work, func(p *piece) error {
		defer p.release()
		if opt.Progress != nil {
			opt.Progress(stream, p.job.end())
		}
		return pack.add(p)
	})
	if err != nil {
		return err
	}
	return pack.flush()
}

// zeroJobs emits the parts of a zero extent that are not zeros at A already: all of it if there is
// no old image, and everything by which the image grew.
func zeroJobs(e sparse.Extent, old sparse.View, grown int64, emit func(extent) error) error {
	kept := e.Clip(0, grown)
	if old == nil {
		kept = sparse.Extent{Off: e.Off}
	}
	if kept.Len > 0 {
		stored := sparse.Select(old.Extents(kept.Off, kept.Len), func(e sparse.Extent) bool { return e.Kind == sparse.Data })
		for x, err := range wholeBlocks(stored, old.Size()) {
			if err != nil {
				return err
			}
			x = x.Clip(kept.Off, kept.End())
			if err := emit(extent{off: x.Off, n: x.Len, zero: true}); err != nil {
				return err
			}
		}
	}
	if rest := e.Clip(max(e.Off, kept.End()), e.End()); rest.Len > 0 {
		return emit(extent{off: rest.Off, n: rest.Len, zero: true})
	}
	return nil
}

// piece is what one job found: extents, the data of those that have data, and
// the CRCs of the old blocks of those that are checked.
type piece struct {
	job     extent
	extents []extent
	data    []byte
	old     []uint32
	buf     *[]byte
}

var jobBuffers = sync.Pool{New: func() any { b := make([]byte, 2*jobSize); return &b }}

func (p *piece) release() {
	if p.buf != nil {
		jobBuffers.Put(p.buf)
	}
}

// compareBlocks reads a job and keeps the blocks that differ from old. It keeps all of them if
// there is no old image, and those by which the image grew. Blocks of zeros become zero extents.
func compareBlocks(job extent, img, old sparse.View, grown int64) (*piece, error) {
	p := &piece{job: job}
	if job.zero {
		p.extents = []extent{job}
		return p, nil
	}
	p.buf = jobBuffers.Get().(*[]byte)
	now, was := (*p.buf)[:job.n], (*p.buf)[jobSize:jobSize+job.n]
	if _, err := sparse.ReadFull(img, now, job.off); err != nil {
		p.release()
		return nil, fmt.Errorf("reading %d bytes at offset %d: %w", job.n, job.off, err)
	}
	if old != nil {
		if _, err := sparse.ReadFull(old, was, job.off); err != nil {
			p.release()
			return nil, fmt.Errorf("reading %d bytes at offset %d of the old image: %w", job.n, job.off, err)
		}
	}
	p.data = now[:0]
	for at := int64(0); at < job.n; at += BlockSize {
		end := min(at+BlockSize, job.n)
		block, off := now[at:end], job.off+at
		if old != nil && off < grown && bytes.Equal(block, was[at:end]) {
			continue
		}
		e := extent{off: off, n: end - at, zero: sparse.IsZero(block)}
		e.checked = !e.zero && old != nil
		if !e.zero {
			p.data = append(p.data, block...)
		}
		if e.checked {
			p.old = append(p.old, crcOf(was[at:end]))
		}
		p.extents = appendExtent(p.extents, e)
	}
	return p, nil
}

// appendExtent appends e, or joins it with the last extent if they touch and are of one kind.
func appendExtent(list []extent, e extent) []extent {
	if n := len(list); n > 0 {
		l := &list[n-1]
		if l.end() == e.off && l.zero == e.zero && l.checked == e.checked && e.n <= maxExtentLen-l.n {
			l.n += e.n
			return list
		}
	}
	return append(list, e)
}
