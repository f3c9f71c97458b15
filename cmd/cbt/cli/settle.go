package cli

import (
	"context"
	"time"

	"cbt/internal/fail"
	"cbt/internal/imagelock"
)

// Kernels stamp files with a clock that ticks every 10 ms or faster, some file
// systems every second or two. Two writes within a tick leave the same times, so
// a point is only taken once the tick of the last write is over.
const (
	fineTick   = 20 * time.Millisecond
	coarseTick = 2 * time.Second
)

// settle does the same for files of which more than metadata is read. A file
// system in memory changes a file's times only when a page is first written to
// through a mapping: there nobody may have the file open for writing now, or
// nothing would tell what is written later. Who comes after that is seen.
func (o *opener) settle(ctx context.Context, f *file) error {
	if o.metadataOnly {
		return nil
	}
	if err := f.inFile.settle(ctx); err != nil || f.stat.block || !f.stat.inMemory || o.Frozen {
		return err
	}
	writer, err := imagelock.OpenForWriting(f.File)
	switch {
	case err != nil:
		f.stat.untold = true
		o.Warnf("%s: has no point: its file system is in memory, where times do not tell of writes through a mapping, and who has it open cannot be found out (%v): --frozen says that nobody writes to it", f.path, err)
	case writer:
		return fail.Busy("%s: another program has it open for writing, and its file system is in memory, where times do not tell of writes through a mapping: --frozen says that nobody writes to it", f.path)
	}
	return nil
}

// settle waits until a further write to f would be seen in its times. What is
// written through a mapping is seen once the page was written back: after that
// the first write to it takes the kernel's notice again.
func (f *inFile) settle(ctx context.Context) error {
	for !f.stat.block {
		began := time.Now()
		_ = f.Sync() // of what others wrote; where that fails there is no more to be done
		untold := f.stat.untold
		now, err := statFile(f.File)
		if err != nil {
			return err
		}
		now.untold = untold
		f.stat = now
		wait := max(untilTold(began, now.mtime, now), untilTold(began, now.ctime, now))
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

// untilTold is how long it takes until the tick of a time is over. One in the
// future was set by hand, or the clock was.
func untilTold(now, of time.Time, st fileStat) time.Duration {
	tick := fineTick
	if st.mtime.Nanosecond() == 0 && st.ctime.Nanosecond() == 0 {
		tick = coarseTick
	}
	age := now.Sub(of)
	if age > tick || age < -tick {
		return 0
	}
	return tick - age
}
