package thin

import (
	"errors"
	"fmt"
	"io"
	"math"

	"cbt/sparse"
)

// Data is where a pool's data blocks are: data block b is at byte b*DataBlockSize. R may be nil if
// only metadata are needed.
type Data struct {
	R    io.ReaderAt // safe for concurrent use
	Size int64       // in bytes
}

// View is the content of a thin device. It implements sparse.View: mapped blocks are sparse.Data.
// The rest is a Hole, or the external origin with its kinds.
type View struct {
	m        *Metadata
	dev      Device
	t        *tree
	height   int // of the mapping tree
	size     int64
	data     Data
	external sparse.View
}

// ErrNoData means that blocks were to be read from a pool that was opened without its data.
var ErrNoData = errors.New("the data of the thin pool are not available, only its metadata")

// View opens a device with a size in bytes, which only its logical volume knows. Mappings past that
// size are ignored. Unmapped blocks read from external, if that is not nil. Past its end, or
// without it, they read as zeros.
//
// View reads the leftmost path of the mapping tree. The error is ErrNoDevice if there is no such
// device.
func (m *Metadata) View(id uint32, size int64, data Data, external sparse.View) (*View, error) {
	if size < 0 {
		return nil, fmt.Errorf("thin device %d: size of %d bytes", id, size)
	}
	d, err := m.Device(id)
	if err != nil {
		return nil, err
	}
	v := &View{m: m, dev: d, t: mappings.tree(id), size: size, data: data, external: external}
	block, p := d.Root, place{hi: math.MaxUint64}
	for {
		n, err := m.node(block, mappings, v.t)
		if err == nil {
			err = n.within(p, block, v.t)
		}
		if err != nil {
			return nil, err
		}
		if v.height++; n.leaf() {
			return v, nil
		}
		if v.height == maxHeight {
			return nil, tooHigh(v.t, block)
		}
		block, p = n.child(0), n.below(p, 0)
	}
}

// Metadata returns the metadata that the view was opened from.
func (v *View) Metadata() *Metadata { return v.m }

// Device returns the record of the device.
func (v *View) Device() Device { return v.dev }

// External returns the view that unmapped blocks read from, or nil if there is none.
func (v *View) External() sparse.View { return v.external }

// Size returns the size of the device in bytes, as given to Metadata.View.
func (v *View) Size() int64 { return v.size }

// Fingerprint returns Metadata.Fingerprint of the device.
func (v *View) Fingerprint() (Fingerprint, error) { return v.m.Fingerprint(v.dev) }

// MappedEnd returns the end, in bytes, of the last block that the device maps, or 0 if it maps
// none. This is the smallest size that hides no block. It fails if the end lies past 2^63-1.
func (v *View) MappedEnd() (int64, error) {
	block, p := v.dev.Root, place{hi: math.MaxUint64}
	for depth := 1; ; depth++ {
		n, err := v.m.node(block, mappings, v.t)
		if err == nil {
			err = n.within(p, block, v.t)
		}
		if err != nil {
			return 0, err
		}
		last := n.len() - 1
		switch {
		case n.leaf() && last < 0:
			return 0, nil
		case n.leaf() && n.key(last) >= math.MaxInt64/uint64(v.blockSize()):
			return 0, formatError(v.t.node, block, fmt.Sprintf("key %d", last), n.key(last), "the block ends past 2^63-1 bytes")
		case n.leaf():
			return int64(n.key(last)+1) * v.blockSize(), nil
		case depth == maxHeight:
			return 0, tooHigh(v.t, block)
		}
		block, p = n.child(last), n.below(p, last)
	}
}

func (v *View) blockSize() int64 { return v.m.super.DataBlockSize }

// walk goes through the mappings of blocks that have a byte in [lo, hi), which is not empty.
func (v *View) walk(lo, hi int64) *walk {
	return v.m.walk(v.dev.Root, mappings, v.t, v.height, uint64(lo/v.blockSize()), uint64((hi-1)/v.blockSize()))
}

