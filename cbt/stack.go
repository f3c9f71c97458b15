package cbt

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"cbt/sparse"
)

// Layer is one stream of a delta, as part of a chain.
type Layer struct {
	Delta  *Delta
	Stream int // number in the header, from 0
}

func (l Layer) stream() *Stream { return &l.Delta.Header.Streams[l.Stream] }

// Stack is the image at the end of a chain: a full stream, then streams each of which builds on the
// one before. Maps of the chain tell which delta has a byte. They are made where the image is first
// read, so a long chain reads like a short one. Where reads go on in sequence, the next chunks are
// decoded ahead. It is safe for concurrent use.
type Stack struct {
	full  Layer // the oldest
	last  *chain
	cache *Cache
	ahead readAhead
}

// NewStack returns a stack with a cache of its own. See Cache.Stack.
func NewStack(layers ...Layer) (*Stack, error) { return NewCache().Stack(layers...) }

// Stack checks that the layers, oldest first, are a chain: the first is full, and the base of each
// other one has the point and size of the one before. If a point differs the error is a
// *WrongBaseError. Stack reads nothing.
func (c *Cache) Stack(layers ...Layer) (*Stack, error) {
	if len(layers) == 0 || !layers[0].stream().Full {
		return nil, fmt.Errorf("a chain begins with a full delta")
	}
	for i := 1; i < len(layers); i++ {
		if err := links(layers[i-1].stream(), layers[i].stream()); err != nil {
			return nil, err
		}
	}
	own := c.layers(layers)
	return &Stack{full: own[0], last: c.chain(own), cache: c}, nil
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

// links returns an error unless next may follow prev in a chain.
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

// Size returns the image's size in bytes.
func (s *Stack) Size() int64 { return s.last.stream().Size }

// ReadAt implements io.ReaderAt.
func (s *Stack) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, s.Size())
	if len(p) == 0 {
		return 0, eof
	}
	for x, err := range s.pieces(off, int64(len(p))) {
		if err == nil {
			err = s.read(p[x.lo-off:x.hi-off], x)
		}
		if err != nil {
			return 0, err
		}
	}
	s.readAhead(off, int64(len(p)))
	return len(p), eof
}

// source says where a piece of the image comes from.
type source struct {
	stretch
	region *region // nil: from the full delta
}

// pieces yields the pieces that make up [off, off+n), which must lie in the image.
func (s *Stack) pieces(off, n int64) iter.Seq2[source, error] {
	return func(yield func(source, error) bool) {
		end := off + n
		if s.last.before == nil {
			yield(source{stretch{off, end, below, 0}, nil}, nil)
			return
		}
		again := int64(-1)
		for off < end {
			r, err := s.region(off)
			if err != nil {
				yield(source{}, err)
				return
			}
			for i := r.find(off); off < min(end, r.hi); i++ {
				x := r.runs[i]
				if x.src == faulty && again < off && !isDamage(r.faults[x.at]) {
					// It could not be read when the map was made.
					s.forget(r)
					again = off
					break
				}
				to := min(end, r.end(i))
				at := x.at
				if x.src < chunkLimit {
					at += uint32(off - x.off)
				}
				if !yield(source{stretch{off, to, x.src, at}, r}, nil) {
					return
				}
				off = to
			}
		}
	}
}

// read fills p with the bytes of a piece.
func (s *Stack) read(p []byte, x source) error {
	switch x.src {
	case below:
		return s.readBase(p, x.lo)
	case zeros:
		clear(p)
		return nil
	case faulty:
		return x.region.faults[x.at]
	}
	data, giveBack, err := s.chunk(x)
	defer giveBack()
	if err == nil {
		copy(p, data[x.at:])
	}
	return x.region.chunks[x.src].delta.in(err)
}

// isDamage reports whether err will be the same on every try.
func isDamage(err error) bool {
	var format *sparse.FormatError
	return errors.As(err, &format)
}

// chunk lends the payload of the chunk that a data piece comes from.
func (s *Stack) chunk(x source) (data []byte, giveBack func(), err error) {
	c := &x.region.chunks[x.src]
	var frame *dataFrame
	if c.dataLen > 0 {
		frame = &dataFrame{c.off, int(c.dataLen), c.crc}
	}
	return c.delta.payload(c.k, int(c.payload), frame)
}

// readBase fills p with the bytes at off of the full delta.
func (s *Stack) readBase(p []byte, off int64) error {
	l := s.full
	if inside := max(0, s.last.base-off); inside < int64(len(p)) {
		clear(p[inside:])
		p = p[:inside]
	}
	pos, end := off, off+int64(len(p))
	for x, err := range l.Delta.parts(l.Stream, off, end) {
		if err == nil && x.off > pos {
			break
		}
		if err == nil {
			err = l.Delta.readPart(p[x.off-off:], x)
		}
		if err != nil {
			return l.Delta.in(err)
		}
		pos = x.end()
	}
	if pos < end {
		return l.Delta.in(uncovered(l.stream(), pos, -1))
	}
	return nil
}

// Extents implements sparse.View.
func (s *Stack) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, s.Size()); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		for x, err := range s.pieces(off, n) {
			e := sparse.Extent{Off: x.lo, Len: x.hi - x.lo, Kind: sparse.Data}
			switch {
			case err != nil:
			case x.src == faulty:
				err = x.region.faults[x.at]
			case x.src == zeros:
				e.Kind = sparse.Zero
			case x.src == below:
				for e, err := range s.baseExtents(x.lo, x.hi) {
					if !yield(e, err) || err != nil {
						return
					}
				}
				continue
			}
			if err != nil {
				e = sparse.Extent{}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	})
}

// baseExtents yields what the full delta holds in [lo, hi).
func (s *Stack) baseExtents(lo, hi int64) sparse.Seq {
	l := s.full
	end := min(hi, s.last.base)
	if lo >= end {
		return sparse.Of(sparse.Extent{Off: lo, Len: hi - lo, Kind: sparse.Hole})
	}
	return sparse.Fill(covering(l, lo, end), lo, hi-lo, sparse.Hole)
}

// covering yields what a layer says about [lo, hi), with an error at a byte that it must cover and
// does not.
func covering(l Layer, lo, hi int64) sparse.Seq {
	return func(yield func(sparse.Extent, error) bool) {
		due := max(lo, l.stream().growth())
		for x, err := range l.Delta.extents(l.Stream, lo, hi) {
			if err == nil && x.Off > due {
				break
			}
			if !yield(x, l.Delta.in(err)) || err != nil {
				return
			}
			due = max(due, x.End())
		}
		if due < hi {
			yield(sparse.Extent{}, l.Delta.in(uncovered(l.stream(), due, -1)))
		}
	}
}

var _ interface {
	sparse.View
	io.ReaderAt
} = (*Stack)(nil)
