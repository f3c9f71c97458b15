package cbt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"cbt/sparse"
)

// DeltaError says which of several deltas is damaged or cannot be read.
type DeltaError struct {
	Delta *Ends
	Err   error
}

func (e *DeltaError) Error() string { return e.Err.Error() }
func (e *DeltaError) Unwrap() error { return e.Err }

// in wraps err in a *DeltaError for d.
func (d *Delta) in(err error) error {
	if err == nil {
		return nil
	}
	return &DeltaError{d.ends, err}
}

// Routes says how to get from ends to bytes. Its views are of states that several routes may lead
// to.
type Routes struct {
	// Catalogue returns the deltas that there are. It is called only when needed: for a full delta,
	// only if that is damaged.
	Catalogue func() (*Catalogue, error)
	// Open opens a delta, as Reopen does. For the same ends it must return the same delta.
	Open func(*Ends) (*Delta, error)
	// Name returns what errors call a delta.
	Name func(*Ends) string
	// Passed, if not nil, is called once for each delta that a view goes around, with the reason.
	Passed func(*Ends, error)
	// Cache is the memory of the views. If it is nil, each has its own.
	Cache *Cache
}

// Routed is the state after a stream of a delta. It is read along the route that the catalogue
// finds. If a delta on it, the last one included, is damaged or cannot be read, the bytes come from
// other deltas that lead to the same points. An error means that no route gives them. It is safe
// for concurrent use if the functions of Routes are.
type Routed struct {
	routes Routes
	last   Step
	now    atomic.Pointer[openRoute] // where the next read begins

	mu     sync.Mutex
	ways   map[string]*openRoute // by the deltas they avoid; nil: there is none
	number map[*Ends]int         // a number for each delta that was avoided
	passed map[*Ends]bool
}

// openRoute is a route whose deltas are open.
type openRoute struct {
	*Stack
	layers []Layer
}

// maxWays is how many ways a view remembers.
const maxWays = 64

// View opens the state after a stream of e. If no route leads there, the error is a *MissingError.
func (r Routes) View(e *Ends, stream int) (*Routed, error) {
	if r.Cache == nil {
		r.Cache = NewCache()
	}
	v := &Routed{routes: r, last: Step{e, stream}, ways: map[string]*openRoute{}, number: map[*Ends]int{}, passed: map[*Ends]bool{}}
	bad := avoided{}
	w, err := v.way(bad)
	if err != nil {
		return nil, v.named(err)
	}
	v.now.Store(w)
	if len(bad) == 0 && w.layers[len(w.layers)-1].Delta.ends != v.last.Ends {
		// The parent of the last delta is missing.
		all, err := r.Catalogue()
		if err == nil {
			_, err = all.Route(v.last.Ends, v.last.Index)
		}
		if err != nil {
			bad[v.last.Ends] = err
		}
	}
	v.pass(bad)
	return v, nil
}

// Layers returns the layers that v is being read from, oldest first.
func (v *Routed) Layers() []Layer { return slices.Clone(v.now.Load().layers) }

// Size returns the image's size in bytes.
func (v *Routed) Size() int64 { return v.last.stream().Size }

// avoided has the deltas to go around, and why.
type avoided map[*Ends]error

// add records the delta that err names. It returns false if err names none, or one already
// recorded, or is no reason to look elsewhere.
func (bad avoided) add(err error) bool {
	var of *DeltaError
	if !errors.As(err, &of) || errors.Is(err, context.Canceled) {
		return false
	}
	if _, ok := bad[of.Delta]; ok {
		return false
	}
	bad[of.Delta] = of.Err
	return true
}

// way opens a way that avoids the deltas of bad, and adds to bad those that it cannot open. The
// error is that of the first delta that could not be avoided.
func (v *Routed) way(bad avoided) (*openRoute, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var first error
	for {
		key := v.key(bad)
		w, ok := v.ways[key]
		var err error
		if !ok {
			w, err = v.openWay(bad)
			if first == nil {
				first = err
			}
			if bad.add(err) {
				continue
			}
			if len(v.ways) >= maxWays {
				clear(v.ways)
			}
			v.ways[key] = w
		}
		if w == nil && first == nil {
			first = errNoWay
		}
		if w != nil {
			first = nil
		}
		return w, first
	}
}

var errNoWay = errors.New("no other deltas lead there")

