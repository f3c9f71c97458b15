package sparse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cbt/internal/ordered"
	"cbt/sparse"
)

const block = 4096

// blocksOf counts the bytes of those 4 KiB blocks of an image for which is returns true.
func blocksOf(size int64, is func(off, end int64) bool) (n int64) {
	for off := int64(0); off < size; off += block {
		if end := min(off+block, size); is(off, end) {
			n += end - off
		}
	}
	return n
}

func TestCopy(t *testing.T) {
	ctx := context.Background()
	for _, size := range []int64{0, 1, 4095, 4096, 4097, 1 << 20, 1<<20 + 1, 5<<20 + 777} {
		for _, unit := range []int64{block, 64 << 10, 1000, 1100 << 10} {
			for _, opt := range []sparse.CopyOptions{
				{}, {Workers: 1}, {Workers: 7}, {Fresh: true}, {Compare: true}, {Compare: true, Workers: 3},
			} {
				t.Run(fmt.Sprintf("%d/%d/%+v", size, unit, opt), func(t *testing.T) {
					src := newMemView(size, unit, uint64(size))
					// The target is a little longer, and partly like the image.
					old := noise(size+5000, 77)
					if opt.Fresh {
						clear(old[:size])
					}
					like := blocksOf(size, func(off, end int64) bool {
						if opt.Compare && off/block%3 == 0 {
							copy(old[off:end], src.data[off:end])
							return true
						}
						return opt.Fresh && sparse.IsZero(src.data[off:end])
					})
					dst := &memTarget{data: bytes.Clone(old)}

					var progress []int64
					opt.Progress = func(done int64) { progress = append(progress, done) }
					stats, err := sparse.Copy(ctx, dst, src, opt)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(dst.data[:size], src.data) {
						t.Error("the copy differs")
					}
					if !bytes.Equal(dst.data[size:], old[size:]) {
						t.Error("what is behind the image has changed")
					}
					if dst.synced {
						t.Error("synced without being asked")
					}

					data, _ := sparse.Total(sparse.Select(src.Extents(0, size), func(e sparse.Extent) bool { return e.Kind == sparse.Data }))
					if stats.Read != data || src.readBytes.Load() != data {
						t.Errorf("Read = %d, and read %d, want %d", stats.Read, src.readBytes.Load(), data)
					}
					if sum := stats.Written + stats.Zeroed + stats.Skipped; sum != size {
						t.Errorf("%+v add up to %d, want %d", stats, sum, size)
					}
					if unit%block == 0 && stats.Skipped != like {
						t.Errorf("Skipped = %d, want %d", stats.Skipped, like)
					}
					if opt.Fresh && (len(dst.zeros) > 0 || stats.Zeroed > 0) {
						t.Errorf("a fresh target was zeroed: %+v", stats)
					}
					checkWrites(t, src, dst, stats)
					if !slices.IsSorted(progress) || size > 0 && progress[len(progress)-1] != size {
						t.Errorf("progress %v", progress)
					}
				})
			}
		}
	}
}

// checkWrites fails if a zero block was written, if anything was written twice, or if the counts
// are wrong.
func checkWrites(t *testing.T, src *memView, dst *memTarget, stats sparse.CopyStats) {
	t.Helper()
	all := slices.Concat(dst.writes, dst.zeros)
	slices.SortFunc(all, func(a, b sparse.Extent) int { return int(a.Off - b.Off) })
	pos, sum := int64(0), map[sparse.Kind]int64{}
	for _, e := range all {
		if e.Off < pos {
			t.Errorf("%v was done twice", e)
		}
		pos = e.End()
		sum[e.Kind] += e.Len
		for off := e.Off; e.Kind == sparse.Data && off < e.End(); {
			end := min(off-off%block+block, e.End())
			if sparse.IsZero(src.data[off:end]) {
				t.Errorf("zeros of [%d,%d) were written", off, end)
			}
			off = end
		}
	}
	if sum[sparse.Data] != stats.Written || sum[sparse.Zero] != stats.Zeroed {
		t.Errorf("%+v, but written %d, zeroed %d", stats, sum[sparse.Data], sum[sparse.Zero])
	}
}

