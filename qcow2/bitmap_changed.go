package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"cbt/sparse"
)

// ChangedByBitmap returns the extents of v in [off, off+n) that may differ from old according to
// the named persistent bitmap, with the kinds of v. It may name too much. It never names too little
// if old is the disk as it was when the bitmap began to record, but nothing in a bitmap says when
// that was. v must be the active state, because a bitmap records the latest writes. The range may
// reach as far as the end of the larger of the two; what lies past v's end is not named.
//
// Two things that no bit records are named too: the bytes by which the disk has grown since old,
// and bytes that are stored in old and read as zeros now. The latter may have been lost by a disk
// that shrank and grew again: QEMU drops their bits (bdrv_dirty_bitmap_truncate). One case remains:
// bytes that such a disk lost are not named if it got preallocated clusters for them when it grew
// again. After that, a bitmap that was there before must not be used.
//
// The error is ErrBitmapDisabled for a bitmap that has stopped recording, ErrBitmapInUse or
// ErrBitmapsStale for one that may lack changes, and a *sparse.FormatError for one that is damaged.
func (v *View) ChangedByBitmap(old sparse.View, name string, off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, max(old.Size(), v.size)); err != nil {
		return sparse.Fail(err)
	}
	b, err := v.img.bitmap(name)
	if err != nil {
		return sparse.Fail(err)
	}
	if b.Flags&BitmapAuto == 0 {
		return sparse.Fail(fmt.Errorf("qcow2: bitmap %q: %w", name, ErrBitmapDisabled))
	}
	asked := sparse.Extent{Off: off, Len: n}
	both, grown := asked.Clip(0, min(old.Size(), v.size)), asked.Clip(old.Size(), v.size)
	if both.Len == 0 {
		both.Off = 0
	}
	seq := v.recorded(name, both.Off, both.Len) // even if both.Len is 0, since it may return an error
	if both.Len > 0 {
		seq = sparse.Overlay(seq, sparse.Freed(old, v, both.Off, both.Len))
	}
	if grown.Len > 0 {
		seq = sparse.Overlay(seq, v.Extents(grown.Off, grown.Len))
	}
	return sparse.Coalesce(seq)
}

// recorded returns the extents of v in [off, off+n) whose bits are set in the named bitmap. The
// range must lie inside the disk. The bitmap need not be enabled.
func (v *View) recorded(name string, off, n int64) sparse.Seq {
	if v.snapshot != nil {
		return sparse.Fail(errors.New("qcow2: bitmaps tell the changes of the active state, not those of a snapshot"))
	}
	if err := sparse.CheckRange(off, n, v.size); err != nil {
		return sparse.Fail(err)
	}
	b, err := v.img.bitmap(name)
	if err == nil {
		err = b.validate(v.img, v.size)
	}
	if err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		v.dirty(b, off, n, func(lo, hi int64, err error) bool {
			if err != nil {
				return yield(sparse.Extent{}, err)
			}
			for e, err := range v.Extents(lo, hi-lo) {
				if !yield(e, err) || err != nil {
					return false
				}
			}
			return true
		})
	})
}

// bitmap returns the bitmap of that name, which must be unique.
func (img *Image) bitmap(name string) (*Bitmap, error) {
	list, err := img.Bitmaps()
	if err != nil {
		return nil, err
	}
	var found *Bitmap
	for i := range list {
		if list[i].Name != name {
			continue
		}
		if found != nil {
			return nil, bitmapError("name", list[i].Offset, name, "twice in one image")
		}
		found = &list[i]
	}
	if found == nil {
		return nil, fmt.Errorf("qcow2: no bitmap %q", name)
	}
	return found, nil
}

// dirty yields the parts of [off, off+n) whose bits are set, with neighbours joined. After an error
// it yields nothing more.
func (v *View) dirty(b *Bitmap, off, n int64, yield func(lo, hi int64, err error) bool) {
	if n == 0 {
		return
	}
	d := dirtyRuns{v: v, b: b, lo: off, hi: off + n, yield: yield}
	span := v.img.header.ClusterSize() * 8 << b.Granularity // bytes of disk per cluster of bits
	table := make([]byte, 0, maxSlice)
	var first int64 // the entry of the table that the slice starts with
	for index := off / span; index <= (off+n-1)/span; index++ {
		if index >= first+int64(len(table))/8 {
			first, table = index, table[:min(maxSlice, (int64(b.TableSize)-index)*8)]
			if err := v.img.file.fill("qcow2 bitmap table", table, b.TableOffset+uint64(first)*8); err != nil {
				yield(0, 0, err)
				return
			}
		}
		e := bitmapEntry(binary.BigEndian.Uint64(table[(index-first)*8:]))
		if fault := e.fault(v.img); fault != "" {
			yield(0, 0, &sparse.FormatError{Struct: "qcow2 bitmap table entry", Off: int64(b.TableOffset) + index*8, Value: uint64(e), Msg: fault})
			return
		}
		if !d.cluster(e, index*span, span) {
			return
		}
	}
	d.flush()
}

// dirtyRuns joins set bits into runs of bytes.
type dirtyRuns struct {
	v      *View
	b      *Bitmap
	lo, hi int64 // the range that was asked for
	yield  func(lo, hi int64, err error) bool
	buf    []byte

	from, to int64 // the run that has not been yielded yet
}

// cluster adds the bits that table entry e points to. They stand for span bytes of disk from start
// on. It reports whether to go on.
func (d *dirtyRuns) cluster(e bitmapEntry, start, span int64) bool {
	if e.offset() == 0 {
		return !e.allOnes() || d.add(start, span)
	}
	cluster, unit := d.v.img.header.ClusterSize(), int64(64)<<d.b.Granularity
	lo, hi := max(d.lo, start), d.hi
	if span < hi-start {
		hi = start + span
	}
	// Read whole words of 64 bits, in slices.
	at, end := (lo-start)/unit*8, min(cluster, ((hi-start-1)/unit+1)*8)
	for at < end {
		if d.buf == nil {
			d.buf = make([]byte, min(maxSlice, cluster))
		}
		b := d.buf[:min(int64(len(d.buf)), end-at)]
		if err := d.v.img.file.fill("qcow2 bitmap", b, e.offset()+uint64(at)); err != nil {
			d.yield(0, 0, err)
			return false
		}
		for i := 0; i < len(b); i += 8 {
			if !d.word(binary.LittleEndian.Uint64(b[i:]), start+(at+int64(i))*8<<d.b.Granularity) {
				return false
			}
		}
		at += int64(len(b))
	}
	return true
}

// word adds the set bits of w, whose lowest bit stands for start.
func (d *dirtyRuns) word(w uint64, start int64) bool {
	for w != 0 {
		first := bits.TrailingZeros64(w)
		n := bits.TrailingZeros64(^(w >> first))
		if !d.add(start+int64(first)<<d.b.Granularity, int64(n)<<d.b.Granularity) {
			return false
		}
		if first+n == 64 {
			break
		}
		w &= ^uint64(0) << (first + n)
	}
	return true
}

// add adds the n bytes at start, as far as they lie in the range that was asked for.
func (d *dirtyRuns) add(start, n int64) bool {
	if start >= d.hi {
		return true
	}
	lo, hi := max(start, d.lo), start+min(n, d.hi-start)
	if lo >= hi {
		return true
	}
	if d.to == lo && d.from < d.to {
		d.to = hi
		return true
	}
	ok := d.flush()
	d.from, d.to = lo, hi
	return ok
}

func (d *dirtyRuns) flush() bool {
	return d.from >= d.to || d.yield(d.from, d.to, nil)
}
