package cbt

import (
	"errors"
	"fmt"
	"slices"
)

// MissingError says that none of the deltas leads to a point that is needed.
type MissingError struct {
	Stream string
	Point  string // empty: the delta was made from an image that was not frozen
}

func (e *MissingError) Error() string {
	if e.Point == "" {
		return fmt.Sprintf("parent missing: %s was made from an image that was not frozen, so no delta leads there", e.Stream)
	}
	return fmt.Sprintf("parent missing: no delta leads to point %s of %s", e.Point, e.Stream)
}

// Catalogue is a set of deltas and the graph of their points. Whatever asks which delta builds on
// which asks the catalogue. Making it takes time in proportion to the number of deltas, finding a
// route in proportion to the route's length. It is safe for concurrent use.
type Catalogue struct {
	all   []*Ends
	leads map[end][]Step   // to a point, by ascending ID
	best  map[state]*Route // the route to a state that has the fewest steps
}

// end is a point of a stream.
type end struct{ stream, point string }

// state is an image that a delta of a stream can be applied to.
type state struct {
	end
	size int64
}

// NewCatalogue makes a catalogue of deltas, which may be in any order.
func NewCatalogue(all []*Ends) *Catalogue {
	c := &Catalogue{all: all, leads: map[end][]Step{}, best: map[state]*Route{}}
	begin := map[state][]Step{}
	var first []*Route
	for _, e := range all {
		for i := range e.Header.Streams {
			s := Step{e, i}
			t := s.stream()
			if t.To == "" { // nothing follows a tip
				continue
			}
			c.leads[s.to().end] = append(c.leads[s.to().end], s)
			if t.Full {
				first = append(first, (*Route)(nil).after(s))
			} else if t.From.Point != "" {
				begin[s.from()] = append(begin[s.from()], s)
			}
		}
	}
	for _, steps := range c.leads {
		slices.SortFunc(steps, func(a, b Step) int { return byID(a.Ends, b.Ends) })
	}
	breadthFirst(first, func(r *Route) *Ends { return r.Ends }, func(r *Route) (next []*Route) {
		to := r.to()
		if c.best[to] != nil {
			return nil
		}
		c.best[to] = r
		for _, s := range begin[to] {
			next = append(next, r.after(s))
		}
		return next
	})
	return c
}

// breadthFirst visits nodes level by level, each level in the order of the deltas' IDs. visit
// returns the nodes to visit in the next level. So a place is first visited by a way of the fewest
// deltas. If there are several such ways, it is the one with the smallest IDs, compared from the
// place backwards.
func breadthFirst[N any](level []N, delta func(N) *Ends, visit func(N) []N) {
	for len(level) > 0 {
		slices.SortFunc(level, func(a, b N) int { return byID(delta(a), delta(b)) })
		var next []N
		for _, n := range level {
			next = append(next, visit(n)...)
		}
		level = next
	}
}

// Without returns the catalogue without the deltas for which out returns true.
func (c *Catalogue) Without(out func(*Ends) bool) *Catalogue {
	return NewCatalogue(slices.DeleteFunc(slices.Clone(c.all), out))
}

// Leading returns the streams of deltas that lead to a point of the named stream, ordered by the
// deltas' IDs. If there are several, they must all give the same image, whichever way they take.
func (c *Catalogue) Leading(stream, point string) []Step {
	return slices.Clone(c.leads[end{stream, point}])
}

// Route finds the way to the state after one stream of e, which need not be in the catalogue. Only
// points and sizes decide, not names. Of several ways it takes the one with the fewest deltas, and
// of those the one with the smallest IDs, compared from e backwards. If there is no way, the error
// is a *MissingError for the point where the longest way back ends.
func (c *Catalogue) Route(e *Ends, stream int) (*Route, error) {
	last := Step{e, stream}
	if last.stream().Full {
		return (*Route)(nil).after(last), nil
	}
	r := c.best[last.from()]
	if r == nil || last.stream().From.Point == "" {
		return nil, c.missing(last)
	}
	return r.after(last), nil
}

// RouteTo returns the way to a state of a stream, whichever delta is the last, or nil if no delta
// leads there.
func (c *Catalogue) RouteTo(stream, point string, size int64) *Route {
	if point == "" {
		return nil
	}
	return c.best[state{end{stream, point}, size}]
}