// TestCopyCompareWritesDifferences changes three bytes of a copy.
func TestCopyCompareWritesDifferences(t *testing.T) {
	const size = 4 << 20
	src := newMemView(size, 64<<10, 5)
	dst := &memTarget{data: bytes.Clone(src.data)}
	for _, off := range []int64{0, 2<<20 - 1, size - 1} {
		dst.data[off] ^= 0x40
	}
	stats, err := sparse.Copy(context.Background(), dst, src, sparse.CopyOptions{Compare: true})
	if err != nil || !bytes.Equal(dst.data, src.data) {
		t.Fatalf("the copy differs: %v", err)
	}
	if stats.Written+stats.Zeroed != 3*block || len(dst.writes)+len(dst.zeros) != 3 {
		t.Errorf("%+v, in %v and %v", stats, dst.writes, dst.zeros)
	}

	// Blocks count from the start of the image, not of an extent.
	src = &memView{data: append(make([]byte, 1000), noise(size-1000, 1)...)}
	src.extents = []sparse.Extent{{Off: 0, Len: 1000, Kind: sparse.Hole}, {Off: 1000, Len: size - 1000, Kind: sparse.Data}}
	dst = &memTarget{data: bytes.Clone(src.data)}
	dst.data[1<<20] ^= 0x40
	if _, err := sparse.Copy(context.Background(), dst, src, sparse.CopyOptions{Compare: true}); err != nil {
		t.Fatal(err)
	}
	if want := []sparse.Extent{{Off: 1 << 20, Len: block, Kind: sparse.Data}}; !slices.Equal(dst.writes, want) {
		t.Errorf("wrote %v, want %v", dst.writes, want)
	}
}

func TestCopyRefusals(t *testing.T) {
	src := newMemView(1<<20, block, 1)
	dst := &memTarget{data: make([]byte, 1<<20-1)}
	if _, err := sparse.Copy(context.Background(), dst, src, sparse.CopyOptions{}); err == nil || len(dst.writes) > 0 {
		t.Errorf("a target too small: %v", err)
	}
	dst.data = make([]byte, 1<<20)
	if _, err := sparse.Copy(context.Background(), dst, src, sparse.CopyOptions{Fresh: true, Compare: true}); err == nil {
		t.Error("a fresh target was compared")
	}
}

