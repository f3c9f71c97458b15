package sparse_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// noise returns n bytes, none of them zero.
func noise(n int64, seed uint64) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)}).Read(p)
	for rest := p; ; {
		i := bytes.IndexByte(rest, 0)
		if i < 0 {
			return p
		}
		rest[i] = 1
		rest = rest[i:]
	}
}

// writeSparse writes the data extents of want, of unit bytes each, into a new file. The rest stays
// a hole.
func writeSparse(t *testing.T, path string, want []byte, unit int64) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(len(want))); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < int64(len(want)); off += unit {
		if p := want[off:min(off+unit, int64(len(want)))]; !sparse.IsZero(p) {
			if _, err := f.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
		}
	}
	return f
}

// mottled returns size bytes in which some units are noise and the rest zeros.
func mottled(size, unit int64, seed uint64) []byte {
	p := make([]byte, size)
	rnd := rand.New(rand.NewPCG(seed, 8))
	for off := int64(0); off < size; off += unit {
		if rnd.IntN(2) == 0 {
			copy(p[off:min(off+unit, size)], noise(unit, rnd.Uint64()))
		}
	}
	return p
}

func openRaw(t *testing.T, path string) (*sparse.Raw, *os.File) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	v, err := sparse.OpenRaw(f)
	if err != nil {
		t.Fatal(err)
	}
	return v, f
}

func TestRawFile(t *testing.T) {
	for _, size := range []int64{0, 1, 4096, 190, 1<<20 + 17, 3 << 20} {
		want := mottled(size, 64<<10, uint64(size))
		path := filepath.Join(t.TempDir(), "disk.raw")
		// The writer's descriptor stays open, and its data unsynced.
		writeSparse(t, path, want, 64<<10)
		v, _ := openRaw(t, path)
		sparsetest.View(t, v, want)
		sparsetest.View(t, sparse.Plain(bytes.NewReader(want), size), want)
	}
	for _, want := range [][]byte{make([]byte, 5<<20), noise(1<<20, 1)} {
		path := filepath.Join(t.TempDir(), "disk.raw")
		writeSparse(t, path, want, 1<<20)
		v, _ := openRaw(t, path)
		sparsetest.View(t, v, want)
	}
}

func TestRawOfOneByteShorterReader(t *testing.T) {
	v := sparse.Plain(bytes.NewReader(make([]byte, 99)), 100)
	for _, r := range [][2]int64{{0, 100}, {99, 1}, {50, 200}} {
		if n, err := v.ReadAt(make([]byte, r[1]), r[0]); err != io.ErrUnexpectedEOF {
			t.Errorf("ReadAt(%d bytes, %d) = %d, %v, want %v", r[1], r[0], n, err, io.ErrUnexpectedEOF)
		}
	}
}

// TestRawCutShort makes a file shorter while a view of it is open. That must look neither like
// zeros nor like the end.
func TestRawCutShort(t *testing.T) {
	for name, want := range map[string][]byte{"data": noise(1<<20, 1), "holes": mottled(1<<20, 64<<10, 4), "hole": make([]byte, 1<<20)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.raw")
			f := writeSparse(t, path, want, 64<<10)
			v, _ := openRaw(t, path)
			if err := f.Truncate(600_000); err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 4096)
			for _, off := range []int64{600_000 - 1, 600_000, 1<<20 - 4096, 1<<20 - 10} {
				if n, err := v.ReadAt(p, off); err != io.ErrUnexpectedEOF {
					t.Errorf("ReadAt(4096 bytes, %d) = %d, %v, want %v", off, n, err, io.ErrUnexpectedEOF)
				}
			}
			if _, err := v.ReadAt(p, 1<<20); err != io.EOF {
				t.Errorf("ReadAt behind the end: %v", err)
			}
			all, err := sparse.Collect(v.Extents(0, v.Size()))
			if systemMaps && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("Extents of a file cut short: %v, %v", all, err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	closed, err := os.Create(filepath.Join(t.TempDir(), "closed"))
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, f := range []*os.File{dir, r, w, null, closed} {
		if v, err := sparse.OpenRaw(f); err == nil || v != nil {
			t.Errorf("OpenRaw of %s: %v, %v", f.Name(), v, err)
		}
		if target, err := sparse.OpenTarget(f); err == nil || target != nil {
			t.Errorf("OpenTarget of %s: %v, %v", f.Name(), target, err)
		}
	}
}

func TestRawFailingFile(t *testing.T) {
	v, f := openRaw(t, writeSparse(t, filepath.Join(t.TempDir(), "disk.raw"), mottled(1<<20, 4096, 1), 4096).Name())
	f.Close()
	if _, err := v.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReadAt of a closed file: %v", err)
	}
	all, err := sparse.Collect(v.Extents(0, v.Size()))
	if systemMaps && (!errors.Is(err, os.ErrClosed) || len(all) > 0) {
		t.Errorf("Extents of a closed file: %v, %v", all, err)
	}
}

// wantExtents returns the map of a file with data in each unit that is not all zeros.
func wantExtents(want []byte, unit int64) []sparse.Extent {
	var all []sparse.Extent
	size := int64(len(want))
	for off := int64(0); off < size; off += unit {
		e := sparse.Extent{Off: off, Len: min(unit, size-off), Kind: sparse.Data}
		if sparse.IsZero(want[off:e.End()]) {
			e.Kind = sparse.Hole
		}
		all = append(all, e)
	}
	all, _ = sparse.Collect(sparse.Coalesce(sparse.Of(all...)))
	return all
}

func equalExtents(t *testing.T, v sparse.View, want []sparse.Extent) {
	t.Helper()
	got, err := sparse.Collect(v.Extents(0, v.Size()))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Extents = %v, %v, want %v", got, err, want)
	}
}
