package sparse_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"cbt/sparse"
)

var errTest = errors.New("test")

// units is the model of a sequence: a kind for every byte, 0 where there is no extent.
type units [64]sparse.Kind

func (u *units) paint(e sparse.Extent) {
	for i := e.Off; i < e.End(); i++ {
		u[i] = e.Kind
	}
}

// randomExtents may leave gaps, and neighbours of one kind that are not joined.
func randomExtents(rnd *rand.Rand) []sparse.Extent {
	var all []sparse.Extent
	most := int64(1 + rnd.IntN(20))
	gaps := rnd.IntN(3)
	for off := int64(0); ; {
		if rnd.IntN(3) < gaps {
			off += rnd.Int64N(most)
		}
		e := sparse.Extent{Off: off, Len: 1 + rnd.Int64N(most), Kind: sparse.Kind(1 + rnd.IntN(3))}
		if e.End() > int64(len(units{})) || rnd.IntN(40) == 0 {
			return all
		}
		all = append(all, e)
		off = e.End()
	}
}

func model(all []sparse.Extent) (u units) {
	for _, e := range all {
		u.paint(e)
	}
	return u
}

// operation is a function of the algebra, and what it does to the model.
type operation struct {
	name  string
	do    func(a, b sparse.Seq) sparse.Seq
	model func(a, b units) units
}

// randomOperations returns the operations with random arguments.
func randomOperations(rnd *rand.Rand) []operation {
	off := rnd.Int64N(70)
	n := rnd.Int64N(70)
	if off+n > 64 && rnd.IntN(4) > 0 {
		off, n = min(off, 64), max(0, 64-off)
	}
	inside := func(i int) bool { return int64(i) >= off && int64(i) < off+n }
	// Past the model a has nothing, so Fill and Invert stay inside it.
	fillN := max(0, min(n, 64-off))
	kind := sparse.Kind(1 + rnd.IntN(3))
	each := func(f func(i int, a, b sparse.Kind) sparse.Kind) func(a, b units) units {
		return func(a, b units) (u units) {
			for i := range u {
				u[i] = f(i, a[i], b[i])
			}
			return u
		}
	}
	return []operation{
		{"Coalesce", func(a, _ sparse.Seq) sparse.Seq { return sparse.Coalesce(a) },
			each(func(_ int, a, _ sparse.Kind) sparse.Kind { return a })},
		{fmt.Sprintf("Clip(%d, %d)", off, n), func(a, _ sparse.Seq) sparse.Seq { return sparse.Clip(a, off, n) },
			each(func(i int, a, _ sparse.Kind) sparse.Kind {
				if inside(i) {
					return a
				}
				return 0
			})},
		{fmt.Sprintf("Fill(%d, %d)", off, fillN), func(a, _ sparse.Seq) sparse.Seq { return sparse.Fill(a, off, fillN, kind) },
			each(func(i int, a, _ sparse.Kind) sparse.Kind {
				switch {
				case !inside(i):
					return 0
				case a != 0:
					return a
				}
				return kind
			})},
		{fmt.Sprintf("Invert(%d, %d)", off, fillN), func(a, _ sparse.Seq) sparse.Seq { return sparse.Invert(a, off, fillN, kind) },
			each(func(i int, a, _ sparse.Kind) sparse.Kind {
				if inside(i) && a == 0 {
					return kind
				}
				return 0
			})},
		{"Select", func(a, _ sparse.Seq) sparse.Seq {
			return sparse.Select(a, func(e sparse.Extent) bool { return e.Kind == kind })
		},
			each(func(_ int, a, _ sparse.Kind) sparse.Kind {
				if a == kind {
					return a
				}
				return 0
			})},
		{"Intersect", sparse.Intersect,
			each(func(_ int, a, b sparse.Kind) sparse.Kind {
				if b != 0 {
					return a
				}
				return 0
			})},
		{"Overlay", sparse.Overlay,
			each(func(_ int, top, bottom sparse.Kind) sparse.Kind {
				if top != 0 {
					return top
				}
				return bottom
			})},
	}
}

// failingAfter returns a sequence of the first k extents followed by errTest.
func failingAfter(all []sparse.Extent, k int) sparse.Seq {
	return func(yield func(sparse.Extent, error) bool) {
		for _, e := range all[:k] {
			if !yield(e, nil) {
				return
			}
		}
		yield(sparse.Extent{}, errTest)
	}
}

// gather collects a sequence and checks what every Seq promises.
func gather(t *testing.T, s sparse.Seq) (all []sparse.Extent, err error) {
	t.Helper()
	pos := int64(0)
	for e, eerr := range s {
		switch {
		case err != nil:
			t.Fatalf("%v, %v after the error %v", e, eerr, err)
		case eerr != nil && e != sparse.Extent{}:
			t.Fatalf("extent %v with the error %v", e, eerr)
		case eerr != nil:
			err = eerr
			continue
		case e.Len <= 0 || e.Off < pos || e.Kind == 0:
			t.Fatalf("extent %v after offset %d", e, pos)
		}
		all = append(all, e)
		pos = e.End()
	}
	return all, err
}

