package infile

import (
	"context"
	"io"
)

// Interruptible reads r and gives up when ctx ends even while r blocks: a pipe
// that nobody writes to must not keep a Ctrl-C waiting. The goroutine that
// waits for r is left behind then; it does not touch the caller's memory.
type Interruptible struct {
	Ctx context.Context
	R   io.Reader
	buf []byte // read and not yet handed out
	own []byte
}

type readResult struct {
	n   int
	err error
}

func (i *Interruptible) Read(p []byte) (int, error) {
	if len(i.buf) == 0 {
		if i.own == nil {
			i.own = make([]byte, 1<<20)
		}
		done := make(chan readResult, 1)
		go func() {
			n, err := i.R.Read(i.own)
			done <- readResult{n, err}
		}()
		select {
		case res := <-done:
			if res.err != nil && res.n == 0 {
				return 0, res.err
			}
			i.buf = i.own[:res.n]
		case <-i.Ctx.Done():
			i.own = nil
			return 0, context.Cause(i.Ctx)
		}
	}
	n := copy(p, i.buf)
	i.buf = i.buf[n:]
	return n, nil
}

// Tee reads r for as long as ctx lasts and writes all it reads to w.
func Tee(ctx context.Context, r io.Reader, w io.Writer) io.Reader {
	return io.TeeReader(&Interruptible{Ctx: ctx, R: r}, w)
}
