package cow

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"cbt/sparse"
)

// content returns all bytes of a view.
func content(t testing.TB, v sparse.View) []byte {
	t.Helper()
	p := make([]byte, v.Size())
	if _, err := sparse.ReadFull(v, p, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return p
}

// checkChanged checks that two images are equal outside Changed, and outside Compare. It also
// checks that sub-ranges give the same result as the whole, and that Compare names no 4 KiB block
// that is equal.
func checkChanged(t *testing.T, old, new sparse.View) {
	t.Helper()
	size := max(old.Size(), new.Size())
	a, b := content(t, old), content(t, new)
	for name, changed := range map[string]func(old, new sparse.View, off, n int64) sparse.Seq{"Changed": Changed, "Compare": Compare} {
		all, err := sparse.Collect(changed(old, new, 0, size))
		if err != nil {
			t.Fatal(err)
		}
		got := append(bytes.Clone(a), make([]byte, size-old.Size())...)[:new.Size()]
		pos := int64(0)
		for _, e := range all {
			if e.Off < pos || e.Len <= 0 || e.End() > new.Size() {
				t.Fatalf("%s: %v after %d in %d bytes", name, e, pos, new.Size())
			}
			pos = e.End()
			copy(got[e.Off:e.End()], b[e.Off:])
			if name == "Changed" {
				continue
			}
			for off := e.Off; off < min(e.End(), old.Size()); off += 4096 - off%4096 {
				end := min(off+4096-off%4096, e.End())
				if off%4096 == 0 && end <= old.Size() && bytes.Equal(a[off:end], b[off:end]) {
					t.Fatalf("Compare names %v: the block at %d is equal", e, off)
				}
			}
		}
		if !bytes.Equal(got, b) {
			t.Fatalf("%s: not all that differs is named: %v", name, all)
		}
		for _, r := range [][2]int64{{size / 3, size / 3}, {size - 1, 1}, {size, 0}, {5, size - 5}} {
			want, _ := sparse.Collect(sparse.Clip(sparse.Of(all...), r[0], r[1]))
			part, err := sparse.Collect(changed(old, new, r[0], r[1]))
			if err != nil {
				t.Fatal(err)
			}
			if name == "Compare" { // blocks at the ends are cut
				continue
			}
			if len(part) != len(want) {
				t.Fatalf("%s of %v: %v, want %v", name, r, part, want)
			}
			for i := range part {
				if part[i] != want[i] {
					t.Fatalf("%s of %v: %v, want %v", name, r, part, want)
				}
			}
		}
	}
}

// TestSizes: the origin has grown since the snapshot was taken, and the two snapshots have
// different sizes.
func TestSizes(t *testing.T) {
	for _, kind := range []sparse.Kind{sparse.Data, sparse.Hole} {
		d := newDisk(50_000)
		early := d.snapshot(4096)
		d.write(9000, []byte("before it grew"))
		more := make([]byte, 30_000)
		if kind == sparse.Data {
			copy(more, "something")
		}
		early.d.origin = append(d.origin, more...)
		d.view = sparse.Plain(bytes.NewReader(d.origin), int64(len(d.origin)))
		if kind == sparse.Hole {
			d.view = sparse.Resize(sparse.Plain(bytes.NewReader(d.origin[:50_000]), 50_000), 80_000)
		}
		late := d.snapshot(8192)
		late.write(60_000, []byte("behind the other's end"))
		a, b := early.open(t), late.open(t)
		checkChanged(t, a, d.view)
		checkChanged(t, d.view, a)
		checkChanged(t, a, b)
		checkChanged(t, b, a)
		last := sparse.Extent{}
		for e, err := range Changed(a, d.view, 0, 80_000) {
			if err != nil {
				t.Fatal(err)
			}
			last = e
		}
		if want := (sparse.Extent{Off: 50_000, Len: 30_000, Kind: kind}); last != want {
			t.Errorf("what is past the snapshot's end: %v, want %v", last, want)
		}
	}
}

// TestCompareReadsNoMore: outside the tables nothing is read.
func TestCompareReadsNoMore(t *testing.T) {
	d := newDisk(4 << 20)
	a := d.snapshot(4096)
	d.write(1<<20, []byte("x"))
	b := d.snapshot(64 << 10)
	d.write(3<<20, []byte("y"))
	c := &counting{View: d.view}
	d.view = c
	x, y := a.open(t), b.open(t)
	got, err := sparse.Collect(Compare(x, y, 0, x.Size()))
	if err != nil || len(got) != 1 || got[0] != (sparse.Extent{Off: 1 << 20, Len: 4096, Kind: sparse.Data}) {
		t.Errorf("%v, %v", got, err)
	}
	if n := c.n.Load(); n == 0 || n > 64<<10 {
		t.Errorf("%d bytes of the origin were read", n)
	}
}

type counting struct {
	sparse.View
	n atomic.Int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.n.Add(int64(len(p)))
	return c.View.ReadAt(p, off)
}

func TestUnrelated(t *testing.T) {
	d, other := newDisk(10_000), newDisk(10_000)
	a, b := d.snapshot(4096).open(t), other.snapshot(4096).open(t)
	for _, p := range [][2]sparse.View{{a, b}, {a, other.view}, {other.view, a}, {d.view, d.view}, {d.view, other.view}, {a, incomparable{}}} {
		for _, f := range []func(old, new sparse.View, off, n int64) sparse.Seq{Changed, Compare} {
			if _, err := sparse.Collect(f(p[0], p[1], 0, 1)); !errors.Is(err, sparse.ErrUnrelated) {
				t.Errorf("%T, %T: %v", p[0], p[1], err)
			}
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, 10_001}, {10_001, 0}, {1, -1}} {
		for _, s := range []sparse.Seq{Changed(a, d.view, r[0], r[1]), Compare(a, d.view, r[0], r[1]), ChangedChunks(a.Store(), a.Size(), r[0], r[1])} {
			if _, err := sparse.Collect(s); err == nil {
				t.Errorf("%v is no error", r)
			}
		}
	}
}

// incomparable would panic with ==.
type incomparable struct{ _ func() }

func (incomparable) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (incomparable) Size() int64                       { return 1 }
func (incomparable) Extents(_, _ int64) sparse.Seq     { return sparse.Of() }

// TestNoView: arguments that are not a snapshot.
func TestNoView(t *testing.T) {
	d := newDisk(10_000)
	s := d.snapshot(4096)
	d.write(9_000, []byte("x"))
	store := mustOpen(t, s.cow.Bytes())
	for _, c := range []struct {
		origin sparse.View
		size   int64
	}{{nil, 0}, {d.view, -1}, {d.view, 10_001}, {d.view, 8192}} {
		if v, err := NewView(store, c.origin, c.size); err == nil || v != nil {
			t.Errorf("%v of %d bytes: %v, %v", c.origin, c.size, v, err)
		}
	}
	if _, err := NewView(store, d.view, 8193); err != nil {
		t.Error(err)
	}
	var bad *sparse.FormatError
	if _, err := sparse.Collect(ChangedChunks(store, 8192, 0, 8192)); !errors.As(err, &bad) {
		t.Errorf("ChangedChunks of a snapshot of 8192 bytes: %v", err)
	}
}
