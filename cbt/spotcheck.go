package cbt

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"

	"cbt/sparse"
)

// SpotCheckError says that bytes differ which metadata called unchanged.
type SpotCheckError struct{ Off int64 }

func (e *SpotCheckError) Error() string {
	return fmt.Sprintf("spot check: the images differ at offset %d, where their metadata says that nothing changed", e.Off)
}

const (
	spotSize   = 256 << 10 // bytes compared at one place
	spotWindow = 256 << 20 // bytes in which to look for data
	spotTries  = 4         // places tried for each one that is compared
)

// SpotCheck compares a random sample, of about budget bytes, of what changed does not name. It
// compares all of that if the image is no larger than budget. In a larger image it compares only
// places where data is stored. changed returns the changed extents of a range. SpotCheck returns
// how many bytes it compared. For the first difference the error is a *SpotCheckError.
func SpotCheck(ctx context.Context, old, img sparse.View, changed func(off, n int64) sparse.Seq, budget int64) (int64, error) {
	s := &spotCheck{
		old: sparse.Resize(old, img.Size()), img: img, changed: changed,
		was: make([]byte, spotSize), now: make([]byte, spotSize),
	}
	size := img.Size()
	if size <= budget {
		for off := int64(0); off < size; off += spotSize {
			if err := s.compare(ctx, off); err != nil {
				return s.compared, err
			}
		}
		return s.compared, nil
	}
	seen := make(map[int64]bool)
	for range (budget + spotSize - 1) / spotSize * spotTries {
		if s.compared >= budget {
			break
		}
		off, ok, err := s.someData(rand.Int64N(size))
		if err != nil {
			return s.compared, err
		}
		if off -= off % spotSize; !ok || seen[off] {
			continue
		}
		seen[off] = true
		if err := s.compare(ctx, off); err != nil {
			return s.compared, err
		}
	}
	return s.compared, nil
}

type spotCheck struct {
	old, img sparse.View
	changed  func(off, n int64) sparse.Seq
	was, now []byte
	compared int64
}

// compare compares the bytes at off, spotSize at most, that changed does not name.
func (s *spotCheck) compare(ctx context.Context, off int64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	n := min(spotSize, s.img.Size()-off)
	for e, err := range sparse.Invert(s.changed(off, n), off, n, sparse.Data) {
		if err != nil {
			return err
		}
		a, b := s.was[:e.Len], s.now[:e.Len]
		if _, err := sparse.ReadFull(s.old, a, e.Off); err != nil {
			return fmt.Errorf("spot check of the old image at offset %d: %w", e.Off, err)
		}
		if _, err := sparse.ReadFull(s.img, b, e.Off); err != nil {
			return fmt.Errorf("spot check at offset %d: %w", e.Off, err)
		}
		if !bytes.Equal(a, b) {
			at := 0
			for a[at] == b[at] {
				at++
			}
			return &SpotCheckError{e.Off + int64(at)}
		}
		s.compared += e.Len
	}
	return nil
}

// someData returns a random place in the first data after off. If none is near, ok is false: to
// look further could mean reading all of the metadata.
func (s *spotCheck) someData(off int64) (at int64, ok bool, err error) {
	for e, err := range s.img.Extents(off, min(spotWindow, s.img.Size()-off)) {
		if err != nil {
			return 0, false, err
		}
		if e.Kind == sparse.Data {
			return e.Off + rand.Int64N(e.Len), true, nil
		}
	}
	return 0, false, nil
}
