package cbt

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"

	"cbt/sparse"
)

// SpotCheckError says that metadata called bytes unchanged that differ.
type SpotCheckError struct{ Off int64 }

func (e *SpotCheckError) Error() string {
	return fmt.Sprintf("spot check: the images differ at offset %d, where their metadata says that nothing changed", e.Off)
}

const spotSize = 256 << 10 // bytes compared at one place

// SpotCheck compares a random sample of about the given number of bytes of
// what changed does not name, and returns how many it compared. changed gives
// the changed extents of a range. Places where data is stored are preferred.
// The first difference is a *SpotCheckError.
func SpotCheck(ctx context.Context, old, img sparse.View, changed func(off, n int64) sparse.Seq, budget int64) (int64, error) {
	size := img.Size()
	old = sparse.Resize(old, size)
	was, now := make([]byte, spotSize), make([]byte, spotSize)
	var compared int64
	if size == 0 {
		return 0, nil
	}
	for tries := budget / spotSize; tries > 0 && compared < budget; tries-- {
		if ctx.Err() != nil {
			return compared, context.Cause(ctx)
		}
		off, err := nextData(img, rand.Int64N(size))
		if err != nil {
			return compared, err
		}
		off = floorBlock(off)
		n := min(spotSize, size-off)
		for e, err := range sparse.Invert(changed(off, n), off, n, sparse.Data) {
			if err != nil {
				return compared, err
			}
			a, b := was[:e.Len], now[:e.Len]
			if _, err := sparse.ReadFull(old, a, e.Off); err != nil {
				return compared, fmt.Errorf("spot check of the old image at offset %d: %w", e.Off, err)
			}
			if _, err := sparse.ReadFull(img, b, e.Off); err != nil {
				return compared, fmt.Errorf("spot check at offset %d: %w", e.Off, err)
			}
			if !bytes.Equal(a, b) {
				at := 0
				for a[at] == b[at] {
					at++
				}
				return compared, &SpotCheckError{e.Off + int64(at)}
			}
			compared += e.Len
		}
	}
	return compared, nil
}

// nextData is the first offset from off on where img has data, within a few
// extents; off itself if there is none.
func nextData(img sparse.View, off int64) (int64, error) {
	steps := 4
	for e, err := range img.Extents(off, img.Size()-off) {
		if err != nil {
			return 0, err
		}
		if e.Kind == sparse.Data {
			return e.Off, nil
		}
		if steps--; steps == 0 {
			break
		}
	}
	return off, nil
}
