package cbt

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"cbt/sparse"
)

// Merge is several deltas of one stream seen as one: each block goes from what it was before the
// first delta to what it is after the last. It is safe for concurrent use.
type Merge struct {
	layers []Layer // oldest first
}

// NewMerge checks that the layers, oldest first, follow one another. The first may be full. If a
// layer starts at another point than the one before it ends at, the error is a *WrongBaseError.
// NewMerge reads nothing.
func NewMerge(layers ...Layer) (*Merge, error) {
	if len(layers) == 0 {
		return nil, fmt.Errorf("no delta")
	}
	for i := 1; i < len(layers); i++ {
		if err := links(layers[i-1].stream(), layers[i].stream()); err != nil {
			return nil, err
		}
	}
	return &Merge{NewCache().layers(layers)}, nil
}

// From returns what the merge must be written over, or nil if it covers every byte.
func (m *Merge) From() *Base { return m.layers[0].stream().From }

// Size returns the size of the image after the merge, in bytes.
func (m *Merge) Size() int64 { return m.layers[len(m.layers)-1].stream().Size }

// Payload returns how many bytes WriteTo will have decoded when it is done.
func (m *Merge) Payload() int64 {
	var n int64
	for _, l := range m.layers {
		n += l.Delta.Totals()[l.Stream].Data
	}
	return n
}

// work is what remains of one chunk without the parts that other layers hide.
type work struct {
	layer Layer
	k     uint64
	table *table
	parts []part
	base  int64 // bytes of the base that are still there below it
}

// visible emits the work of all layers, newest first. It leaves out what a newer layer covers or
// has cut off.
func (m *Merge) visible(ctx context.Context, emit func(*work) error) error {
	var covered sparse.Set
	limit := m.Size()
	for _, l := range slices.Backward(m.layers) {
		limit = min(limit, l.stream().Size)
		if err := byChunk(l, uncoveredParts(l, limit, &covered), emit); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// first emits the work of all layers, oldest first, as far as it says something about the base. It
// leaves out what an older layer has written or cut off.
func (m *Merge) first(ctx context.Context, emit func(*work) error) error {
	var covered sparse.Set
	if m.From() == nil {
		return nil
	}
	limit := m.From().Size
	for _, l := range m.layers {
		// The block that holds the end of the base is checked as a whole.
		end := min(l.stream().Size, (limit+BlockSize-1)/BlockSize*BlockSize)
		err := byChunk(l, uncoveredParts(l, end, &covered), func(w *work) error {
			w.base = limit
			return emit(w)
		})
		if err != nil {
			return err
		}
		limit = min(limit, l.stream().Size)
	}
	return ctx.Err()
}

// uncoveredParts yields the parts of l below limit that are not covered, and adds them to covered.
func uncoveredParts(l Layer, limit int64, covered *sparse.Set) iter.Seq2[part, error] {
	return func(yield func(part, error) bool) {
		for p, err := range l.Delta.parts(l.Stream, 0, limit) {
			if err != nil {
				yield(part{}, err)
				return
			}
			for lo, hi := range covered.Without(p.off, p.end()) {
				if !yield(p.clip(lo, hi), nil) {
					return
				}
			}
			covered.Add(p.off, p.end())
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
			t := p.table
			if t == nil {
				if t, err = l.Delta.table(p.k); err != nil {
					return err
				}
			}
			w = &work{layer: l, k: p.k, table: t}
		}
		w.parts = append(w.parts, p)
	}
	if w != nil {
		return emit(w)
	}
	return nil
}
