package sparsetest_test

import (
	"errors"

	"cbt/sparse"
)

// faulty is a view whose methods can be replaced one by one.
type faulty struct {
	*memView
	size    func() int64
	read    func(p []byte, off int64) (int, error)
	extents func(off, n int64) sparse.Seq
}

func (f *faulty) Size() int64 {
	if f.size != nil {
		return f.size()
	}
	return f.memView.Size()
}

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	if f.read != nil {
		return f.read(p, off)
	}
	return f.memView.ReadAt(p, off)
}

func (f *faulty) Extents(off, n int64) sparse.Seq {
	if f.extents != nil {
		return f.extents(off, n)
	}
	return f.memView.Extents(off, n)
}

// alter changes the sound sequence of every range inside the image.
func (f *faulty) alter(change func(all []sparse.Extent, off, n int64) []sparse.Extent) {
	f.extents = func(off, n int64) sparse.Seq {
		all, err := sparse.Collect(f.memView.Extents(off, n))
		if err != nil {
			return sparse.Fail(err)
		}
		return sparse.Of(change(all, off, n)...)
	}
}

var errTest = errors.New("test")
