package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cbt/internal/fail"
	"cbt/internal/imagelock"
	"cbt/internal/text"
	"cbt/internal/tree"
	"cbt/qcow2"
	"cbt/sparse"
)

// mounting makes the tree of a mount, and is what keeps it readable.
type mounting struct {
	ctx    context.Context // of the mount
	a      *app
	opt    *mountOptions
	log    *mountLog
	points *tree.Pool[*mountedPoint, openPoint]
	states *tree.Pool[*instant, *openState]
	groups *tree.Pool[*instant, *openGroups]
	files  []*opener // the first one for all that is no REF's
	deltas []io.Closer
	shown  []*instant

	mu       sync.Mutex
	overlays *opener // the one that has --overlay FILE
}

// How much is kept open that nobody uses: a chain takes up to 36 MiB, a state 64 MiB
// and 8 bytes for each page.
const (
	idlePoints = 2
	idleStates = 1
	idleGroups = 4
)

func newMounting(ctx context.Context, a *app, opt *mountOptions, log *mountLog) *mounting {
	return &mounting{
		ctx: ctx, a: a, opt: opt, log: log,
		points: tree.NewPool[*mountedPoint, openPoint](idlePoints),
		states: tree.NewPool[*instant, *openState](idleStates),
		groups: tree.NewPool[*instant, *openGroups](idleGroups),
	}
}

func (m *mounting) close() {
	// Groups stand on points.
	for _, c := range append([]io.Closer{m.groups, m.states, m.points}, m.deltas...) {
		_ = c.Close() // of what was only read
	}
	for _, o := range m.files {
		m.a.closeOpener(o)
	}
}

// newOpener returns an opener that tells the log what it has to say.
func (m *mounting) newOpener() (*opener, error) {
	o, err := m.a.newOpener(m.opt.source)
	if err != nil {
		return nil, err
	}
	o.Reporter, o.Files.Reporter, o.spoolDir = m.log, m.log, m.a.spoolDir(m.opt.spoolDir)
	o.chainFrom(m.opt.chain)
	return o, nil
}

// opener opens what stays open as long as the mount.
func (m *mounting) opener() (*opener, error) {
	o, err := m.newOpener()
	if err == nil {
		m.files = append(m.files, o)
	}
	return o, err
}

// root is the tree of all REFs.
func (m *mounting) root(refs []string) (*tree.Dir, error) {
	if _, err := m.opener(); err != nil {
		return nil, err
	}
	if m.opt.together {
		return m.machine(refs)
	}
	var dirs []*tree.Dir
	var named []tree.Named
	for i, ref := range refs {
		d, name, err := m.ref(ref)
		if err != nil {
			return nil, err
		}
		dirs, named = append(dirs, d), append(named, tree.Named{Name: name, ID: fmt.Sprint(i + 1)})
	}
	if err := m.overlayFile(); err != nil {
		return nil, err
	}
	if len(refs) == 1 {
		return dirs[0], nil
	}
	var entries []tree.Entry
	for i, name := range tree.Names(named, "") {
		entries = append(entries, tree.Entry{Name: name, Dir: dirs[i]})
	}
	return tree.Static(time.Now(), entries...), nil
}

// ref is the tree of one REF, and what its directory is called if there are
// others.
func (m *mounting) ref(ref string) (*tree.Dir, string, error) {
	opt := m.opt.ref
	if info, err := os.Stat(ref); err == nil && info.IsDir() {
		d, err := m.directory(ref)
		return d, filepath.Base(filepath.Clean(ref)), err
	}
	o, err := m.opener()
	if err != nil {
		return nil, "", err
	}
	if v, ok, err := o.parseVolumeRef(ref, opt); err != nil {
		return nil, "", err
	} else if ok && o.holdsImage(opt) {
		r, f, err := o.locateIn(m.ctx, ref, v, opt)
		if err != nil {
			return nil, "", err
		}
		d, err := m.qcow2(o, ref, r, f, opt)
		return d, filepath.Base(r.path), err
	} else if ok {
		d, err := m.single(o, ref, opt)
		return d, filepath.Base(ref), err
	}
	r, f, format, err := o.locate(ref, opt)
	if err != nil {
		return nil, "", err
	}
	var d *tree.Dir
	switch format {
	case formatDelta:
		if f != nil {
			f.Close()
		}
		d, err = m.delta(ref, r)
	case formatState:
		f.Close()
		if r.byName || r.byID {
			return nil, "", fail.Usage("%s: is one block of RAM: name the state alone, and it is ram/%s", text.Printable(ref), text.Printable(r.want))
		}
		d = m.state(ref, opt, f.Info.Mtime)
	case formatQcow2:
		d, err = m.qcow2(o, ref, r, f, opt)
	default:
		f.Close()
		d, err = m.single(o, ref, opt)
	}
	return d, filepath.Base(r.path), err
}

// one is a tree of one directory in another.
func one(parent, name string, t time.Time, d *tree.Dir) *tree.Dir {
	inner := tree.Entry{Name: name, Dir: d}
	if parent == "" {
		return tree.Static(t, inner)
	}
	return tree.Static(t, tree.Entry{Name: parent, Dir: tree.Static(t, inner)})
}

const (
	activeDir    = "active"
	snapshotsDir = "snapshots"
	pointsDir    = "points"
)

