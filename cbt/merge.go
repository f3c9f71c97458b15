package cbt

import (
	"context"
	"fmt"
	"iter"

	"cbt/sparse"
)

// Merge is several deltas of one stream seen as one: each block goes from
// what it was before the first to what it is after the last.
type Merge struct {
	layers []Layer // oldest first
}

// NewMerge checks that the layers, oldest first, follow one another. The first
// one may be full.
func NewMerge(layers ...Layer) (*Merge, error) {
	if len(layers) == 0 {
		return nil, fmt.Errorf("no delta")
	}
	for i := 1; i < len(layers); i++ {
		if err := links(layers[i-1].stream(), layers[i].stream()); err != nil {
			return nil, err
		}
	}
	return &Merge{layers}, nil
}

// From is what the merge is to be written over; nil if it covers every byte.
func (m *Merge) From() *Base { return m.layers[0].stream().From }

// Size is the size of the image after the merge, in bytes.
func (m *Merge) Size() int64 { return m.layers[len(m.layers)-1].stream().Size }

// Payload is how many bytes WriteTo will have decoded when it is done.
func (m *Merge) Payload() int64 {
	var n int64
	for _, l := range m.layers {
		n += l.Delta.Totals()[l.Stream].Data
	}
	return n
}

// work is what is left of one chunk once everything that other layers hide is
// taken away.
type work struct {
	layer Layer
	k     uint64
	table *table
	parts []part
}

// visible yields what of layer i can be seen from above, ascending: not what a
// newer layer covers, nor what one has cut off.
func (m *Merge) visible(i int) iter.Seq2[part, error] {
	limit := m.layers[i].stream().Size
	covered := sparse.Of()
	for _, l := range m.layers[i+1:] {
		limit = min(limit, l.stream().Size)
		covered = sparse.Overlay(l.Delta.extents(l.Stream, 0, l.stream().Size), covered)
	}
	l := m.layers[i]
	return without(l.Delta.parts(l.Stream, 0, limit), covered)
}

// first yields what of layer i says something about the base: not what an
// older layer has written, nor what one has cut off.
func (m *Merge) first(i int) iter.Seq2[part, error] {
	covered := sparse.Of()
	for _, l := range m.layers[:i] {
		covered = sparse.Overlay(l.Delta.extents(l.Stream, 0, l.stream().Size), covered)
	}
	l := m.layers[i]
	return without(l.Delta.parts(l.Stream, 0, m.baseLimit(i)), covered)
}

// baseLimit is how much of the base is still there when layer i comes.
func (m *Merge) baseLimit(i int) int64 {
	if m.From() == nil {
		return 0
	}
	limit := m.From().Size
	for _, l := range m.layers[:i] {
		limit = min(limit, l.stream().Size)
	}
	return limit
}

// without cuts out of parts what covered holds.
func without(parts iter.Seq2[part, error], covered sparse.Seq) iter.Seq2[part, error] {
	return func(yield func(part, error) bool) {
		next, stop := iter.Pull2(covered)
		defer stop()
		c, err, ok := next()
		for p, perr := range parts {
			if perr != nil {
				yield(part{}, perr)
				return
			}
			pos := p.off
			for pos < p.end() {
				for ok && err == nil && c.End() <= pos {
					c, err, ok = next()
				}
				if err != nil {
					yield(part{}, err)
					return
				}
				stopAt := p.end()
				if ok {
					stopAt = min(stopAt, max(pos, c.Off))
				}
				if free := p.clip(pos, stopAt); free.n > 0 && !yield(free, nil) {
					return
				}
				pos = stopAt
				if ok && c.Off <= pos {
					pos = max(pos, min(c.End(), p.end()))
				}
			}
		}
	}
}

// byChunk groups parts by the chunks that hold them.
func byChunk(l Layer, parts iter.Seq2[part, error], emit func(*work) error) error {
	var w *work
	for p, err := range parts {
		if err != nil {
			return err
		}
		if w != nil && w.k != p.k {
			if err := emit(w); err != nil {
				return err
			}
			w = nil
		}
		if w == nil {
			w = &work{layer: l, k: p.k, table: p.table}
		}
		w.parts = append(w.parts, p)
	}
	if w != nil {
		return emit(w)
	}
	return nil
}

// each emits the work of all layers, as seen through parts, newest first: for
// a merge of many layers that is the order in which least is hidden.
func (m *Merge) each(ctx context.Context, parts func(int) iter.Seq2[part, error], emit func(*work) error) error {
	for i := len(m.layers) - 1; i >= 0; i-- {
		if err := byChunk(m.layers[i], parts(i), emit); err != nil {
			return err
		}
	}
	return ctx.Err()
}
