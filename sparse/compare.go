package sparse

import (
	"bytes"
	"context"
	"iter"
	"math"
	"runtime"

	"cbt/internal/ordered"
)

// Compare reads the images a and b and yields where they differ: the extents of b in those 4 KiB
// blocks of [off, off+n) that hold different bytes. Blocks count from offset 0 of the image.
// Neighbours are joined. A block is read only where one of the two has Data.
//
// The range may reach up to the larger of the two sizes. What only b has counts as different, read
// or not; what only a has yields nothing.
//
// GOMAXPROCS goroutines read ahead, each at most 1 MiB of either image. They end when the loop over
// the sequence does. A failed or short read ends the sequence as its error, and so does a panic of
// a view in one of them.
func Compare(a, b View, off, n int64) Seq {
	if err := CheckRange(off, n, max(a.Size(), b.Size())); err != nil {
		return Fail(err)
	}
	asked := Extent{Off: off, Len: n}
	both, onlyB := asked.Clip(0, min(a.Size(), b.Size())), asked.Clip(a.Size(), b.Size())
	return Coalesce(func(yield func(Extent, error) bool) {
		if both.Len > 0 {
			for e, err := range Intersect(b.Extents(both.Off, both.Len), differing(a, b, both)) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
		if onlyB.Len > 0 {
			b.Extents(onlyB.Off, onlyB.Len)(yield)
		}
	})
}

// differing yields the blocks of r, which both images have, whose bytes differ.
func differing(a, b View, r Extent) Seq {
	return func(yield func(Extent, error) bool) {
		ctx, cancel := context.WithCancel(context.Background())
		results := make(chan []Extent)
		var err error
		go func() {
			defer close(results)
			err = compareAll(ctx, a, b, r, func(diff []Extent) error {
				select {
				case results <- diff:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		}()
		defer func() {
			cancel()
			for range results {
			}
		}()
		for diff := range results {
			for _, e := range diff {
				if !yield(e, nil) {
					return
				}
			}
		}
		if err != nil {
			yield(Extent{}, err)
		}
	}
}

// comparison is a part of one chunk. In all of it a side has data, or in none of it.
type comparison struct {
	off, n int64
	data   [2]bool
}

func compareAll(ctx context.Context, a, b View, r Extent, found func([]Extent) error) error {
	workers := runtime.GOMAXPROCS(0)
	bufs := newBuffers(workers)
	views := [2]View{a, b}
	return ordered.Map(ctx, workers,
		func(_ context.Context, emit func(comparison) error) error { return planComparison(views, r, emit) },
		func(_ context.Context, c comparison) (diff []Extent, err error) {
			buf := bufs.get()
			defer bufs.put(buf)
			var p [2][]byte
			for i, v := range views {
				if c.data[i] {
					if p[i], err = buf.read(i, v, c.off, c.n); err != nil {
						return nil, err
					}
				}
			}
			return c.differ(p[0], p[1]), nil
		}, found)
}

// differ compares p and q block by block. A side without data is nil.
func (c comparison) differ(p, q []byte) (diff []Extent) {
	if p == nil {
		p, q = q, nil
	}
	for from := int64(0); from < c.n; {
		to := min(c.n, from+blockSize-(c.off+from)%blockSize)
		same := false
		if q == nil {
			same = IsZero(p[from:to])
		} else {
			same = bytes.Equal(p[from:to], q[from:to])
		}
		if !same {
			e := Extent{Off: c.off + from, Len: to - from, Kind: Data}
			if last := len(diff) - 1; last >= 0 && diff[last].End() == e.Off {
				diff[last].Len += e.Len
			} else {
				diff = append(diff, e)
			}
		}
		from = to
	}
	return diff
}

// planComparison walks through the data of both sides at once and emits what to compare.
func planComparison(views [2]View, r Extent, emit func(comparison) error) error {
	var side [2]cursor
	for i, v := range views {
		next, stop := iter.Pull2(dataBlocks(v, r))
		defer stop()
		side[i] = cursor{next: next}
	}
	for pos := r.Off; pos < r.End(); {
		for i := range side {
			if err := side[i].skipTo(pos); err != nil {
				return err
			}
		}
		pos = max(pos, min(side[0].at.Off, side[1].at.Off))
		if pos >= r.End() {
			break
		}
		c := comparison{off: pos}
		stop := pos + min(r.End()-pos, chunkSize-pos%chunkSize)
		for i := range side {
			if e := side[i].at; e.Off <= pos {
				c.data[i] = true
				stop = min(stop, e.End())
			} else {
				stop = min(stop, e.Off)
			}
		}
		c.n = stop - pos
		if err := emit(c); err != nil {
			return err
		}
		pos = stop
	}
	return nil
}

// cursor is a place in a sequence.
type cursor struct {
	next func() (Extent, error, bool)
	at   Extent // empty at first, past everything in the end
}

// skipTo goes on to the first extent that ends after pos.
func (c *cursor) skipTo(pos int64) error {
	for c.at.End() <= pos {
		e, err, ok := c.next()
		if err != nil {
			return err
		}
		if !ok {
			e = Extent{Off: math.MaxInt64}
		}
		c.at = e
	}
	return nil
}

// dataBlocks yields the data of v inside r, widened to whole blocks.
func dataBlocks(v View, r Extent) Seq {
	return Coalesce(func(yield func(Extent, error) bool) {
		pos := r.Off
		for e, err := range v.Extents(r.Off, r.Len) {
			if err != nil {
				yield(Extent{}, err)
				return
			}
			if e.Kind != Data {
				continue
			}
			start := max(pos, e.Off-e.Off%blockSize)
			end := e.End() + min(r.End()-e.End(), -e.End()&(blockSize-1))
			if end > start {
				if !yield(Extent{start, end - start, Data}, nil) {
					return
				}
				pos = end
			}
		}
	})
}
