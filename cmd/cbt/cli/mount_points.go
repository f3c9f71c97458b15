package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/internal/tree"
	"cbt/sparse"
)

// mountedPoint is the state after a delta that is shown.
type mountedPoint struct {
	m    *mounting
	in   *points
	l    *store.Entry
	path string
	dir  string
}

// points are the deltas of a directory.
type points struct {
	m     *mounting
	dir   string
	list  []*store.Entry
	graph *store.Graph
	cache *cbt.Cache
	files *tree.Pool[*store.Entry, *file]
	reads *audit.Reading

	mu     sync.Mutex
	deltas map[*store.Entry]*cbt.Delta // those that were needed, once for all points
	passed map[*cbt.Ends]bool          // damaged ones that others lead past
}

// directory is the tree of a directory of deltas.
func (m *mounting) directory(dir string) (*tree.Dir, error) {
	p, err := m.pointsIn(dir)
	if err != nil {
		return nil, err
	}
	var shown []*store.Entry
	var named []tree.Named
	var streams []string // of which deltas are left out
	without := map[string][]string{}
	for _, l := range p.list {
		switch missing := p.missing(l); {
		case l.Error != "":
			m.log.Warnf("left out: %s", l.Error)
		case missing != "":
			if without[missing] == nil {
				streams = append(streams, missing)
			}
			without[missing] = append(without[missing], text.Printable(filepath.Join(dir, l.File)))
		default:
			shown = append(shown, l)
			named = append(named, tree.Named{Name: strings.TrimSuffix(l.File, store.Suffix), ID: l.ID[:12]})
		}
	}
	for _, s := range streams {
		m.log.Warnf("left out: %s: no chain leads to %s from a full delta", strings.Join(without[s], ", "), text.Printable(s))
	}
	if len(p.list) == 0 {
		return nil, noDeltas(dir)
	}
	m.a.sayLevels(dir, shown)
	names := tree.Names(named, "")
	var entries []tree.Entry
	for i, name := range names {
		entries = append(entries, tree.Entry{Name: name, Dir: p.point(shown[i]).instant("").dir()})
	}
	top := []tree.Entry{{Name: pointsDir, Dir: tree.Static(p.time(), entries...)}}
	if list := p.byMachine(shown, names); list != nil {
		top = append(top, tree.Entry{Name: machinesDir, Dir: tree.Static(p.time(), list...)})
	}
	return tree.Static(p.time(), top...), nil
}

// delta is the tree of one delta, or of one of its streams.
func (m *mounting) delta(ref string, r reference) (*tree.Dir, error) {
	if r.byID {
		return nil, fail.Usage("%s: is a delta and has no snapshots", text.Printable(ref))
	}
	dir := filepath.Dir(r.path)
	if m.opt.chain.Dir != "" {
		dir = m.opt.chain.Dir
	}
	p, err := m.pointsIn(dir)
	if err != nil {
		return nil, err
	}
	base := filepath.Base(r.path)
	own := store.ReadEntry(m.a.audit, filepath.Dir(r.path), r.path)
	if own.Error != "" {
		return nil, errors.New(own.Error)
	}
	i := slices.IndexFunc(p.list, func(l *store.Entry) bool { return l.ID == own.ID })
	if i < 0 {
		return nil, fail.WrongBase("%s: is not in %s, where --chain looks", text.Printable(r.path), text.Printable(dir))
	}
	l := p.list[i]
	if missing := p.missing(l); missing != "" {
		return nil, fail.WrongBase("%s: no chain leads to its %s from a full delta in %s (--chain DIR looks elsewhere)", text.Printable(r.path), text.Printable(missing), text.Printable(dir))
	}
	at := p.point(l)
	if r.byName && at.find(r.want) < 0 {
		return nil, fail.Usage("%s: has no disk %s", text.Printable(r.path), text.Printable(r.want))
	}
	m.a.sayLevel(r.path, cbt.Consistency(l.Consistency))
	name := tree.Names([]tree.Named{{Name: strings.TrimSuffix(base, filepath.Ext(base)), ID: own.ID[:12]}}, "")[0]
	return one(pointsDir, name, p.time(), at.instant(r.want).dir()), nil
}

