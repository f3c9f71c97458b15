package cbt

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"

	"cbt/internal/ordered"
	"cbt/sparse"
)

// ApplyOptions tunes CheckBase and WriteTo.
type ApplyOptions struct {
	Workers int // as in Options
	// Fresh: the target reads as zeros, so zero extents need no writing.
	Fresh bool
	// Compare reads the target first and writes only blocks that differ.
	Compare bool
	// CompareZeros does the same for zero extents. Leave it off where zeroing is cheap, as on a
	// file with holes.
	CompareZeros bool
	// Was, if not nil, is the target as it was before anything was written to it. Zeros are then
	// not written where it has holes or zeros. Only its extents are asked for, never its bytes.
	Was sparse.View
	// Progress is called with the number of payload bytes handled so far.
	Progress func(done int64)
}

func (o *ApplyOptions) workers() int {
	if o.Workers > 0 {
		return o.Workers
	}
	return min(runtime.GOMAXPROCS(0), maxWorkers)
}

// ApplyStats counts bytes of the target.
type ApplyStats struct {
	Read    int64 // read from the target
	Written int64 // data
	Zeroed  int64 // zeroed by Target.Zero
	Same    int64 // left alone because they were right already
	Checked int64 // compared with the base by their CRC
}

// Add adds t to s.
func (s *ApplyStats) Add(t ApplyStats) {
	s.Read += t.Read
	s.Written += t.Written
	s.Zeroed += t.Zeroed
	s.Same += t.Same
	s.Checked += t.Checked
}

// BaseMismatchError says where a target differs from what the delta's base held: it is not at the
// point that it is believed to be at.
type BaseMismatchError struct {
	Stream string
	Off    int64 // of the block, in the image
}

func (e *BaseMismatchError) Error() string {
	return fmt.Sprintf("wrong base: the block of %s at offset %d is not what the delta was made from", e.Stream, e.Off)
}

// CheckBase compares every checked block that the merge would overwrite with its CRC and writes
// nothing. It returns a *BaseMismatchError for the first block that differs. It does not look at
// blocks that the merge leaves alone, nor at unchecked ones.
func (m *Merge) CheckBase(ctx context.Context, target io.ReaderAt, opt ApplyOptions) (ApplyStats, error) {
	var total ApplyStats
	check := func(ctx context.Context, w *work) (ApplyStats, error) { return w.check(target) }
	err := ordered.Map(ctx, opt.workers(), m.first, check, func(s ApplyStats) error {
		total.Add(s)
		return nil
	})
	return total, err
}

// check compares the checked parts of one chunk with the target. The first w.base bytes of the
// target are the base; past them the base counts as zeros.
func (w *work) check(target io.ReaderAt) (ApplyStats, error) {
	var st ApplyStats
	buf := jobBuffers.Get().(*[]byte)
	defer jobBuffers.Put(buf)
	for _, p := range w.parts {
		if !p.checked {
			continue
		}
		for at := int64(0); at < p.n; at += jobSize {
			b := (*buf)[:min(jobSize, p.n-at)]
			off := p.off + at
			inside := b[:max(0, min(int64(len(b)), w.base-off))]
			if _, err := sparse.ReadFull(target, inside, off); err != nil {
				return st, fmt.Errorf("reading %d bytes at offset %d of the target: %w", len(inside), off, err)
			}
			clear(b[len(inside):])
			st.Read += int64(len(inside))
			for n := 0; n < len(b); n += BlockSize {
				block := b[n:min(n+BlockSize, len(b))]
				if crcOf(block) != w.table.old[p.check+int(at+int64(n))/BlockSize] {
					return st, &BaseMismatchError{w.layer.stream().Name, off + int64(n)}
				}
				st.Checked += int64(len(block))
			}
		}
	}
	return st, nil
}

// WriteTo writes the merge into target. A target that is a file becomes as large as the image.
// WriteTo does not sync. After an error or the end of ctx the target is half written; calling it
// again with the same deltas completes it.
func (m *Merge) WriteTo(ctx context.Context, target sparse.Target, opt ApplyOptions) (ApplyStats, error) {
	var total ApplyStats
	var done int64
	if target.Size() < m.Size() {
		if err := target.Truncate(m.Size()); err != nil {
			return total, err
		}
	}
	write := func(ctx context.Context, w *work) (written, error) {
		st, err := w.write(ctx, target, opt)
		return written{st, int64(w.table.payload)}, err
	}
	err := ordered.Map(ctx, opt.workers(), m.visible, write, func(w written) error {
		total.Add(w.ApplyStats)
		done += w.payload
		if opt.Progress != nil {
			opt.Progress(done)
		}
		return nil
	})
	if err != nil {
		return total, err
	}
	return total, target.Truncate(m.Size())
}

