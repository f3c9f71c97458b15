package cbt

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
)

// SameEffect returns an error unless two merges write the same over the same base. They must
// replace the same blocks, have data and zeros in the same places, and know the same old content.
// Of their data it compares a random sample of about the given number of bytes.
func SameEffect(ctx context.Context, a, b *Merge, sample int64) error {
	const size = jobSize
	from, to := a.From(), b.From()
	if a.Size() != b.Size() || (from == nil) != (to == nil) || from != nil && *from != *to {
		return fmt.Errorf("one leads from %v to %d bytes, the other from %v to %d", from, a.Size(), to, b.Size())
	}
	a, b = a.sharing(), b.sharing()
	next, stop := iter.Pull2(b.each(ctx, size))
	defer stop()
	places := max(1, b.Payload()/size)
	was, now := make([]byte, size), make([]byte, size)
	for x, err := range a.each(ctx, size) {
		if err != nil {
			return err
		}
		y, err, ok := next()
		if err != nil {
			return err
		}
		if !ok || !slices.Equal(x.extents, y.extents) || !slices.Equal(x.old, y.old) {
			return fmt.Errorf("what they replace differs from offset %d on", x.extents[0].off)
		}
		if x.data == 0 || rand.Int64N(places)*size > sample {
			continue
		}
		x.buf, y.buf = &was, &now
		if err := x.fill(ctx, a.layers); err != nil {
			return err
		}
		if err := y.fill(ctx, b.layers); err != nil {
			return err
		}
		if !bytes.Equal(x.piece.data, y.piece.data) {
			return fmt.Errorf("their data differ behind offset %d", x.extents[0].off)
		}
	}
	y, err, ok := next()
	if err == nil && ok {
		err = fmt.Errorf("what they replace differs from offset %d on", y.extents[0].off)
	}
	return err
}

// each yields the windows of the merge.
func (m *Merge) each(ctx context.Context, size int64) iter.Seq2[*window, error] {
	return func(yield func(*window, error) bool) {
		stopped := fmt.Errorf("stopped")
		err := m.windows(ctx, size, func(w *window) error {
			if !yield(w, nil) {
				return stopped
			}
			return nil
		})
		if err != nil && err != stopped {
			yield(nil, err)
		}
	}
}
