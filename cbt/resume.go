package cbt

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"cbt/sparse"
)

// NotHalfError says where a target holds something that neither the base nor the deltas put there.
// So the work that was interrupted was not the last to write to it.
type NotHalfError struct {
	Stream string
	Off    int64 // of the block, in the image
}

func (e *NotHalfError) Error() string {
	return fmt.Sprintf("wrong base: the block of %s at offset %d is neither what it was before nor what the deltas make of it", e.Stream, e.Off)
}

// CheckHalf checks that target is what an interrupted WriteTo left: every byte is that of the base,
// or that of the image after the merge. base is a chain that leads to the base, oldest first.
// CheckHalf reads all of the target, and all of the chain but its holes. It returns a *NotHalfError
// for the first block that does not fit.
func (m *Merge) CheckHalf(ctx context.Context, target sparse.View, base []Layer, progress func(done int64)) error {
	cache := NewCache()
	before, err := cache.Stack(base...)
	if err != nil {
		return err
	}
	after, err := cache.Stack(append(slices.Clip(base), m.layers...)...)
	if err != nil {
		return err
	}
	// Where the target is not yet as large, or as small, as the image will be, it is still the
	// base. What lies past the end of a base counts as zeros.
	size := max(before.Size(), after.Size())
	have, old := sparse.Resize(target, size), sparse.Resize(before, size)
	now := sparse.Resize(after, size)
	buf := make([]byte, 3*jobSize)
	for e, err := range sparse.Compare(have, old, 0, size) {
		if err != nil {
			return err
		}
		for off := e.Off; off < e.End(); off += jobSize {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n := min(jobSize, e.End()-off)
			h, o, w := buf[:n], buf[jobSize:jobSize+n], buf[2*jobSize:2*jobSize+n]
			if _, err := sparse.ReadFull(have, h, off); err != nil {
				return fmt.Errorf("reading %d bytes at offset %d of the target: %w", n, off, err)
			}
			if _, err := sparse.ReadFull(now, w, off); err != nil {
				return err
			}
			if bytes.Equal(h, w) {
				continue
			}
			// A block that was just being written may be a mixture.
			if _, err := sparse.ReadFull(old, o, off); err != nil {
				return err
			}
			for i := range h {
				if h[i] != w[i] && h[i] != o[i] {
					return &NotHalfError{m.layers[0].stream().Name, (off + int64(i)) / BlockSize * BlockSize}
				}
			}
		}
		if progress != nil {
			progress(e.End())
		}
	}
	return ctx.Err()
}

// CheckHalfBlind is CheckHalf without a chain that leads to the base: it looks only at blocks that
// the merge replaces. Each must have its new content, or the old content that the deltas know, or
// be a mixture of new and other sectors. CheckHalfBlind returns the number of bytes for which it
// could tell.
func (m *Merge) CheckHalfBlind(ctx context.Context, target sparse.View) (seen int64, err error) {
	have := sparse.Resize(target, max(m.From().Size, m.Size()))
	shared, now := m.sharing(), make([]byte, jobSize)
	buf := make([]byte, BlockSize)
	for w, err := range shared.each(ctx, jobSize) {
		if err != nil {
			return seen, err
		}
		w.buf = &now
		if err := w.fill(ctx, shared.layers); err != nil {
			return seen, err
		}
		data, old := w.piece.data, w.piece.old
		for _, e := range w.extents {
			if e.zero { // nothing tells what was there
				continue
			}
			for off := e.off; off < e.end(); off += BlockSize {
				n := min(BlockSize, e.end()-off)
				block := data[:n]
				data = data[n:]
				if !e.checked {
					continue
				}
				crc := old[0]
				old = old[1:]
				if _, err := sparse.ReadFull(have, buf[:n], off); err != nil {
					return seen, fmt.Errorf("reading %d bytes at offset %d of the target: %w", n, off, err)
				}
				if !bytes.Equal(buf[:n], block) && crcOf(buf[:n]) != crc && !anySector(buf[:n], block) {
					return seen, &NotHalfError{m.layers[0].stream().Name, off}
				}
				seen += n
			}
		}
	}
	return seen, ctx.Err()
}

// anySector reports whether any 512-byte sector is the same in a and b.
func anySector(a, b []byte) bool {
	const sector = 512
	for i := 0; i < len(a); i += sector {
		end := min(i+sector, len(a))
		if bytes.Equal(a[i:end], b[i:end]) {
			return true
		}
	}
	return false
}
