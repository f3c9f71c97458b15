package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
	"cbt/lvm"
	"cbt/sparse"
)

// guarded is the view of s for a command that goes on reading for as long as
// it runs. Others look at their sources once, when everything is read; here
// every read is followed by a look, and what was read is given away only if
// the source still is what it was: a snapshot that is deleted while it is
// mounted ends in errors, never in the bytes of whatever took its place. Once
// it has changed it stays unreadable.
//
// The state after a delta needs none of that: each of its chunks has a CRC.
// Safe for concurrent use, if s.Recheck is called by nobody else.
func (o *opener) guarded(ctx context.Context, s *source) (sparse.View, error) {
	if s.chain != nil {
		return s.View, nil
	}
	if s.vol != nil && s.vol.live != nil && s.vol.live.pool != nil {
		return o.guardedThin(ctx, s)
	}
	g := &guard{recheck: s.Recheck, look: s.recheck != nil}
	for _, f := range o.files {
		if f.Info.Block {
			g.files, g.blind = nil, true
			break
		}
		g.files = append(g.files, f)
	}
	g.blind = g.blind || len(g.files) == 0
	return &guardedView{s.View, g}, nil
}

// guardedThin reads a thin volume of a pool in use through its device: the
// blocks of an inactive one may become another volume's at any time, and to
// find that out takes a metadata snapshot.
func (o *opener) guardedThin(ctx context.Context, s *source) (sparse.View, error) {
	lv, live := s.vol.LV(), s.vol.live
	r, size, err := live.host.Device(lv, lvm.LayerVolume)
	if err != nil {
		return nil, hostError(s.Ref, err)
	}
	if r == nil {
		return nil, fail.Usage("%s: is not active, so its pool could give its blocks to others while they are read: lvchange -ay -K -pr %s", s.Ref, text.Quote(lv.FullName()))
	}
	g := &guard{look: true, blind: true, recheck: func() error {
		if live.writable {
			return nil // --frozen: the user's word
		}
		if err := live.host.Frozen(lv.Group().ID, lv.ID); err != nil {
			return fmt.Errorf("%s: became writable while it was read: %w", s.Ref, err)
		}
		return context.Cause(ctx)
	}}
	return &guardedView{&countedView{sparse.Plain(r, size), &o.reads.Int64}, g}, nil
}

// guard says whether what a view reads still is what it was.
type guard struct {
	recheck func() error
	look    bool    // recheck says something
	blind   bool    // there are no files whose times tell that nothing happened
	files   []*file // all that the source is made of

	good   atomic.Pointer[[]infile.Stamp] // what the files were when all was well
	failed atomic.Pointer[error]

	mu      sync.Mutex
	waiting *guardRun  // not begun
	running sync.Mutex // held by the one that runs
}

// stamp looks at f. The ctime stays when the mtime is put back, but also ends by
// a chmod: to whom the user said that nobody writes, it means nothing.
func (f *file) stamp() (infile.Stamp, error) {
	now, err := infile.TimesOf(f.Input.File)
	if f.frozen {
		now.Ctime = time.Time{}
	}
	return now, err
}

// guardRun is one call of recheck, for all whose reads ended before it began.
type guardRun struct {
	done chan struct{}
	err  error
}

// settled is how old a file's time of change must be before it can be told
// from that of a further change: clocks of file systems tick every few
// milliseconds.
const settled = 50 * time.Millisecond

// check is called after a read.
func (g *guard) check() error {
	if err := g.failed.Load(); err != nil {
		return *err
	}
	if !g.look || g.quiet() {
		return nil
	}
	g.mu.Lock()
	r := g.waiting
	if r != nil {
		g.mu.Unlock()
		<-r.done
		return r.err
	}
	r = &guardRun{make(chan struct{}), errors.New("panic")}
	g.waiting = r
	g.mu.Unlock()

	g.running.Lock()
	defer g.running.Unlock()
	g.mu.Lock()
	g.waiting = nil
	g.mu.Unlock()
	defer close(r.done)
	if r.err = g.run(); r.err != nil {
		g.failed.CompareAndSwap(nil, &r.err)
	}
	return r.err
}

func (g *guard) run() error {
	began := time.Now()
	var now []infile.Stamp
	for _, f := range g.files {
		s, err := f.stamp()
		if err != nil {
			return err
		}
		now = append(now, s)
	}
	if err := g.recheck(); err != nil {
		return err
	}
	for _, s := range now {
		if began.Sub(s.Mtime) < settled || began.Sub(s.Ctime) < settled {
			return nil
		}
	}
	g.good.Store(&now)
	return nil
}

// quiet says that nobody wrote to a file since the last look.
func (g *guard) quiet() bool {
	good := g.good.Load()
	if g.blind || good == nil {
		return false
	}
	for i, f := range g.files {
		now, err := f.stamp()
		if err != nil || now != (*good)[i] {
			return false
		}
	}
	return true
}

// guardedView looks after each read.
type guardedView struct {
	sparse.View
	guard *guard
}

func (v *guardedView) ReadAt(p []byte, off int64) (int, error) {
	n, err := v.View.ReadAt(p, off)
	if err != nil && err != io.EOF {
		// That it changed says more than what reading it came upon.
		if changed := v.guard.check(); changed != nil {
			return 0, changed
		}
		return n, err
	}
	if changed := v.guard.check(); changed != nil {
		return 0, changed
	}
	return n, err
}

// Extents looks before it gives extents away, a few at first, then more at a
// time.
func (v *guardedView) Extents(off, n int64) sparse.Seq {
	return func(yield func(sparse.Extent, error) bool) {
		var held []sparse.Extent
		limit := 16
		give := func() bool {
			if err := v.guard.check(); err != nil {
				yield(sparse.Extent{}, err)
				return false
			}
			for _, e := range held {
				if !yield(e, nil) {
					return false
				}
			}
			held, limit = held[:0], min(4*limit, 4096)
			return true
		}
		for e, err := range v.View.Extents(off, n) {
			if err != nil {
				if give() {
					yield(sparse.Extent{}, err)
				}
				return
			}
			if held = append(held, e); len(held) == limit && !give() {
				return
			}
		}
		give()
	}
}