// key returns a string that is the same for the same deltas.
func (v *Routed) key(bad avoided) string {
	var numbers []int
	for e := range bad {
		if _, ok := v.number[e]; !ok {
			v.number[e] = len(v.number)
		}
		numbers = append(numbers, v.number[e])
	}
	slices.Sort(numbers)
	return fmt.Sprint(numbers)
}

func (v *Routed) openWay(bad avoided) (*openRoute, error) {
	r, err := v.route(bad)
	if err != nil {
		return nil, err
	}
	layers, err := r.Layers(v.open)
	if err != nil {
		return nil, err
	}
	s, err := v.routes.Cache.Stack(layers...)
	if err != nil {
		return nil, err
	}
	return &openRoute{s, layers}, nil
}

func (v *Routed) open(e *Ends) (*Delta, error) {
	d, err := v.routes.Open(e)
	if err != nil {
		return nil, &DeltaError{e, err}
	}
	return d, nil
}

// route returns the route to take without the deltas to avoid.
func (v *Routed) route(bad avoided) (*Route, error) {
	s := v.last.stream()
	if s.Full && len(bad) == 0 {
		return (*Route)(nil).after(v.last), nil
	}
	all, err := v.routes.Catalogue()
	if err != nil {
		return nil, err
	}
	if len(bad) > 0 {
		all = all.Without(func(e *Ends) bool { return bad[e] != nil })
	}
	if bad[v.last.Ends] == nil {
		return all.AnyRoute(v.last.Ends, v.last.Index)
	}
	r := all.RouteTo(s.Name, s.To, s.Size)
	if r == nil {
		return nil, errNoWay
	}
	return r, nil
}

// pass reports, once for each delta, that there is a way around it.
func (v *Routed) pass(bad avoided) {
	for e, err := range bad {
		v.mu.Lock()
		said := v.passed[e]
		v.passed[e] = true
		v.mu.Unlock()
		if !said && v.routes.Passed != nil {
			v.routes.Passed(e, err)
		}
	}
}

// named returns err with the name of the delta that it comes from, unless that is the delta that v
// was opened by.
func (v *Routed) named(err error) error {
	var of *DeltaError
	if errors.As(err, &of) && of.Delta != v.last.Ends && v.routes.Name != nil {
		return fmt.Errorf("%s: %w", v.routes.Name(of.Delta), err)
	}
	return err
}

// ReadAt implements io.ReaderAt.
func (v *Routed) ReadAt(p []byte, off int64) (int, error) {
	n, err := v.now.Load().ReadAt(p, off)
	if err == nil || err == io.EOF {
		return n, err
	}
	first, bad := err, avoided{}
	if !bad.add(err) {
		return n, err
	}
	for {
		w, _ := v.way(bad)
		if w == nil {
			break
		}
		if n, err = w.ReadAt(p, off); err == nil || err == io.EOF {
			v.now.Store(w)
			v.pass(bad)
			return n, err
		}
		if !bad.add(err) {
			break
		}
	}
	p, eof := sparse.ClipRead(p, off, v.Size())
	if err := v.piecewise(p, off); err != nil {
		return 0, v.named(first)
	}
	return len(p), eof
}

// Extents implements sparse.View.
func (v *Routed) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, v.Size()); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		bad := avoided{} // to get past pos
		var err error
		w := v.now.Load()
		for pos, end := off, off+n; pos < end; {
			from := pos
			for e, failed := range w.Extents(pos, end-pos) {
				if err = failed; err != nil {
					break
				}
				if !yield(e, nil) {
					return
				}
				pos = e.End()
			}
			if pos > from {
				if len(bad) > 0 {
					v.now.Store(w)
					v.pass(bad)
				}
				bad = avoided{}
			}
			if pos >= end {
				return
			}
			var next *openRoute
			if bad.add(err) {
				next, _ = v.way(bad)
			}
			if next == nil { // no way gives more than the block that follows
				e := sparse.Extent{Off: pos, Len: min(BlockSize-pos%BlockSize, end-pos), Kind: sparse.Data}
				if v.piecewise(make([]byte, e.Len), pos) != nil {
					yield(sparse.Extent{}, v.named(err))
					return
				}
				if !yield(e, nil) {
					return
				}
				pos, bad, next = e.End(), avoided{}, v.now.Load()
			}
			w = next
		}
	})
}

var _ sparse.View = (*Routed)(nil)