// Extents implements sparse.View from the metadata alone.
func (v *View) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, v.size); err != nil {
		return sparse.Fail(err)
	}
	if n == 0 {
		return sparse.Of()
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		w := v.walk(off, off+n)
		defer w.close()
		size, end := uint64(v.blockSize()), uint64(off+n)
		pos := off
		stopped := false
		err := w.entries(func(n node, i, last int) bool {
			for i < last {
				first := n.key(i)
				next := first + 1
				for i++; i < last && n.key(i) == next; i++ {
					next++
				}
				run := sparse.Extent{Off: max(off, int64(first*size)), Kind: sparse.Data}
				run.Len = int64(min(end, next*size)) - run.Off
				if !v.unmapped(pos, run.Off, yield) || !yield(run, nil) {
					stopped = true
					return false
				}
				pos = run.End()
			}
			return true
		})
		switch {
		case stopped:
		case err != nil:
			yield(sparse.Extent{}, err)
		default:
			v.unmapped(pos, off+n, yield)
		}
	})
}

// unmapped yields what [lo, hi) reads from, if no block in it is mapped. It reports whether to go
// on.
func (v *View) unmapped(lo, hi int64, yield func(sparse.Extent, error) bool) bool {
	if v.external != nil && lo < hi {
		if end := min(hi, v.external.Size()); lo < end {
			for e, err := range v.external.Extents(lo, end-lo) {
				if !yield(e, err) || err != nil {
					return false
				}
			}
			lo = end
		}
	}
	return lo >= hi || yield(sparse.Extent{Off: lo, Len: hi - lo, Kind: sparse.Hole}, nil)
}

// ReadAt implements sparse.View. It reads mapped blocks from the pool's data; without the data it
// fails with ErrNoData.
func (v *View) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, v.size)
	for done := 0; done < len(p); {
		at := off + int64(done)
		in := at % v.blockSize()
		part := p[done:]
		if int64(len(part)) > v.blockSize()-in {
			part = part[:v.blockSize()-in]
		}
		if err := v.readBlock(part, at, in); err != nil {
			return done, err
		}
		done += len(part)
	}
	return len(p), eof
}

// readBlock fills p from one block, from byte in of the block on.
func (v *View) readBlock(p []byte, at, in int64) error {
	n, i, err := v.m.lookup(v.dev.Root, mappings, v.t, uint64(at/v.blockSize()))
	switch {
	case err != nil:
		return err
	case i < 0:
		return v.readUnmapped(p, at)
	case v.data.R == nil:
		return fmt.Errorf("thin device %d: %w", v.dev.ID, ErrNoData)
	}
	from := int64(mapping(n.u64(i)).block())*v.blockSize() + in
	if from > v.data.Size || int64(len(p)) > v.data.Size-from {
		return &sparse.FormatError{
			Struct: fmt.Sprintf("thin device %d", v.dev.ID), Off: -1,
			Msg: fmt.Sprintf("byte %d is mapped to %d bytes at 0x%x of the pool's data, which end at 0x%x", at, len(p), from, v.data.Size),
		}
	}
	if _, err := sparse.ReadFull(v.data.R, p, from); err != nil {
		return fmt.Errorf("thin device %d: data of the pool at 0x%x: %w", v.dev.ID, from, err)
	}
	return nil
}

func (v *View) readUnmapped(p []byte, at int64) error {
	inside := 0
	if v.external != nil {
		inside = int(min(int64(len(p)), max(0, v.external.Size()-at)))
	}
	clear(p[inside:])
	if inside == 0 {
		return nil
	}
	if _, err := sparse.ReadFull(v.external, p[:inside], at); err != nil {
		return fmt.Errorf("thin device %d: external origin at 0x%x: %w", v.dev.ID, at, err)
	}
	return nil
}