// AnyRoute is Route, but if nothing leads to where e begins it returns a way to the state after e
// that ends with another delta.
func (c *Catalogue) AnyRoute(e *Ends, stream int) (*Route, error) {
	r, err := c.Route(e, stream)
	if err == nil {
		return r, nil
	}
	t := Step{e, stream}.stream()
	if r := c.RouteTo(t.Name, t.To, t.Size); r != nil {
		return r, nil
	}
	return nil, err
}

// missing returns a *MissingError for the point where the longest way back from a step ends. No
// full delta may lead to that step.
func (c *Catalogue) missing(from Step) error {
	err := &MissingError{Stream: from.stream().Name}
	seen := map[state]bool{}
	for queue := []Step{from}; len(queue) > 0; queue = queue[1:] {
		need := queue[0].from()
		err.Point = need.point
		if need.point == "" || seen[need] {
			continue
		}
		seen[need] = true
		for _, s := range c.before(need) {
			if !s.stream().Full {
				queue = append(queue, s)
			}
		}
	}
	return err
}

// before returns the steps that lead to a state.
func (c *Catalogue) before(need state) (steps []Step) {
	for _, s := range c.leads[need.end] {
		if s.stream().Size == need.size {
			steps = append(steps, s)
		}
	}
	return steps
}

// Before returns the deltas that lead to where one of the streams of e begins. Each is there once,
// ordered by stream and then by ID.
func (c *Catalogue) Before(e *Ends) (list []*Ends) {
	seen := map[*Ends]bool{e: true}
	for i, t := range e.Header.Streams {
		if t.Full || t.From.Point == "" {
			continue
		}
		for _, s := range c.before(Step{e, i}.from()) {
			if !seen[s.Ends] {
				seen[s.Ends] = true
				list = append(list, s.Ends)
			}
		}
	}
	return list
}

// Parent is the delta that all streams of another delta follow.
type Parent struct {
	*Ends       // nil: the other is full, or Err says why there is none
	Depth int   // number of deltas before the other
	Err   error // why there is none: often a *MissingError
}

// Parents finds the parent of each delta of the catalogue, for callers that treat deltas as wholes.
// Of several possible parents it takes the one with the fewest deltas before it, and of those the
// one with the smallest ID.
func (c *Catalogue) Parents() map[*Ends]Parent {
	parents := map[*Ends]Parent{}
	children := map[*Ends][]*Ends{}
	type node struct {
		delta  *Ends
		parent Parent
	}
	var first []node
	for _, e := range c.all {
		before, err := c.wholes(e)
		switch {
		case err != nil:
			parents[e] = Parent{Err: err}
		case e.Full():
			first = append(first, node{delta: e})
		}
		for _, p := range before {
			children[p] = append(children[p], e)
		}
	}
	breadthFirst(first, func(n node) *Ends { return n.delta }, func(n node) (next []node) {
		if _, ok := parents[n.delta]; ok {
			return nil
		}
		parents[n.delta] = n.parent
		for _, e := range children[n.delta] {
			if _, ok := parents[e]; !ok {
				next = append(next, node{e, Parent{Ends: n.delta, Depth: n.parent.Depth + 1}})
			}
		}
		return next
	})
	for _, e := range c.all {
		if _, ok := parents[e]; !ok {
			parents[e] = Parent{Err: errors.New("no full delta: what it builds on leads back to none")}
		}
	}
	return parents
}

// wholes returns the deltas that lead to where all streams of e begin.
func (c *Catalogue) wholes(e *Ends) (parents []*Ends, err error) {
	first := true
	for i, t := range e.Header.Streams {
		if t.Full {
			continue
		}
		var here []*Ends
		for _, s := range c.before(Step{e, i}.from()) {
			if s.Ends != e {
				here = append(here, s.Ends)
			}
		}
		switch {
		case len(here) == 0 || t.From.Point == "":
			return nil, &MissingError{Stream: t.Name, Point: t.From.Point}
		case first:
			parents, first = here, false
			continue
		}
		there := map[*Ends]bool{}
		for _, p := range here {
			there[p] = true
		}
		parents = slices.DeleteFunc(parents, func(p *Ends) bool { return !there[p] })
	}
	if !first && len(parents) == 0 {
		return nil, errors.New("its streams follow different deltas")
	}
	return parents, nil
}