// single is the tree of a raw file, a device or a volume.
func (m *mounting) single(o *opener, ref string, opt refOptions) (*tree.Dir, error) {
	src, err := o.open(m.ctx, ref, opt)
	if err != nil {
		return nil, err
	}
	i, err := m.instantOf(o, src)
	if err != nil {
		return nil, err
	}
	// What else holds a pool up is over: its devices stand still by themselves.
	if err := o.releasePools(); err != nil {
		return nil, err
	}
	return one("", activeDir, i.time, i.dir()), nil
}

// instantOf is a machine with one disk, which is open.
func (m *mounting) instantOf(o *opener, src *source) (*instant, error) {
	view, err := o.guarded(m.ctx, src)
	if err != nil {
		return nil, err
	}
	i := &instant{m: m, name: src.Ref, time: src.Instant}
	if i.time.IsZero() && src.vol != nil {
		i.time = time.Unix(src.vol.LV().CreationTime, 0)
	}
	stored := view.Size()
	if src.img != nil && !src.img.file.Info.Block && src.img.backing == nil && src.img.data == nil {
		stored = min(stored, src.img.file.Info.Stored)
	}
	i.disks = []instantDisk{{name: onlyDisk, size: view.Size(), stored: stored, below: always(view),
		source: func() (*opener, *source, error) { return o, src, nil }}}
	return i, nil
}

// always opens what is open.
func always(v sparse.View) func(context.Context) (*tree.Handle, error) {
	return func(context.Context) (*tree.Handle, error) { return &tree.Handle{View: v}, nil }
}

// qcow2 is the tree of an image, or of one of its snapshots.
func (m *mounting) qcow2(o *opener, ref string, r reference, f *file, opt refOptions) (*tree.Dir, error) {
	img, err := o.load(m.ctx, f, formatQcow2, policy{own: ownDirs(f), allow: o.allow}, nil, false)
	if err != nil {
		return nil, err
	}
	table := img.qcow.Snapshots()
	q := &qcow2Tree{m: m, o: o, img: img, ref: ref, opt: opt, table: table}
	var named []tree.Named
	for _, s := range table {
		named = append(named, tree.Named{Name: s.Name, ID: s.ID})
	}
	names := tree.Names(named, "")
	now := img.file.Info.Mtime
	if r.byName || r.byID {
		n, err := r.find(table, opt)
		if err != nil {
			return nil, err
		}
		if _, err := q.source(n); err != nil {
			return nil, err
		}
		return one(snapshotsDir, names[n], now, q.snapshot(n).dir()), nil
	}
	var root, snapshots []tree.Entry
	var active *instant
	if !m.opt.snapshots {
		active, err = q.active(r)
	}
	switch {
	case m.opt.snapshots:
	case err == nil:
		root = append(root, tree.Entry{Name: activeDir, Dir: active.dir()})
	case len(table) == 0 || m.opt.together || !errors.Is(err, imagelock.ErrBusy):
		return nil, err
	default:
		m.log.Warnf("active/ is left out: %v", err)
	}
	for n, name := range names {
		snapshots = append(snapshots, tree.Entry{Name: name, Dir: q.snapshot(n).dir()})
	}
	root = append(root, tree.Entry{Name: snapshotsDir, Dir: tree.Static(now, snapshots...)})
	return tree.Static(now, root...), nil
}

// qcow2Tree is an image whose states are shown.
type qcow2Tree struct {
	m     *mounting
	ref   string
	opt   refOptions
	img   *image
	table []qcow2.Snapshot

	mu sync.Mutex // of o
	o  *opener
}

// active is the active state, which must not be in use.
func (q *qcow2Tree) active(r reference) (*instant, error) {
	if err := q.o.hold(q.img, false); err != nil {
		return nil, err
	}
	if err := q.o.settle(q.m.ctx, q.img.file); err != nil {
		return nil, err
	}
	s := &source{Ref: q.ref, Path: r.path, Format: formatQcow2, Img: q.img.qcow, img: q.img}
	q.o.openActive(s)
	i, err := q.m.instantOf(q.o, s)
	if err == nil {
		i.active = true
	}
	return i, err
}

// source is a snapshot.
func (q *qcow2Tree) source(n int) (*source, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := &source{Ref: q.ref, Path: q.img.file.Path, Format: formatQcow2, Img: q.img.qcow, img: q.img}
	return s, refError(q.img.file.Path, s.setSnapshot(n))
}

// snapshot is a snapshot, which is opened when one of its files is.
func (q *qcow2Tree) snapshot(n int) *instant {
	s := &q.table[n]
	i := &instant{m: q.m, name: q.img.file.Path + "@" + text.Printable(s.Name), time: s.Date}
	var mu sync.Mutex
	var view sparse.View // one for all, so that they look after the source together
	open := func(context.Context) (*tree.Handle, error) {
		mu.Lock()
		defer mu.Unlock()
		if view == nil {
			src, err := q.source(n)
			if err != nil {
				return nil, err
			}
			if view, err = q.o.guarded(q.m.ctx, src); err != nil {
				return nil, err
			}
		}
		return &tree.Handle{View: view}, nil
	}
	i.disks = []instantDisk{{name: onlyDisk, size: s.DiskSize, stored: min(s.DiskSize, q.img.file.Info.Stored),
		below: open,
		source: func() (*opener, *source, error) {
			src, err := q.source(n)
			return q.o, src, err
		},
	}}
	if s.VMStateSize > 0 {
		i.ram = func() (*openState, error) { return q.m.snapshotState(q, n) }
	}
	return i
}
