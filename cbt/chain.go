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

// Catalogue is a set of deltas in which chains are found. Making it takes time
// in proportion to their number, finding a chain in proportion to its length.
// It is safe for concurrent use.
type Catalogue struct {
	leads map[end][]Layer  // to a point, ascending IDs
	best  map[state]*route // how a state is reached in the fewest deltas
}

// end is a point of a stream.
type end struct{ stream, point string }

// state is what a delta of a stream can be applied to.
type state struct {
	end
	size int64
}

// route is the last delta on the way to a state.
type route struct {
	Layer
	before *route // nil: the layer is full
}

func (l Layer) to() state {
	s := l.stream()
	return state{end{s.Name, s.To}, s.Size}
}

func (l Layer) from() state {
	s := l.stream()
	return state{end{s.Name, s.From.Point}, s.From.Size}
}

// byID orders layers of any deltas by the deltas' IDs.
func byID(a, b Layer) int {
	ida, idb := a.Delta.ID(), b.Delta.ID()
	return bytes.Compare(ida[:], idb[:])
}

// NewCatalogue takes deltas in any order. Only their headers and IDs matter,
// so that their files may be closed already.
func NewCatalogue(deltas []*Delta) *Catalogue {
	c := &Catalogue{leads: map[end][]Layer{}, best: map[state]*route{}}
	begin := map[state][]Layer{}
	var next []*route // deltas of the next step
	for _, d := range deltas {
		for i := range d.Header.Streams {
			l := Layer{d, i}
			s := l.stream()
			if s.To == "" { // nothing follows a tip
				continue
			}
			c.leads[l.to().end] = append(c.leads[l.to().end], l)
			if s.Full {
				next = append(next, &route{l, nil})
			} else if s.From.Point != "" {
				begin[l.from()] = append(begin[l.from()], l)
			}
		}
	}
	for _, l := range c.leads {
		slices.SortFunc(l, byID)
	}
	// Breadth first, so that the first way to a state has the fewest deltas.
	for len(next) > 0 {
		step := next
		next = nil
		slices.SortFunc(step, func(a, b *route) int { return byID(a.Layer, b.Layer) })
		for _, r := range step {
			to := r.to()
			if c.best[to] != nil {
				continue
			}
			c.best[to] = r
			for _, l := range begin[to] {
				next = append(next, &route{l, r})
			}
		}
	}
	return c
}

// Leading returns the streams of deltas that lead to a point of the named
// stream, ordered by the deltas' IDs. If there is more than one they have to
// give the same image, however they do it.
func (c *Catalogue) Leading(stream, point string) []Layer {
	return slices.Clone(c.leads[end{stream, point}])
}

// Chain finds the layers that lead to the state after d of one of its streams,
// oldest first and d itself last; d need not be in the catalogue. Points and
// sizes alone decide, not names. Of several ways it takes the one with the
// fewest deltas, and among those the one whose IDs are smallest, from d
// backwards. If there is none the error is a *MissingError for the point at
// which the longest way back ends.
func (c *Catalogue) Chain(d *Delta, stream int) ([]Layer, error) {
	last := Layer{d, stream}
	chain := []Layer{last}
	if last.stream().Full {
		return chain, nil
	}
	r := c.best[last.from()]
	if r == nil || last.stream().From.Point == "" {
		return nil, c.missing(last)
	}
	for ; r != nil; r = r.before {
		chain = append(chain, r.Layer)
	}
	slices.Reverse(chain)
	return chain, nil
}

// missing says where the longest way back from a layer ends that no full one
// leads to.
func (c *Catalogue) missing(from Layer) error {
	err := &MissingError{Stream: from.stream().Name}
	seen := map[state]bool{}
	for queue := []Layer{from}; len(queue) > 0; queue = queue[1:] {
		need := queue[0].from()
		err.Point = need.point
		if need.point == "" || seen[need] {
			continue
		}
		seen[need] = true
		for _, l := range c.leads[need.end] {
			if l.stream().Size == need.size && !l.stream().Full {
				queue = append(queue, l)
			}
		}
	}
	return err
}
