package cbt

import (
	"container/heap"
	"fmt"
	"hash/crc32"
	"iter"
	"math/bits"

	"cbt/sparse"
)

// sweep walks over all layers of a merge at once, from the first block of the image to its last.
// For each run of blocks it tells which layers say something about it. It holds one table of each
// layer.
type sweep struct {
	layers []Layer // oldest first
	base   int64   // bytes of the image before the first layer; 0 if that is full
	size   int64   // bytes of the image after the last one
	bare   int64   // end of the bytes that no layer needs to say anything about
	cut    []int64 // for each layer, the smallest size of it and of all later ones
	under  []int64 // for each layer, how much of the base is left before it

	at     []track
	events events
	active []uint64 // a bit for each layer that covers the block
}

// track is how far the parts of one layer have been read.
type track struct {
	part
	lo, hi int64 // blocks
	open   bool
	next   func() (part, error, bool)
	stop   func()
}

// event is a block at which a part of a layer begins or ends.
type event struct {
	block int64
	layer int
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].block < e[j].block }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(v any)        { *e = append(*e, v.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newSweep(m *Merge) *sweep {
	n := len(m.layers)
	s := &sweep{
		layers: m.layers, size: m.Size(),
		cut: make([]int64, n), under: make([]int64, n), at: make([]track, n), active: make([]uint64, (n+63)/64),
	}
	if from := m.From(); from != nil {
		s.base = from.Size
	}
	left, smallest := s.base, s.size
	for i, l := range m.layers {
		s.under[i] = left
		left = min(left, l.stream().Size)
	}
	for i := n - 1; i >= 0; i-- {
		smallest = min(smallest, m.layers[i].stream().Size)
		s.cut[i] = smallest
	}
	s.bare = min(left, s.size)
	return s
}

// run emits runs of blocks in ascending order, with the newest and the oldest layer that cover
// each. emit may look at these layers' tracks. A byte that no layer covers and the base does not
// hold is an error.
func (s *sweep) run(emit func(lo, hi int64, newest, oldest int) error) error {
	defer func() {
		for i := range s.at {
			if s.at[i].stop != nil {
				s.at[i].stop()
			}
		}
	}()
	for i, l := range s.layers {
		c := &s.at[i]
		c.next, c.stop = iter.Pull2(l.Delta.parts(l.Stream, 0, ceilBlock(s.size, l.stream().Size)))
		if err := s.advance(i); err != nil {
			return err
		}
	}
	pos := int64(0)
	for len(s.events) > 0 {
		block := s.events[0].block
		if block > pos {
			if err := s.between(pos, block, emit); err != nil {
				return err
			}
			pos = block
		}
		i := s.events[0].layer
		c := &s.at[i]
		if !c.open {
			c.open = true
			s.active[i/64] |= 1 << (i % 64)
			s.events[0].block = c.hi
			heap.Fix(&s.events, 0)
			continue
		}
		c.open = false
		s.active[i/64] &^= 1 << (i % 64)
		heap.Pop(&s.events)
		if err := s.advance(i); err != nil {
			return err
		}
	}
	return s.covered(pos, s.size/BlockSize+1)
}

// advance reads the next part of layer i.
func (s *sweep) advance(i int) error {
	c := &s.at[i]
	p, err, ok := c.next()
	if err != nil || !ok {
		return err
	}
	if p.off/BlockSize < c.hi || p.off%BlockSize != 0 {
		return &sparse.FormatError{Struct: "delta", Field: "stream " + s.layers[i].stream().Name, Off: -1, Value: p.off, Msg: "an extent begins before the end of the one before it"}
	}
	c.part, c.lo, c.hi = p, p.off/BlockSize, (p.end()-1)/BlockSize+1
	heap.Push(&s.events, event{c.lo, i})
	return nil
}

// between emits the run of blocks from lo to hi, in which no part begins or ends.
func (s *sweep) between(lo, hi int64, emit func(lo, hi int64, newest, oldest int) error) error {
	newest, oldest := s.ends()
	if newest < 0 {
		return s.covered(lo, hi)
	}
	start, end := s.end(lo), s.end(hi)
	// Bytes that were cut off after the newest layer, or that it never had, must be covered by a
	// layer that let the image grow.
	if limit := min(s.cut[newest], s.at[newest].end()); limit < end {
		return uncovered(s.layers[len(s.layers)-1].stream(), max(limit, start), -1)
	}
	return emit(start, end, newest, oldest)
}

// covered returns an error if blocks that no layer covers would have to be.
func (s *sweep) covered(lo, hi int64) error {
	if start, end := s.end(lo), s.end(hi); start < end && end > s.bare {
		return uncovered(s.layers[len(s.layers)-1].stream(), max(s.bare, start), -1)
	}
	return nil
}

// end returns the end of the part of the image that lies before a block.
func (s *sweep) end(block int64) int64 {
	if block > s.size/BlockSize {
		return s.size
	}
	return block * BlockSize
}

// ends returns the newest and the oldest layer that cover the current block, -1 if there is none.
func (s *sweep) ends() (newest, oldest int) {
	newest, oldest = -1, -1
	for i, word := range s.active {
		if word == 0 {
			continue
		}
		if oldest < 0 {
			oldest = 64*i + bits.TrailingZeros64(word)
		}
		newest = 64*i + 63 - bits.LeadingZeros64(word)
	}
	return newest, oldest
}

var zeroBlock [BlockSize]byte

// check returns the CRC of what the block at off held at the base, if the oldest layer that
// replaces it knows that. That layer's CRC covers its own length of the block, and what was left of
// the base then. If either is less than the merge replaces, it says nothing about the rest.
func (s *sweep) check(off int64, oldest int) (crc uint32, ok bool) {
	p := &s.at[oldest].part
	if !p.checked {
		return 0, false
	}
	had := min(BlockSize, s.layers[oldest].stream().Size-off)
	want := min(BlockSize, s.size-off)
	if had > want || max(0, min(had, s.under[oldest]-off)) != max(0, min(want, s.base-off)) {
		return 0, false
	}
	i := p.check + int((off-p.off)/BlockSize)
	if i >= len(p.table.old) {
		panic(fmt.Sprintf("cbt: internal error: check %d of %d", i, len(p.table.old)))
	}
	return crc32.Update(p.table.old[i], castagnoli, zeroBlock[:want-had]), true
}
