package fuzz

import (
	"bytes"
	"io"
	"testing"

	"cbt/internal/overlay"
	"cbt/sparse"
)

// overlayFile is a small file in memory, all that an overlay needs.
type overlayFile struct{ b []byte }

func (f *overlayFile) Size() int64 { return int64(len(f.b)) }
func (f *overlayFile) Sync() error { return nil }

func (f *overlayFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.b).ReadAt(p, off)
}

func (f *overlayFile) WriteAt(p []byte, off int64) (int, error) {
	if err := sparse.CheckRange(off, int64(len(p)), f.Size()); err != nil {
		return 0, err
	}
	return copy(f.b[off:], p), nil
}

func (f *overlayFile) Truncate(n int64) error {
	f.b = append(f.b[:min(n, f.Size())], make([]byte, max(0, n-f.Size()))...)
	return nil
}

func (f *overlayFile) Zero(off, n int64) error {
	clear(f.b[off : off+n])
	return nil
}

const overlaySize = 9*overlay.BlockSize - 100

// FuzzOverlay opens an overlay whose header and states were altered (the first
// part of the input, laid over them) and writes to it (the rest): what was
// written is read, also after it was synced and opened again, and nothing else
// changes.
func FuzzOverlay(f *testing.F) {
	f.Add([]byte{}, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte("\x00\x00\x01"), []byte{9, 0, 200, 1, 8, 255})
	f.Add(bytes.Repeat([]byte{0x24}, 5000), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, damage, ops []byte) {
		base := sparse.Zeros(overlaySize)
		file := &overlayFile{}
		if _, err := overlay.Open(base, "base", file); err != nil {
			t.Fatal(err)
		}
		for i, d := range damage[:min(len(damage), 2*4096)] {
			file.b[i] ^= d
		}
		o, err := overlay.Open(base, "base", file)
		if err != nil {
			return
		}
		model, err := io.ReadAll(io.NewSectionReader(o, 0, o.Size()))
		if err != nil {
			t.Fatal(err)
		}
		for len(ops) >= 3 {
			off := int64(ops[0]) * overlaySize / 256
			n := min(int64(ops[1])*64, overlaySize-off)
			switch ops[2] % 4 {
			case 0:
				if err := o.Zero(off, n); err != nil {
					t.Fatal(err)
				}
				clear(model[off : off+n])
			case 1:
				if err := o.Sync(); err != nil {
					t.Fatal(err)
				}
				if o, err = overlay.Open(base, "base", file); err != nil {
					t.Fatal(err)
				}
			default:
				p := bytes.Repeat([]byte{ops[2]}, int(n))
				if _, err := o.WriteAt(p, off); err != nil {
					t.Fatal(err)
				}
				copy(model[off:], p)
			}
			ops = ops[3:]
		}
		got, err := io.ReadAll(io.NewSectionReader(o, 0, o.Size()))
		if err != nil || !bytes.Equal(got, model) {
			t.Fatalf("reads something else: %v", err)
		}
		for e, err := range o.Extents(0, o.Size()) {
			if err != nil || e.Kind != sparse.Data && len(bytes.Trim(got[e.Off:e.End()], "\x00")) > 0 {
				t.Fatalf("%v: %v", e, err)
			}
		}
	})
}
