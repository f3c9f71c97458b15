// Package sparsetest is the conformance suite that every sparse.View passes.
package sparsetest

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"

	"cbt/sparse"
)

// View fails t unless v keeps the contract of sparse.View and holds exactly
// want. See Check for what is looked at.
func View(t testing.TB, v sparse.View, want []byte) {
	t.Helper()
	if err := Check(v, want); err != nil {
		t.Error(err)
	}
}

// Check looks for breaches of the contract of sparse.View in v, whose content
// must be want, and returns those it found, or nil. It reads every byte, then
// every range of a small image and edges, extent boundaries and a fixed random
// sample of a larger one, alone and from several goroutines at once.
func Check(v sparse.View, want []byte) error {
	c := &checker{v: v, want: want, size: int64(len(want)), rnd: rand.New(rand.NewPCG(1, uint64(len(want))))}
	for _, step := range []func(){
		c.sizes, c.wholeRead, c.wholeExtents, c.ranges, c.outside, c.earlyBreak, c.pulled, c.concurrent,
	} {
		c.guarded(step)
		// After a fault in the basics the rest would only repeat it.
		if len(c.faults) > 0 {
			break
		}
	}
	return errors.Join(c.faults...)
}

// maxFaults is how many faults one step reports before it gives up.
const maxFaults = 5

type checker struct {
	v      sparse.View
	want   []byte
	size   int64
	rnd    *rand.Rand
	whole  []sparse.Extent // of the whole image, once wholeExtents found it sound
	faults []error
}

func (c *checker) fault(err error) {
	if err != nil && len(c.faults) < maxFaults {
		c.faults = append(c.faults, err)
	}
}

func (c *checker) faultf(format string, args ...any) { c.fault(fmt.Errorf(format, args...)) }

func (c *checker) done() bool { return len(c.faults) >= maxFaults }