func TestCopyErrors(t *testing.T) {
	const size, bad = 8 << 20, 5<<20 + 100
	hits := func(off, n int64) bool { return off <= bad && off+n > bad }
	failAt := func(off, n int64) error {
		if hits(off, n) {
			return errTest
		}
		return nil
	}
	panicAt := func(off, n int64) error {
		if hits(off, n) {
			panic("test panic")
		}
		return nil
	}
	allData := []sparse.Extent{{Off: 0, Len: size, Kind: sparse.Data}}
	allHole := []sparse.Extent{{Off: 0, Len: size, Kind: sparse.Hole}}
	cases := map[string]struct {
		change func(src *memView, dst *memTarget)
		opt    sparse.CopyOptions
		want   error
		panics bool
	}{
		"read fails":        {change: func(s *memView, _ *memTarget) { s.fail = failAt }, want: errTest},
		"read panics":       {change: func(s *memView, _ *memTarget) { s.fail = panicAt }, panics: true},
		"read is short":     {change: func(s *memView, _ *memTarget) { s.short = bad }, want: io.ErrUnexpectedEOF},
		"image ends early":  {change: func(s *memView, _ *memTarget) { s.fail = eofFrom(bad) }, want: io.ErrUnexpectedEOF},
		"extents fail":      {change: func(s *memView, _ *memTarget) { s.failExtents = bad }, want: errTest},
		"write fails":       {change: func(_ *memView, d *memTarget) { d.fail = failAt }, want: errTest},
		"write panics":      {change: func(_ *memView, d *memTarget) { d.fail = panicAt }, panics: true},
		"write is short":    {change: func(_ *memView, d *memTarget) { d.short = true }, want: io.ErrShortWrite},
		"zero fails":        {change: func(s *memView, d *memTarget) { s.extents, d.fail = allHole, failAt }, want: errTest},
		"comparison fails":  {change: func(_ *memView, d *memTarget) { d.failRead = func(off int64) error { return failAt(off, 1<<20) } }, opt: sparse.CopyOptions{Compare: true}, want: errTest},
		"target ends early": {change: func(_ *memView, d *memTarget) { d.failRead = func(off int64) error { return eofFrom(bad)(off, 1<<20) } }, opt: sparse.CopyOptions{Compare: true}, want: io.ErrUnexpectedEOF},
	}
	for name, c := range cases {
		for _, workers := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s/%d", name, workers), func(t *testing.T) {
				src := &memView{data: noise(size, 1), extents: allData}
				dst := &memTarget{data: make([]byte, size)}
				c.change(src, dst)
				c.opt.Workers = workers
				before := runtime.NumGoroutine()
				stats, err := sparse.Copy(context.Background(), dst, src, c.opt)
				var p *ordered.PanicError
				switch {
				case c.panics && (!errors.As(err, &p) || p.Value != "test panic" || len(p.Stack) == 0):
					t.Errorf("got %v, want the panic", err)
				case !c.panics && !errors.Is(err, c.want):
					t.Errorf("got %v, want %v", err, c.want)
				case strings.Contains(err.Error(), "\n"):
					t.Errorf("the error has more than one line: %v", err)
				}
				if done := stats.Written + stats.Zeroed + stats.Skipped; done > bad && !dst.short {
					t.Errorf("%+v done, past the error at %d", stats, bad)
				}
				noGoroutines(t, before)
			})
		}
	}
}

// eofFrom makes an image end at an offset where it should not.
func eofFrom(end int64) func(off, n int64) error {
	return func(off, n int64) error {
		if off+n > end {
			return io.EOF
		}
		return nil
	}
}

