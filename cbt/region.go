package cbt

import (
	"cmp"
	"errors"
	"slices"
	"sort"
	"sync/atomic"

	"cbt/sparse"
)

// span is a part of an image that gets one map. It is halved when one map proves too much.
type span struct {
	lo, hi int64
	halves atomic.Pointer[[2]span]
}

// limits bounds the maps.
type limits struct {
	pieces int   // in one map
	tables int   // read for one map, if halves would need fewer
	leaves int   // likewise
	span   int64 // bytes of the image; shorter spans are not halved
}

// A span that is not halved has at most 4,096 blocks. So, whatever the deltas hold, a map takes
// less than 10 MiB, and twice that while it is made.
var defaultLimits = limits{pieces: 1 << 18, tables: 256, leaves: 64, span: 4096 * BlockSize}

// region is the map of a span. For each byte it has what the newest delta that mentions it says.
type region struct {
	lo, hi int64
	runs   []run // the first begins at lo, each ends where the next begins
	chunks []chunkAt
	faults []error
}

// run is a run of bytes that begins at off.
type run struct {
	off int64
	src uint32 // a chunk, or one of the constants below
	at  uint32 // where in the chunk's payload it begins, or which fault it is
}

const (
	zeros  uint32 = 1<<32 - 1 - iota
	faulty        // at tells which fault
	below         // as in the full delta
	chunkLimit
)

// chunkAt is the place of a chunk that a region needs.
type chunkAt struct {
	delta   *Delta
	k       uint64
	off     int64  // of the data frame, in the file
	dataLen uint32 // 0: the table, which was not read, has frame and CRC
	payload uint32 // bytes
	crc     uint32
}

// Rough memory of the parts of a region, in bytes. A fault is an error and its text.
const (
	runSize   = 16
	chunkSize = 40
	faultSize = 256
)

func (r *region) cost() int64 {
	return int64(len(r.runs)*runSize + len(r.chunks)*chunkSize + len(r.faults)*faultSize)
}

// find returns the run that has the byte at off.
func (r *region) find(off int64) int {
	return sort.Search(len(r.runs), func(i int) bool { return r.runs[i].off > off }) - 1
}

// end returns the offset where run i ends.
func (r *region) end(i int) int64 {
	if i+1 < len(r.runs) {
		return r.runs[i+1].off
	}
	return r.hi
}

var errTooLarge = errors.New("too much for one region")

// region returns the map that has the byte at off. It makes the map when it is first asked for.
func (s *Stack) region(off int64) (*region, error) {
	at := &s.last.root
	for {
		if halves := at.halves.Load(); halves != nil {
			at = halves[0].or(&halves[1], off)
			continue
		}
		r, err := s.cache.regions.Get(at, 0, func() (*region, error) {
			s.cache.build.Lock()
			defer s.cache.build.Unlock()
			if s.tooCoarse(at) {
				return nil, errTooLarge
			}
			r, err := s.mapOf(at)
			if err == nil {
				s.cache.regions.Recost(at, r.cost())
			}
			return r, err
		})
		if err != errTooLarge {
			return r, err
		}
		mid := at.mid()
		at.halves.CompareAndSwap(nil, &[2]span{{lo: at.lo, hi: mid}, {lo: mid, hi: at.hi}})
	}
}

// or returns s, or the next span if that has the byte at off.
func (s *span) or(next *span, off int64) *span {
	if off >= next.lo {
		return next
	}
	return s
}

// mid returns the offset where a span is halved. The span must have at least two blocks.
func (s *span) mid() int64 { return s.lo + (s.hi-s.lo)/2&^(BlockSize-1) }

func (s *span) small(l limits) bool { return s.hi-s.lo <= max(l.span, 2*BlockSize) }

// tooCoarse reports whether a span should be halved: it has many chunks, and few of them reach into
// both halves. It takes only the index to find out, no tables.
func (s *Stack) tooCoarse(at *span) bool {
	if at.small(s.cache.limits) || s.last.before == nil {
		return false
	}
	// What was too much for fewer layers is too much for more.
	if own := s.last.before.span(at); own.lo == at.lo && own.hi == at.hi && own.halves.Load() != nil {
		return true
	} else if s.known(s.last.before, at) != nil {
		return false
	}
	mid := at.mid()
	leaves, both := 0, 0
	for l := s.last; l.before != nil; l = l.before {
		for i := range l.Delta.leavesIn(l.Stream, at.lo, at.hi) {
			leaves++
			if start, end := l.Delta.leafBounds(i, l.Stream, at.lo, at.hi); start < mid && end > mid {
				both++
			}
		}
	}
	if leaves > s.cache.limits.leaves && both*4 <= leaves {
		return true
	}
	tables, both := 0, 0
	for l := s.last; l.before != nil; l = l.before {
		for c := range l.Delta.chunksIn(l.Stream, at.lo, at.hi) {
			if _, ok := c.single(l.stream().Size); ok && c.err == nil {
				continue
			}
			tables++
			if c.start < mid && c.end > mid {
				both++
			}
		}
	}
	return tables > s.cache.limits.tables && both*4 <= tables
}

