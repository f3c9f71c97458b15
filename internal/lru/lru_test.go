package lru

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

func TestEvictsLeastRecentlyUsed(t *testing.T) {
	c := New[int, int](30)
	loads := 0
	get := func(k int) {
		t.Helper()
		v, err := c.Get(k, 10, func() (int, error) { loads++; return k * k, nil })
		if err != nil || v != k*k {
			t.Fatalf("Get(%d) = %d, %v", k, v, err)
		}
	}
	for _, k := range []int{1, 2, 3, 1, 4, 1, 3, 2} { // 4 pushes out 2, 2 pushes out 4
		get(k)
	}
	if loads != 5 {
		t.Errorf("%d loads, want 5", loads)
	}
	if c.cost != 30 || len(c.byKey) != 3 || c.recent.Len() != 3 {
		t.Errorf("cost %d, %d keys, %d entries", c.cost, len(c.byKey), c.recent.Len())
	}
}

func TestOneValueMayExceedTheLimit(t *testing.T) {
	c := New[int, int](5)
	c.Get(1, 10, func() (int, error) { return 1, nil })
	if v, _ := c.Get(1, 10, func() (int, error) { return 2, nil }); v != 1 {
		t.Errorf("loaded again: %d", v)
	}
}

func TestErrorsAreNotKept(t *testing.T) {
	c := New[string, int](10)
	fail := errors.New("no")
	if _, err := c.Get("k", 1, func() (int, error) { return 0, fail }); err != fail {
		t.Fatal(err)
	}
	if v, err := c.Get("k", 1, func() (int, error) { return 7, nil }); v != 7 || err != nil {
		t.Fatal(v, err)
	}
	if c.cost != 1 {
		t.Errorf("cost %d", c.cost)
	}
}

func TestLoadsOnceForMany(t *testing.T) {
	c := New[int, int](1 << 20)
	var loads atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for k := range 50 {
				if v, err := c.Get(k, 1, func() (int, error) { loads.Add(1); return k, nil }); v != k || err != nil {
					t.Errorf("Get(%d) = %d, %v", k, v, err)
				}
			}
		})
	}
	wg.Wait()
	if n := loads.Load(); n != 50 {
		t.Errorf("%d loads, want 50", n)
	}
}

func TestCostKnownLater(t *testing.T) {
	c := New[int, int](30)
	get := func(k int, cost int64) (loaded bool) {
		c.Get(k, 0, func() (int, error) { loaded = true; c.Recost(k, cost); return k, nil })
		return loaded
	}
	get(1, 10)
	get(2, 10)
	if get(1, 10) || get(2, 10) {
		t.Error("loaded twice")
	}
	get(3, 25) // pushes out both
	if c.cost != 25 || len(c.byKey) != 1 {
		t.Errorf("cost %d, %d keys", c.cost, len(c.byKey))
	}
	c.Recost(2, 7) // which is not there
	c.Remove(2)
	if c.cost != 25 || get(3, 25) {
		t.Errorf("cost %d", c.cost)
	}
	c.Remove(3)
	if c.cost != 0 || !get(3, 5) || c.cost != 5 {
		t.Errorf("cost %d", c.cost)
	}
}

func TestPeek(t *testing.T) {
	c := New[int, int](30)
	c.Get(1, 10, func() (int, error) {
		if _, ok := c.Peek(1); ok {
			t.Error("peeked before it was loaded")
		}
		return 7, nil
	})
	if v, ok := c.Peek(1); v != 7 || !ok {
		t.Error(v, ok)
	}
	c.Get(2, 10, func() (int, error) { return 0, errors.New("no") })
	if _, ok := c.Peek(2); ok || c.cost != 10 {
		t.Errorf("peeked at what failed; cost %d", c.cost)
	}
}

// What is lent is freed when it is neither used nor kept, once.
func TestLending(t *testing.T) {
	var freed []int
	c := NewLending[int](20, func(v int) { freed = append(freed, v) })
	borrow := func(k int) func() {
		t.Helper()
		v, back, err := c.Borrow(k, 10, func() (int, error) { return k, nil })
		if v != k || err != nil {
			t.Fatal(v, err)
		}
		return back
	}
	want := func(list ...int) {
		t.Helper()
		if fmt.Sprint(freed) != fmt.Sprint(list) {
			t.Fatalf("freed %v, want %v", freed, list)
		}
	}
	one, again := borrow(1), borrow(1)
	borrow(2)()
	borrow(3)() // pushes out 1, which is in use
	want()
	one()
	want()
	again()
	want(1)
	borrow(4)() // pushes out 2
	want(1, 2)
	if _, back, err := c.Borrow(5, 10, func() (int, error) { return 0, errors.New("no") }); err == nil {
		t.Error("no error")
	} else {
		back()
	}
	want(1, 2, 3)
}

func TestLendingToMany(t *testing.T) {
	type buffer struct{ v int }
	free := make(chan *buffer, 100)
	c := NewLending[int](50, func(b *buffer) { free <- b })
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				k := (i*7 + w) % 13
				b, back, err := c.Borrow(k, 10, func() (*buffer, error) {
					select {
					case b := <-free:
						b.v = k
						return b, nil
					default:
						return &buffer{v: k}, nil
					}
				})
				if err != nil || b.v != k {
					t.Errorf("%v, %v, want %d", b, err, k)
				}
				back()
			}
		})
	}
	wg.Wait()
}
