package ordered

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

func count(n int) func(context.Context, func(int) error) error {
	return func(_ context.Context, emit func(int) error) error {
		for i := range n {
			if err := emit(i); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestResultsComeInOrder(t *testing.T) {
	for _, workers := range []int{1, 2, 7} {
		next := 0
		err := Map(context.Background(), workers, count(500),
			func(_ context.Context, i int) (int, error) {
				if rand.IntN(10) == 0 {
					time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
				}
				return i * 2, nil
			},
			func(r int) error {
				if r != next*2 {
					t.Fatalf("%d workers: result %d, want %d", workers, r, next*2)
				}
				next++
				return nil
			})
		if err != nil || next != 500 {
			t.Fatalf("%d workers: %d results, %v", workers, next, err)
		}
	}
}

func TestJobsUnderWayAreBounded(t *testing.T) {
	for _, workers := range []int{1, 2, 5} {
		var emitted, consumed, most atomic.Int64
		err := Map(context.Background(), workers,
			func(_ context.Context, emit func(int) error) error {
				for i := range 300 {
					if n := emitted.Add(1) - consumed.Load(); n > most.Load() {
						most.Store(n)
					}
					if err := emit(i); err != nil {
						return err
					}
				}
				return nil
			},
			func(_ context.Context, i int) (int, error) { return i, nil },
			func(int) error {
				time.Sleep(20 * time.Microsecond)
				consumed.Add(1)
				return nil
			})
		if err != nil {
			t.Fatal(err)
		}
		// One more than the documented number is in the hands of produce.
		if limit := int64(max(workers+1, 3) + 1); most.Load() > limit {
			t.Errorf("%d workers: %d jobs at once, want at most %d", workers, most.Load(), limit)
		}
	}
}

var errTest = errors.New("test")

func TestFirstErrorEndsAll(t *testing.T) {
	id := func(_ context.Context, i int) (int, error) { return i, nil }
	ok := func(int) error { return nil }
	for name, run := range map[string]func() error{
		"produce": func() error {
			return Map(context.Background(), 3, func(_ context.Context, emit func(int) error) error {
				emit(1)
				return errTest
			}, id, ok)
		},
		"work": func() error {
			return Map(context.Background(), 3, count(1000), func(_ context.Context, i int) (int, error) {
				if i == 50 {
					return 0, errTest
				}
				return i, nil
			}, ok)
		},
		"consume": func() error {
			return Map(context.Background(), 3, count(1000), id, func(i int) error {
				if i == 50 {
					return errTest
				}
				return nil
			})
		},
	} {
		before := runtime.NumGoroutine()
		if err := run(); !errors.Is(err, errTest) {
			t.Errorf("%s: %v", name, err)
		}
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%s: %d goroutines left", name, n-before)
		}
	}
}

func TestNothingIsConsumedAfterAnError(t *testing.T) {
	err := Map(context.Background(), 4, count(100), func(_ context.Context, i int) (int, error) {
		if i == 10 {
			return 0, errTest
		}
		return i, nil
	}, func(i int) error {
		if i >= 10 {
			t.Errorf("result %d consumed", i)
		}
		return nil
	})
	if !errors.Is(err, errTest) {
		t.Fatal(err)
	}
}

func TestPanicsBecomeErrors(t *testing.T) {
	var caught *PanicError
	err := Map(context.Background(), 2, count(10),
		func(_ context.Context, i int) (int, error) { panic("in work") },
		func(int) error { return nil })
	if !errors.As(err, &caught) || caught.Value != "in work" || len(caught.Stack) == 0 {
		t.Errorf("work: %v", err)
	}
	err = Map(context.Background(), 2, func(context.Context, func(int) error) error { panic("in produce") },
		func(_ context.Context, i int) (int, error) { return i, nil }, func(int) error { return nil })
	if !errors.As(err, &caught) || caught.Value != "in produce" {
		t.Errorf("produce: %v", err)
	}
	err = Map(context.Background(), 2, count(10),
		func(_ context.Context, i int) (int, error) { return i, nil }, func(int) error { panic("in consume") })
	if !errors.As(err, &caught) || caught.Value != "in consume" {
		t.Errorf("consume: %v", err)
	}
}

func TestCancelledContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	seen := 0
	err := Map(ctx, 2, func(ctx context.Context, emit func(int) error) error {
		for {
			if err := emit(0); err != nil {
				return err
			}
		}
	}, func(_ context.Context, i int) (int, error) { return i, nil }, func(int) error {
		if seen++; seen == 20 {
			cancel(errTest)
		}
		return nil
	})
	if !errors.Is(err, errTest) {
		t.Fatal(err)
	}
}