// mapper makes a region, from the newest layer down.
type mapper struct {
	region
	covered sparse.Set
	pieces  []stretch
	limit   int64 // end of what the layers below may show: the smallest size so far
}

// stretch is [lo, hi) of the image, and where it comes from.
type stretch struct {
	lo, hi  int64
	src, at uint32
}

// mapOf makes the map of a span. Parts of the deltas that cannot be read become faults in the map,
// because the rest of the image does not depend on them. The only error is errTooLarge.
func (s *Stack) mapOf(at *span) (*region, error) {
	m := &mapper{region: region{lo: at.lo, hi: at.hi}, limit: s.Size()}
	for l := s.last; l.before != nil; l = l.before {
		if r := s.known(l, at); r != nil {
			m.join()
			m.under(r)
			if len(m.runs) > s.cache.limits.pieces && !at.small(s.cache.limits) {
				return nil, errTooLarge
			}
			return &m.region, nil
		}
		m.limit = min(m.limit, l.stream().Size)
		hi := min(m.hi, m.limit)
		if !m.open(m.lo, hi) {
			break
		}
		for c := range l.Delta.chunksIn(l.Stream, m.lo, hi) {
			m.chunk(l.Layer, c, hi)
			if len(m.pieces)+2*len(m.chunks)+16*len(m.faults) > s.cache.limits.pieces && !at.small(s.cache.limits) {
				return nil, errTooLarge
			}
		}
		m.grown(l.Layer, hi)
	}
	m.join()
	return &m.region, nil
}

// known returns the cached map of c, a prefix of s's chain, if it covers the span and has no fault
// worth another try; else nil.
func (s *Stack) known(c *chain, at *span) *region {
	own := c.span(at)
	if own.halves.Load() != nil || own.lo > at.lo || own.hi < min(at.hi, c.root.hi) {
		return nil
	}
	r, ok := s.cache.regions.Peek(own)
	if !ok || slices.ContainsFunc(r.faults, func(err error) bool { return !isDamage(err) }) {
		return nil
	}
	return r
}

// span returns the span of c with the bounds of at. If there is none, it returns the smallest one
// where at begins.
func (c *chain) span(at *span) *span {
	own := &c.root
	for {
		halves := own.halves.Load()
		if halves == nil || own.lo == at.lo && own.hi == at.hi {
			return own
		}
		own = halves[0].or(&halves[1], at.lo)
	}
}

// under fills in, from the map of the layers below, what the layers so far say nothing about.
func (m *mapper) under(r *region) {
	top := m.runs
	m.runs = make([]run, 0, len(top)+len(r.runs))
	at := make([]uint32, len(r.chunks)) // index in m, plus 1
	faults := uint32(len(m.faults))
	m.faults = append(m.faults, r.faults...)
	for i, x := range top {
		hi := m.hi
		if i+1 < len(top) {
			hi = top[i+1].off
		}
		if x.src != below {
			m.append(stretch{x.off, hi, x.src, x.at})
			continue
		}
		cut := min(hi, r.hi, m.limit)
		for j := r.find(x.off); x.off < cut && j < len(r.runs) && r.runs[j].off < cut; j++ {
			y := r.runs[j]
			p := stretch{max(x.off, y.off), min(cut, r.end(j)), y.src, y.at}
			switch {
			case p.src == faulty:
				p.at += faults
			case p.src < chunkLimit:
				p.at += uint32(p.lo - y.off)
				if at[p.src] == 0 {
					m.chunks = append(m.chunks, r.chunks[p.src])
					at[p.src] = uint32(len(m.chunks))
				}
				p.src = at[p.src] - 1
			}
			m.append(p)
		}
		if from := max(x.off, cut); from < hi {
			m.append(stretch{from, hi, below, 0})
		}
	}
}

