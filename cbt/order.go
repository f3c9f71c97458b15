package cbt

import (
	"fmt"

	"cbt/sparse"
)

// order follows the tables of a delta in the order of the file. It refuses what sections 4 and 5 of
// the specification do not allow between them. Writer and readers share it.
type order struct {
	streams []Stream
	stream  int
	pos     int64 // end of the last extent of the stream
	due     int64 // first byte that still has to be covered
	started bool
}

func (o *order) begin(stream int) {
	o.stream, o.pos, o.due, o.started = stream, 0, o.streams[stream].growth(), true
}

// next checks t, the table at file offset off, against those before it.
func (o *order) next(t *table, off int64) error {
	if !o.started {
		o.begin(0)
	}
	if t.stream < o.stream {
		return &sparse.FormatError{Struct: "delta table", Field: "stream", Off: off, Value: t.stream, Msg: fmt.Sprintf("comes after stream %d", o.stream)}
	}
	for o.stream < t.stream {
		if err := o.complete(off); err != nil {
			return err
		}
		o.begin(o.stream + 1)
	}
	for _, e := range t.extents {
		if e.off < o.pos {
			return &sparse.FormatError{Struct: "delta table", Field: "extent offset", Off: off, Value: uint64(e.off), Msg: "overlaps the chunk before"}
		}
		if e.off > o.due && o.due < o.streams[o.stream].Size {
			return o.uncovered(off)
		}
		o.pos = e.end()
		o.due = max(o.due, o.pos)
	}
	return nil
}

// end is called after the last table.
func (o *order) end(off int64) error {
	if !o.started {
		o.begin(0)
	}
	for {
		if err := o.complete(off); err != nil {
			return err
		}
		if o.stream == len(o.streams)-1 {
			return nil
		}
		o.begin(o.stream + 1)
	}
}

func (o *order) complete(off int64) error {
	if o.due < o.streams[o.stream].Size {
		return o.uncovered(off)
	}
	return nil
}

func (o *order) uncovered(off int64) error {
	return uncovered(&o.streams[o.stream], o.due, off)
}

// uncovered returns the error that byte at of a stream must be covered and is not. off is how far
// the file was read, negative if that does not matter.
func uncovered(s *Stream, at, off int64) error {
	return &sparse.FormatError{Struct: "delta", Field: "stream " + s.Name, Off: off, Value: at, Msg: "the byte of the image at this offset must be covered and is not"}
}