// pointsIn reads the ends of all deltas in dir, which prune leaves alone as long as
// the mount is there.
func (m *mounting) pointsIn(dir string) (*points, error) {
	o, err := m.opener()
	if err != nil {
		return nil, err
	}
	if err := o.Share(m.ctx, dir, 0); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	names, err := store.Names(abs)
	if err != nil {
		return nil, err
	}
	p := &points{m: m, dir: abs, files: tree.NewPool[*store.Entry, *file](openDeltas), reads: &o.reads, cache: cbt.NewCache(), deltas: map[*store.Entry]*cbt.Delta{}, passed: map[*cbt.Ends]bool{}}
	m.deltas = append(m.deltas, p.files)
	if p.list, err = store.ReadEntries(m.ctx, m.a.audit, abs, names); err != nil {
		return nil, err
	}
	p.graph = store.NewGraph(p.list)
	return p, nil
}

// time is that of the newest point.
func (p *points) time() (t time.Time) {
	for _, l := range p.list {
		if l.Instant != nil && l.Instant.After(t) {
			t = *l.Instant
		}
	}
	return t
}

// missing is the first stream of l to whose state no chain leads.
func (p *points) missing(l *store.Entry) string {
	for _, name := range l.Missing {
		if _, err := p.graph.AnyRoute(l.Ends, l.Ends.Stream(name)); err != nil {
			return name
		}
	}
	return ""
}

// point is the state after l.
func (p *points) point(l *store.Entry) *mountedPoint {
	return &mountedPoint{m: p.m, in: p, l: l, path: filepath.Join(p.dir, l.File), dir: p.dir}
}

// held are the bytes of payload in all deltas that a stream of l is read from.
func (p *points) held(l *store.Entry, stream int) int64 {
	r, err := p.graph.AnyRoute(l.Ends, stream)
	if err != nil {
		return 0
	}
	return r.Payload
}

// openPoint are the disks at a point, by their streams. What they are read from is
// open as long as somebody reads that.
type openPoint map[int]sparse.View

// Close has nothing to close.
func (openPoint) Close() error { return nil }

func (p *mountedPoint) open() (openPoint, error) {
	at := openPoint{}
	for n, s := range p.l.Streams {
		if !strings.HasPrefix(s.Name, diskStream) {
			continue
		}
		view, err := p.in.routes().View(p.l.Ends, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.path, err)
		}
		at[n] = view
	}
	return at, nil
}

// delta is a delta of the directory, opened when it is first needed.
func (p *points) delta(e *cbt.Ends) (*cbt.Delta, error) {
	l := p.graph.Of[e]
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.deltas[l]; d != nil {
		return d, nil
	}
	f := &deltaReader{p, l, filepath.Join(p.dir, l.File)}
	d, err := cbt.Reopen(f, e)
	if err != nil {
		return nil, err
	}
	p.deltas[l] = d
	return d, nil
}

// deltaReader reads a delta's file, which is open only for a while: there may be more
// of them than a process may open. Each chunk has a CRC, and the index that leads to
// them was read once, so one that was replaced meanwhile gives errors.
type deltaReader struct {
	in   *points
	l    *store.Entry
	path string
}

func (r *deltaReader) ReadAt(p []byte, off int64) (int, error) {
	f, release, err := r.in.files.Get(r.in.m.ctx, r.l, func() (*file, error) { return openFile(r.path, r.in.reads, nil) })
	if err != nil {
		return 0, err
	}
	defer release()
	return f.ReadAt(p, off)
}

// openDeltas is how many files of deltas are kept open.
const openDeltas = 512

const diskStream = "disk/"

