package cbt

import (
	"fmt"
	"io"

	"cbt/sparse"
)

// Layer is one stream of a delta, as part of a chain.
type Layer struct {
	Delta  *Delta
	Stream int
}

func (l Layer) stream() *Stream { return &l.Delta.Header.Streams[l.Stream] }

// Stack is the image at the end of a chain: a full stream, then the streams
// whose bases follow one another. It reads the deltas at random and keeps at
// most 36 MiB of decoded parts for the whole chain.
type Stack struct {
	layers []Layer // oldest first
}

// NewStack checks that the layers, oldest first, are a chain: the first one
// full, each one's base the point and size of the one before.
func NewStack(layers ...Layer) (*Stack, error) {
	if len(layers) == 0 || !layers[0].stream().Full {
		return nil, fmt.Errorf("a chain begins with a full delta")
	}
	shared := newCache()
	s := &Stack{}
	for i, l := range layers {
		if i > 0 {
			if err := links(layers[i-1].stream(), l.stream()); err != nil {
				return nil, err
			}
		}
		d := *l.Delta
		d.cache = shared
		s.layers = append(s.layers, Layer{&d, l.Stream})
	}
	return s, nil
}

// WrongBaseError says that a delta does not fit what it should be applied to.
type WrongBaseError struct {
	Stream     string
	Want, Have string // points; empty: none
}

func (e *WrongBaseError) Error() string {
	return fmt.Sprintf("wrong base: %s must be at point %s, but is at %s", e.Stream, pointOrNone(e.Want), pointOrNone(e.Have))
}

func pointOrNone(p string) string {
	if p == "" {
		return "(none: not frozen)"
	}
	return p
}

// links says whether next may follow prev in a chain.
func links(prev, next *Stream) error {
	switch {
	case next.Full:
		return fmt.Errorf("%s is full: it follows nothing", next.Name)
	case next.From.Point == "" || next.From.Point != prev.To:
		return &WrongBaseError{next.Name, next.From.Point, prev.To}
	case next.From.Size != prev.Size:
		return fmt.Errorf("wrong base: %s must have %d bytes, but has %d", next.Name, next.From.Size, prev.Size)
	}
	return nil
}

// Size is the image's size in bytes.
func (s *Stack) Size() int64 { return s.layers[len(s.layers)-1].stream().Size }

// ReadAt implements io.ReaderAt.
func (s *Stack) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, s.Size())
	if len(p) == 0 {
		return 0, eof
	}
	if err := s.read(len(s.layers)-1, p, off); err != nil {
		return 0, err
	}
	return len(p), eof
}

// read fills p with the bytes at off as they were after layer i. Each layer
// cuts what lies under it to its own size, so a cut shows zeros for ever.
func (s *Stack) read(i int, p []byte, off int64) error {
	if i < 0 || len(p) == 0 {
		clear(p)
		return nil
	}
	l := s.layers[i]
	if inside := l.stream().Size - off; inside < int64(len(p)) {
		inside = max(inside, 0)
		clear(p[inside:])
		p = p[:inside]
	}
	pos, end := off, off+int64(len(p))
	for x, err := range l.Delta.parts(l.Stream, off, end) {
		if err != nil {
			return err
		}
		if err := s.below(i, p[pos-off:x.off-off], pos); err != nil {
			return err
		}
		if dst := p[x.off-off : x.end()-off]; x.zero {
			clear(dst)
		} else {
			data, err := l.Delta.payload(x.k, x.table)
			if err != nil {
				return err
			}
			copy(dst, data[x.at:])
		}
		pos = x.end()
	}
	return s.below(i, p[pos-off:], pos)
}

// below fills p with what layer i says nothing about.
func (s *Stack) below(i int, p []byte, off int64) error {
	if st := s.layers[i].stream(); len(p) > 0 && off+int64(len(p)) > st.growth() {
		return uncovered(st, max(off, st.growth()), -1)
	}
	return s.read(i-1, p, off)
}

// Extents implements sparse.View.
func (s *Stack) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, s.Size()); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(sparse.Fill(s.extents(len(s.layers)-1, off, off+n), off, n, sparse.Hole))
}

func (s *Stack) extents(i int, lo, hi int64) sparse.Seq {
	l := s.layers[i]
	hi = min(hi, l.stream().Size)
	if lo >= hi {
		return sparse.Of()
	}
	top := covering(l.Delta.extents(l.Stream, lo, hi), l.stream(), lo, hi)
	if i == 0 {
		return top
	}
	return sparse.Overlay(top, s.extents(i-1, lo, hi))
}

// covering is e with an error where it leaves a byte free that it must cover.
func covering(e sparse.Seq, s *Stream, lo, hi int64) sparse.Seq {
	return func(yield func(sparse.Extent, error) bool) {
		due := max(lo, s.growth())
		for x, err := range e {
			if err == nil && x.Off > due {
				break
			}
			if !yield(x, err) || err != nil {
				return
			}
			due = max(due, x.End())
		}
		if due < hi {
			yield(sparse.Extent{}, uncovered(s, due, -1))
		}
	}
}

var _ interface {
	sparse.View
	io.ReaderAt
} = (*Stack)(nil)
