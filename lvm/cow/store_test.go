package cow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/testimg"
	"cbt/internal/testtool"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// The counts are around the ends of the first areas of 4 KiB chunks.
var counts = []int{0, 1, 255, 256, 257, 512, 3000}

// TestCounts opens stores of every chunk size with these numbers of exceptions, in random order. In
// stores with small chunks the table crosses areas.
func TestCounts(t *testing.T) {
	for chunk := int64(512); chunk <= 512<<10; chunk *= 2 {
		for _, n := range counts {
			if int64(n)*chunk > 6<<20 && chunk != 4096 {
				continue
			}
			t.Run(fmt.Sprintf("%d bytes, %d exceptions", chunk, n), func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(uint64(chunk), uint64(n)))
				d := newDisk((n+20)*int(chunk) + 1000)
				s := d.snapshot(chunk)
				for i, c := range rnd.Perm(n + 20)[:n] {
					p := fmt.Appendf(nil, "write %d", i)
					if i%4 == 3 {
						s.write(c*int(chunk)+rnd.IntN(int(chunk)-20), p)
					} else {
						d.write(c*int(chunk)+rnd.IntN(int(chunk)-20), p)
					}
				}
				v := s.open(t)
				if v.Store().Len() != n || v.Store().ChunkSize() != chunk {
					t.Errorf("%d exceptions, chunks of %d bytes", v.Store().Len(), v.Store().ChunkSize())
				}
				sparsetest.View(t, v, s.want)
				checkChanged(t, v, d.view)
				checkChanged(t, d.view, v)
				if got, err := sparse.Total(ChangedChunks(v.Store(), v.Size(), 0, v.Size())); err != nil || got != int64(n)*chunk {
					t.Errorf("ChangedChunks: %d bytes, %v", got, err)
				}
				if err := v.Recheck(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestHistories writes to an origin and to snapshots of several chunk sizes at random, and also
// sequentially, and compares all pairs.
func TestHistories(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		d := newDisk(100_000 + rnd.IntN(200_000))
		for range 60 {
			if len(d.snaps) < 4 && rnd.IntN(8) == 0 {
				d.snapshot(512 << rnd.IntN(8))
			}
			off := rnd.IntN(len(d.origin))
			p := bytes.Repeat([]byte{byte(rnd.Int())}, min(1+rnd.IntN(20_000), len(d.origin)-off))
			if len(d.snaps) > 0 && rnd.IntN(3) == 0 {
				d.snaps[rnd.IntN(len(d.snaps))].write(off, p)
			} else {
				d.write(off, p)
			}
		}
		views := []sparse.View{d.view}
		for _, s := range d.snaps {
			v := s.open(t)
			views = append(views, v)
			sparsetest.View(t, v, s.want)
		}
		for _, old := range views {
			for _, new := range views {
				if old != d.view || new != d.view {
					checkChanged(t, old, new)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestRuns: records that follow one another take little memory, and no more are joined than fit
// into a run, in whatever order they come.
func TestRuns(t *testing.T) {
	const chunk = 8192 // 512 chunks between areas, more than a run can hold
	c := testimg.NewCow(chunk)
	want := make([]byte, 3010*chunk)
	for i := range uint64(3000) {
		old := i + 7
		if i >= 1000 && i < 2000 {
			old = 2999 - i + 7 // backwards
		}
		want[old*chunk] = byte(i%250 + 1)
		c.Put(old, want[old*chunk:][:1])
	}
	s := mustOpen(t, c.Bytes())
	if len(s.table) > 1000+2*(2000/maxRun+1) || s.Len() != 3000 {
		t.Errorf("%d runs of %d records", len(s.table), s.Len())
	}
	v, err := NewView(s, sparse.Zeros(int64(len(want))), int64(len(want)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, v), want) {
		t.Error("other bytes")
	}
	// Every second record is added first, so that only sorting can join them.
	var joined table
	for _, odd := range []uint64{0, 1} {
		for i := range uint64(1000) {
			if i%2 == odd {
				joined.add(exception{i, i + 2})
			}
		}
	}
	if err := joined.sort(); err != nil {
		t.Fatal(err)
	}
	next := uint64(0)
	for _, r := range joined {
		if r.old != next || r.new() != next+2 || r.n() > maxRun {
			t.Fatalf("run of %d records at %d in %d, after %d", r.n(), r.old, r.new(), next)
		}
		next = r.end()
	}
	if next != 1000 || len(joined) != 4 {
		t.Errorf("%d runs up to %d", len(joined), next)
	}
	if _, err := Open(bytes.NewReader(c.Bytes()), int64(len(c.Bytes())), Options{MaxTable: 5 * runSize}); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("with little memory: %v", err)
	}
}

func TestRecheck(t *testing.T) {
	for _, n := range []int{0, 5, 255, 256, 600} {
		c := testimg.NewCow(4096)
		for i := range n {
			c.Put(uint64(i*2), []byte{1})
		}
		// Reading stops at the same place, whatever follows.
		b := append(bytes.Clone(c.Bytes()), make([]byte, 16<<20)...)
		v, err := NewView(mustOpen(t, b), sparse.Zeros(1<<40), 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		recheck := func(what string, change func(), store, view bool) {
			t.Helper()
			saved := bytes.Clone(b)
			change()
			if err := v.Store().Recheck(); errors.Is(err, sparse.ErrChanged) != store || !store && err != nil {
				t.Errorf("%d records, %s: Store: %v", n, what, err)
			}
			if err := v.Recheck(); errors.Is(err, sparse.ErrChanged) != view || !view && err != nil {
				t.Errorf("%d records, %s: View: %v", n, what, err)
			}
			copy(b, saved)
		}
		recheck("nothing", func() {}, false, false)
		recheck("data", func() { b[2*4096]++ }, false, false)
		recheck("one more", func() { c.Put(1<<20, nil); copy(b, c.Bytes()) }, false, true)
		recheck("invalidated", func() { b[4] = 0 }, true, true)
		recheck("chunk size", func() { b[13] = 1 }, true, true)
		if n > 0 {
			recheck("last cleared", func() { clear(b[c.Record(n-1):][:16]) }, true, true)
			recheck("first moved", func() { b[c.Record(0)]++ }, true, true)
			recheck("last moved", func() { b[c.Record(n-1)+8]++ }, true, true)
		}
	}
}

// TestErrors: errors of the device are passed on, with their cause.
func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	c := testimg.NewCow(4096)
	c.Put(1, []byte("x"))
	r := &failing{b: c.Bytes(), from: 1 << 40, err: broken}
	s, err := Open(r, int64(len(c.Bytes())), Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewView(s, sparse.Zeros(10_000), 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []int64{0, 4096} {
		r.from = from
		if _, err := Open(r, int64(len(c.Bytes())), Options{}); !errors.Is(err, broken) {
			t.Errorf("Open, broken from %d: %v", from, err)
		}
		if err := s.Recheck(); !errors.Is(err, broken) || errors.Is(err, sparse.ErrChanged) {
			t.Errorf("Recheck, broken from %d: %v", from, err)
		}
	}
	r.from = 8192
	if n, err := v.ReadAt(make([]byte, 10_000), 0); !errors.Is(err, broken) || n != 4096 {
		t.Errorf("ReadAt: %d, %v", n, err)
	}
}

type failing struct {
	b    []byte
	from int64
	err  error
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, f.err
	}
	return bytes.NewReader(f.b).ReadAt(p, off)
}

// TestAligned: with chunks of 4 KiB and more, whole blocks are read, as O_DIRECT requires.
func TestAligned(t *testing.T) {
	for _, chunk := range []int64{4096, 512 << 10} {
		c := testimg.NewCow(chunk)
		for i := range 300 {
			c.Put(uint64(i), nil)
		}
		var r recorder
		r.ReaderAt = bytes.NewReader(c.Bytes())
		s, err := Open(&r, int64(len(c.Bytes())), Options{})
		if err == nil {
			err = s.Recheck()
		}
		if err != nil || r.odd > 0 || r.n == 0 {
			t.Errorf("%v: %d of %d reads are not of whole blocks", err, r.odd, r.n)
		}
	}
}

type recorder struct {
	io.ReaderAt
	n, odd int
}

func (r *recorder) ReadAt(p []byte, off int64) (int, error) {
	if r.n++; off%4096 != 0 || len(p)%4096 != 0 {
		r.odd++
	}
	return r.ReaderAt.ReadAt(p, off)
}

// TestToolsKnowIt: other programs recognize what the tests write as a store.
func TestToolsKnowIt(t *testing.T) {
	c := testimg.NewCow(16 << 10)
	c.Put(3, []byte("x"))
	b := append(bytes.Clone(c.Bytes()), make([]byte, 1<<20)...)
	name := filepath.Join(t.TempDir(), "store")
	for _, valid := range []bool{true, false} {
		if !valid {
			b[4] = 0
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		out := testtool.Run(t, "file", name)
		want := "LVM Snapshot (CopyOnWrite store)"
		if !strings.Contains(out, want) || !strings.Contains(out, "version 1") || !strings.Contains(out, "chunk_size 32") ||
			valid == strings.Contains(out, "invalid") {
			t.Errorf("file, valid %v: %s", valid, out)
		}
		if out := testtool.Run(t, "blkid", "-p", name); !strings.Contains(out, `TYPE="DM_snapshot_cow"`) {
			t.Errorf("blkid: %s", out)
		}
		if !IsStore(b) || IsStore(b[:3]) || IsStore(b[1:]) {
			t.Error("IsStore")
		}
	}
}