type written struct {
	ApplyStats
	payload int64
}

// write writes the parts of one chunk.
func (w *work) write(ctx context.Context, target sparse.Target, opt ApplyOptions) (ApplyStats, error) {
	var st ApplyStats
	var payload []byte
	for _, p := range w.parts {
		if p.zero {
			if opt.Fresh {
				continue
			}
			zero := zeroPart
			if opt.Was != nil && !opt.CompareZeros {
				zero = opt.zeroStored
			}
			if err := zero(ctx, target, p, opt.CompareZeros, &st); err != nil {
				return st, err
			}
			continue
		}
		if payload == nil {
			buf := scanPool.Get().(*chunkBuffers)
			defer scanPool.Put(buf)
			frame, err := w.layer.Delta.frameOf(w.k, w.table)
			if err != nil {
				return st, err
			}
			if payload, err = w.layer.Delta.decode(&frame, buf.payload[:w.table.payload], buf.frame); err != nil {
				return st, err
			}
		}
		if err := writePart(target, p, payload[p.at:p.at+int(p.n)], opt.Compare, &st); err != nil {
			return st, err
		}
	}
	return st, nil
}

// writePart writes data at p, or only the blocks of it that differ.
func writePart(target sparse.Target, p part, data []byte, compare bool, st *ApplyStats) error {
	put := func(lo, hi int64) error {
		if lo == hi {
			return nil
		}
		_, err := target.WriteAt(data[lo:hi], p.off+lo)
		st.Written += hi - lo
		return err
	}
	if !compare {
		return put(0, p.n)
	}
	buf := jobBuffers.Get().(*[]byte)
	defer jobBuffers.Put(buf)
	dirty := int64(0) // start of the run of differing blocks
	for at := int64(0); at < p.n; at += jobSize {
		was := (*buf)[:min(jobSize, p.n-at)]
		if _, err := sparse.ReadFull(target, was, p.off+at); err != nil {
			return fmt.Errorf("reading %d bytes at offset %d of the target: %w", len(was), p.off+at, err)
		}
		st.Read += int64(len(was))
		for n := int64(0); n < int64(len(was)); n += BlockSize {
			end := min(n+BlockSize, int64(len(was)))
			if !bytes.Equal(was[n:end], data[at+n:at+end]) {
				continue
			}
			if err := put(dirty, at+n); err != nil {
				return err
			}
			st.Same += end - n
			dirty = at + end
		}
	}
	return put(dirty, p.n)
}

const (
	zeroStep     = 1 << 30 // bytes zeroed between two checks of ctx
	zeroCompared = 1 << 20 // bytes read together, and zeroed if not all are zero
)

// zeroStored zeroes those parts of p in which the target had data stored. Its holes, and all bytes
// past its end, are zeros already.
func (o *ApplyOptions) zeroStored(ctx context.Context, target sparse.Target, p part, _ bool, st *ApplyStats) error {
	inside := max(0, min(p.n, o.Was.Size()-p.off))
	st.Same += p.n - inside
	if inside == 0 {
		return nil
	}
	for e, err := range o.Was.Extents(p.off, inside) {
		switch {
		case err != nil:
			return err
		case e.Kind != sparse.Data:
			st.Same += e.Len
			continue
		}
		stored := p
		stored.off, stored.n = e.Off, e.Len
		if err := zeroPart(ctx, target, stored, false, st); err != nil {
			return err
		}
	}
	return nil
}

// zeroPart zeroes p, or with compare only the megabytes of it that are not zero.
func zeroPart(ctx context.Context, target sparse.Target, p part, compare bool, st *ApplyStats) error {
	step := int64(zeroStep)
	var buf *[]byte
	if compare {
		step = zeroCompared
		buf = jobBuffers.Get().(*[]byte)
		defer jobBuffers.Put(buf)
	}
	for p.n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := min(p.n, step)
		zero := false
		if compare {
			b := (*buf)[:n]
			if _, err := sparse.ReadFull(target, b, p.off); err != nil {
				return fmt.Errorf("reading %d bytes at offset %d of the target: %w", n, p.off, err)
			}
			st.Read += n
			zero = sparse.IsZero(b)
		}
		if zero {
			st.Same += n
		} else {
			if err := target.Zero(p.off, n); err != nil {
				return err
			}
			st.Zeroed += n
		}
		p.off, p.n = p.off+n, p.n-n
	}
	return nil
}