// open reports whether newer layers leave any of [lo, hi) uncovered.
func (m *mapper) open(lo, hi int64) bool {
	for range m.covered.Without(lo, hi) {
		return true
	}
	return false
}

// chunk adds what newer layers leave visible of a chunk of l.
func (m *mapper) chunk(l Layer, c chunkIn, hi int64) {
	lo := max(m.lo, c.start)
	hi = min(hi, c.end)
	if !m.open(lo, hi) {
		return
	}
	if c.err != nil {
		m.fault(lo, hi, l.Delta.in(c.err))
		return
	}
	at := chunkAt{delta: l.Delta, k: c.k}
	if e, ok := c.single(l.stream().Size); ok {
		at.payload = uint32(e.n)
		m.extent(e, at, 0, lo, hi)
		return
	}
	t, err := l.Delta.readTable(c.k, c.chunkRef)
	if err != nil {
		m.fault(lo, hi, l.Delta.in(err))
		return
	}
	at.off, at.dataLen, at.crc, at.payload = c.off+int64(c.tableLen), uint32(c.dataLen), t.crc, uint32(t.payload)
	pos := int64(0)
	for _, e := range t.extents {
		m.extent(e, at, pos, lo, hi)
		if !e.zero {
			pos += e.n
		}
	}
}

// extent adds what newer layers leave visible of e in [lo, hi). The bytes of a data extent begin at
// pos of the payload.
func (m *mapper) extent(e extent, at chunkAt, pos, lo, hi int64) {
	lo, hi = max(lo, e.off), min(hi, e.end())
	for from, to := range m.covered.Without(lo, hi) {
		p := stretch{lo: from, hi: to, src: zeros}
		if !e.zero {
			if n := len(m.chunks); n == 0 || m.chunks[n-1].delta != at.delta || m.chunks[n-1].k != at.k {
				m.chunks = append(m.chunks, at)
			}
			p.src, p.at = uint32(len(m.chunks)-1), uint32(pos+from-e.off)
		}
		m.pieces = append(m.pieces, p)
	}
	m.covered.Add(lo, hi)
}

// fault records err for what newer layers leave visible of [lo, hi).
func (m *mapper) fault(lo, hi int64, err error) {
	for from, to := range m.covered.Without(lo, hi) {
		m.pieces = append(m.pieces, stretch{lo: from, hi: to, src: faulty, at: uint32(len(m.faults))})
	}
	m.covered.Add(lo, hi)
	m.faults = append(m.faults, err)
}

// grown adds faults for the bytes below hi that l had to cover and did not.
func (m *mapper) grown(l Layer, hi int64) {
	var free []stretch
	for lo, hi := range m.covered.Without(max(m.lo, l.stream().growth()), hi) {
		free = append(free, stretch{lo: lo, hi: hi})
	}
	for _, p := range free {
		m.fault(p.lo, p.hi, l.Delta.in(uncovered(l.stream(), p.lo, -1)))
	}
}

// join turns the pieces into runs.
func (m *mapper) join() {
	slices.SortFunc(m.pieces, func(a, b stretch) int { return cmp.Compare(a.lo, b.lo) })
	n, pos := 1, m.lo
	for _, p := range m.pieces {
		if p.lo > pos {
			n++
		}
		n, pos = n+1, p.hi
	}
	m.runs = make([]run, 0, n)
	pos = m.lo
	for _, p := range m.pieces {
		if p.lo > pos {
			m.append(stretch{lo: pos, hi: p.lo, src: below})
		}
		m.append(p)
		pos = p.hi
	}
	if pos < m.hi {
		m.append(stretch{lo: pos, hi: m.hi, src: below})
	}
	m.pieces, m.covered = nil, sparse.Set{}
}

func (m *mapper) append(p stretch) {
	if n := len(m.runs); n > 0 {
		last := m.runs[n-1]
		if last.src == p.src {
			at := last.at
			if p.src < chunkLimit {
				at += uint32(p.lo - last.off)
			}
			if at == p.at {
				return
			}
		}
	}
	m.runs = append(m.runs, run{p.lo, p.src, p.at})
}

// forget drops a region, so that it is made anew.
func (s *Stack) forget(r *region) {
	at := &s.last.root
	for halves := at.halves.Load(); halves != nil; halves = at.halves.Load() {
		at = halves[0].or(&halves[1], r.lo)
	}
	s.cache.regions.Remove(at)
}