// guarded turns a panic of the view into a fault.
func (c *checker) guarded(step func()) {
	defer func() {
		if r := recover(); r != nil {
			c.faultf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	step()
}

func (c *checker) sizes() {
	if got := c.v.Size(); got != c.size {
		c.faultf("Size() = %d, want %d", got, c.size)
	}
}

func (c *checker) wholeRead() {
	for _, step := range []int64{c.size, 1 << 20, 4096, 1000} {
		step = max(step, 1)
		if c.size/step > 1<<14 {
			continue
		}
		for off := int64(0); off < c.size && !c.done(); off += step {
			c.fault(checkRead(c.v, c.want, off, min(step, c.size-off)))
		}
	}
}

func (c *checker) wholeExtents() {
	whole, err := extents(c.v, 0, c.size)
	if err != nil {
		c.fault(err)
		return
	}
	c.fault(checkCover(whole, 0, c.size))
	for _, e := range whole {
		if e.Off < 0 || e.End() > c.size || !e.Kind.ReadsZero() {
			continue
		}
		if i := slices.IndexFunc(c.want[e.Off:e.End()], func(b byte) bool { return b != 0 }); i >= 0 {
			c.faultf("Extents(0, %d): %v is not zero: byte %d is 0x%02x", c.size, e, e.Off+int64(i), c.want[e.Off+int64(i)])
		}
	}
	c.whole = whole
}

// ranges compares reads and extents of sub-ranges with the whole.
func (c *checker) ranges() {
	const exhaustive = 200
	if c.size <= exhaustive {
		for off := int64(0); off <= c.size+2; off++ {
			for n := int64(0); n <= c.size-off+3 || n == 0; n++ {
				c.rangeAt(off, n)
			}
		}
		return
	}
	points := c.points()
	for i := range len(points) - 1 {
		c.rangeAt(points[i], points[i+1]-points[i])
		c.rangeAt(points[i], 0)
	}
	for i := range 200 {
		a, b := points[c.rnd.IntN(len(points))], points[c.rnd.IntN(len(points))]
		most := int64(256 << 10)
		if i < 10 {
			most = 8 << 20
		}
		c.rangeAt(min(a, b), min(max(a, b)-min(a, b), most))
	}
	for range 400 {
		c.rangeAt(randomRange(c.rnd, c.size))
	}
	for _, n := range []int64{1, 2, 511, 4096, 1 << 17} {
		c.rangeAt(c.size, n)
		c.rangeAt(c.size+n, n)
		c.rangeAt(max(0, c.size-n), n)
		c.rangeAt(max(0, c.size-n), n+1)
		c.rangeAt(max(0, c.size-n/2), n)
	}
}

// points are the offsets where a view may go wrong: the edges of the image,
// of its extents, and of blocks and clusters of the usual sizes.
func (c *checker) points() []int64 {
	var at []int64
	for _, e := range c.whole {
		at = append(at, e.Off)
	}
	const most = 64
	for len(at) > most {
		c.rnd.Shuffle(len(at), func(i, j int) { at[i], at[j] = at[j], at[i] })
		at = at[:most]
	}
	for _, unit := range []int64{512, 4096, 64 << 10, 1 << 20, 2 << 20} {
		for range 4 {
			at = append(at, c.rnd.Int64N(c.size/unit+1)*unit)
		}
	}
	at = append(at, 0, c.size)
	var points []int64
	for _, p := range at {
		for d := int64(-1); d <= 1; d++ {
			if p+d >= 0 && p+d <= c.size+1 {
				points = append(points, p+d)
			}
		}
	}
	slices.Sort(points)
	return slices.Compact(points)
}

// randomRange has a length of any magnitude, and sometimes passes the end.
func randomRange(rnd *rand.Rand, size int64) (off, n int64) {
	off = rnd.Int64N(size + 1)
	n = rnd.Int64N(1 << rnd.IntN(min(20, bits.Len64(uint64(size))+2)))
	return off, n
}

func (c *checker) rangeAt(off, n int64) {
	if c.done() {
		return
	}
	c.fault(checkRead(c.v, c.want, off, n))
	if off <= c.size && n <= c.size-off {
		c.fault(c.checkExtents(off, n))
	}
}

// checkExtents wants a sub-range to be the whole, clipped.
func (c *checker) checkExtents(off, n int64) error {
	got, err := extents(c.v, off, n)
	if err != nil {
		return err
	}
	if err := checkCover(got, off, n); err != nil {
		return err
	}
	var want []sparse.Extent
	for _, e := range c.whole {
		if e := e.Clip(off, off+n); e.Len > 0 {
			want = append(want, e)
		}
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("Extents(%d, %d) = %v, but of the whole image that part is %v", off, n, got, want)
	}
	return nil
}

func (c *checker) outside() {
	for _, off := range []int64{-1, -4096, math.MinInt64} {
		for _, n := range []int{0, 1, 4096} {
			if n, err := c.v.ReadAt(make([]byte, n), off); err == nil || n != 0 {
				c.faultf("ReadAt(%d bytes, %d) = %d, %v, want an error", n, off, n, err)
			}
		}
	}
	for _, off := range []int64{math.MaxInt64 - 4096, math.MaxInt64 - 1, math.MaxInt64} {
		if off >= c.size {
			c.fault(checkRead(c.v, c.want, off, 4096))
		}
	}
	for _, r := range [][2]int64{
		{-1, 0}, {-1, 1}, {-1, c.size}, {math.MinInt64, 1},
		{0, -1}, {c.size, -1}, {0, math.MinInt64},
		{0, c.size + 1}, {c.size, 1}, {c.size + 1, 0}, {c.size + 1, 1}, {c.size / 2, c.size + 1},
		{1, math.MaxInt64}, {c.size, math.MaxInt64}, {math.MaxInt64, math.MaxInt64}, {math.MaxInt64, 0},
	} {
		c.fault(checkRefused(c.v, r[0], r[1]))
	}
}
