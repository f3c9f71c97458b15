package cbt

import (
	"bytes"
	"context"
	"math"

	"cbt/sparse"
)

// mark is how far a walk over the frames of a delta has got.
type mark struct {
	seq    uint64 // of the last frame
	stream int    // of the last chunk
	pos    int64  // end of its last extent
	off    int64  // in the file, after the last part that was recognised
	again  int64  // where to look for tables if there is none at off
}

// before reports whether a chunk with table t may follow the mark.
func (m mark) before(t *table) bool {
	return t.stream > m.stream || t.stream == m.stream && t.start() >= m.pos
}

// behind returns the mark after a chunk whose table begins at off.
func (m mark) behind(seq uint64, t *table, off, tableLen int64) mark {
	return mark{seq: seq, stream: t.stream, pos: t.end(), off: off + tableLen + int64(t.dataLen), again: off + tableLen + int64(t.dataLen)}
}

// minTable is the least that a chunk takes in a file, in bytes.
const minTable = frameOverhead + tableHeadSize + extentSize

// walk takes the chunks from off on, one after the other. After a gap it looks for the next one.
func (s *salvager) walk(off int64) error {
	known := s.streams != nil // which place of the delta the walk is at
	sure := known
	at := mark{off: off, again: off}
	last := at // the last mark that is sure
	began := int64(0)
	var held []foundChunk // chunks that are not sure
	flush := func(unsure bool) error {
		for _, c := range held {
			if err := s.take(c, unsure); err != nil {
				return err
			}
		}
		held = nil
		return nil
	}
	joined := known
	for {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		t, next, ended, err := s.exact(at.off, at)
		if err != nil {
			return err
		}
		if ended && sure {
			s.result.Whole, s.joined = true, joined
			break
		}
		if t == nil {
			if t, next, err = s.overTable(at); err != nil {
				return err
			}
			joined = joined && t == nil
		}
		if t == nil {
			joined = false
			if sure {
				last = at
			}
			var undone bool
			if t, next, undone, err = s.search(at, last, known); err != nil {
				return err
			}
			if t == nil {
				s.result.Skipped += s.size - min(at.off, s.size)
				break
			}
			if undone {
				held = nil
			} else if err := flush(!sure); err != nil {
				return err
			} else {
				last = at
			}
			sure, began = false, next.off-int64(t.dataLen)
			s.result.Skipped += began - min(at.off, began)
		}
		c := foundChunk{t, next.off - int64(t.dataLen), joined}
		whole, err := s.decode(t, c.off)
		if err != nil {
			return err
		}
		if whole == nil && t.payload > 0 && !s.slow() {
			next.again = c.off
		}
		joined, known, at = true, true, next
		held = append(held, c)
		if !sure && at.off-began > maxDataFrame {
			sure = true
		}
		if sure {
			if err := flush(false); err != nil {
				return err
			}
		}
	}
	if err := flush(!sure); err != nil {
		return err
	}
	return s.end()
}

// exact recognises the chunk at off if it is the next one. ended is set if the index is there
// instead.
func (s *salvager) exact(off int64, at mark) (_ *table, _ mark, ended bool, err error) {
	head, err := s.at(off, frameHeadSize)
	if err != nil || len(head) < frameHeadSize {
		return nil, at, false, err
	}
	t, n, err := decodeFrameHead(head, off)
	if err != nil || t != tableFrame && t != leafFrame && t != rootFrame {
		return nil, at, false, nil
	}
	b, err := s.at(off, n)
	if err != nil {
		return nil, at, false, err
	}
	s.work += n
	body, err := openFrame(b, t, at.seq+1, off)
	switch {
	case err != nil:
		return nil, at, false, nil
	case t == leafFrame:
		return nil, at, at.seq > 0 && len(body) >= 8 && le.Uint64(body) == 0, nil
	case t == rootFrame:
		return nil, at, at.seq == 0 && len(body) >= 8 && le.Uint64(body) == 0, nil
	}
	table, err := decodeTable(body, s.streams, off)
	if err != nil || !at.before(table) {
		return nil, at, false, nil
	}
	return table, at.behind(at.seq+1, table, off, n), false, nil
}

// overTable trusts the lengths in a table that is damaged elsewhere. If they are wrong, the frame
// that they lead to does not have the right number.
func (s *salvager) overTable(at mark) (*table, mark, error) {
	b, err := s.at(at.off, frameHeadSize+tableHeadSize)
	if err != nil || len(b) < frameHeadSize+tableHeadSize {
		return nil, at, err
	}
	t, n, err := decodeFrameHead(b, at.off)
	if dataLen := le.Uint32(b[28:]); err == nil && t == tableFrame && dataLen <= maxDataFrame {
		over := at
		over.seq++
		table, next, _, err := s.exact(at.off+n+int64(dataLen), over)
		return table, next, err
	}
	return nil, at, nil
}

