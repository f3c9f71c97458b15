package cbt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// tiny returns limits that put borders of regions everywhere.
func tiny(r *rand.Rand) limits {
	return limits{pieces: r.IntN(8), tables: r.IntN(4), leaves: r.IntN(2), span: 2 * BlockSize << r.IntN(4)}
}

func stackWith(t *testing.T, l limits, layers []Layer) *Stack {
	t.Helper()
	c := NewCache()
	c.limits = l
	s, err := c.Stack(layers...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// regionsOf counts the regions of a stack that were not halved.
func regionsOf(s *Stack) (all int) {
	var count func(*span)
	count = func(at *span) {
		if halves := at.halves.Load(); halves != nil {
			count(&halves[0])
			count(&halves[1])
			return
		}
		all++
	}
	count(&s.last.root)
	return all
}

// Random chains, whose states shrink and grow, in maps cut into small regions.
func TestStackModel(t *testing.T) {
	cut := 0
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 4))
		h := newHistory(t, r, 2+r.IntN(9), r.IntN(300000))
		i := len(h.states) - 1
		s := stackWith(t, tiny(r), layersOf(h.deltas))
		want := h.states[i]
		for range 30 {
			off := r.Int64N(want.Size() + 1)
			p := make([]byte, r.Int64N(min(want.Size()-off, 40000)+1))
			if n, err := sparse.ReadFull(s, p, off); err != nil || !bytes.Equal(p, want[off:off+int64(n)]) {
				t.Fatalf("seed %d: read of %d bytes at %d: %d, %v, or they differ", seed, len(p), off, n, err)
			}
		}
		if all, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size())); err != nil || !bytes.Equal(all, want) {
			t.Fatalf("seed %d: the whole image: %v, or it differs", seed, err)
		}
		// Maps of chains that begin alike are made from each other.
		shared := NewCache()
		if seed%3 == 0 {
			shared.limits = tiny(r)
		}
		for _, i := range append(r.Perm(len(h.states)), r.Perm(len(h.states))...) {
			s, err := shared.Stack(layersOf(h.deltas[:i+1])...)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, s.Size())
			if n, err := sparse.ReadFull(s, got, 0); err != nil || !bytes.Equal(got, h.states[i]) {
				t.Fatalf("seed %d: state %d: %d, %v, or it differs", seed, i, n, err)
			}
		}
		// The extents are those of a single region.
		whole, err := sparse.Collect(stackWith(t, defaultLimits, layersOf(h.deltas)).Extents(0, s.Size()))
		if err != nil {
			t.Fatal(err)
		}
		parts, err := sparse.Collect(s.Extents(0, s.Size()))
		if err != nil || fmt.Sprint(whole) != fmt.Sprint(parts) {
			t.Fatalf("seed %d: extents\n%v\nof small regions\n%v, %v", seed, whole, parts, err)
		}
		if seed < 8 {
			sparsetest.View(t, s, want)
		}
		if regionsOf(s) > 3 {
			cut++
		}
	}
	if cut < 60 {
		t.Errorf("only %d of 120 stacks had more than 3 regions", cut)
	}
}

// Bytes that a shrinking cut off stay cut off, whatever follows.
func TestStackOfShrinkingAndGrowing(t *testing.T) {
	sizes := []int64{50000, 10001, 50000, 8192, 8193, 60000, 0, 3 * BlockSize, BlockSize - 1, 70000}
	for zeros := range 2 {
		var layers []Layer
		var want img
		for i, size := range sizes {
			old := want
			want = make(img, size)
			copy(want, old)
			if n := int64(len(old)); zeros == 0 {
				for at := n; at < size; at++ {
					want[at] = byte(i + 1)
				}
			}
			s := Stream{Name: "disk/0", Size: size, To: point(i), Full: i == 0}
			src := Source{New: want}
			if i > 0 {
				s.From = &Base{point(i - 1), old.Size()}
				src.Old = old
				if n := old.Size(); n < size {
					src.Changed = want.Extents(n, size-n)
				} else {
					src.Changed = sparse.Of()
				}
			}
			b := mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{s}}, []Source{src}, Options{})
			d, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			layers = append(layers, Layer{d, 0})
			sparsetest.View(t, stackWith(t, defaultLimits, layers), want)
			sparsetest.View(t, stackWith(t, limits{tables: -1}, layers), want)
		}
	}
}

