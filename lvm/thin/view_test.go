package thin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"cbt/internal/testthin"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// islands is an external origin with data, zeros and holes.
type islands struct {
	sparse.View
	extents []sparse.Extent
}

func (v islands) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, v.Size()); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Clip(sparse.Of(v.extents...), off, n)
}

func (v islands) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, v.Size())
	clear(p)
	for _, e := range v.extents {
		c := e.Clip(off, off+int64(len(p)))
		for i := c.Off; i < c.End() && e.Kind == sparse.Data; i++ {
			p[i-off] = byte(i*31) | 1
		}
	}
	return len(p), eof
}

func newIslands(size, step int64) *islands {
	v := &islands{View: sparse.Zeros(size)}
	for at, k := int64(0), 0; at < size; at, k = at+step, k+1 {
		kind := []sparse.Kind{sparse.Data, sparse.Hole, sparse.Zero}[k%3]
		v.extents = append(v.extents, sparse.Extent{Off: at, Len: min(step, size-at), Kind: kind})
	}
	return v
}

// TestViews runs the conformance suite on devices of some sizes, chunk sizes
// and external origins.
func TestViews(t *testing.T) {
	for _, sectors := range []uint32{128, 384} {
		chunk := int64(sectors) * 512
		p := testthin.New(100, 200, 3)
		p.Sectors = sectors
		p.Create(7)
		p.Create(8)
		for _, b := range []uint64{0, 1, 3, 4, 5, 8, 20} {
			p.Write(7, b)
		}
		p.Snapshot(7, 9)
		p.Write(9, 1)
		p.Write(9, 2)
		p.Discard(9, 4)
		m := mustOpen(t, p.Image(), Options{})
		data := Data{content{}, 100 * chunk}
		ids := []uint32{7, 8, 9}
		if sectors == 384 || testing.Short() {
			ids = ids[2:]
		}
		for _, id := range ids {
			for name, size := range map[string]int64{"whole": 6 * chunk, "odd": 5*chunk - 513, "small": 100, "none": 0} {
				for _, external := range []sparse.View{nil, newIslands(10*chunk, chunk/2+1000), newIslands(2*chunk+777, 5000), sparse.Zeros(0)} {
					e := int64(-1)
					if external != nil {
						e = external.Size()
					}
					t.Run(fmt.Sprintf("%d sectors/device %d/%s/external %d", sectors, id, name, e), func(t *testing.T) {
						v := mustView(t, m, id, size, data, external)
						want := naive{p.Mappings(id), size, chunk, external}
						sparsetest.View(t, v, want.bytes(t))
					})
				}
			}
		}
	}
}

func TestExternalOriginsOfTwo(t *testing.T) {
	const chunk = 65536
	p := testthin.New(100, 200, 3)
	p.Create(1)
	for _, b := range []uint64{1, 3, 5, 6} {
		p.Write(1, b)
	}
	p.Snapshot(1, 2)
	p.Discard(2, 3)
	p.Write(2, 6)
	p.Write(2, 10)
	m := mustOpen(t, p.Image(), Options{})
	data := Data{content{}, 100 * chunk}
	origins := []sparse.View{nil, newIslands(4*chunk, 50_000), newIslands(20*chunk, 70_000), sparse.Zeros(3 * chunk)}
	for i, a := range origins {
		for j, b := range origins {
			for _, sizes := range [][2]int64{{16 * chunk, 16 * chunk}, {5*chunk + 100, 16 * chunk}, {16 * chunk, 5*chunk + 100}} {
				old, new := mustView(t, m, 1, sizes[0], data, a), mustView(t, m, 2, sizes[1], data, b)
				var all sparse.Set
				for e, err := range Changed(old, new, 0, max(sizes[0], sizes[1])) {
					if err != nil {
						t.Fatal(err)
					}
					all.Add(e.Off, e.End())
				}
				was, is := mustRead(t, sparse.Resize(old, new.size)), mustRead(t, new)
				for lo, hi := range all.Without(0, min(old.size, new.size)) {
					if string(was[lo:hi]) != string(is[lo:hi]) {
						t.Errorf("origins %d, %d: something in [%d,%d) differs and is not named", i, j, lo, hi)
					}
				}
				if i == j {
					want, _ := naive{p.Mappings(2), new.size, chunk, b}.changed(naive{p.Mappings(1), old.size, chunk, a}, 0, max(old.size, new.size))
					got, _ := sparse.Collect(Changed(old, new, 0, max(old.size, new.size)))
					if fmt.Sprint(got) != fmt.Sprint(joined(want)) {
						t.Errorf("origin %d: %v, want %v", i, got, want)
					}
				}
			}
		}
	}
}

func TestReadingWithoutData(t *testing.T) {
	p := testthin.New(10, 50, 3)
	p.Create(1)
	p.Write(1, 2)
	p.Write(1, 0)
	m := mustOpen(t, p.Image(), Options{})
	v := mustView(t, m, 1, 4*65536, Data{}, nil)
	b := make([]byte, 65536)
	if n, err := v.ReadAt(b, 65536); n != len(b) || err != nil {
		t.Errorf("a hole: %d, %v", n, err)
	}
	if n, err := v.ReadAt(b, 65536+1); n != 65535 || !errors.Is(err, ErrNoData) {
		t.Errorf("a mapped block: %d, %v", n, err)
	}
	// Data block 1 is mapped at 0; the pool's data end inside it.
	v = mustView(t, m, 1, 4*65536, Data{content{}, 65536 + 100}, nil)
	if n, err := v.ReadAt(b[:100], 0); n != 100 || err != nil {
		t.Errorf("what is there: %d, %v", n, err)
	}
	_, err := v.ReadAt(b[:101], 0)
	wantFormatError(t, err)
	if end, err := v.MappedEnd(); end != 3*65536 || err != nil {
		t.Errorf("mapped until %d, %v", end, err)
	}
	if _, err := m.View(2, 0, Data{}, nil); !errors.Is(err, ErrNoDevice) {
		t.Errorf("no device: %v", err)
	}
}

