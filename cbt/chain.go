package cbt

import (
	"bytes"
	"fmt"
	"slices"
)

// MissingError says that no delta at hand leads to a point that is needed.
type MissingError struct {
	Stream string
	Point  string // empty: the delta was made from something not frozen
}

func (e *MissingError) Error() string {
	if e.Point == "" {
		return fmt.Sprintf("parent missing: %s was made from an image that was not frozen, so no delta leads there", e.Stream)
	}
	return fmt.Sprintf("parent missing: no delta leads to point %s of %s", e.Point, e.Stream)
}

// Chain finds the layers that lead to the state after d of one of its streams,
// oldest first and d itself last, among d and the candidates. Points alone
// decide, not names. Of several ways it takes the one with the fewest deltas,
// and among those the one whose IDs are smallest. If there is none the error
// is a *MissingError for the point at which the longest way back ends.
func Chain(d *Delta, stream int, candidates []*Delta) ([]Layer, error) {
	name := d.Header.Streams[stream].Name
	byPoint := map[string][]Layer{}
	sorted := slices.Clone(candidates)
	slices.SortFunc(sorted, func(a, b *Delta) int {
		ida, idb := a.ID(), b.ID()
		return bytes.Compare(ida[:], idb[:])
	})
	for _, c := range sorted {
		if i := c.Stream(name); i >= 0 && c.Header.Streams[i].To != "" {
			to := c.Header.Streams[i].To
			byPoint[to] = append(byPoint[to], Layer{c, i})
		}
	}

	// Breadth first, from d back to a full stream.
	type step struct {
		Layer
		next *step // towards d
	}
	queue := []*step{{Layer: Layer{d, stream}}}
	seen := map[string]bool{}
	missing := &MissingError{Stream: name}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		s := at.stream()
		if s.Full {
			var chain []Layer
			for ; at != nil; at = at.next {
				chain = append(chain, at.Layer)
			}
			return chain, nil
		}
		point := s.From.Point
		missing.Point = point
		if point == "" || seen[point] {
			continue
		}
		seen[point] = true
		for _, l := range byPoint[point] {
			if links(l.stream(), s) == nil {
				queue = append(queue, &step{l, at})
			}
		}
	}
	return nil, missing
}