func TestAlgebra(t *testing.T) {
	rnd := rand.New(rand.NewPCG(20, 1))
	for i := range 20_000 {
		a, b := randomExtents(rnd), randomExtents(rnd)
		ka, kb := rnd.IntN(len(a)+1), rnd.IntN(len(b)+1)
		for _, op := range randomOperations(rnd) {
			if t.Failed() {
				t.Fatalf("case %d, %s:\na = %v\nb = %v\nerrors after %d and %d", i, op.name, a, b, ka, kb)
			}
			want := op.model(model(a), model(b))

			seq := op.do(sparse.Of(a...), sparse.Of(b...))
			got, err := gather(t, seq)
			if err != nil || model(got) != want {
				t.Errorf("got %v, %v", got, err)
			}
			for stop := 1; stop <= len(got); stop++ {
				n := 0
				for e, err := range seq {
					if n++; err != nil || e != got[n-1] {
						t.Errorf("ranged over again: element %d is %v, %v", n, e, err)
					}
					if n == stop {
						break
					}
				}
			}

			failing := op.do(failingAfter(a, ka), sparse.Of(b...))
			checkFailing(t, "a", failing, want)
			failing = op.do(sparse.Of(a...), failingAfter(b, kb))
			checkFailing(t, "b", failing, want)
		}
	}
}

// checkFailing checks a sequence with a failing input: it must be right as far as it goes, and may
// end early only with that input's error.
func checkFailing(t *testing.T, input string, s sparse.Seq, want units) {
	t.Helper()
	got, err := gather(t, s)
	u := model(got)
	if err == nil {
		if u != want {
			t.Errorf("%s fails: no error, but %v", input, got)
		}
		return
	}
	if err != errTest {
		t.Errorf("%s fails with %v", input, err)
	}
	if len(got) > 0 {
		end := got[len(got)-1].End()
		if !slices.Equal(u[:end], want[:end]) {
			t.Errorf("%s fails: before the error %v", input, got)
		}
	}
	for range s {
		break
	}
}

// TestAlgebraMeetsErrors has the errors that no operation may skip.
func TestAlgebraMeetsErrors(t *testing.T) {
	good := []sparse.Extent{{Off: 0, Len: 10, Kind: sparse.Data}, {Off: 20, Len: 10, Kind: sparse.Hole}}
	bad := failingAfter(good, 2)
	whole := sparse.Of(sparse.Extent{Off: 0, Len: 100, Kind: sparse.Data})
	for name, s := range map[string]sparse.Seq{
		"Coalesce":         sparse.Coalesce(bad),
		"Clip":             sparse.Clip(bad, 0, 31),
		"Fill":             sparse.Fill(bad, 0, 31, sparse.Zero),
		"Invert":           sparse.Invert(bad, 0, 31, sparse.Zero),
		"Select":           sparse.Select(bad, func(sparse.Extent) bool { return false }),
		"Intersect, first": sparse.Intersect(bad, whole),
		"Intersect, other": sparse.Intersect(whole, bad),
		"Overlay, top":     sparse.Overlay(bad, whole),
		"Overlay, bottom":  sparse.Overlay(sparse.Of(good...), bad),
		"Fail":             sparse.Fail(errTest),
	} {
		if _, err := gather(t, s); err != errTest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if all, err := sparse.Collect(bad); err != errTest || !slices.Equal(all, good) {
		t.Errorf("Collect = %v, %v", all, err)
	}
	if n, err := sparse.Total(bad); err != errTest || n != 20 {
		t.Errorf("Total = %d, %v", n, err)
	}
}

// TestClipStops: Clip asks for no more once the range is full.
func TestClipStops(t *testing.T) {
	s := failingAfter([]sparse.Extent{{Off: 0, Len: 10, Kind: sparse.Data}, {Off: 10, Len: 10, Kind: sparse.Hole}}, 2)
	for _, r := range [][2]int64{{0, 20}, {0, 10}, {5, 15}, {3, 0}} {
		if _, err := gather(t, sparse.Clip(s, r[0], r[1])); err != nil {
			t.Errorf("Clip(%d, %d): %v", r[0], r[1], err)
		}
	}
}

func TestWholeRange(t *testing.T) {
	in := sparse.Of(sparse.Extent{Off: 10, Len: math.MaxInt64 - 10, Kind: sparse.Data})
	want := []sparse.Extent{{Off: 20, Len: math.MaxInt64 - 20, Kind: sparse.Data}}
	if got, err := gather(t, sparse.Clip(in, 20, math.MaxInt64)); err != nil || !slices.Equal(got, want) {
		t.Errorf("Clip = %v, %v", got, err)
	}
	hole := []sparse.Extent{{Off: 20, Len: math.MaxInt64 - 20, Kind: sparse.Hole}}
	if got, err := gather(t, sparse.Fill(sparse.Of(), 20, math.MaxInt64, sparse.Hole)); err != nil || !slices.Equal(got, hole) {
		t.Errorf("Fill = %v, %v", got, err)
	}
	if got, err := gather(t, sparse.Overlay(sparse.Of(), in)); err != nil || len(got) != 1 {
		t.Errorf("Overlay = %v, %v", got, err)
	}
}

// TestCoalesceJoins: nothing is left to join, and empty extents are gone.
func TestCoalesceJoins(t *testing.T) {
	rnd := rand.New(rand.NewPCG(20, 2))
	for range 2000 {
		all := randomExtents(rnd)
		at := rnd.IntN(len(all) + 1)
		empty := sparse.Extent{Kind: sparse.Zero}
		if at > 0 {
			empty.Off = all[at-1].End()
		}
		all = slices.Insert(all, at, empty)
		got, err := gather(t, sparse.Coalesce(sparse.Of(all...)))
		if err != nil || model(got) != model(all) {
			t.Fatalf("Coalesce(%v) = %v, %v", all, got, err)
		}
		for i := 1; i < len(got); i++ {
			if got[i].Off == got[i-1].End() && got[i].Kind == got[i-1].Kind {
				t.Fatalf("Coalesce(%v) = %v: %v is not joined", all, got, got[i])
			}
		}
	}
}