func TestUnrelated(t *testing.T) {
	p := testthin.New(10, 50, 3)
	p.Create(1)
	a, b := mustOpen(t, p.Image(), Options{}), mustOpen(t, p.Image(), Options{})
	_, err := sparse.Collect(Changed(mustView(t, a, 1, 10, Data{}, nil), mustView(t, b, 1, 10, Data{}, nil), 0, 10))
	if !errors.Is(err, sparse.ErrUnrelated) {
		t.Error(err)
	}
}

// changingReader is a file that may change or fail.
type changingReader struct {
	b     []byte
	fail  error
	reads int
}

func (r *changingReader) ReadAt(p []byte, off int64) (int, error) {
	r.reads++
	if r.fail != nil {
		return 0, r.fail
	}
	return copy(p, r.b[off:]), nil
}

func TestRecheck(t *testing.T) {
	for name, c := range map[string]struct {
		change     func(p *testthin.Pool)
		live, held bool // an error is wanted
	}{
		"nothing":      {func(*testthin.Pool) {}, false, false},
		"a write":      {func(p *testthin.Pool) { p.Commit(); p.Write(1, 5) }, true, false},
		"a discard":    {func(p *testthin.Pool) { p.Commit(); p.Discard(1, 1) }, true, false},
		"a snapshot":   {func(p *testthin.Pool) { p.Snapshot(1, 2) }, true, false},
		"a device":     {func(p *testthin.Pool) { p.Create(2) }, true, false},
		"released":     {func(p *testthin.Pool) { p.Release() }, true, true},
		"another held": {func(p *testthin.Pool) { p.Release(); p.Snapshot(1, 2); p.Hold() }, true, true},
		"needs check":  {func(p *testthin.Pool) { p.Flags = 1 }, true, false},
	} {
		p := testthin.New(100, 200, 3)
		p.Create(1)
		p.Write(1, 1)
		p.Hold()
		r := &changingReader{b: p.Image()}
		live, err := Open(r, int64(len(r.b)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		held, err := Open(r, int64(len(r.b)), Options{Held: true})
		if err != nil {
			t.Fatal(err)
		}
		c.change(p)
		r.b = p.Image()
		if err := live.Recheck(); errors.Is(err, sparse.ErrChanged) != c.live || (err != nil) != c.live {
			t.Errorf("%s: %v", name, err)
		}
		if err := held.Recheck(); errors.Is(err, sparse.ErrChanged) != c.held || (err != nil) != c.held {
			t.Errorf("%s, held: %v", name, err)
		}
	}
}

// TestFingerprint checks which events of the pool change a device's fingerprint.
func TestFingerprint(t *testing.T) {
	for name, c := range map[string]struct {
		event func(p *testthin.Pool)
		same  bool
	}{
		"nothing":             {func(*testthin.Pool) {}, true},
		"a write":             {func(p *testthin.Pool) { p.Write(2, 5) }, false},
		"a shared block":      {func(p *testthin.Pool) { p.Write(2, 1) }, false},
		"a discard":           {func(p *testthin.Pool) { p.Discard(2, 1) }, false},
		"origin written":      {func(p *testthin.Pool) { p.Write(1, 1) }, true},
		"a snapshot of it":    {func(p *testthin.Pool) { p.Snapshot(2, 3) }, true},
		"origin deleted":      {func(p *testthin.Pool) { p.Delete(1) }, true},
		"deleted, one anew":   {func(p *testthin.Pool) { p.Delete(2); p.Snapshot(1, 2) }, false},
		"another made":        {func(p *testthin.Pool) { p.Create(9) }, true},
		"a metadata snapshot": {func(p *testthin.Pool) { p.Hold() }, true},
	} {
		p := testthin.New(100, 200, 3)
		p.Create(1)
		p.Write(1, 1)
		p.Snapshot(1, 2)
		p.Commit()
		get := func() Fingerprint {
			f, err := mustView(t, mustOpen(t, p.Image(), Options{}), 2, 0, Data{}, nil).Fingerprint()
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		was := get()
		c.event(p)
		if is := get(); (is == was) != c.same || (is.String() == was.String()) != c.same {
			t.Errorf("%s: %v, was %v", name, is, was)
		}
	}
}

// TestReadErrors checks that errors of a failing device reach the caller unchanged.
func TestReadErrors(t *testing.T) {
	p := testthin.New(3000, 2000, 3)
	p.Create(1)
	for b := range uint64(900) {
		p.Write(1, b)
	}
	p.Snapshot(1, 2)
	for b := range uint64(900) {
		p.Write(2, b)
	}
	p.Snapshot(2, 3)
	r := &changingReader{b: p.Image()}
	m, err := Open(r, int64(len(r.b)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	unwritten := mustView(t, m, 3, 0, Data{}, nil)
	old, new := mustView(t, m, 1, 1000<<16, Data{}, nil), mustView(t, m, 2, 1000<<16, Data{}, nil)
	r.fail = io.ErrClosedPipe
	for name, s := range map[string]sparse.Seq{
		"changed": Changed(old, new, 0, new.size),
		"extents": new.Extents(0, new.size),
	} {
		if _, err := sparse.Collect(s); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := unwritten.WrittenSinceCreation(context.Background()); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := unwritten.WrittenSinceCreation(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
