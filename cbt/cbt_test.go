package cbt

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// img is an image in memory whose extents are true but not tight.
type img []byte

func (m img) Size() int64 { return int64(len(m)) }

func (m img) ReadAt(p []byte, off int64) (int, error) {
	p, err := sparse.ClipRead(p, off, m.Size())
	copy(p, m[min(off, m.Size()):])
	return len(p), err
}

func (m img) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, m.Size()); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		for at := off; at < off+n; {
			end := min(off+n, (at/512+1)*512)
			kind := sparse.Data
			if sparse.IsZero(m[at:end]) && at/512%3 != 0 {
				kind = sparse.Zero
			}
			if !yield(sparse.Extent{Off: at, Len: end - at, Kind: kind}, nil) {
				return
			}
			at = end
		}
	})
}

// changedIn yields every 512 bytes of new that differ from old, and a few more.
func changedIn(r *rand.Rand, old, new img) sparse.Seq {
	seed := r.Uint64()
	return func(yield func(sparse.Extent, error) bool) {
		r := rand.New(rand.NewPCG(seed, 0))
		was := sparse.Resize(old, new.Size())
		buf := make([]byte, 512)
		for e, err := range new.Extents(0, new.Size()) {
			if err != nil {
				panic(err)
			}
			for at := e.Off; at < e.End(); at += 512 {
				b := buf[:min(512, e.End()-at)]
				if _, err := sparse.ReadFull(was, b, at); err != nil {
					panic(err)
				}
				if bytes.Equal(b, new[at:at+int64(len(b))]) && r.IntN(50) > 0 {
					continue
				}
				if !yield(sparse.Extent{Off: at, Len: int64(len(b)), Kind: e.Kind}, nil) {
					return
				}
			}
		}
	}
}

func newImg(r *rand.Rand, size int) img {
	m := make(img, size)
	m.scribble(r, 1+size/20000)
	return m
}

// scribble writes runs of zeros, of one byte and of noise, and zeros up to the last byte of a
// block.
func (m img) scribble(r *rand.Rand, times int) {
	if len(m) == 0 {
		return
	}
	for range times {
		off := r.IntN(len(m))
		n := min(len(m)-off, 1+r.IntN(30000))
		run := m[off : off+n]
		switch r.IntN(4) {
		case 0:
			clear(run)
		case 1:
			for i := range run {
				run[i] = byte(off)
			}
		case 2:
			for i := range run {
				run[i] = byte(r.Uint32())
			}
		case 3:
			clear(run)
			run[len(run)-1] = 1
		}
	}
}

func (m img) resized(r *rand.Rand) img {
	size := len(m)
	switch r.IntN(4) {
	case 0:
		size = r.IntN(2*len(m) + 2)
	case 1:
		size = len(m) + r.IntN(9000) - min(len(m), 4500)
	}
	n := make(img, size)
	copy(n, m)
	return n
}

// history is a random chain of states and the deltas between them. The first delta is full.
type history struct {
	states []img
	files  [][]byte
	deltas []*Delta
}

func point(i int) string { return fmt.Sprintf("test:%d", i) }

func newHistory(t *testing.T, r *rand.Rand, n, size int) *history {
	t.Helper()
	h := &history{}
	m := newImg(r, size)
	for i := range n {
		s := Stream{Name: "disk/0", To: point(i)}
		src := Source{}
		if i == 0 {
			s.Full = true
		} else {
			old := m
			m = m.resized(r)
			m.scribble(r, r.IntN(6))
			s.From = &Base{point(i - 1), old.Size()}
			src.Changed = changedIn(r, old, m)
			if r.IntN(4) > 0 {
				src.Old = old
			}
		}
		s.Size = m.Size()
		src.New = m
		h.states = append(h.states, bytes.Clone(m))
		h.files = append(h.files, mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{s}}, []Source{src}, Options{NoRefine: r.IntN(8) == 0}))
		d, err := Open(bytes.NewReader(h.files[i]), int64(len(h.files[i])))
		if err != nil {
			t.Fatal(err)
		}
		h.deltas = append(h.deltas, d)
	}
	return h
}

