package cbt

import (
	"bytes"
	"errors"
	"io"
)

// Ends is what the first and the last bytes of a delta say about it. Nothing else is needed to find
// chains. It remains valid when the file is closed.
type Ends struct {
	Header  Header
	ID      ID
	Size    int64 // of the file, in bytes
	Payload int64 // bytes in data extents
}

// Ends returns the ends of d, always the same pointer.
func (d *Delta) Ends() *Ends { return d.ends }

// ErrOther says that a file no longer holds the same delta as before.
var ErrOther = errors.New("is another delta than before")

// Reopen opens a delta whose ends were read before. The delta gets e as its ends, so that it
// belongs to the catalogues that have e. If the file now holds another delta the error is ErrOther.
func Reopen(r io.ReaderAt, e *Ends) (*Delta, error) {
	d, err := Open(r, e.Size)
	if err != nil {
		return nil, err
	}
	if d.ID() != e.ID {
		return nil, ErrOther
	}
	d.ends = e
	return d, nil
}

// Stream returns the index of the named stream, or -1.
func (e *Ends) Stream(name string) int {
	for i, s := range e.Header.Streams {
		if s.Name == name {
			return i
		}
	}
	return -1
}

// Full reports whether e builds on nothing: all its streams are full.
func (e *Ends) Full() bool {
	for _, s := range e.Header.Streams {
		if !s.Full {
			return false
		}
	}
	return true
}

// byID orders deltas by their IDs.
func byID(a, b *Ends) int { return bytes.Compare(a.ID[:], b.ID[:]) }

// Step is one stream of a delta, as part of a route.
type Step struct {
	*Ends
	Index int // of the stream
}

func (s Step) stream() *Stream { return &s.Header.Streams[s.Index] }

func (s Step) to() state {
	t := s.stream()
	return state{end{t.Name, t.To}, t.Size}
}

func (s Step) from() state {
	t := s.stream()
	return state{end{t.Name, t.From.Point}, t.From.Size}
}

// Route is a way from a full delta to the state after its last step.
type Route struct {
	Step           // the last one
	Before  *Route // nil: the step is full
	Len     int    // steps
	Payload int64  // bytes in data extents of all deltas on the way
}

// after returns the route r followed by s. r is nil if s is full.
func (r *Route) after(s Step) *Route {
	next := &Route{Step: s, Before: r, Len: 1, Payload: s.Payload}
	if r != nil {
		next.Len, next.Payload = r.Len+1, r.Payload+s.Payload
	}
	return next
}

// Steps returns all steps of the route, oldest first.
func (r *Route) Steps() []Step {
	steps := make([]Step, r.Len)
	for i := r.Len - 1; r != nil; i, r = i-1, r.Before {
		steps[i] = r.Step
	}
	return steps
}

// Layers opens all deltas of a route and returns its layers, oldest first.
func (r *Route) Layers(open func(*Ends) (*Delta, error)) ([]Layer, error) {
	layers := make([]Layer, r.Len)
	for i := r.Len - 1; r != nil; i, r = i-1, r.Before {
		d, err := open(r.Ends)
		if err != nil {
			return nil, err
		}
		layers[i] = Layer{d, r.Index}
	}
	return layers, nil
}

// Chain finds, among open deltas, the layers that lead to the state after one stream of d, oldest
// first and d itself last. stream is an index in d's header (see Delta.Stream). If none of the
// deltas leads to a point that is needed, the error is a *MissingError. To look for several chains,
// make a Catalogue instead.
func Chain(d *Delta, stream int, among []*Delta) ([]Layer, error) {
	open := map[*Ends]*Delta{}
	var all []*Ends
	for _, other := range among {
		open[other.ends] = other
		all = append(all, other.ends)
	}
	open[d.ends] = d
	r, err := NewCatalogue(all).Route(d.ends, stream)
	if err != nil {
		return nil, err
	}
	return r.Layers(func(e *Ends) (*Delta, error) { return open[e], nil })
}
