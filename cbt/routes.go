package cbt

import (
	"context"

	"cbt/sparse"
)

// Disagree compares two chains, as NewStack takes them, that lead to one point. It returns the
// first run of bytes in which the images at their ends differ; its Len is 0 if they are the same.
// Layers that both chains have at their beginning are not compared. Of the image only what a later
// layer touches is.
//
// An error comes from reading the deltas, or is ctx's.
func Disagree(ctx context.Context, a, b []Layer) (sparse.Extent, error) {
	first, err := NewStack(a...)
	if err != nil {
		return sparse.Extent{}, err
	}
	second, err := NewStack(b...)
	if err != nil {
		return sparse.Extent{}, err
	}
	if x, y := first.Size(), second.Size(); x != y {
		return sparse.Extent{Off: min(x, y), Len: max(x, y) - min(x, y), Kind: sparse.Data}, nil
	}
	n := 0
	for n < len(a) && n < len(b) && a[n].Delta.ID() == b[n].Delta.ID() && a[n].stream().Name == b[n].stream().Name {
		n++
	}
	t := touched{ctx: ctx, layers: append(append([]Layer{}, a[n:]...), b[n:]...)}
	size := first.Size()
	for e, err := range sparse.Compare(t.of(first), t.of(second), 0, size) {
		return e, err
	}
	return sparse.Extent{}, ctx.Err()
}

// touched shows only those parts of a view that any of the layers says something about.
type touched struct {
	sparse.View
	ctx    context.Context
	layers []Layer
}

func (t touched) of(v sparse.View) sparse.View {
	t.View = v
	return t
}

func (t touched) ReadAt(p []byte, off int64) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, context.Cause(t.ctx)
	}
	return t.View.ReadAt(p, off)
}

func (t touched) Extents(off, n int64) sparse.Seq {
	all := sparse.Of()
	for _, l := range t.layers {
		all = sparse.Overlay(all, l.Delta.extents(l.Stream, off, off+n))
	}
	return sparse.Coalesce(sparse.Fill(sparse.Intersect(t.View.Extents(off, n), all), off, n, sparse.Hole))
}
