package cow

import (
	"errors"
	"fmt"
	"iter"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

// View is the content of a snapshot: its store over its origin. It implements sparse.View, and is
// safe for concurrent use if store and origin are.
//
// It is right only as long as nobody writes to the origin: later writes there show through. The
// content of a snapshot in use is read through its device; its store only tells which chunks may
// differ (ChangedChunks).
type View struct {
	store  *Store
	origin sparse.View
	size   int64
}

// NewView returns the snapshot whose exceptions are in s. size is its size in bytes, that of the
// origin when the snapshot was taken. A record of a chunk past its end is a *sparse.FormatError. An
// origin smaller than size is refused, as by the kernel.
func NewView(s *Store, origin sparse.View, size int64) (*View, error) {
	switch {
	case s == nil || origin == nil:
		return nil, errors.New("a snapshot needs a store and an origin")
	case size < 0:
		return nil, fmt.Errorf("a snapshot of %d bytes", size)
	case origin.Size() < size:
		return nil, fmt.Errorf("the origin of %d bytes is smaller than its snapshot of %d", origin.Size(), size)
	}
	if err := s.fits(size); err != nil {
		return nil, err
	}
	return &View{s, origin, size}, nil
}

// fits checks that all records are of chunks inside a snapshot of size bytes.
func (s *Store) fits(size int64) error {
	if len(s.table) == 0 {
		return nil
	}
	if last := s.table[len(s.table)-1].end() - 1; int64(last)<<s.shift >= size {
		return &sparse.FormatError{Struct: "exception table", Off: -1, Field: "old_chunk", Value: last,
			Msg: fmt.Sprintf("behind the end of a snapshot of %d bytes", size)}
	}
	return nil
}

// Store returns the exception store of the snapshot.
func (v *View) Store() *Store { return v.store }

// Origin returns the view that the snapshot was taken of, as given to NewView.
func (v *View) Origin() sparse.View { return v.origin }

// Size returns the size of the snapshot in bytes.
func (v *View) Size() int64 { return v.size }

// Recheck reads the store again. It returns an error that is sparse.ErrChanged unless the store is
// exactly as it was when it was opened. Even one more record is an error: it means that the origin,
// which this view reads through to, was written to.
func (v *View) Recheck() error {
	grown, err := v.store.recheck()
	if err == nil && grown {
		err = fmt.Errorf("%w: there are more than %d records", errChanged, v.store.records)
	}
	return err
}

// ReadAt implements io.ReaderAt. Errors of the origin are passed on unchanged.
func (v *View) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, v.size)
	done := 0
	for piece := range v.store.pieces(off, int64(len(p))) {
		q := p[done : done+int(piece.n)]
		if piece.stored {
			if err := binfmt.Fill(v.store.r, v.store.geometry.size, "chunk of the exception store", q, uint64(piece.at)); err != nil {
				return done, err
			}
		} else if n, err := sparse.ReadFull(v.origin, q, piece.off); err != nil {
			return done + n, err
		}
		done += len(q)
	}
	return done, eof
}

// Extents implements sparse.View: Data for the chunks in the store, the origin's extents elsewhere.
func (v *View) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, v.size); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		for piece := range v.store.pieces(off, n) {
			if piece.stored {
				if !yield(sparse.Extent{Off: piece.off, Len: piece.n, Kind: sparse.Data}, nil) {
					return
				}
				continue
			}
			for e, err := range v.origin.Extents(piece.off, piece.n) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	})
}

// A piece is n bytes of the snapshot at off that lie in one place. That is the store, at offset at,
// or the origin, at the same offset.
type piece struct {
	off, n int64
	stored bool
	at     int64
}

// pieces yields the pieces of [off, off+n), which must be inside the snapshot.
func (s *Store) pieces(off, n int64) iter.Seq[piece] {
	return func(yield func(piece) bool) {
		end := off + n
		if n <= 0 {
			return
		}
		for _, r := range s.table[s.table.from(uint64(off)>>s.shift):] {
			lo, hi := int64(r.old)<<s.shift, int64(r.end())<<s.shift
			if lo >= end {
				break
			}
			if off < lo {
				if !yield(piece{off: off, n: lo - off}) {
					return
				}
				off = lo
			}
			stop := min(hi, end)
			if !yield(piece{off, stop - off, true, int64(r.new())<<s.shift + off - lo}) {
				return
			}
			off = stop
		}
		if off < end {
			yield(piece{off: off, n: end - off})
		}
	}
}
