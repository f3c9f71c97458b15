package cbt

import (
	"slices"
	"sync"

	"cbt/internal/ordered"
)

const (
	readersAhead = 2       // goroutines, shared by all stacks of a cache
	aheadChunks  = 3       // decoded by one of them, counting the one that the reader is in
	aheadBytes   = 2 << 20 // looked at past the place where somebody reads
	nearby       = 1 << 20 // bytes between reads that still count as one sequence
	cursors      = 8       // readers told apart
	aheadAfter   = 3       // reads of a sequence before anything is read ahead
)

// readAhead notices readers that go through the image from front to back. There may be several, and
// the reads of one may overtake each other.
type readAhead struct {
	mu      sync.Mutex
	clock   uint64
	cursors [cursors]cursor
}

// cursor is the place where one reader will go on.
type cursor struct {
	next  int64
	ready int64 // everything before it was decoded
	reads int
	used  uint64
}

// follow records a read and returns the range to read ahead, which is empty if there is nothing to
// do.
func (a *readAhead) follow(off, n int64) (from, to int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clock++
	at := &a.cursors[0]
	for i := range a.cursors {
		c := &a.cursors[i]
		if c.reads > 0 && off >= c.next-nearby && off <= c.next+nearby {
			at = c
			break
		}
		if c.used < at.used {
			at = c
		}
	}
	if at.reads == 0 || off < at.next-nearby || off > at.next+nearby {
		*at = cursor{}
	}
	at.used = a.clock
	at.reads++
	at.next = max(at.next, off+n)
	if at.reads <= aheadAfter || at.ready-at.next > aheadBytes/2 {
		return 0, 0
	}
	from = max(at.next, at.ready)
	at.ready = at.next + aheadBytes
	return from, at.ready
}

// readAhead decodes what will be read next if the read of [off, off+n) continues earlier ones. It
// does not wait: the goroutine that it may start ends after aheadChunks chunks.
func (s *Stack) readAhead(off, n int64) {
	from, to := s.ahead.follow(off, n)
	if to = min(to, s.Size()); from >= to {
		return
	}
	select {
	case s.cache.ahead <- struct{}{}:
	default: // others keep the processors busy
		return
	}
	go func() {
		defer func() { <-s.cache.ahead }()
		var err error
		defer ordered.Caught(&err) // whoever reads there will meet it
		s.decodeAhead(from, to)
	}()
}

// decodeAhead decodes the first chunks of [from, to) into the cache. It drops errors: they show
// again when somebody reads there.
func (s *Stack) decodeAhead(from, to int64) {
	var done []partKey
	// more decodes chunk c, unless that was done, and reports whether to go on after it.
	more := func(c partKey, decode func() ([]byte, func(), error)) bool {
		if slices.Contains(done, c) {
			return true
		}
		_, giveBack, err := decode()
		giveBack()
		done = append(done, c)
		return err == nil && len(done) < aheadChunks
	}
	for x, err := range s.pieces(from, to-from) {
		if err != nil {
			return
		}
		if x.src < chunkLimit {
			c := x.region.chunks[x.src]
			if !more(partKey{c.delta, c.k}, func() ([]byte, func(), error) { return s.chunk(x) }) {
				return
			}
		}
		if x.src != below {
			continue
		}
		l := s.full
		for p, err := range l.Delta.parts(l.Stream, x.lo, min(x.hi, s.last.base)) {
			if err != nil || !p.zero && !more(partKey{l.Delta, p.k}, func() ([]byte, func(), error) { return l.Delta.payloadOf(p) }) {
				return
			}
		}
	}
}
