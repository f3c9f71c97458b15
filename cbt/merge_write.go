package cbt

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"cbt/internal/ordered"
)

const (
	mergeMemory  = 32 << 20 // bytes of payload in all windows together
	mergeWindow  = 8 << 20  // bytes of payload of one window
	mergeExtents = 1 << 14  // extents of one window
)

// WriteMerges writes the merges, one for each stream of h, as a delta to w in one pass. It keeps
// what the merged deltas know of the old content, as far as that says something about the base
// (docs/delta-format.md, section 4). The bytes written depend only on h and the merged deltas.
//
// Memory holds a few windows of at most 8 MiB, and one table of each delta. Of opt it uses Workers,
// Progress and Finish. Chunks are checked as they are read; the caller must check that the deltas
// are whole (Verify).
func WriteMerges(ctx context.Context, w io.Writer, h Header, merges []*Merge, opt Options) (Summary, error) {
	if len(merges) != len(h.Streams) {
		return Summary{}, fmt.Errorf("%d merges for %d streams", len(merges), len(h.Streams))
	}
	for i, m := range merges {
		s, from := h.Streams[i], m.From()
		if m.Size() != s.Size || s.Full != (from == nil) || from != nil && (s.From == nil || *from != *s.From) {
			return Summary{}, fmt.Errorf("stream %s of the header is not what its merge leads to", s.Name)
		}
	}
	return writeStreams(ctx, w, h, opt, func(ctx context.Context, i int, opt Options, emit func(*chunk) error) error {
		return merges[i].repack(ctx, i, opt, emit)
	})
}

// repack emits the chunks that the merge makes of its deltas.
func (m *Merge) repack(ctx context.Context, stream int, opt Options, emit func(*chunk) error) error {
	m = m.sharing()
	size := min(mergeWindow, mergeMemory/int64(opt.Workers+2)&^(BlockSize-1))
	buffers := sync.Pool{New: func() any { b := make([]byte, size); return &b }}
	pack := packer{stream: stream, emit: emit}
	windows := func(ctx context.Context, emit func(*window) error) error { return m.windows(ctx, size, emit) }
	fill := func(ctx context.Context, w *window) (*window, error) {
		if w.data > 0 {
			w.buf = buffers.Get().(*[]byte)
		}
		return w, w.fill(ctx, m.layers)
	}
	err := ordered.Map(ctx, opt.Workers, windows, fill, func(w *window) error {
		if opt.Progress != nil {
			opt.Progress(stream, w.job.end())
		}
		err := pack.add(&w.piece)
		if w.buf != nil {
			buffers.Put(w.buf)
		}
		return err
	})
	if err != nil {
		return err
	}
	return pack.flush()
}

// Effect returns how many bytes of data and how many of zeros WriteTo writes. It reads tables only.
func (m *Merge) Effect(ctx context.Context) (data, zero int64, err error) {
	for w, err := range m.sharing().each(ctx, mergeWindow) {
		if err != nil {
			return 0, 0, err
		}
		for _, e := range w.extents {
			if e.zero {
				zero += e.n
			} else {
				data += e.n
			}
		}
	}
	return data, zero, nil
}

// sharing returns the merge with one cache for all its deltas. The cache is freed when this stream
// is done.
func (m *Merge) sharing() *Merge {
	shared := newDecoded()
	layers := slices.Clone(m.layers)
	for i := range layers {
		d := *layers[i].Delta
		d.cache = shared
		layers[i].Delta = &d
	}
	return &Merge{layers}
}

// window is a part of a merge, in the order of the image: its extents, and where the bytes of those
// with data lie.
type window struct {
	piece
	data int64 // bytes
	from []stored
}

// stored is a run of bytes of one chunk's payload.
type stored struct {
	layer int
	k     uint64
	at    int   // in the payload
	to    int64 // in the window's data
	n     int64
}

// windows emits the whole merge. A window ends when it has size bytes of data, or before it would
// have too many extents. Where it ends does not depend on how many deltas are merged.
func (m *Merge) windows(ctx context.Context, size int64, emit func(*window) error) error {
	s := newSweep(m)
	full := m.From() == nil
	w := &window{}
	flush := func() error {
		if len(w.extents) == 0 {
			return ctx.Err()
		}
		full := w
		w = &window{}
		return emit(full)
	}
	err := s.run(func(lo, hi int64, newest, oldest int) error {
		p := &s.at[newest].part
		for lo < hi {
			e := extent{off: lo, n: hi - lo, zero: p.zero}
			var crc uint32
			if !p.zero {
				e.n = min(e.n, size-w.data)
			}
			if !p.zero && !full && s.at[oldest].checked {
				e.n = min(e.n, BlockSize)
				crc, e.checked = s.check(lo, oldest)
			}
			joined := appendExtent(w.extents, e)
			if len(joined) > mergeExtents {
				if err := flush(); err != nil {
					return err
				}
				joined = []extent{e}
			}
			w.extents = joined
			if !p.zero {
				w.take(newest, p, e)
			}
			if e.checked {
				w.old = append(w.old, crc)
			}
			lo = e.end()
			w.job.off = lo
			if w.data == size {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// take records where the bytes of e lie. p, a part of the given layer, has them.
func (w *window) take(layer int, p *part, e extent) {
	at := p.at + int(e.off-p.off)
	if i := len(w.from) - 1; i >= 0 {
		if l := &w.from[i]; l.layer == layer && l.k == p.k && l.at+int(l.n) == at {
			l.n += e.n
			w.data += e.n
			return
		}
	}
	w.from = append(w.from, stored{layer, p.k, at, w.data, e.n})
	w.data += e.n
}

// fill reads the window's data, decoding each chunk once.
func (w *window) fill(ctx context.Context, layers []Layer) error {
	if w.data == 0 {
		return nil
	}
	w.piece.data = (*w.buf)[:w.data]
	slices.SortFunc(w.from, func(a, b stored) int {
		return cmp.Or(cmp.Compare(a.layer, b.layer), cmp.Compare(a.k, b.k), cmp.Compare(a.at, b.at))
	})
	buf := scanPool.Get().(*chunkBuffers)
	defer scanPool.Put(buf)
	var payload []byte
	for i, s := range w.from {
		if i == 0 || w.from[i-1].layer != s.layer || w.from[i-1].k != s.k {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			d := layers[s.layer].Delta
			t, err := d.table(s.k)
			if err != nil {
				return err
			}
			frame, err := d.frameOf(s.k, t)
			if err != nil {
				return err
			}
			if payload, err = d.decode(&frame, buf.payload[:t.payload], buf.frame); err != nil {
				return err
			}
		}
		copy(w.piece.data[s.to:s.to+s.n], payload[s.at:])
	}
	return nil
}
