package overlay

import (
	"encoding/binary"
	"sync/atomic"

	"cbt/sparse"
)

// state says where the bytes of a block are.
type state uint64

const (
	inBase state = iota
	inFile
	zeros
)

const (
	pageSize    = 4096         // bytes
	pageBlocks  = pageSize * 4 // two bits each
	pageSpan    = pageBlocks * int64(BlockSize)
	wordBlocks  = 32
	evenBits    = 0x5555555555555555 // the lower bit of each pair
	bytesOfWord = 8
)

// page has the states of pageBlocks blocks; in the file its words are
// little-endian.
type page [pageSize / bytesOfWord]atomic.Uint64

// states are those of all blocks. Reading is safe at any time, changes are
// one at a time.
type states struct {
	pages []atomic.Pointer[page] // nil: all in the base
	dirty map[int64]struct{}     // changed since the last Sync
	files atomic.Int64           // blocks in the file
}

func (s *states) init(pages int64) {
	s.pages = make([]atomic.Pointer[page], pages)
	s.dirty = make(map[int64]struct{})
}

func (s *states) count() int64 { return s.files.Load() }

func (s *states) get(block int64) state {
	p := s.pages[block/pageBlocks].Load()
	if p == nil {
		return inBase
	}
	i := block % pageBlocks
	return state(p[i/wordBlocks].Load() >> (i % wordBlocks * 2) & 3)
}

// run is the state of block and the first block behind it, limit at most, that
// has another one.
func (s *states) run(block, limit int64) (state, int64) {
	first := s.get(block)
	all := uint64(first) * evenBits // a word of nothing else
	for b := block + 1; ; {
		if b >= limit {
			return first, limit
		}
		p := s.pages[b/pageBlocks].Load()
		switch i := b % pageBlocks; {
		case p == nil && first == inBase:
			b += pageBlocks - i
		case p != nil && i%wordBlocks == 0 && p[i/wordBlocks].Load() == all:
			b += wordBlocks
		case s.get(b) != first:
			return first, b
		default:
			b++
		}
	}
}

func (s *states) set(block, n int64, to state) {
	for b := block; b < block+n; b++ {
		was := s.get(b)
		if was == to {
			continue
		}
		p := s.pages[b/pageBlocks].Load()
		if p == nil {
			p = new(page)
			s.pages[b/pageBlocks].Store(p)
		}
		i := b % pageBlocks
		shift := i % wordBlocks * 2
		word := &p[i/wordBlocks]
		word.Store(word.Load()&^(3<<shift) | uint64(to)<<shift)
		switch {
		case to == inFile:
			s.files.Add(1)
		case was == inFile:
			s.files.Add(-1)
		}
		s.dirty[b/pageBlocks] = struct{}{}
	}
}

// takeDirty returns what the pages that changed hold now.
func (s *states) takeDirty() map[int64][]byte {
	taken := make(map[int64][]byte, len(s.dirty))
	for n := range s.dirty {
		b := make([]byte, 0, pageSize)
		p := s.pages[n].Load()
		for i := range p {
			b = binary.LittleEndian.AppendUint64(b, p[i].Load())
		}
		taken[n] = b
	}
	clear(s.dirty)
	return taken
}

// markDirty takes back what takeDirty gave.
func (s *states) markDirty(taken map[int64][]byte) {
	for n := range taken {
		s.dirty[n] = struct{}{}
	}
}

// load reads the bits of an overlay for an image of that many blocks.
func (s *states) load(file sparse.Target, blocks int64) error {
	buf := make([]byte, pageSize)
	for n := range s.pages {
		off := headerSize + int64(n)*pageSize
		if _, err := sparse.ReadFull(file, buf, off); err != nil {
			return err
		}
		var p *page
		for i := range pageSize / bytesOfWord {
			word := binary.LittleEndian.Uint64(buf[i*bytesOfWord:])
			if word == 0 {
				continue
			}
			at := off + int64(i)*bytesOfWord
			if word&(word>>1)&evenBits != 0 {
				return &sparse.FormatError{Struct: "overlay", Off: at, Field: "states", Value: word, Msg: "a block has state 3"}
			}
			first := int64(n)*pageBlocks + int64(i)*wordBlocks
			if left := blocks - first; left < wordBlocks && (left <= 0 || word>>(left*2) != 0) {
				return &sparse.FormatError{Struct: "overlay", Off: at, Field: "states", Value: word, Msg: "a block behind the end has one"}
			}
			if p == nil {
				p = new(page)
				s.pages[n].Store(p)
			}
			p[i].Store(word)
			for low := word & evenBits; low != 0; low &= low - 1 {
				s.files.Add(1)
			}
		}
	}
	return nil
}
