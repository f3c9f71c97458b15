package sparse_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"cbt/sparse"
)

func TestSetAgreesWithModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		n := 40 + r.IntN(12000)
		long := 2 + r.IntN(1+r.IntN(n))
		var set sparse.Set
		model := make([]bool, n)
		for range r.IntN(n) {
			lo := r.IntN(n)
			hi := min(n, lo+r.IntN(1+r.IntN(long)))
			set.Add(int64(lo), int64(hi))
			for i := lo; i < hi; i++ {
				model[i] = true
			}
			if r.IntN(20) > 0 {
				continue
			}
			lo = r.IntN(n)
			hi = lo + r.IntN(n-lo+1)
			checkWithout(t, &set, model, lo, hi)
		}
		checkWithout(t, &set, model, 0, n)
	}
}

// Adds every second byte from both ends, so that leaves split and then join.
func TestSetOfManyRuns(t *testing.T) {
	const n = 50000
	var set sparse.Set
	model := make([]bool, n)
	for i := 0; i < n/2; i += 2 {
		for _, at := range []int{i, n - 1 - i} {
			set.Add(int64(at), int64(at)+1)
			model[at] = true
		}
	}
	checkWithout(t, &set, model, 0, n)
	set.Add(1001, 48001)
	for i := 1001; i < 48001; i++ {
		model[i] = true
	}
	checkWithout(t, &set, model, 0, n)
	set.Add(0, n)
	for lo, hi := range set.Without(0, n+7) {
		if lo != n || hi != n+7 {
			t.Fatalf("%d to %d is free", lo, hi)
		}
	}
}

func TestSetOfLongRuns(t *testing.T) {
	var set sparse.Set
	for lo, hi := range set.Without(5, math.MaxInt64) {
		if lo != 5 || hi != math.MaxInt64 {
			t.Fatalf("an empty set leaves %d to %d free", lo, hi)
		}
	}
	set.Add(0, math.MaxInt64)
	for lo, hi := range set.Without(0, math.MaxInt64) {
		t.Fatalf("%d to %d is free", lo, hi)
	}
}

func checkWithout(t *testing.T, set *sparse.Set, model []bool, lo, hi int) {
	t.Helper()
	at := lo
	last := int64(-1)
	for a, b := range set.Without(int64(lo), int64(hi)) {
		if a >= b || a <= last || b > int64(hi) {
			t.Fatalf("run %d to %d of %d to %d, after %d", a, b, lo, hi, last)
		}
		last = b
		for ; at < int(b); at++ {
			if model[at] != (at < int(a)) {
				t.Fatalf("of %d to %d, byte %d: in the set %v", lo, hi, at, model[at])
			}
		}
	}
	for ; at < hi; at++ {
		if !model[at] {
			t.Fatalf("of %d to %d, byte %d is not in the set and not yielded", lo, hi, at)
		}
	}
}
