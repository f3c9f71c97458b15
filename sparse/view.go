package sparse

import (
	"fmt"
	"io"
)

// View is the content of a disk at one instant, flattened: backing files and external origins are
// resolved before anyone sees it.
//
// ReadAt follows io.ReaderAt, reads holes and zero extents as zeros, and is safe for concurrent
// use. At the end of the image it returns what there is and io.EOF.
//
// Extents covers [off, off+n) completely and exactly, in ascending order, with neighbours of one
// kind joined. A range that is not inside [0, Size()] gives an error. What Extents calls Zero or
// Hole, ReadAt reads as zeros.
type View interface {
	io.ReaderAt
	Size() int64
	Extents(off, n int64) Seq
}

// CheckRange returns an error unless [off, off+n) lies inside an image of the given size. It does
// not overflow.
func CheckRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("range of %d bytes at offset %d is outside an image of %d bytes", n, off, size)
	}
	return nil
}

// ClipRead clips a read of len(p) bytes at off to an image of the given size. It returns the bytes
// to fill, and the error to return once they are filled: io.EOF if the image ends first.
func ClipRead(p []byte, off, size int64) ([]byte, error) {
	if off < 0 {
		return nil, fmt.Errorf("read at negative offset %d", off)
	}
	if off >= size {
		if len(p) == 0 {
			return p, nil
		}
		return nil, io.EOF
	}
	if int64(len(p)) > size-off {
		return p[:size-off], io.EOF
	}
	return p, nil
}

// Zeros returns an image of n bytes with nothing stored.
func Zeros(n int64) View { return zeros(n) }

type zeros int64

func (z zeros) Size() int64 { return int64(z) }

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	p, err := ClipRead(p, off, int64(z))
	clear(p)
	return len(p), err
}

func (z zeros) Extents(off, n int64) Seq {
	if err := CheckRange(off, n, int64(z)); err != nil {
		return Fail(err)
	}
	return Fill(Of(), off, n, Hole)
}

// Resize returns v at another size in bytes: cut off, or followed by a hole. It is as safe for
// concurrent use as v.
func Resize(v View, size int64) View {
	if v.Size() == size {
		return v
	}
	return &resized{v, size}
}

type resized struct {
	v    View
	size int64
}

func (r *resized) Size() int64 { return r.size }

func (r *resized) ReadAt(p []byte, off int64) (int, error) {
	p, eof := ClipRead(p, off, r.size)
	if len(p) == 0 {
		return 0, eof
	}
	inside, _ := ClipRead(p, off, r.v.Size())
	if len(inside) > 0 {
		if n, err := ReadFull(r.v, inside, off); err != nil {
			return n, err
		}
	}
	clear(p[len(inside):])
	return len(p), eof
}

func (r *resized) Extents(off, n int64) Seq {
	if err := CheckRange(off, n, r.size); err != nil {
		return Fail(err)
	}
	inside := Extent{Off: off, Len: n}.Clip(0, r.v.Size())
	if inside.Len == 0 {
		return Fill(Of(), off, n, Hole)
	}
	return Coalesce(Fill(r.v.Extents(inside.Off, inside.Len), off, n, Hole))
}

// ReadFull reads len(p) bytes at off. If r ends before that, the error is io.ErrUnexpectedEOF. An
// end right after them is not an error.
func ReadFull(r io.ReaderAt, p []byte, off int64) (int, error) {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return n, nil
	case err == nil || err == io.EOF:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}
