package store

import (
	"context"
	"iter"

	"cbt/cbt"
)

// routePair are two ways to one point of a stream.
type routePair struct {
	Stream       string
	First, Other []cbt.Layer
}

// OtherRoutes yields, for each point that several deltas lead to, the first one
// together with each other. The deltas before them need not be looked at: where
// several of those lead to one point, that is a pair of its own. An error is a
// delta's that no chain leads to.
func (o *Files) OtherRoutes(files []*File, all *cbt.Catalogue) iter.Seq2[routePair, error] {
	return func(yield func(routePair, error) bool) {
		seen := map[Point]bool{}
		for _, d := range files {
			if d == nil {
				continue
			}
			for _, s := range d.Header.Streams {
				if s.To == "" || seen[Point{s.Name, s.To}] {
					continue
				}
				seen[Point{s.Name, s.To}] = true
				r := routePair{Stream: s.Name}
				for _, l := range all.Leading(s.Name, s.To) {
					var chain []cbt.Layer
					way, err := all.Route(l.Ends, l.Index)
					if err == nil {
						chain, err = way.Layers(o.Opened)
					}
					switch {
					case err == nil && r.First == nil:
						r.First = chain
						continue
					case err == nil && r.First[len(r.First)-1].Delta.ID() == l.ID:
						continue // a copy
					}
					r.Other = chain
					if !yield(r, err) {
						return
					}
				}
			}
		}
	}
}

// CheckLinks checks what streams of deltas replace, and ends with the first
// error that found returns. It goes from the full ones on, so that each state is
// little more work than the one before.
func (o *Files) CheckLinks(ctx context.Context, all *cbt.Catalogue, layers []cbt.Layer, found func(cbt.Layer, error) error) error {
	var steps [][]*cbt.Route // by their length
	for _, l := range layers {
		r, err := all.Route(l.Delta.Ends(), l.Stream)
		if err != nil {
			if err := found(l, err); err != nil {
				return err
			}
			continue
		}
		for len(steps) < r.Len {
			steps = append(steps, nil)
		}
		steps[r.Len-1] = append(steps[r.Len-1], r)
	}
	cache := cbt.NewCache()
	for _, step := range steps {
		for _, r := range step {
			chain, err := r.Layers(o.Opened)
			if err != nil {
				return err
			}
			err = checkLink(ctx, cache, chain)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err == nil {
				continue
			}
			if err := found(chain[len(chain)-1], err); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkLink compares the old content that the last delta of a chain knows with
// the state that the others lead to: points say that it fits, this looks.
func checkLink(ctx context.Context, cache *cbt.Cache, layers []cbt.Layer) error {
	last := len(layers) - 1
	if last == 0 {
		return nil
	}
	parent, err := cache.Stack(layers[:last]...)
	if err != nil {
		return err
	}
	m, err := cbt.NewMerge(layers[last])
	if err != nil {
		return err
	}
	_, err = m.CheckBase(ctx, parent, cbt.ApplyOptions{})
	return err
}