// noGoroutines waits for goroutines that are about to end.
func noGoroutines(t *testing.T, before int) {
	t.Helper()
	for range 200 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

func TestCopyCancel(t *testing.T) {
	src := &memView{data: noise(16<<20, 1), extents: []sparse.Extent{{Off: 0, Len: 16 << 20, Kind: sparse.Data}}}
	dst := &memTarget{data: make([]byte, 16<<20)}
	before := runtime.NumGoroutine()
	reason := errors.New("reason")
	ctx, cancel := context.WithCancelCause(context.Background())
	var reads atomic.Int32
	src.fail = func(int64, int64) error {
		if reads.Add(1) == 3 {
			cancel(reason)
		}
		return nil
	}
	_, err := sparse.Copy(ctx, dst, src, sparse.CopyOptions{Workers: 2})
	if err != reason {
		t.Errorf("got %v, want %v", err, reason)
	}
	if n := reads.Load(); n > 6 {
		t.Errorf("%d reads after the third had cancelled", n)
	}
	noGoroutines(t, before)

	done, stop := context.WithCancel(context.Background())
	stop()
	dst = &memTarget{data: make([]byte, 16<<20)}
	if _, err := sparse.Copy(done, dst, src, sparse.CopyOptions{}); err != context.Canceled || len(dst.writes) > 0 {
		t.Errorf("cancelled before: %v, %d writes", err, len(dst.writes))
	}
}

// bigView is 1 GiB of data that takes no memory.
type bigView struct {
	memView
	delay time.Duration // of every read
	reads atomic.Int64
}

func (b *bigView) Size() int64 { return 1 << 30 }

func (b *bigView) ReadAt(p []byte, off int64) (int, error) {
	atLeast(&b.mostReaders, b.readers.Add(1))
	defer b.readers.Add(-1)
	atLeast(&b.longestRead, int64(len(p)))
	b.reads.Add(1)
	time.Sleep(b.delay)
	for i := 0; i < len(p); i += block {
		p[i] = byte(off>>20) | 1
	}
	return len(p), nil
}

func (b *bigView) Extents(off, n int64) sparse.Seq {
	return sparse.Fill(sparse.Of(), off, n, sparse.Data)
}

// bigTarget takes everything and keeps nothing.
type bigTarget struct {
	bigView
	size, mostZeroed int64
}

func (b *bigTarget) Size() int64 { return max(b.size, b.bigView.Size()) }

func (b *bigTarget) Zero(off, n int64) error {
	b.mostZeroed = max(b.mostZeroed, n)
	return nil
}

func (b *bigTarget) Truncate(int64) error                     { return nil }
func (b *bigTarget) Sync() error                              { return nil }
func (b *bigTarget) WriteAt(p []byte, off int64) (int, error) { return len(p), nil }

// allocated returns how many bytes do allocates, freed or not.
func allocated(do func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

func TestCopyMemory(t *testing.T) {
	const workers = 3
	for _, compare := range []bool{false, true} {
		src, dst := &bigView{}, &bigTarget{}
		used := allocated(func() {
			if _, err := sparse.Copy(context.Background(), dst, src, sparse.CopyOptions{Workers: workers, Compare: compare}); err != nil {
				t.Fatal(err)
			}
		})
		limit := int64(workers << 20)
		if compare {
			limit *= 2
		}
		// The rest is what a thousand jobs cost.
		if limit += 1 << 20; used > limit {
			t.Errorf("compare %t: a copy of 1 GiB allocated %d bytes, want %d at most", compare, used, limit)
		}
		if src.mostReaders.Load() > workers || src.longestRead.Load() > 1<<20 {
			t.Errorf("%d reads at once, of %d bytes", src.mostReaders.Load(), src.longestRead.Load())
		}
	}
}

// TestCopyZeros zeroes in steps, so that it can be cancelled between them.
func TestCopyZeros(t *testing.T) {
	const size = 1<<40 + 5
	dst := &bigTarget{size: size}
	stats, err := sparse.Copy(context.Background(), dst, sparse.Zeros(size), sparse.CopyOptions{Workers: 1})
	if err != nil || stats != (sparse.CopyStats{Zeroed: size}) {
		t.Errorf("%+v, %v", stats, err)
	}
	if dst.mostZeroed > 256<<20 {
		t.Errorf("%d bytes zeroed at once", dst.mostZeroed)
	}
	stats, err = sparse.Copy(context.Background(), &bigTarget{size: 1<<63 - 1}, sparse.Zeros(1<<63-1), sparse.CopyOptions{Fresh: true})
	if err != nil || stats != (sparse.CopyStats{Skipped: 1<<63 - 1}) {
		t.Errorf("%+v, %v", stats, err)
	}
}

// TestCopyFiles copies a sparse file to a new one, over an old one and onto
// one that is nearly the same.
func TestCopyFiles(t *testing.T) {
	want := mottled(6<<20+5, 64<<10, 12)
	srcPath := filepath.Join(t.TempDir(), "src.raw")
	writeSparse(t, srcPath, want, 64<<10)
	src, _ := openRaw(t, srcPath)
	almost := bytes.Clone(want)
	almost[3<<20]++
	for name, c := range map[string]struct {
		old []byte
		opt sparse.CopyOptions
	}{
		"fresh": {nil, sparse.CopyOptions{Fresh: true}},
		"over":  {noise(7<<20, 1), sparse.CopyOptions{}},
		"near":  {almost, sparse.CopyOptions{Compare: true}},
	} {
		t.Run(name, func(t *testing.T) {
			dst, path := newTarget(t, c.old)
			if err := dst.Truncate(src.Size()); err != nil {
				t.Fatal(err)
			}
			stats, err := sparse.Copy(context.Background(), dst, src, c.opt)
			if err != nil {
				t.Fatal(err)
			}
			if err := dst.Sync(); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the copy differs: %v", err)
			}
			if systemMaps && !c.opt.Compare {
				v, _ := openRaw(t, path)
				equalExtents(t, v, wantExtents(want, 64<<10))
			}
			if c.opt.Compare && stats.Written+stats.Zeroed != block {
				t.Errorf("%+v, want one block changed", stats)
			}
		})
	}
}
