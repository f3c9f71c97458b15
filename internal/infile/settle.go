package infile

import (
	"context"
	"time"
)

// Kernels stamp files with a clock that ticks every 10 ms or faster, some file
// systems every second or two. Two writes within a tick leave the same times, so
// a point is only taken once the tick of the last write is over.
const (
	FineTick   = 20 * time.Millisecond
	CoarseTick = 2 * time.Second
)

// Settle waits until a further write to f would be seen in its times. What is
// written through a mapping is seen once the page was written back: after that
// the first write to it takes the kernel's notice again.
func (f *Input) Settle(ctx context.Context) error {
	for !f.Info.Block {
		began := time.Now()
		_ = f.Sync() // of what others wrote; where that fails there is no more to be done
		untold := f.Info.Untold
		now, err := StatOf(f.File)
		if err != nil {
			return err
		}
		now.Untold = untold
		f.Info = now
		wait := max(UntilTold(began, now.Mtime, now), UntilTold(began, now.Ctime, now))
		if wait <= 0 {
			return nil
		}
		select {
		case <-time.After(wait + time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// UntilTold is how long it takes until the tick of a time is over. One in the
// future was set by hand, or the clock was.
func UntilTold(now, of time.Time, st Stat) time.Duration {
	tick := FineTick
	if st.Mtime.Nanosecond() == 0 && st.Ctime.Nanosecond() == 0 {
		tick = CoarseTick
	}
	age := now.Sub(of)
	if age > tick || age < -tick {
		return 0
	}
	return tick - age
}
