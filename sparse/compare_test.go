package sparse_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"cbt/internal/ordered"
	"cbt/sparse"
)

// differences returns what Compare must yield, worked out block by block.
func differences(a, b *memView, off, n int64) []sparse.Extent {
	var diff []sparse.Extent
	both, end := min(a.Size(), b.Size()), min(off+n, b.Size())
	for from := off; from < end; {
		to := min(from-from%block+block, end)
		if from < both {
			to = min(to, both)
		}
		if from >= both || !bytes.Equal(a.data[from:to], b.data[from:to]) {
			for _, e := range b.extents {
				if e = e.Clip(from, to); e.Len > 0 {
					diff = append(diff, e)
				}
			}
		}
		from = to
	}
	diff, _ = sparse.Collect(sparse.Coalesce(sparse.Of(diff...)))
	return diff
}

// related returns another view that shares much of its content with m.
func related(m *memView, size, unit int64, rnd *rand.Rand) *memView {
	r := newMemView(size, unit, rnd.Uint64())
	for i, e := range r.extents {
		if e.End() > m.Size() || rnd.IntN(3) == 0 {
			continue
		}
		copy(r.data[e.Off:e.End()], m.data[e.Off:e.End()])
		if e.Kind != sparse.Data && !sparse.IsZero(r.data[e.Off:e.End()]) {
			r.extents[i].Kind = sparse.Data
		}
		if r.extents[i].Kind == sparse.Data && rnd.IntN(2) == 0 {
			r.data[e.Off+rnd.Int64N(e.Len)] ^= 1
		}
	}
	r.extents, _ = sparse.Collect(sparse.Coalesce(sparse.Of(r.extents...)))
	return r
}

func TestCompare(t *testing.T) {
	rnd := rand.New(rand.NewPCG(30, 1))
	some := 0
	for i := range 150 {
		unit := []int64{block, 64 << 10, 3000}[i%3]
		a := newMemView(rnd.Int64N(3<<20), unit, rnd.Uint64())
		size := a.Size()
		if rnd.IntN(2) == 0 {
			size = rnd.Int64N(3 << 20)
		}
		b := related(a, size, unit, rnd)
		both := max(a.Size(), b.Size())
		ranges := [][2]int64{{0, both}, {0, 0}}
		for range 3 {
			off := rnd.Int64N(both + 1)
			ranges = append(ranges, [2]int64{off, rnd.Int64N(both - off + 1)})
		}
		for _, r := range ranges {
			want := differences(a, b, r[0], r[1])
			got, err := gather(t, sparse.Compare(a, b, r[0], r[1]))
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("case %d: Compare of %d and %d bytes, (%d, %d) = %v, %v, want %v", i, a.Size(), b.Size(), r[0], r[1], got, err, want)
			}
			some += len(want)
		}
	}
	if some < 500 {
		t.Errorf("only %d extents differed", some)
	}
}

func TestCompareEqualReadsNothingElse(t *testing.T) {
	a := newMemView(4<<20, 64<<10, 3)
	b := &memView{data: a.data, extents: a.extents}
	got, err := gather(t, sparse.Compare(a, b, 0, a.Size()))
	if err != nil || len(got) > 0 {
		t.Errorf("Compare = %v, %v", got, err)
	}
	data, _ := sparse.Total(sparse.Select(sparse.Of(a.extents...), func(e sparse.Extent) bool { return e.Kind == sparse.Data }))
	if a.readBytes.Load() != data || b.readBytes.Load() != data {
		t.Errorf("read %d and %d bytes of %d bytes of data", a.readBytes.Load(), b.readBytes.Load(), data)
	}
	hole := &memView{data: make([]byte, 4<<20), extents: []sparse.Extent{{Off: 0, Len: 4 << 20, Kind: sparse.Hole}}}
	for _, pair := range [][2]sparse.View{{a, hole}, {hole, a}} {
		a.readBytes.Store(0)
		if _, err := gather(t, sparse.Compare(pair[0], pair[1], 0, 4<<20)); err != nil || a.readBytes.Load() != data || hole.readBytes.Load() > 0 {
			t.Errorf("read %d bytes, and %d of a hole, %v", a.readBytes.Load(), hole.readBytes.Load(), err)
		}
	}
	for range sparse.Compare(sparse.Zeros(1<<62), sparse.Zeros(1<<62), 0, 1<<62) {
		t.Error("two holes differ")
	}
}

