package lvm

import (
	"errors"
	"slices"
	"sort"

	"cbt/sparse"
)

// part is a run of another view.
type part struct {
	v       sparse.View
	off, at int64 // where it begins in v, and in the whole
	size    int64
}

// section returns [off, off+n) of v, which must lie inside it.
func section(v sparse.View, off, n int64) sparse.View {
	if off == 0 && n == v.Size() {
		return v
	}
	return &joined{[]part{{v, off, 0, n}}, n}
}

// joined presents parts one after another.
type joined struct {
	parts []part
	size  int64
}

// join returns the views one after another as one view.
func join(views []sparse.View) sparse.View {
	if len(views) == 1 {
		return views[0]
	}
	j := &joined{}
	for _, v := range views {
		p := part{v: v, at: j.size, size: v.Size()}
		// Avoid a second layer if the view is already a part.
		if s, ok := v.(*joined); ok && len(s.parts) == 1 {
			p.v, p.off = s.parts[0].v, s.parts[0].off
		}
		j.parts = append(j.parts, p)
		j.size += p.size
	}
	return j
}

func (j *joined) Size() int64 { return j.size }

// from returns the parts from the one that holds off on.
func (j *joined) from(off int64) []part {
	i := sort.Search(len(j.parts), func(i int) bool { return j.parts[i].at+j.parts[i].size > off })
	return j.parts[i:]
}

func (j *joined) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, j.size)
	if len(p) == 0 {
		return 0, eof
	}
	done := 0
	for _, s := range j.from(off) {
		at := off + int64(done) - s.at
		n, err := sparse.ReadFull(s.v, p[done:][:min(int64(len(p)-done), s.size-at)], s.off+at)
		done += n
		if err != nil {
			return done, err
		}
		if done == len(p) {
			break
		}
	}
	return done, eof
}

func (j *joined) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, j.size); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		if n == 0 {
			return
		}
		for _, s := range j.from(off) {
			w := sparse.Extent{Off: s.at, Len: s.size}.Clip(off, off+n)
			if w.Len == 0 {
				return
			}
			for e, err := range s.v.Extents(s.off+w.Off-s.at, w.Len) {
				if err != nil {
					yield(sparse.Extent{}, err)
					return
				}
				e.Off += s.at - s.off
				if !yield(e, nil) {
					return
				}
			}
		}
	})
}

// errErrorTarget is the error of reading an error segment, as in the kernel.
var errErrorTarget = errors.New("a segment of type error, of which nothing can be read")

// faulty is a segment of type error. Nothing is stored there, but it is not a hole, because it does
// not read as zeros.
type faulty int64

func (f faulty) Size() int64 { return int64(f) }

func (f faulty) ReadAt(p []byte, off int64) (int, error) {
	p, err := sparse.ClipRead(p, off, int64(f))
	if len(p) > 0 {
		err = errErrorTarget
	}
	return 0, err
}

func (f faulty) Extents(off, n int64) sparse.Seq {
	return sparse.Plain(nil, int64(f)).Extents(off, n)
}

// striped is data spread over legs in units of unit bytes, according to layout.
type striped struct {
	layout layout
	unit   int64
	size   int64
	legs   []sparse.View // of rows*unit bytes; nil for a lost one, whose data must have copies
}

func (s *striped) Size() int64 { return s.size }

func (s *striped) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, s.size)
	for done := 0; done < len(p); {
		unit, in := (off+int64(done))/s.unit, (off+int64(done))%s.unit
		q := p[done:][:min(int64(len(p)-done), s.unit-in)]
		leg, row := s.layout.place(unit)
		for c := int64(1); s.legs[leg] == nil && c < s.layout.copies; c++ {
			leg, row = s.layout.copy(unit, c)
		}
		n, err := sparse.ReadFull(s.legs[leg], q, row*s.unit+in)
		done += n
		if err != nil {
			return done, err
		}
	}
	return len(p), eof
}

// Extents goes by rows of one unit of each leg. A row is a hole if it is one in every leg, zero if
// it is hole or zero in every leg, and data otherwise.
func (s *striped) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, s.size); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(sparse.Clip(func(yield func(sparse.Extent, error) bool) {
		if n == 0 {
			return
		}
		row, end := s.layout.row(off/s.unit), s.layout.row((off+n-1)/s.unit)+1
		legs := slices.DeleteFunc(slices.Clone(s.legs), func(v sparse.View) bool { return v == nil })
		rows := newRowKinds(legs, s.unit, row, end)
		defer rows.stop()
		for row < end {
			kind, next, err := rows.at(row)
			if err != nil {
				yield(sparse.Extent{}, err)
				return
			}
			from := s.layout.before(row) * s.unit
			to := s.layout.before(min(next, end)) * s.unit
			if to > from && !yield(sparse.Extent{Off: from, Len: to - from, Kind: kind}, nil) {
				return
			}
			row = next
		}
	}, off, n))
}
