package cli

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/sparse"
)

// mayBeAt says whether bytes could show that s is at the point p: that is what
// its record says, or all but the ctimes of its files.
func (s *source) mayBeAt(p string) bool {
	return p != "" && p != s.Point && (p == s.perhaps || store.MayBe(p, s.Point))
}

// doubtful says that there may be such points.
func (s *source) doubtful() bool {
	return s.chain == nil && (s.perhaps != "" || strings.Contains(s.Point, "+"))
}

// mayLead is the newest delta that leads to a point at which s may be, of some
// machines of the directory (nil: of any); nil if there is none.
func mayLead(st *store.Store, of map[int]bool, stream string, s *source) (best *store.Entry) {
	var at time.Time
	if !s.doubtful() {
		return nil
	}
	for i, l := range st.Entries {
		to := l.To(stream)
		if of != nil && !of[st.Machines.Of[i]] || !s.mayBeAt(to) || !slices.Contains(st.Ends[store.Point{Stream: stream, Point: to}], l) {
			continue
		}
		if t := st.Machines.List[i].Time; best == nil || !t.Before(at) { // the list is in their order
			best, at = l, t
		}
	}
	return best
}

// keepChain lets a chain go on from OLD where its files got another ctime since
// the delta that leads to it was made: by a chmod or a rename, or because it was made
// by a version that did not look at ctimes. dir is where the chain is. If OLD still
// has the bytes of that state it is at that point.
func (a *app) keepChain(ctx context.Context, o *opener, d *disk, dir string) error {
	if d.old == nil || !d.old.doubtful() {
		return nil
	}
	st, err := store.Read(ctx, a.audit, dir)
	if err != nil || st.Leading(d.stream(), d.old.Point) != nil {
		return ctx.Err() // no such directory, or no need
	}
	l := mayLead(st, nil, d.stream(), d.old)
	if l == nil {
		return nil
	}
	path := filepath.Join(dir, l.File)
	a.Notef("%s: its ctime is another one than when %s was made: comparing it with that", text.Printable(d.old.Ref), text.Printable(path))
	err = o.OpenChainOf(st, l)
	var then *source
	if err == nil {
		then, err = o.openChain(path, path, refOptions{Snapshot: d.stream()}, store.ChainOptions{Dir: dir})
	}
	if err == nil {
		var same bool
		if same, err = a.sameBytes(ctx, d.old.View, then.View); same {
			d.old.Point = l.To(d.stream())
			return nil
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		a.Warnf("%s: cannot be compared with what %s leads to, so the delta does not build on that: %v", text.Printable(d.old.Ref), text.Printable(path), err)
	default:
		a.Warnf("%s: is not what %s leads to, though its time of last change says so: the delta does not build on that", text.Printable(d.old.Ref), text.Printable(path))
	}
	return nil
}

func (a *app) sameBytes(ctx context.Context, x, y sparse.View) (bool, error) {
	if x.Size() != y.Size() {
		return false, nil
	}
	p := a.Start("comparing", x.Size())
	defer p.Finish()
	for _, err := range sparse.Compare(x, y, 0, x.Size()) {
		return false, err
	}
	return true, ctx.Err()
}
