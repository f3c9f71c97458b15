package qcow2

import (
	"iter"

	"cbt/sparse"
)

// MapExtent is a row of `qemu-img map --output=json`: a part of the disk that one file of the
// backing chain holds in one piece.
type MapExtent struct {
	Start, Length int64 // in bytes of the disk
	Depth         int   // 0 is the image, 1 its backing file, and so on
	Present       bool  // the file at Depth says what is there
	Zero          bool  // reads as zeros
	Data          bool  // has to be read
	Compressed    bool
	Unknown       bool  // it is in a backing file that is missing, see sparse.Missing
	Offset        int64 // where it lies in the file at Depth; -1 if nowhere, or compressed
}

// Map yields what holds [off, off+n) and where, as `qemu-img map --output=json` does, neighbouring
// rows joined in the same way. There is one difference: Map does not ask the file system for holes
// under allocated clusters. qemu-img does that for images with preallocated metadata, and then
// prints both zero and data.
func (v *View) Map(off, n int64) iter.Seq2[MapExtent, error] {
	return func(yield func(MapExtent, error) bool) {
		if err := sparse.CheckRange(off, n, v.size); err != nil {
			yield(MapExtent{}, err)
			return
		}
		var row MapExtent
		ok := v.mapRows(off, n, 0, func(next MapExtent, err error) bool {
			if err == nil && row.joins(next) {
				row.Length += next.Length
				return true
			}
			if row.Length > 0 && !yield(row, nil) {
				return false
			}
			row = next
			return err == nil || yield(MapExtent{}, err)
		})
		if ok && row.Length > 0 {
			yield(row, nil)
		}
	}
}

// joins reports whether qemu-img prints m and next as one row.
func (m MapExtent) joins(next MapExtent) bool {
	if m.Length == 0 || m.Depth != next.Depth || m.Present != next.Present || m.Zero != next.Zero ||
		m.Data != next.Data || m.Compressed != next.Compressed || m.Unknown != next.Unknown {
		return false
	}
	if m.Offset < 0 {
		return next.Offset < 0
	}
	return next.Offset == m.Offset+m.Length
}

// mapRows yields rows without joining them, and reports whether to go on.
func (v *View) mapRows(off, n int64, depth int, yield func(MapExtent, error) bool) bool {
	w := v.walk(off, n)
	for {
		r, err := w.next()
		if err != nil {
			yield(MapExtent{}, err)
			return false
		}
		if r.n == 0 {
			return true
		}
		if r.kind == unallocated {
			if !v.mapBelow(r, depth, yield) {
				return false
			}
			continue
		}
		row := MapExtent{Start: r.off, Length: r.n, Depth: depth, Present: true, Zero: r.kind == zeros, Data: r.kind != zeros, Compressed: r.kind == deflated, Offset: r.host}
		if !yield(row, nil) {
			return false
		}
	}
}

// mapBelow yields the rows of an unallocated run: those of the backing file, and past its end zeros
// that no file stores.
func (v *View) mapBelow(r run, depth int, yield func(MapExtent, error) bool) bool {
	if sparse.IsMissing(v.img.backing) {
		return yield(MapExtent{Start: r.off, Length: r.n, Depth: depth + 1, Unknown: true, Offset: -1}, nil)
	}
	inside := v.img.insideBacking(r.off, r.n)
	switch below := v.img.backing.(type) {
	case nil:
	case *View:
		if !below.mapRows(r.off, inside, depth+1, yield) {
			return false
		}
	default:
		// QEMU counts sectors, so it extends the last sector of a raw file to its full size.
		sectors := below.Size() + -below.Size()&511
		inside = max(0, min(r.n, sectors-r.off))
		if !mapRaw(below, r.off, inside, depth+1, yield) {
			return false
		}
	}
	if inside == r.n {
		return true
	}
	row := MapExtent{Start: r.off + inside, Length: r.n - inside, Depth: depth, Zero: true, Offset: r.host}
	if row.Offset >= 0 {
		row.Offset += inside
	}
	return yield(row, nil)
}

// mapRaw yields the rows of a backing file that is not a qcow2 image. Holes of a raw file have an
// offset like its data, and so has the part past its end.
func mapRaw(v sparse.View, off, n int64, depth int, yield func(MapExtent, error) bool) bool {
	inside := max(0, min(n, v.Size()-off))
	for e, err := range sparse.Fill(v.Extents(min(off, v.Size()), inside), off, n, sparse.Hole) {
		if err != nil {
			yield(MapExtent{}, err)
			return false
		}
		row := MapExtent{Start: e.Off, Length: e.Len, Depth: depth, Present: true, Zero: e.Kind.ReadsZero(), Data: !e.Kind.ReadsZero(), Offset: e.Off}
		if !yield(row, nil) {
			return false
		}
	}
	return true
}
