// Package ordered is the pipeline that copying, diffing and compressing are
// made of: many goroutines work, results arrive in the order of their jobs,
// and only so many jobs are under way at once.
package ordered

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// PanicError is a panic in one of a pipeline's goroutines, turned into an
// error so that a hostile image cannot take the process down unseen.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("internal error: %v", e.Value) }

// Caught turns a panic of the calling function into *err. Use it deferred.
func Caught(err *error) {
	if v := recover(); v != nil {
		*err = &PanicError{v, debug.Stack()}
	}
}

type slot[R any] struct {
	done   chan struct{}
	result R
	err    error
}

// Map calls produce, which hands jobs to emit; runs work on each of them in
// the given number of goroutines; and calls consume with the results, in the
// order of the jobs. produce runs in a goroutine of its own, consume in the
// caller's. At most workers+1 jobs (workers+2 for one worker)
// lie between emit and the end of consume.
//
// The first error of any part ends all of them and is returned once no
// goroutine is left; emit then returns an error, which produce should return.
func Map[J, R any](ctx context.Context, workers int,
	produce func(ctx context.Context, emit func(J) error) error,
	work func(context.Context, J) (R, error),
	consume func(R) error,
) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	type job struct {
		in  J
		out *slot[R]
	}
	jobs := make(chan job)
	order := make(chan *slot[R], max(1, workers-1))
	var all sync.WaitGroup

	var perr error
	all.Go(func() {
		defer close(order)
		defer close(jobs)
		perr = func() (err error) {
			defer Caught(&err)
			return produce(ctx, func(j J) error {
				s := &slot[R]{done: make(chan struct{})}
				select {
				case order <- s:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
				select {
				case jobs <- job{j, s}:
				case <-ctx.Done():
					s.err = context.Cause(ctx)
					close(s.done)
					return s.err
				}
				return nil
			})
		}()
	})
	for range workers {
		all.Go(func() {
			for j := range jobs {
				j.out.err = func() (err error) {
					defer Caught(&err)
					if err := ctx.Err(); err != nil {
						return context.Cause(ctx)
					}
					j.out.result, err = work(ctx, j.in)
					return err
				}()
				close(j.out.done)
			}
		})
	}

	for s := range order {
		<-s.done
		if err == nil {
			err = s.err
		}
		if err == nil {
			err = func() (err error) {
				defer Caught(&err)
				return consume(s.result)
			}()
		}
		if err != nil {
			cancel(err)
		}
	}
	all.Wait()
	if err == nil {
		err = perr
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}
