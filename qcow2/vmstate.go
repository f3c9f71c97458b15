package qcow2

import (
	"fmt"
	"io"

	"cbt/sparse"
)

// VMState returns the machine state that the snapshot holds, and its size in bytes; nil and 0 if
// there is none. The state lies where the disk would go on if it were longer, from the next L1
// entry on. The reader is safe for concurrent use. A state that does not fit into the snapshot's L1
// table is a *sparse.FormatError. Bytes that no cluster holds read as zeros, never from the backing
// file.
func (v *View) VMState() (io.ReaderAt, int64, error) {
	if v.snapshot == nil || v.snapshot.VMStateSize == 0 {
		return nil, 0, nil
	}
	h := &v.img.header
	first := h.L1Needed(v.size)
	if entries := v.l1Entries - first; entries <= 0 || v.snapshot.VMStateSize > uint64(entries)*uint64(h.L1Span()) {
		return nil, 0, snapshotError("vm_state_size", v.snapshot.Offset, v.snapshot.VMStateSize,
			fmt.Sprintf("does not fit after the disk into an L1 table of %d entries", v.l1Entries))
	}
	size := int64(v.snapshot.VMStateSize)
	return &vmState{v, first * h.L1Span(), size}, size, nil
}

type vmState struct {
	v         *View
	off, size int64
}

func (s *vmState) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, s.size)
	w := walker{v: s.v, pos: s.off + off, end: s.off + off + int64(len(p))}
	for done := 0; done < len(p); {
		r, err := w.next()
		if err != nil {
			return done, err
		}
		if r.kind == unallocated {
			clear(p[done:][:r.n])
		} else if err := s.v.readRun(p[done:][:r.n], r); err != nil {
			return done, err
		}
		done += int(r.n)
	}
	return len(p), eof
}
