package cbt

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// OrderError says why deltas do not follow one another. Between A and B there is a gap, a fork or a
// wrong base.
type OrderError struct {
	A, B *Delta
	Err  error
}

func (e *OrderError) Error() string { return e.Err.Error() }
func (e *OrderError) Unwrap() error { return e.Err }

// InOrder sorts deltas, given in any order, so that they follow one another. In each delta but the
// first, each stream begins where that stream of the delta before ends, or is full. If there is no
// such order the error is an *OrderError.
func InOrder(deltas []*Delta) ([]*Delta, error) {
	if len(deltas) == 0 {
		return nil, errors.New("no delta")
	}
	type end struct{ stream, point string }
	leads := map[end]*Delta{}
	for _, d := range deltas {
		for _, s := range d.Header.Streams {
			if s.To == "" {
				continue
			}
			if other := leads[end{s.Name, s.To}]; other != nil {
				return nil, &OrderError{other, d, fmt.Errorf("both lead to point %s of %s", s.To, s.Name)}
			}
			leads[end{s.Name, s.To}] = d
		}
	}
	next := map[*Delta]*Delta{}
	var firsts []*Delta
	for _, d := range deltas {
		var before *Delta
		for _, s := range d.Header.Streams {
			if s.Full || s.From.Point == "" {
				continue
			}
			p := leads[end{s.Name, s.From.Point}]
			if p != nil && before != nil && p != before {
				return nil, &OrderError{before, p, fmt.Errorf("one delta follows both of them, with different streams")}
			}
			if p != nil {
				before = p
			}
		}
		if before == nil {
			firsts = append(firsts, d)
			continue
		}
		if other := next[before]; other != nil {
			return nil, &OrderError{other, d, errors.New("both follow the same delta: they are branches")}
		}
		next[before] = d
	}
	if len(firsts) != 1 {
		return nil, noLine(deltas, firsts)
	}
	line := []*Delta{firsts[0]}
	for d := next[firsts[0]]; d != nil; d = next[d] {
		line = append(line, d)
	}
	if len(line) != len(deltas) { // the rest follow one another in a circle
		i := slices.IndexFunc(deltas, func(d *Delta) bool { return !slices.Contains(line, d) })
		return nil, &OrderError{line[len(line)-1], deltas[i], errors.New("wrong base: the second does not follow from the first")}
	}
	for i := 1; i < len(line); i++ {
		if err := follows(line[i-1], line[i]); err != nil {
			return nil, &OrderError{line[i-1], line[i], err}
		}
	}
	return line, nil
}

// noLine returns the error for deltas of which either none or several follow none of the others.
func noLine(deltas, firsts []*Delta) error {
	if len(firsts) == 0 {
		return &OrderError{deltas[0], deltas[len(deltas)-1], errors.New("wrong base: the deltas follow one another in a circle")}
	}
	a, b := firsts[0], firsts[1]
	if b.ends.Full() {
		a, b = b, a
	}
	if b.ends.Full() {
		return &OrderError{a, b, errors.New("wrong base: both are full and follow nothing")}
	}
	for _, s := range b.Header.Streams {
		if s.Full {
			continue
		}
		e := &WrongBaseError{Stream: s.Name, Want: s.From.Point}
		if i := a.Stream(s.Name); i >= 0 {
			e.Have = a.Header.Streams[i].To
		}
		return &OrderError{a, b, fmt.Errorf("%w, and none of the deltas leads there", e)}
	}
	return &OrderError{a, b, errors.New("wrong base: the second does not follow from the first")}
}

// follows returns an error unless d's streams begin where those of prev end.
func follows(prev, d *Delta) error {
	for i := range d.Header.Streams {
		s := &d.Header.Streams[i]
		if s.Full {
			continue
		}
		k := prev.Stream(s.Name)
		if k < 0 {
			return fmt.Errorf("wrong base: the first has no stream %s", s.Name)
		}
		if err := links(&prev.Header.Streams[k], s); err != nil {
			return err
		}
	}
	return nil
}

// Merged returns the header of the one delta that stands for a whole line (see InOrder), and a
// merge for each of its streams. The streams are those of the last delta, each from where it begins
// in the line. Instant and consistency are the last delta's. So are machine and sources; where it
// has none, they are those of the newest delta that has some.
func Merged(line []*Delta) (Header, []*Merge, error) {
	last := line[len(line)-1]
	h := last.Header
	h.Streams = slices.Clone(h.Streams)
	for _, d := range slices.Backward(line) {
		h.Machine = cmp.Or(h.Machine, d.Header.Machine)
	}
	var merges []*Merge
	for i := range h.Streams {
		s := &h.Streams[i]
		var layers []Layer
		for k := len(line) - 1; k >= 0; k-- {
			n := line[k].Stream(s.Name)
			if n < 0 {
				return h, nil, &OrderError{line[k], line[k+1], fmt.Errorf("wrong base: the first has no stream %s", s.Name)}
			}
			layers = append(layers, Layer{line[k], n})
			s.Source = cmp.Or(s.Source, line[k].Header.Streams[n].Source)
			if line[k].Header.Streams[n].Full {
				break
			}
		}
		slices.Reverse(layers)
		m, err := NewMerge(layers...)
		if err != nil {
			return h, nil, err
		}
		s.Full, s.From = m.From() == nil, nil
		if from := m.From(); from != nil {
			base := *from
			s.From = &base
		}
		merges = append(merges, m)
	}
	return h, merges, nil
}
