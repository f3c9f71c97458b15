package cbt

import (
	"context"

	"cbt/sparse"
)

// Disagree compares two chains that lead to one point, and returns the first
// run of bytes in which the images at their ends differ; its Len is 0 if they
// are the same. The chains are as NewStack takes them. What they have in common
// at their beginnings is not compared, and of the image only what a layer
// behind that touches.
//
// An error is one of reading the deltas, or ctx's.
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

// touched shows of a view only what any of the layers says something about.
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
