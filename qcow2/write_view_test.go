package qcow2_test

import (
	"math/rand/v2"
	"os"
	"testing"

	"cbt/sparse"
)

// patchwork is a view made of pieces over zeros. A piece of Data may still hold zeros.
type patchwork struct {
	size   int64
	pieces []piece
}

type piece struct {
	off  int64
	kind sparse.Kind
	data []byte
}

func (p *patchwork) Size() int64 { return p.size }

func (p *patchwork) ReadAt(b []byte, off int64) (int, error) {
	b, err := sparse.ClipRead(b, off, p.size)
	clear(b)
	for _, c := range p.pieces {
		if c.kind == sparse.Data && c.off < off+int64(len(b)) && off < c.off+int64(len(c.data)) {
			if c.off < off {
				copy(b, c.data[off-c.off:])
			} else {
				copy(b[c.off-off:], c.data)
			}
		}
	}
	return len(b), err
}

func (p *patchwork) Extents(off, n int64) sparse.Seq {
	var known []sparse.Extent
	for _, c := range p.pieces {
		known = append(known, sparse.Extent{Off: c.off, Len: int64(len(c.data)), Kind: c.kind})
	}
	return sparse.Coalesce(sparse.Fill(sparse.Of(known...), off, n, sparse.Hole))
}

// randomPatchwork has pieces of all kinds at random places, with lengths around the given unit.
func randomPatchwork(r *rand.Rand, size int64, unit int) *patchwork {
	p := &patchwork{size: size}
	for pos := r.Int64N(int64(unit) * 4); pos < size; pos += r.Int64N(int64(unit) * 6) {
		n := min(size-pos, 1+r.Int64N(int64(unit)*3))
		c := piece{pos, []sparse.Kind{sparse.Data, sparse.Data, sparse.Data, sparse.Zero}[r.IntN(4)], make([]byte, n)}
		switch r.IntN(4) {
		case 0: // data of zeros
		case 1: // a single byte
			c.data[r.IntN(len(c.data))] = 1
		default:
			for i := range c.data {
				c.data[i] = byte(r.Uint32())
			}
		}
		if c.kind != sparse.Data {
			clear(c.data)
		}
		p.pieces = append(p.pieces, c)
		pos += n
	}
	return p
}

// raw writes v as a sparse raw file.
func (p *patchwork) raw(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(p.size); err != nil {
		t.Fatal(err)
	}
	for _, c := range p.pieces {
		if c.kind == sparse.Data {
			if _, err := f.WriteAt(c.data, c.off); err != nil {
				t.Fatal(err)
			}
		}
	}
}
