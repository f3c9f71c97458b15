package partition

import "cbt/sparse"

// View is the partition as an image of its own; disk is what it was found on.
func (p Partition) View(disk sparse.View) sparse.View { return &view{disk, p.Off, p.Size} }

type view struct {
	disk      sparse.View
	off, size int64
}

func (v *view) Size() int64 { return v.size }

func (v *view) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, v.size)
	if len(p) == 0 {
		return 0, eof
	}
	n, err := sparse.ReadFull(v.disk, p, v.off+off)
	if err == nil {
		err = eof
	}
	return n, err
}

func (v *view) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, v.size); err != nil {
		return sparse.Fail(err)
	}
	return func(yield func(sparse.Extent, error) bool) {
		for e, err := range v.disk.Extents(v.off+off, n) {
			if err == nil {
				e.Off -= v.off
			}
			if !yield(e, err) {
				return
			}
		}
	}
}
