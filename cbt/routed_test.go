package cbt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// network is a history in which several deltas lead to most points.
type network struct {
	*history
	deltas []*Delta
	files  map[*Ends][]byte
	point  map[*Ends]int
}

func newNetwork(t *testing.T, r *rand.Rand, n, size int) *network {
	t.Helper()
	h := newHistory(t, r, n, size)
	w := &network{history: h, files: map[*Ends][]byte{}, point: map[*Ends]int{}}
	add := func(b []byte, to int) {
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		w.deltas, w.files[d.ends], w.point[d.ends] = append(w.deltas, d), b, to
	}
	for i, b := range h.files {
		add(b, i)
	}
	for to := range h.states {
		for from := -1; from < to-1; from++ {
			if r.IntN(3) > 0 {
				continue
			}
			s := Stream{Name: "disk/0", Size: int64(len(h.states[to])), To: point(to), Full: from < 0}
			src := Source{New: img(h.states[to])}
			if from >= 0 {
				s.From = &Base{point(from), int64(len(h.states[from]))}
				src.Changed = changedIn(r, h.states[from], h.states[to])
			}
			add(mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{s}}, []Source{src}, Options{}), to)
		}
	}
	return w
}

// damage returns a delta with the same ends in which some parts have other bytes. Header, index and
// trailer stay.
func (w *network) damage(r *rand.Rand, d *Delta, times int) *Delta {
	b := bytes.Clone(w.files[d.ends])
	var at []int64
	for i := range d.root.leaves {
		refs, _ := d.leaf(i)
		for _, ref := range refs {
			at = append(at, ref.off+20, ref.off+int64(ref.tableLen)+7)
		}
	}
	for range times {
		if len(at) > 0 {
			b[min(at[r.IntN(len(at))], int64(len(b)-1))] ^= 0x55
		}
	}
	with := *d
	with.r, with.cache = bytes.NewReader(b), newDecoded()
	return &with
}

func (w *network) routes(deltas []*Delta, passed func(*Ends, error)) Routes {
	open := map[*Ends]*Delta{}
	var all []*Ends
	for _, d := range deltas {
		open[d.ends], all = d, append(all, d.ends)
	}
	c := NewCatalogue(all)
	return Routes{
		Catalogue: func() (*Catalogue, error) { return c, nil },
		Open:      func(e *Ends) (*Delta, error) { return open[e], nil },
		Name:      func(e *Ends) string { return fmt.Sprintf("%x", e.ID[:2]) },
		Passed:    passed,
	}
}

// One damaged delta with a way around it never shows in the bytes, whichever it is. It is reported
// once.
func TestRoutedPassesOneDamagedDelta(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 41))
		w := newNetwork(t, r, 5, 30000+r.IntN(100000))
		for i, bad := range w.deltas {
			deltas := append([]*Delta{}, w.deltas...)
			deltas[i] = w.damage(r, bad, 100)
			others := append(append([]*Delta{}, w.deltas[:i]...), w.deltas[i+1:]...)
			for _, d := range deltas {
				all := NewCatalogue(endsOf(others))
				to := d.Header.Streams[0]
				spare := all.RouteTo("disk/0", to.To, to.Size) != nil
				said := 0
				v, err := w.routes(deltas, func(e *Ends, err error) {
					if said++; e != bad.ends || err == nil {
						t.Errorf("passed over %v: %v", e.ID, err)
					}
				}).View(d.ends, 0)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, v.Size())
				_, err = sparse.ReadFull(v, got, 0)
				want := w.states[w.point[d.ends]]
				switch {
				case err == nil && !bytes.Equal(got, want):
					t.Fatalf("seed %d: other bytes", seed)
				case err != nil && spare:
					t.Fatalf("seed %d: state %d: %v", seed, w.point[d.ends], err)
				}
				if said > 1 {
					t.Fatalf("said %d times", said)
				}
				if err == nil && seed < 2 {
					sparsetest.View(t, v, want)
				}
			}
		}
	}
}

func endsOf(deltas []*Delta) (list []*Ends) {
	for _, d := range deltas {
		list = append(list, d.ends)
	}
	return list
}

