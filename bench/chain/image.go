package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"cbt/cbt"
	"cbt/sparse"
)

const (
	block   = cbt.BlockSize
	cluster = 64 << 10
)

// image is a disk whose blocks are known by the increment that wrote them.
type image struct {
	size  int64
	every int64 // one cluster in so many was there from the beginning; 1: all
	noise int64 // one byte in so many of a block does not compress
	by    map[int64]int32
}

func (m *image) Size() int64 { return m.size }

// first says whether the block at off was there from the beginning.
func (m *image) first(off int64) bool {
	return m.every == 1 || uint64(off/cluster)*0x9e3779b97f4a7c15>>20%uint64(m.every) == 0
}

func (m *image) ReadAt(p []byte, off int64) (int, error) {
	p, err := sparse.ClipRead(p, off, m.size)
	for n := 0; n < len(p); {
		at := off + int64(n)
		part := p[n:min(len(p), n+block-int(at%block))]
		clear(part)
		if by, written := m.by[at/block]; written || m.first(at) {
			var whole [block]byte
			fill(whole[:], at/block, by, m.noise)
			copy(part, whole[at%block:])
		}
		n += len(part)
	}
	return len(p), err
}

// fill gives the bytes of a block.
func fill(p []byte, number int64, by int32, noise int64) {
	seed := uint64(number)<<20 ^ uint64(by)
	for i := range p {
		p[i] = byte(number)
	}
	for i := 0; i < len(p); i += 8 * int(noise) {
		seed = (seed + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
		binary.LittleEndian.PutUint64(p[i:], seed)
	}
}

func (m *image) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, m.size); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		for at := off; at < off+n; {
			e := sparse.Extent{Off: at, Len: min(off+n, at-at%block+block) - at, Kind: sparse.Hole}
			if _, written := m.by[at/block]; written || m.first(at) {
				e.Kind = sparse.Data
			} else if len(m.by) == 0 {
				e.Len = min(off+n, at-at%cluster+cluster) - at
			}
			if !yield(e, nil) {
				return
			}
			at = e.End()
		}
	})
}

// write changes places at random, each a few blocks, and returns them.
func (m *image) write(r *rand.Rand, by int32, writes int) sparse.Seq {
	var set sparse.Set
	for range writes {
		n := (1 + r.Int64N(1<<r.IntN(5))) * block // 4 to 64 KiB, small ones most
		at := r.Int64N(m.size/block-n/block) * block
		set.Add(at, at+n)
		for b := range n / block {
			m.by[at/block+b] = by
		}
	}
	return runs(&set, m.size)
}

func runs(set *sparse.Set, size int64) sparse.Seq {
	return func(yield func(sparse.Extent, error) bool) {
		pos := int64(0)
		for lo, hi := range set.Without(0, size) {
			if lo > pos && !yield(sparse.Extent{Off: pos, Len: lo - pos, Kind: sparse.Data}, nil) {
				return
			}
			pos = hi
		}
		if pos < size {
			yield(sparse.Extent{Off: pos, Len: size - pos, Kind: sparse.Data}, nil)
		}
	}
}

// makeChains makes in dir a full delta with increments, and in dir/two a chain
// of two that leads to the same state, unless they are there.
func makeChains(dir string, m *image, increments, writes int) error {
	done := filepath.Join(dir, "done")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	two := filepath.Join(dir, "two")
	if err := os.MkdirAll(two, 0o755); err != nil {
		return err
	}
	first := &image{m.size, m.every, m.noise, map[int64]int32{}}
	if err := writeDelta(dir, "p0", nil, first, nil); err != nil {
		return err
	}
	os.Remove(filepath.Join(two, "p0.cbt"))
	if err := os.Link(filepath.Join(dir, "p0.cbt"), filepath.Join(two, "p0.cbt")); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	m.by = map[int64]int32{}
	for i := range increments {
		old := &image{m.size, m.every, m.noise, maps.Clone(m.by)}
		changed := m.write(r, int32(i+1), writes)
		if err := writeDelta(dir, fmt.Sprint("p", i+1), old, m, changed); err != nil {
			return err
		}
	}
	var all sparse.Set
	for _, b := range slices.Sorted(maps.Keys(m.by)) {
		all.Add(b*block, (b+1)*block)
	}
	if err := writeDelta(two, "last", first, m, runs(&all, m.size)); err != nil {
		return err
	}
	// Where the increments wrote, for the reads that have to find them.
	f, err := os.Create(done)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for _, b := range slices.Sorted(maps.Keys(m.by)) {
		fmt.Fprintln(w, b*block)
	}
	return w.Flush()
}

// writeDelta writes DIR/to.cbt. The increment p7 is from p6, any other is from p0.
func writeDelta(dir, to string, old, img *image, changed sparse.Seq) error {
	s := cbt.Stream{Name: "disk/0", Size: img.size, To: to, Full: old == nil}
	src := cbt.Source{New: img}
	if old != nil {
		from := "p0"
		var n int
		if _, err := fmt.Sscanf(to, "p%d", &n); err == nil {
			from = fmt.Sprint("p", n-1)
		}
		s.From = &cbt.Base{Point: from, Size: old.size}
		src.Old, src.Changed = old, changed
	}
	f, err := os.Create(filepath.Join(dir, to+".cbt"))
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	h := cbt.Header{Version: cbt.Version, Consistency: cbt.Crash, Streams: []cbt.Stream{s}}
	if _, err := cbt.Write(context.Background(), w, h, []cbt.Source{src}, cbt.Options{}); err != nil {
		return err
	}
	return w.Flush()
}
