package fuzz

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"cbt/cbt"
	"cbt/sparse"
)

// ram is an image and a target in memory.
type ram struct{ b []byte }

func (m *ram) Size() int64 { return int64(len(m.b)) }

func (m *ram) ReadAt(p []byte, off int64) (int, error) {
	p, err := sparse.ClipRead(p, off, m.Size())
	return copy(p, m.b[min(off, m.Size()):]), err
}

func (m *ram) Extents(off, n int64) sparse.Seq {
	return sparse.Plain(m, m.Size()).Extents(off, n)
}

func (m *ram) WriteAt(p []byte, off int64) (int, error) { return copy(m.b[off:], p), nil }
func (m *ram) Zero(off, n int64) error                  { clear(m.b[off : off+n]); return nil }
func (m *ram) Sync() error                              { return nil }

func (m *ram) Truncate(size int64) error {
	m.b = append(m.b[:min(size, m.Size())], make([]byte, max(0, size-m.Size()))...)
	return nil
}

// seedChains are chains of three whose images grow and shrink.
func seedChains(f *testing.F) {
	for seed, sizes := range [][3]int{{50000, 50000, 50000}, {40960, 9000, 70000}, {5000, 40000, 12288}, {8192, 0, 20000}} {
		var files [3][]byte
		old := &ram{}
		for i, size := range sizes {
			img := &ram{make([]byte, size)}
			copy(img.b, old.b)
			var changed sparse.Set
			if i > 0 {
				changed.Add(min(old.Size(), img.Size()), img.Size())
			}
			for k := range 4 {
				lo := (seed + 1) * (i + 2) * (k + 3) * 3571 % (size + 1)
				hi := min(size, lo+1+k*4097)
				for j := lo; j < hi; j++ {
					img.b[j] = byte(i*(k%3) + j/500*(k%3))
				}
				changed.Add(int64(lo), int64(hi))
			}
			s := cbt.Stream{Name: "disk/0", Size: img.Size(), To: fmt.Sprint("p", i), Full: i == 0}
			src := cbt.Source{New: img}
			if i > 0 {
				s.From = &cbt.Base{Point: fmt.Sprint("p", i-1), Size: old.Size()}
				src.Old = old
				var list []sparse.Extent
				pos := int64(0)
				for lo, hi := range changed.Without(0, img.Size()) {
					if lo > pos {
						list = append(list, sparse.Extent{Off: pos, Len: lo - pos, Kind: sparse.Data})
					}
					pos = hi
				}
				if pos < img.Size() {
					list = append(list, sparse.Extent{Off: pos, Len: img.Size() - pos, Kind: sparse.Data})
				}
				src.Changed = sparse.Of(list...)
			}
			var b bytes.Buffer
			h := cbt.Header{Version: cbt.Version, Consistency: cbt.Crash, Streams: []cbt.Stream{s}}
			if _, err := cbt.Write(context.Background(), &b, h, []cbt.Source{src}, cbt.Options{}); err != nil {
				f.Fatal(err)
			}
			files[i], old = b.Bytes(), img
		}
		f.Add(files[0], files[1], files[2])
	}
}

// FuzzChain reads any three deltas, whose checksums are right, as a chain.
// Whatever they say, reading may not panic; if each of them verifies, all of
// the image can be read, and it is what restoring them gives.
func FuzzChain(f *testing.F) {
	seedChains(f)
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		var layers []cbt.Layer
		sound := true
		for _, raw := range [][]byte{a, b, c} {
			raw = reseal(raw)
			if _, _, err := cbt.Verify(context.Background(), bytes.NewReader(raw), cbt.VerifyOptions{Workers: 1}); err != nil {
				sound = false
			}
			d, err := cbt.Open(bytes.NewReader(raw), int64(len(raw)))
			if err != nil {
				return
			}
			layers = append(layers, cbt.Layer{Delta: d})
		}
		stack, err := cbt.NewStack(layers...)
		if err != nil {
			return
		}
		n := min(stack.Size(), walkLimit)
		got, err := io.ReadAll(io.NewSectionReader(stack, 0, n))
		if err != nil && (sound || !deltaError(err)) {
			t.Fatalf("reading: %T %v", err, err)
		}
		pos := int64(0)
		var xerr error
		for e, err := range stack.Extents(0, stack.Size()) {
			if xerr = err; err != nil {
				break
			}
			if e.Off != pos || e.Len <= 0 {
				t.Fatalf("extent %v behind %d", e, pos)
			}
			if pos = e.End(); e.Kind != sparse.Data && e.Off < int64(len(got)) && !sparse.IsZero(got[e.Off:min(pos, int64(len(got)))]) {
				t.Fatalf("%v does not read as zeros", e)
			}
		}
		if xerr == nil && pos != stack.Size() {
			t.Fatalf("the extents end at %d of %d", pos, stack.Size())
		}
		if xerr != nil && (sound || !deltaError(xerr)) {
			t.Fatalf("extents: %T %v", xerr, xerr)
		}
		if !sound || stack.Size() > walkLimit {
			return
		}
		m, err := cbt.NewMerge(layers...)
		if err != nil {
			t.Fatal(err)
		}
		restored := &ram{}
		if _, err := m.WriteTo(context.Background(), restored, cbt.ApplyOptions{Workers: 1, Fresh: true}); err != nil {
			t.Fatalf("restoring: %v", err)
		}
		if !bytes.Equal(got, restored.b) {
			t.Fatal("a stack reads otherwise than a merge writes")
		}
	})
}
