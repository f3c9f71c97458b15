package sparsetest

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"

	"cbt/sparse"
)

// checkRead reads n bytes at off into a slice of garbage that has garbage
// behind it: a view that does not clear holes, or writes further than it was
// asked, shows.
func checkRead(v sparse.View, want []byte, off, n int64) error {
	const garbage, guard = 0xa5, 16
	buf := bytes.Repeat([]byte{garbage}, int(n)+guard)
	got, err := v.ReadAt(buf[:n], off)

	size := int64(len(want))
	inside := max(0, min(n, size-off))
	call := fmt.Sprintf("ReadAt(%d bytes, %d) of %d", n, off, size)
	if int64(got) != inside {
		return fmt.Errorf("%s = %d, %v, want %d bytes", call, got, err, inside)
	}
	switch {
	case inside < n && err != io.EOF:
		return fmt.Errorf("%s = %d, %v, want io.EOF", call, got, err)
	case inside == n && off+n < size && err != nil,
		inside == n && err != nil && err != io.EOF:
		return fmt.Errorf("%s = %d, %v, want no error", call, got, err)
	}
	if inside > 0 && !bytes.Equal(buf[:inside], want[off:off+inside]) {
		for i := range inside {
			if buf[i] != want[off+i] {
				return fmt.Errorf("%s: byte %d is 0x%02x, want 0x%02x", call, off+i, buf[i], want[off+i])
			}
		}
	}
	for i, b := range buf[n:] {
		if b != garbage {
			return fmt.Errorf("%s wrote 0x%02x %d bytes behind the slice", call, b, i)
		}
	}
	return nil
}

// extents collects a sequence, of which it bounds the length: more extents
// than bytes means one without end.
func extents(v sparse.View, off, n int64) ([]sparse.Extent, error) {
	var all []sparse.Extent
	for e, err := range v.Extents(off, n) {
		if err != nil {
			return nil, fmt.Errorf("Extents(%d, %d): %w", off, n, err)
		}
		if all = append(all, e); int64(len(all)) > n {
			return nil, fmt.Errorf("Extents(%d, %d) yields more than %d extents, the last of them %v", off, n, n, e)
		}
	}
	return all, nil
}

// checkCover wants [off, off+n) covered once, in order, by joined extents.
func checkCover(all []sparse.Extent, off, n int64) error {
	call := fmt.Sprintf("Extents(%d, %d)", off, n)
	pos, last := off, sparse.Kind(0)
	for _, e := range all {
		switch {
		case e.Len <= 0:
			return fmt.Errorf("%s: extent %v is empty", call, e)
		case e.Kind != sparse.Data && e.Kind != sparse.Zero && e.Kind != sparse.Hole:
			return fmt.Errorf("%s: extent %v has no kind", call, e)
		case e.Off != pos:
			return fmt.Errorf("%s: extent %v follows offset %d", call, e, pos)
		case e.Kind == last:
			return fmt.Errorf("%s: extent %v is not joined with the one before", call, e)
		}
		pos, last = e.End(), e.Kind
	}
	if pos != off+n {
		return fmt.Errorf("%s ends at %d, want %d", call, pos, off+n)
	}
	return nil
}

// checkRefused wants one error, with the zero Extent, and nothing else.
func checkRefused(v sparse.View, off, n int64) error {
	items, failed := 0, false
	for e, err := range v.Extents(off, n) {
		if items++; items > 1 {
			break
		}
		failed = err != nil && e == sparse.Extent{}
	}
	if items != 1 || !failed {
		return fmt.Errorf("Extents(%d, %d) of %d bytes: want one error and nothing else", off, n, v.Size())
	}
	return nil
}

// earlyBreak leaves a sequence after each of its first extents, then ranges
// over the same sequence again. One that goes on after that panics.
func (c *checker) earlyBreak() {
	seq := c.v.Extents(0, c.size)
	for stop := 1; stop <= min(len(c.whole), 20); stop++ {
		i := 0
		for range seq {
			if i++; i == stop {
				break
			}
		}
		var again []sparse.Extent
		for e, err := range seq {
			if err != nil {
				c.faultf("Extents(0, %d), ranged over again: %w", c.size, err)
				return
			}
			if again = append(again, e); len(again) > len(c.whole) {
				break
			}
		}
		if !slices.Equal(again, c.whole) {
			c.faultf("Extents(0, %d), ranged over again after a break: %v, want %v", c.size, again, c.whole)
			return
		}
	}
	for range c.v.Extents(-1, 1) {
		break
	}
}

// pulled steps through two sequences of one view by turns, with reads between
// the steps.
func (c *checker) pulled() {
	a, stopA := iter.Pull2(c.v.Extents(0, c.size))
	defer stopA()
	b, stopB := iter.Pull2(c.v.Extents(0, c.size))
	defer stopB()
	for i, want := range c.whole[:min(len(c.whole), 1000)] {
		ea, errA, okA := a()
		eb, errB, okB := b()
		if !okA || !okB || errA != nil || errB != nil || ea != want || eb != want {
			c.faultf("Extents(0, %d), two at once: element %d is %v (%v) and %v (%v), want %v", c.size, i, ea, errA, eb, errB, want)
			return
		}
		c.fault(checkRead(c.v, c.want, want.Off, min(want.Len, 4096)))
	}
}

// concurrent reads and maps from several goroutines at once. It says most
// under the race detector.
func (c *checker) concurrent() {
	const workers, rounds = 8, 40
	faults := make([]error, workers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					faults[w] = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
				}
			}()
			rnd := rand.New(rand.NewPCG(uint64(w), 2))
			<-start
			for range rounds {
				off, n := randomRange(rnd, c.size)
				if err := checkRead(c.v, c.want, off, n); err != nil {
					faults[w] = err
					return
				}
				if err := c.checkExtents(off, min(n, c.size-off)); err != nil {
					faults[w] = err
					return
				}
			}
		})
	}
	close(start)
	wg.Wait()
	for _, err := range faults {
		if err != nil {
			c.faultf("with %d goroutines at once: %w", workers, err)
			return
		}
	}
}