// Many damaged deltas: no byte is ever wrong, and every block that some route gives is given,
// whatever is damaged elsewhere.
func TestRoutedGivesWhatAnyRouteHas(t *testing.T) {
	given, lost := 0, 0
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 42))
		w := newNetwork(t, r, 5, 30000+r.IntN(100000))
		var deltas []*Delta
		for _, d := range w.deltas {
			if r.IntN(2) == 0 {
				d = w.damage(r, d, 1+r.IntN(2))
			}
			deltas = append(deltas, d)
		}
		for _, d := range deltas {
			v, err := w.routes(deltas, nil).View(d.ends, 0)
			if err != nil {
				t.Fatal(err)
			}
			want := w.states[w.point[d.ends]]
			for off := int64(0); off < v.Size(); off += BlockSize {
				p := make([]byte, min(BlockSize, v.Size()-off))
				_, err := v.ReadAt(p, off)
				if err == io.EOF {
					err = nil
				}
				if err == nil && !bytes.Equal(p, want[off:off+int64(len(p))]) {
					t.Fatalf("seed %d: other bytes at %d", seed, off)
				}
				if has := anyRoute(deltas, d, off, int64(len(p))); (err == nil) != has {
					t.Fatalf("seed %d: block at %d of %d: a route has it: %v, read: %v", seed, off, v.Size(), has, err)
				}
				if given++; err != nil {
					lost++
				}
			}
			// Extents say nothing wrong either. They end where nothing is known.
			pos := int64(0)
			for e, err := range v.Extents(0, v.Size()) {
				if err != nil {
					break
				}
				if e.Off != pos {
					t.Fatalf("seed %d: extent at %d after %d", seed, e.Off, pos)
				}
				if pos = e.End(); e.Kind != sparse.Data && !sparse.IsZero(want[e.Off:e.End()]) {
					t.Fatalf("seed %d: %v is not zeros", seed, e)
				}
			}
		}
	}
	if lost == 0 || lost*2 > given {
		t.Errorf("%d of %d blocks lost: the test does not test much", lost, given)
	}
}

// anyRoute tries every route to the point of d for one block, with stacks.
func anyRoute(deltas []*Delta, d *Delta, off, n int64) bool {
	var walk func(last *Delta, chain []Layer) bool
	walk = func(last *Delta, chain []Layer) bool {
		chain = append([]Layer{{last, 0}}, chain...)
		s := last.Header.Streams[0]
		if s.Full {
			stack, err := NewStack(chain...)
			if err != nil {
				return false
			}
			_, err = stack.ReadAt(make([]byte, n), off)
			return err == nil || err == io.EOF
		}
		for _, p := range deltas {
			if t := p.Header.Streams[0]; t.To == s.From.Point && t.Size == s.From.Size && walk(p, chain) {
				return true
			}
		}
		return false
	}
	for _, other := range deltas {
		if other.Header.Streams[0].To == d.Header.Streams[0].To && walk(other, nil) {
			return true
		}
	}
	return false
}

// Deltas that cannot be opened are passed over too. If no route leads there the error says so.
func TestRoutedOpens(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 43))
	w := newNetwork(t, r, 4, 50000)
	gone := errors.New("gone")
	routes := w.routes(w.deltas, nil)
	open := routes.Open
	for _, bad := range w.deltas {
		routes.Open = func(e *Ends) (*Delta, error) {
			if e == bad.ends {
				return nil, gone
			}
			return open(e)
		}
		for _, d := range w.deltas {
			v, err := routes.View(d.ends, 0)
			if err != nil {
				if !errors.Is(err, gone) {
					t.Errorf("%v", err)
				}
				continue
			}
			got := make([]byte, v.Size())
			if _, err := sparse.ReadFull(v, got, 0); err != nil || !bytes.Equal(got, w.states[w.point[d.ends]]) {
				t.Errorf("state %d: %v", w.point[d.ends], err)
			}
		}
	}
	var missing *MissingError
	if _, err := w.routes(w.deltas[1:2], nil).View(w.history.deltas[3].ends, 0); !errors.As(err, &missing) {
		t.Errorf("no chain: %v", err)
	}
}

// Many readers at once, while damage is found here and there.
func TestRoutedIsSafeForConcurrentUse(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 44))
	w := newNetwork(t, r, 5, 120000)
	var deltas []*Delta
	for _, d := range w.deltas {
		if r.IntN(2) == 0 {
			d = w.damage(r, d, 1)
		}
		deltas = append(deltas, d)
	}
	var said sync.Map
	routes := w.routes(deltas, func(e *Ends, _ error) { said.Store(e, true) })
	routes.Cache = NewCache()
	var wait sync.WaitGroup
	for _, d := range deltas {
		v, err := routes.View(d.ends, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := w.states[w.point[d.ends]]
		for reader := range uint64(3) {
			wait.Go(func() {
				r := rand.New(rand.NewPCG(reader, 45))
				for range 40 {
					off := r.Int64N(v.Size())
					p := make([]byte, min(r.Int64N(3*BlockSize)+1, v.Size()-off))
					if _, err := v.ReadAt(p, off); (err == nil || err == io.EOF) && !bytes.Equal(p, want[off:off+int64(len(p))]) {
						t.Errorf("other bytes at %d", off)
					}
				}
			})
		}
	}
	wait.Wait()
}