// routes say how the points are read: whichever deltas of the directory give their
// bytes.
func (p *points) routes() cbt.Routes {
	return cbt.Routes{
		Catalogue: func() (*cbt.Catalogue, error) { return p.graph.Catalogue, nil },
		Open:      p.delta, Name: p.name, Passed: p.passedOver, Cache: p.cache,
	}
}

func (p *points) name(e *cbt.Ends) string {
	return text.Printable(filepath.Join(p.dir, p.graph.Of[e].File))
}

// passedOver says once of a delta that it is damaged, and does not matter.
func (p *points) passedOver(e *cbt.Ends, err error) {
	p.mu.Lock()
	said := p.passed[e]
	p.passed[e] = true
	p.mu.Unlock()
	if !said {
		p.m.log.Warnf(store.PassedOverText, p.name(e), err)
	}
}

// opener reads what is at the point from the deltas of the directory.
func (p *mountedPoint) opener() (*opener, *store.File, error) {
	o, err := p.m.newOpener()
	if err != nil {
		return nil, nil, err
	}
	routes := p.in.routes()
	o.Given = &routes
	d, err := p.in.delta(p.l.Ends)
	if err != nil {
		_ = o.Close()
		return nil, nil, fmt.Errorf("%s: %w", p.path, err)
	}
	return o, o.Keep(&store.File{Delta: d, Name: p.path, Dir: p.dir}), nil
}

// source is a disk at the point as a source of its own.
func (p *mountedPoint) source(stream int) (*opener, *source, error) {
	o, d, err := p.opener()
	if err != nil {
		return nil, nil, err
	}
	p.m.files = append(p.m.files, o)
	src, err := o.streamAfter(d, stream, d.Name, store.ChainOptions{Dir: p.dir})
	return o, src, err
}

// find is the stream of a disk, -1 if there is none of that name.
func (p *mountedPoint) find(name string) int {
	return slices.IndexFunc(p.l.Streams, func(s store.Stream) bool {
		return s.Name == diskStream+name || s.Name == name && strings.HasPrefix(name, diskStream)
	})
}

// instant is the machine at the point; of several disks only the named one, if there
// is a name.
func (p *mountedPoint) instant(only string) *instant {
	i := &instant{m: p.m, name: p.path}
	if p.l.Instant != nil {
		i.time = *p.l.Instant
	}
	var named []tree.Named
	var streams []int
	for n, s := range p.l.Streams {
		if name, ok := strings.CutPrefix(s.Name, diskStream); ok && (only == "" || p.find(only) == n) {
			named, streams = append(named, tree.Named{Name: name}), append(streams, n)
		}
	}
	names := []string{onlyDisk}
	if len(streams) != 1 {
		names = tree.Names(named, rawSuffix)
	}
	for k, n := range streams {
		size := p.l.Streams[n].Size
		i.disks = append(i.disks, instantDisk{name: strings.TrimSuffix(names[k], rawSuffix), size: size, stored: min(size, p.in.held(p.l, n)), below: func(ctx context.Context) (*tree.Handle, error) {
			at, release, err := p.m.points.Get(ctx, p, p.open)
			if err != nil {
				return nil, err
			}
			return &tree.Handle{View: at[n], Release: release}, nil
		}, source: func() (*opener, *source, error) { return p.source(n) }})
	}
	if only == "" && slices.ContainsFunc(p.l.Streams, func(s store.Stream) bool { return s.Name == store.StateStream }) {
		i.ram = p.state
	}
	return i
}

// state opens the RAM at the point.
func (p *mountedPoint) state() (*openState, error) {
	o, d, err := p.opener()
	if err != nil {
		return nil, err
	}
	s := &openState{o: o, guard: func(v sparse.View) sparse.View { return v }}
	if s.machine, err = o.machineAfter(d.Name, &chainRef{d, store.ChainOptions{Dir: p.dir}}); err == nil && s.machine == nil {
		err = fmt.Errorf("%s: has no machine state", d.Name)
	}
	if err != nil {
		_ = o.Close()
		return nil, err
	}
	return s, nil
}