// broken fails where it is told to, and counts reads.
type broken struct {
	io.ReaderAt
	lo, hi int64 // of the file
	err    error
	reads  atomic.Int64
	mu     sync.Mutex
}

func (b *broken) set(lo, hi int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lo, b.hi, b.err = lo, hi, err
}

func (b *broken) ReadAt(p []byte, off int64) (int, error) {
	b.reads.Add(1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil && off < b.hi && off+int64(len(p)) > b.lo {
		return 0, b.err
	}
	return b.ReaderAt.ReadAt(p, off)
}

// chunky is a chain of a full delta and one of 8 chunks of 1 MiB, 3 MiB apart. Each has an old CRC
// for every other block, so that the tables are needed.
func chunky(t *testing.T) (want img, layers []Layer, file *broken, raw []byte) {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 5))
	old := make(img, 24<<20)
	want = bytes.Clone(old)
	var changed []sparse.Extent
	for i := range int64(8) {
		for at := i * 3 << 20; at < i*3<<20+2<<20; at += 2 * BlockSize {
			for j := range int64(BlockSize) {
				want[at+j] = byte(r.Uint32() | 1)
			}
			changed = append(changed, sparse.Extent{Off: at, Len: BlockSize, Kind: sparse.Data})
		}
	}
	full := Stream{Name: "disk/0", Size: old.Size(), To: "a", Full: true}
	next := Stream{Name: "disk/0", Size: old.Size(), To: "b", From: &Base{"a", old.Size()}}
	for i, c := range []struct {
		s   Stream
		src Source
	}{{full, Source{New: old}}, {next, Source{Old: old, New: want, Changed: sparse.Of(changed...)}}} {
		raw = mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{c.s}}, []Source{c.src}, Options{})
		file = &broken{ReaderAt: bytes.NewReader(raw)}
		d, err := Open(file, int64(len(raw)))
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 && d.root.chunks != 8 {
			t.Fatalf("%d chunks", d.root.chunks)
		}
		layers = append(layers, Layer{d, 0})
	}
	return want, layers, file, raw
}

// Damage makes unreadable only what needs the damaged part, and for good. A failing disk does so
// only while it fails.
func TestStackReadsAroundFaults(t *testing.T) {
	for _, l := range []limits{defaultLimits, {span: 1 << 20}} {
		want, layers, file, raw := chunky(t)
		ref, err := layers[1].Delta.ref(3)
		if err != nil {
			t.Fatal(err)
		}
		check := func(s *Stack, bad bool) {
			t.Helper()
			p := make([]byte, BlockSize)
			for off := int64(0); off < want.Size(); off += BlockSize {
				_, err := s.ReadAt(p, off)
				if inside := off >= ref.start && off < ref.end; bad && inside != (err != nil) {
					t.Fatalf("at %d, damaged from %d to %d: %v", off, ref.start, ref.end, err)
				} else if !bad && err != nil {
					t.Fatalf("at %d: %v", off, err)
				}
				if err == nil && !bytes.Equal(p, want[off:off+BlockSize]) {
					t.Fatalf("at %d: other bytes", off)
				}
			}
			_, err := sparse.Collect(s.Extents(0, s.Size()))
			if bad != (err != nil) {
				t.Fatalf("extents: %v", err)
			}
		}
		s := stackWith(t, l, layers)
		file.set(ref.off, ref.off+1, errors.New("the disk fails"))
		check(s, true)
		file.set(0, 0, nil)
		check(s, false)

		raw[ref.off+40] ^= 1
		s = stackWith(t, l, layers)
		check(s, true)
		n := file.reads.Load()
		if _, err := s.ReadAt(make([]byte, 1), ref.start); err == nil || file.reads.Load() != n {
			t.Errorf("damage was looked at again: %v", err)
		}
	}
}

// Many readers share the making of one map.
func TestStackReadsTablesOnce(t *testing.T) {
	want, layers, file, _ := chunky(t)
	s := stackWith(t, defaultLimits, layers)
	n := file.reads.Load()
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			p := make([]byte, 100)
			off := int64(w) * (1 << 20)
			if _, err := s.ReadAt(p, off); err != nil || !bytes.Equal(p, want[off:off+100]) {
				t.Errorf("at %d: %v, or other bytes", off, err)
			}
		})
	}
	wg.Wait()
	// A leaf, 8 tables, and the 8 payloads at most.
	if n = file.reads.Load() - n; n > 17 {
		t.Errorf("%d reads", n)
	}
}