// search looks for a table after a gap. It must follow at. If undone is set it follows only last,
// and what lies between the two was not of this delta. If known is not set, nothing bounds its
// sequence number.
func (s *salvager) search(at, last mark, known bool) (_ *table, _ mark, undone bool, err error) {
	const most = 256 << 10
	if s.window == nil {
		s.window = make([]byte, most)
	}
	mask := []byte{0x2a, 0x4d, 0x18}
	step := int64(1 << 10)
	for from := at.again; from < s.size; {
		if s.ctx.Err() != nil {
			return nil, at, false, context.Cause(s.ctx)
		}
		w := s.window[:min(step, s.size-from)]
		step = min(2*step, most)
		if _, err := sparse.ReadFull(s.r, w, from); err != nil {
			return nil, at, false, err
		}
		next := from + max(int64(len(w))-frameHeadSize+1, 1)
		for i := 0; ; {
			k := bytes.Index(w[i:], mask)
			if k < 0 {
				break
			}
			i += k + 1
			off := from + int64(i) - 2
			if i < 2 || off >= next || w[i-2] != byte(skippableMagic&0xff)+byte(tableFrame) {
				continue
			}
			t, m, undone, skip, err := s.candidate(off, at, last, known)
			if err != nil || t != nil {
				return t, m, undone, err
			}
			if skip > 0 && s.slow() {
				next = max(off+skip, from+1)
				break
			}
		}
		from = next
	}
	return nil, at, false, nil
}

// slow reports whether more was looked at in vain than damage explains. Then somebody made the file
// so that it would take long.
func (s *salvager) slow() bool { return s.work > 64<<20+16*s.size }

// candidate looks at what may be a table at off. skip is how many bytes of the file were read for it.
func (s *salvager) candidate(off int64, at, last mark, known bool) (_ *table, _ mark, undone bool, skip int64, err error) {
	head, err := s.at(off, frameHeadSize+tableHeadSize)
	if err != nil || len(head) < frameHeadSize+tableHeadSize {
		return nil, at, false, 0, err
	}
	_, n, err := decodeFrameHead(head, off)
	if err != nil || int64(le.Uint32(head[12:]))*extentSize+int64(le.Uint32(head[16:]))*4+tableHeadSize+frameOverhead != n {
		return nil, at, false, 0, nil
	}
	b, err := s.at(off, n)
	if err != nil || int64(len(b)) != n {
		return nil, at, false, n, err
	}
	s.work += n
	t, err := decodeTable(b[frameHeadSize:n-frameTailSize], s.streams, off)
	if err != nil {
		return nil, at, false, n, nil
	}
	seq := seqOf(b)
	fits := func(m mark) bool {
		most := uint64(math.MaxUint32)
		if known {
			most = m.seq + 1 + uint64(off-m.off)/minTable
		}
		return seq > m.seq && seq <= most && m.before(t)
	}
	m := at
	if !fits(at) {
		if undone = fits(last); !undone {
			return nil, at, false, n, nil
		}
		m = last
	}
	skip = n + int64(t.dataLen)
	m = m.behind(seq, t, off, n)
	payload, err := s.decode(t, off+n)
	if err != nil {
		return nil, at, false, skip, err
	}
	if payload == nil { // its number alone proves nothing: what follows must fit
		next, _, ended, err := s.exact(m.off, m)
		if err != nil || next == nil && !ended {
			return nil, at, false, skip, err
		}
	}
	return t, m, undone, skip, nil
}

// seqOf returns the only sequence number below 2^32 that fits the CRC of a frame. It winds the CRC
// register back over the frame to the four bytes of the number.
func seqOf(frame []byte) uint64 {
	n := len(frame) - frameTailSize
	c := ^le.Uint32(frame[n:])
	for i := n - 1; i >= 0; i-- {
		c = crcBack(c, frame[i])
	}
	for range 8 {
		c = crcBack(c, 0)
	}
	return uint64(^c)
}

// crcBack returns the register of a CRC-32C as it was before it took byte b.
func crcBack(c uint32, b byte) uint32 {
	i := crcTops[c>>24]
	return (c^castagnoli[i])<<8 | uint32(i^b)
}

// crcTops gives the index of an entry of the CRC's table by the entry's upper byte.
var crcTops = func() (tops [256]byte) {
	for i, v := range castagnoli {
		tops[v>>24] = byte(i)
	}
	return tops
}()
