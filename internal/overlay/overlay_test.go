package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

func scratch(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "overlay"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func open(base sparse.View, identity string, f *os.File) (*Image, error) {
	target, err := sparse.OpenTarget(f)
	if err != nil {
		return nil, err
	}
	return Open(base, identity, target)
}

func mustOpen(t *testing.T, base sparse.View, f *os.File) *Image {
	t.Helper()
	o, err := open(base, "base", f)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// content is a base with holes, and its bytes.
func content(rng *rand.Rand, size int64) (sparse.View, []byte) {
	b := make([]byte, size)
	var extents []sparse.Extent
	for off := int64(0); off < size; {
		e := sparse.Extent{Off: off, Len: min(1+rng.Int63n(5*BlockSize), size-off), Kind: sparse.Data}
		if rng.Intn(2) == 0 {
			e.Kind = sparse.Hole
		} else {
			rng.Read(b[off : off+e.Len])
		}
		extents = append(extents, e)
		off += e.Len
	}
	return &memory{bytes.NewReader(b), extents}, bytes.Clone(b)
}

type memory struct {
	*bytes.Reader
	extents []sparse.Extent
}

func (m *memory) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, m.Size()); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(sparse.Clip(sparse.Of(m.extents...), off, n))
}

// TestModel: whatever is written, zeroed, synced and opened again, the image
// reads as a slice of bytes would, and its base never changes.
func TestModel(t *testing.T) {
	for seed := range int64(20) {
		rng := rand.New(rand.NewSource(seed))
		size := 1 + rng.Int63n(40*BlockSize)
		if seed%5 == 0 {
			size = size / BlockSize * BlockSize
		}
		if seed%10 == 3 {
			size += pageSpan - 20*BlockSize
		}
		base, want := content(rng, size)
		before := bytes.Clone(want)
		f := scratch(t)
		o := mustOpen(t, base, f)
		for step := range 60 {
			off := rng.Int63n(size + 1)
			if seed%10 == 3 {
				off = max(0, size-rng.Int63n(min(size, 50*BlockSize))-1)
			}
			n := rng.Int63n(min(size-off, 6*BlockSize) + 1)
			if rng.Intn(3) == 0 {
				off, n = off/BlockSize*BlockSize, n/BlockSize*BlockSize
			}
			switch rng.Intn(5) {
			case 0:
				if err := o.Zero(off, n); err != nil {
					t.Fatal(err)
				}
				clear(want[off : off+n])
			case 1:
				if err := o.Sync(); err != nil {
					t.Fatal(err)
				}
				o = mustOpen(t, base, f)
			default:
				p := make([]byte, n)
				rng.Read(p)
				if w, err := o.WriteAt(p, off); err != nil || int64(w) != n {
					t.Fatal(w, err)
				}
				copy(want[off:], p)
			}
			from := max(0, size-60*BlockSize) // where all of it happens
			got, want := make([]byte, size-from), want[from:]
			if _, err := sparse.ReadFull(o, got, from); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("seed %d step %d: differs at %d: %v", seed, step, firstDifference(got, want), err)
			}
		}
		if seed%10 != 3 {
			sparsetest.View(t, o, want)
		}
		got := make([]byte, size)
		if _, err := sparse.ReadFull(base, got, 0); err != nil || !bytes.Equal(got, before) {
			t.Fatal("the base changed")
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// TestKilled: without a last Sync, what is there is what the last Sync left or
// what was written later, block by block, and never anything else.
func TestKilled(t *testing.T) {
	const blocks = 64
	for seed := range int64(20) {
		rng := rand.New(rand.NewSource(seed))
		base, model := content(rng, blocks*BlockSize)
		f := scratch(t)
		o := mustOpen(t, base, f)
		may := make([][][]byte, blocks) // what each block may hold
		for i := range may {
			may[i] = [][]byte{bytes.Clone(model[i*BlockSize : (i+1)*BlockSize])}
		}
		for range 100 {
			b := rng.Intn(blocks)
			switch rng.Intn(8) {
			case 0:
				if err := o.Sync(); err != nil {
					t.Fatal(err)
				}
				for i := range may {
					may[i] = may[i][len(may[i])-1:]
				}
				continue
			case 1:
				if err := o.Zero(int64(b)*BlockSize, BlockSize); err != nil {
					t.Fatal(err)
				}
				may[b] = append(may[b], make([]byte, BlockSize))
			default:
				p := make([]byte, BlockSize)
				rng.Read(p)
				if _, err := o.WriteAt(p, int64(b)*BlockSize); err != nil {
					t.Fatal(err)
				}
				may[b] = append(may[b], p)
			}
		}
		o = mustOpen(t, base, f)
		got := make([]byte, BlockSize)
		for b, list := range may {
			if _, err := sparse.ReadFull(o, got, int64(b)*BlockSize); err != nil {
				t.Fatal(err)
			}
			if !containsBytes(list, got) {
				t.Errorf("seed %d: block %d holds what was never written there since the last Sync", seed, b)
			}
		}
	}
}

func containsBytes(list [][]byte, p []byte) bool {
	for _, l := range list {
		if bytes.Equal(l, p) {
			return true
		}
	}
	return false
}

// TestConcurrent: writers of neighbouring bytes of one block lose nothing.
func TestConcurrent(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	base, want := content(rng, 16*BlockSize)
	o := mustOpen(t, base, scratch(t))
	const writers = 8
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewSource(int64(w)))
			for range 400 {
				off := rng.Int63n(16*BlockSize/writers)*writers + int64(w)
				if _, err := o.WriteAt([]byte{byte(w + 1)}, off); err != nil {
					t.Error(err)
				}
				if _, err := o.ReadAt(make([]byte, 100), off/2); err != nil {
					t.Error(err)
				}
				if rng.Intn(100) == 0 {
					if err := o.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for w := range writers {
		rng := rand.New(rand.NewSource(int64(w)))
		for range 400 {
			want[rng.Int63n(16*BlockSize/writers)*writers+int64(w)] = byte(w + 1)
			rng.Intn(100)
		}
	}
	got := make([]byte, len(want))
	if _, err := sparse.ReadFull(o, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("differs at %d: %v", firstDifference(got, want), err)
	}
}

func TestOutside(t *testing.T) {
	o := mustOpen(t, sparse.Zeros(10000), scratch(t))
	for _, r := range [][2]int64{{9999, 2}, {10001, 0}, {-1, 1}, {0, 10001}, {1 << 62, 1 << 62}} {
		if r[1] < 1<<20 {
			if _, err := o.WriteAt(make([]byte, r[1]), r[0]); err == nil {
				t.Errorf("written at %d", r)
			}
		}
		if err := o.Zero(r[0], r[1]); err == nil {
			t.Errorf("zeroed at %d", r)
		}
	}
	if o.Written() != 0 {
		t.Error(o.Written())
	}
}

func TestOtherBase(t *testing.T) {
	f := scratch(t)
	mustOpen(t, sparse.Zeros(1<<20), f)
	if _, err := open(sparse.Zeros(1<<20), "another", f); !errors.Is(err, ErrOtherBase) {
		t.Error(err)
	}
	if _, err := open(sparse.Zeros(1<<20+1), "base", f); !errors.Is(err, ErrOtherBase) {
		t.Error(err)
	}
}

// TestSparse: the file takes as much as was written, and gives back what was
// zeroed.
func TestSparse(t *testing.T) {
	f := scratch(t)
	o := mustOpen(t, sparse.Zeros(64<<30), f)
	if _, err := o.WriteAt(bytes.Repeat([]byte{1}, 1<<20), 33<<30); err != nil {
		t.Fatal(err)
	}
	if got := o.Written(); got != 1<<20 {
		t.Error(got)
	}
	if err := errors.Join(o.Zero(33<<30, 1<<20), o.Sync()); err != nil {
		t.Fatal(err)
	}
	raw, err := sparse.OpenRaw(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := sparse.Total(sparse.Select(raw.Extents(0, raw.Size()), func(e sparse.Extent) bool { return e.Kind == sparse.Data }))
	if err != nil || data > 64<<10 || o.Written() != 0 {
		t.Errorf("%d bytes of data, %d written: %v", data, o.Written(), err)
	}
}

// TestDamaged cuts an overlay at every page, and flips bits of its header and
// states: an error or the same content, never a panic.
func TestDamaged(t *testing.T) {
	rng := rand.New(rand.NewSource(7))
	base, want := content(rng, 9*BlockSize-100)
	f := scratch(t)
	o := mustOpen(t, base, f)
	p := bytes.Repeat([]byte{5}, 2*BlockSize)
	if _, err := o.WriteAt(p, BlockSize); err != nil {
		t.Fatal(err)
	}
	copy(want[BlockSize:], p)
	if err := o.Sync(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, must bool) {
		t.Helper()
		o, err := open(base, "base", f)
		if err == nil && must {
			t.Errorf("%s: opened", what)
		}
		if err == nil {
			if _, err := io.ReadAll(io.NewSectionReader(o, 0, o.Size())); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	flip := func(what string, at, bit int, must bool) {
		t.Helper()
		for _, b := range []byte{whole[at] ^ 1<<bit, whole[at]} {
			if _, err := f.WriteAt([]byte{b}, int64(at)); err != nil {
				t.Fatal(err)
			}
			try(fmt.Sprintf("%s: byte %d bit %d", what, at, bit), must && b != whole[at])
		}
	}
	for bit := range headerUsed * 8 {
		flip("header", bit/8, bit%8, true)
	}
	for bit := range 16 * 8 {
		flip("states", headerSize+bit/8, bit%8, bit >= 18)
	}
	for n := len(whole) - pageSize; n > 0; n -= pageSize {
		if err := f.Truncate(int64(n)); err != nil {
			t.Fatal(err)
		}
		try(fmt.Sprintf("cut at %d", n), true)
	}
}

// The header of an overlay of 1 MiB over a base called "qcow2:0123": a format.
func TestFrozenHeader(t *testing.T) {
	h := newHeader(1<<20, "qcow2:0123")
	b := h.encode()
	if got := fmt.Sprintf("%x", b[:headerUsed]); got != frozenHeader || len(b) != headerSize || len(bytes.Trim(b[headerUsed:], "\x00")) != 0 {
		t.Errorf("%s", got)
	}
}

const frozenHeader = "6362742d6f766c0100100000000000000000100000000000cb7f28ca6984bf559a45ca67e5153ac58aac0549028c30982e626c50f49fc3c52b2fd2d4"

// What is behind the + of an identity is looked at, where the overlay has it.
func TestIdentityWithTimes(t *testing.T) {
	f := scratch(t)
	base := sparse.Zeros(1 << 20)
	o, err := open(base, "raw:1+a", f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.WriteAt([]byte("x"), 5); err != nil {
		t.Fatal(err)
	}
	if err := o.Sync(); err != nil {
		t.Fatal(err)
	}
	for identity, want := range map[string]error{"raw:1+a": nil, "raw:1+b": ErrOtherTimes, "raw:1": ErrOtherTimes, "raw:2+a": ErrOtherBase} {
		if _, err := open(base, identity, f); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", identity, err, want)
		}
	}
	target, err := sparse.OpenTarget(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(base, "raw:2+a", target); !errors.Is(err, ErrOtherBase) {
		t.Errorf("adopted over another image: %v", err)
	}
	o, err = Adopt(base, "raw:1+b", target)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 6)
	if _, err := o.ReadAt(p, 0); err != nil || p[5] != 'x' {
		t.Errorf("%q, %v", p, err)
	}
	if _, err := open(base, "raw:1+b", f); err != nil {
		t.Errorf("after that: %v", err)
	}

	// One that an earlier version made.
	g := scratch(t)
	if _, err := open(base, "raw:1", g); err != nil {
		t.Fatal(err)
	}
	if _, err := open(base, "raw:1+a", g); err != nil {
		t.Errorf("an old one: %v", err)
	}
	for _, at := range []int64{61, 64, 99, 100, 4095} {
		if _, err := f.WriteAt([]byte{0x77}, at); err != nil {
			t.Fatal(err)
		}
		if _, err := open(base, "raw:1+b", f); err == nil {
			t.Errorf("byte %d of the header altered: opened", at)
		}
		fresh := newHeader(1<<20, "raw:1+b")
		if _, err := f.WriteAt(fresh.encode(), 0); err != nil {
			t.Fatal(err)
		}
	}
}