func TestCompareOutside(t *testing.T) {
	a, b := newMemView(1000, block, 1), newMemView(2000, block, 2)
	for _, r := range [][2]int64{{-1, 1}, {0, 2001}, {2001, 0}, {0, -1}, {1, 1<<63 - 1}} {
		if got, err := gather(t, sparse.Compare(a, b, r[0], r[1])); err == nil || len(got) > 0 {
			t.Errorf("Compare(%d, %d) = %v, %v", r[0], r[1], got, err)
		}
	}
}

func TestCompareErrors(t *testing.T) {
	const size, bad = 8 << 20, 5<<20 + 100
	fail := func(off, n int64) error {
		if off <= bad && off+n > bad {
			return errTest
		}
		return nil
	}
	cases := map[string]struct {
		change func(m *memView)
		want   error
	}{
		"read fails":      {func(m *memView) { m.fail = fail }, errTest},
		"read is short":   {func(m *memView) { m.short = bad }, io.ErrUnexpectedEOF},
		"image ends":      {func(m *memView) { m.fail = eofFrom(bad) }, io.ErrUnexpectedEOF},
		"extents fail":    {func(m *memView) { m.failExtents = bad }, errTest},
		"the read panics": {func(m *memView) { m.fail = func(off, n int64) error { panic(fail(off, n)) } }, nil},
	}
	for name, c := range cases {
		for side := range 2 {
			t.Run(name, func(t *testing.T) {
				extents := []sparse.Extent{{Off: 0, Len: 4 << 20, Kind: sparse.Data}, {Off: 4 << 20, Len: 4096, Kind: sparse.Zero}, {Off: 4<<20 + 4096, Len: size - 4<<20 - 4096, Kind: sparse.Data}}
				v := [2]*memView{{data: noise(size, 1), extents: extents}, {data: noise(size, 2), extents: extents}}
				c.change(v[side])
				before := runtime.NumGoroutine()
				got, err := gather(t, sparse.Compare(v[0], v[1], 0, size))
				var p *ordered.PanicError
				if c.want != nil && !errors.Is(err, c.want) || c.want == nil && !errors.As(err, &p) {
					t.Errorf("error %v, want %v", err, c.want)
				}
				if len(got) > 0 && got[len(got)-1].End() > bad {
					t.Errorf("%v yielded, past the error at %d", got[len(got)-1], bad)
				}
				noGoroutines(t, before)
			})
		}
	}
}

// oftenOther differs from a bigView in the first block of every other MiB.
type oftenOther struct{ bigView }

func (o *oftenOther) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.bigView.ReadAt(p, off)
	if off%(2<<20) == 0 {
		p[1] = 1
	}
	return n, err
}

// TestCompareBreak leaves the loop at once. The readers must stop.
func TestCompareBreak(t *testing.T) {
	a, b := &bigView{delay: 50 * time.Millisecond}, &oftenOther{}
	before := runtime.NumGoroutine()
	for e, err := range sparse.Compare(a, b, 0, 1<<30) {
		if err != nil || e.Off != 0 {
			t.Errorf("got %v, %v", e, err)
		}
		break
	}
	if n := a.readers.Load(); n > 0 {
		t.Errorf("%d reads under way after the loop", n)
	}
	if n := a.reads.Load(); n > 100 {
		t.Errorf("%d reads for the first extent", n)
	}
	noGoroutines(t, before)

	func() {
		defer func() {
			if r := recover(); r != errTest {
				t.Errorf("recovered %v, want the loop's own panic", r)
			}
		}()
		for range sparse.Compare(a, b, 0, 1<<30) {
			panic(errTest)
		}
	}()
	noGoroutines(t, before)
}

func TestCompareMemory(t *testing.T) {
	a, b := &bigView{}, &bigView{}
	used := allocated(func() {
		for range sparse.Compare(a, b, 0, 1<<30) {
			t.Fatal("equal images differ")
		}
	})
	workers := int64(runtime.GOMAXPROCS(0))
	if limit := workers*2<<20 + 1<<20; used > limit {
		t.Errorf("comparing 1 GiB allocated %d bytes, want %d at most", used, limit)
	}
	if a.mostReaders.Load() > workers || a.longestRead.Load() > 1<<20 {
		t.Errorf("%d reads at once, of %d bytes", a.mostReaders.Load(), a.longestRead.Load())
	}
}