func mustWrite(t *testing.T, h Header, src []Source, opt Options) []byte {
	t.Helper()
	var b bytes.Buffer
	sum, err := Write(context.Background(), &b, h, src, opt)
	if err != nil {
		t.Fatal(err)
	}
	got, again, err := Verify(context.Background(), bytes.NewReader(b.Bytes()), VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(sum) != fmt.Sprint(again) || got.Streams[0].Name != h.Streams[0].Name {
		t.Fatalf("written %v, verified %v", sum, again)
	}
	return b.Bytes()
}

// target is a sparse.Target in memory that counts what is written to it.
type target struct {
	img
	writes atomic.Int64
}

func (t *target) WriteAt(p []byte, off int64) (int, error) {
	t.writes.Add(1)
	return copy(t.img[off:], p), nil
}

func (t *target) Zero(off, n int64) error {
	t.writes.Add(1)
	clear(t.img[off : off+n])
	return nil
}

func (t *target) Truncate(size int64) error {
	n := make(img, size)
	copy(n, t.img)
	t.img = n
	return nil
}

func (t *target) Sync() error { return nil }

func layersOf(deltas []*Delta) []Layer {
	var l []Layer
	for _, d := range deltas {
		l = append(l, Layer{d, 0})
	}
	return l
}

func TestRandomChains(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		h := newHistory(t, r, 2+r.IntN(6), r.IntN(200000))
		for i := range h.states {
			chain, err := Chain(h.deltas[i], 0, h.deltas)
			if err != nil {
				t.Fatal(err)
			}
			stack, err := NewStack(chain...)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, stack.Size())
			if _, err := sparse.ReadFull(stack, got, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, h.states[i]) {
				t.Fatalf("seed %d: state %d of the chain differs", seed, i)
			}
			if seed < 4 {
				sparsetest.View(t, stack, h.states[i])
			}
			full, err := NewMerge(chain...)
			if err != nil {
				t.Fatal(err)
			}
			garbage := &target{img: newImg(r, r.IntN(300000))}
			apply(t, full, garbage, ApplyOptions{Compare: seed%2 == 0, CompareZeros: seed%4 == 0})
			if !bytes.Equal(garbage.img, h.states[i]) {
				t.Fatalf("seed %d: state %d restored over garbage differs", seed, i)
			}
			over := &target{img: newImg(r, r.IntN(300000))}
			apply(t, full, over, ApplyOptions{Compare: true, Was: append(img{}, over.img...)})
			if !bytes.Equal(over.img, h.states[i]) {
				t.Fatalf("seed %d: state %d restored over a file with holes differs", seed, i)
			}
			garbage.writes.Store(0)
			apply(t, full, garbage, ApplyOptions{Compare: true, CompareZeros: true})
			if n := garbage.writes.Load(); n != 0 {
				t.Fatalf("seed %d: %d writes to a target that was right", seed, n)
			}
			fresh := &target{}
			apply(t, full, fresh, ApplyOptions{Fresh: true})
			if !bytes.Equal(fresh.img, h.states[i]) {
				t.Fatalf("seed %d: state %d restored to a new target differs", seed, i)
			}
		}
		from := r.IntN(len(h.states) - 1)
		to := from + 1 + r.IntN(len(h.states)-1-from)
		m, err := NewMerge(layersOf(h.deltas[from+1 : to+1])...)
		if err != nil {
			t.Fatal(err)
		}
		tg := &target{img: bytes.Clone(h.states[from])}
		if _, err := m.CheckBase(context.Background(), tg, ApplyOptions{}); err != nil {
			t.Fatalf("seed %d: right base %d refused for %d: %v", seed, from, to, err)
		}
		apply(t, m, tg, ApplyOptions{})
		if !bytes.Equal(tg.img, h.states[to]) {
			t.Fatalf("seed %d: applying %d..%d differs", seed, from+1, to)
		}
	}
}

func apply(t *testing.T, m *Merge, tg *target, opt ApplyOptions) {
	t.Helper()
	if _, err := m.WriteTo(context.Background(), tg, opt); err != nil {
		t.Fatal(err)
	}
}