// Chunks about which the index says everything are not read in vain.
func TestStackOfDenseDeltasReadsNoTables(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	m := make(img, 20<<20)
	for i := range m {
		m[i] = byte(r.Uint32())
	}
	b := mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: m.Size(), To: "a", Full: true}}}, []Source{{New: sparse.Plain(m, m.Size())}}, Options{})
	file := &broken{ReaderAt: bytes.NewReader(b)}
	d, err := Open(file, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	s := stackWith(t, defaultLimits, []Layer{{d, 0}})
	n := file.reads.Load()
	if e, err := sparse.Collect(s.Extents(0, s.Size())); err != nil || len(e) != 1 {
		t.Fatal(e, err)
	}
	if n = file.reads.Load() - n; n != 1 {
		t.Errorf("%d reads for the extents, want 1", n)
	}
	// Read from front to back, each chunk is decoded once: a table and a payload.
	p := make([]byte, 128<<10)
	n = file.reads.Load()
	for off := int64(0); off < m.Size(); off += int64(len(p)) {
		if _, err := s.ReadAt(p, off); err != nil || !bytes.Equal(p, m[off:off+int64(len(p))]) {
			t.Fatalf("at %d: %v, or other bytes", off, err)
		}
	}
	if n = file.reads.Load() - n; n != 40 {
		t.Errorf("%d reads of 20 chunks, want 40", n)
	}
	// Goroutines that were started end by themselves.
	for range readersAhead {
		s.cache.ahead <- struct{}{}
	}
}

// A delta of 3 million extents that cannot be joined: the maps stay small.
func TestStackOfManyExtentsIsBounded(t *testing.T) {
	const tables, stride = 800, 2 * BlockSize
	size := int64(tables * maxExtents * stride)
	full := mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: size, To: "a", Full: true}}}, []Source{{New: sparse.Zeros(size)}}, Options{})
	var b bytes.Buffer
	w, err := newWriter(&b, Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: size, To: "b", From: &Base{"a", size}}}})
	if err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	for range tables {
		tab := &table{extents: make([]extent, maxExtents)}
		for i := range tab.extents {
			tab.extents[i] = extent{off: at, n: BlockSize, zero: true}
			at += stride
		}
		if err := w.chunk(tab, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.close(); err != nil {
		t.Fatal(err)
	}
	var layers []Layer
	for _, file := range [][]byte{full, b.Bytes()} {
		d, err := Open(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, Layer{d, 0})
	}
	s := stackWith(t, defaultLimits, layers)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := 0
	for off := int64(0); off < size; off += 64 << 20 {
		if _, err := s.ReadAt(make([]byte, 3*BlockSize), off); err != nil {
			t.Fatal(err)
		}
		r, err := s.region(off)
		if err != nil {
			t.Fatal(err)
		}
		if n++; r.cost() > 10<<20 {
			t.Fatalf("a region of %d bytes", r.cost())
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := regionsOf(s); n < 16 {
		t.Errorf("%d regions", n)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("%d MiB are held", grown>>20)
	}
	runtime.KeepAlive(s)
}

// Leaves that overlap each other are refused, though each by itself is whole.
func TestOverlappingLeaves(t *testing.T) {
	var b bytes.Buffer
	size := int64(2*leafEntries) * BlockSize
	w, err := newWriter(&b, Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: size, To: "a", Full: true}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(leafEntries + 1) {
		e := extent{off: i * BlockSize, n: BlockSize, zero: true}
		if i == leafEntries-1 {
			e.n *= 3
		}
		w.order.pos = 0 // so that the writer does not refuse it
		if err := w.chunk(&table{extents: []extent{e}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.order.due = size
	if _, err := w.close(); err != nil {
		t.Fatal(err)
	}
	d, err := Open(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	var format *sparse.FormatError
	s := stackWith(t, defaultLimits, []Layer{{d, 0}})
	if _, err := s.ReadAt(make([]byte, 8*BlockSize), (leafEntries-4)*BlockSize); !errors.As(err, &format) || format.Struct != "delta index leaf" {
		t.Errorf("read: %v", err)
	}
	if _, err := sparse.Collect(s.Extents(0, size)); !errors.As(err, &format) || format.Struct != "delta index leaf" {
		t.Errorf("extents: %v", err)
	}
}
