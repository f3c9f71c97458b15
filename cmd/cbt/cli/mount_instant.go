package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"cbt/internal/partition"
	"cbt/internal/tree"
	"cbt/lvm"
	"cbt/sparse"
)

// instant is a machine at one instant, as a directory: its disks, what is on
// them, and its RAM.
type instant struct {
	m    *mounting
	name string // for messages
	time time.Time
	// active says that it is an image's active state.
	active bool
	disks  []instantDisk
	ram    func() (*openState, error) // nil: there is none

	written sync.Map // of *scratchDisk, the volumes that were opened, with --overlay tmp
}

// instantDisk is a disk of a machine.
type instantDisk struct {
	name   string // its file's, without .raw
	size   int64
	stored int64
	below  func(ctx context.Context) (*tree.Handle, error) // without what was written to it
	open   func(ctx context.Context) (*tree.Handle, error)
	source func() (*opener, *source, error) // for --overlay FILE; what it returns stays open
}

const (
	onlyDisk  = "disk"
	rawSuffix = ".raw"
)

func (i *instant) dir() *tree.Dir {
	i.m.shown = append(i.m.shown, i)
	for n := range i.disks {
		if d := &i.disks[n]; d.open == nil {
			d.open = i.m.writable(d.below)
		}
	}
	var entries []tree.Entry
	for n := range i.disks {
		d := &i.disks[n]
		entries = append(entries, tree.Entry{Name: d.name + rawSuffix, File: &tree.File{
			Time: i.time, Size: d.size, Stored: d.stored, Writable: i.m.opt.overlay.path != "",
			Open: func(ctx context.Context) (*tree.Handle, error) { return d.open(ctx) },
		}})
	}
	if len(i.disks) > 0 {
		entries = append(entries, tree.Entry{Name: "partitions", Dir: i.partitions()}, tree.Entry{Name: "lvm", Dir: i.volumes()})
	}
	if i.ram != nil {
		entries = append(entries, tree.Entry{Name: "ram", Dir: i.memory()})
	}
	return tree.Static(i.time, entries...)
}

// partitions is the directory of partitions; of several disks each has one in
// it.
func (i *instant) partitions() *tree.Dir {
	if len(i.disks) == 1 {
		return i.partitionsOf(&i.disks[0])
	}
	var entries []tree.Entry
	for n := range i.disks {
		d := &i.disks[n]
		entries = append(entries, tree.Entry{Name: d.name, Dir: i.partitionsOf(d)})
	}
	return tree.Static(i.time, entries...)
}

func (i *instant) partitionsOf(d *instantDisk) *tree.Dir {
	return &tree.Dir{Time: i.time, List: func(ctx context.Context) ([]tree.Entry, error) {
		h, err := d.open(ctx)
		if err != nil {
			return nil, err
		}
		defer h.Close()
		w := &watchedView{View: h.View}
		table, err := partition.Read(w, h.Size(), partition.Options{})
		if err != nil {
			return nil, i.damage(w, d.name, err)
		}
		for _, w := range table.Warnings {
			i.m.log.Warnf("%s: %s: %s", i.name, d.name, w)
		}
		var entries []tree.Entry
		for _, p := range table.Partitions {
			entries = append(entries, tree.Entry{Name: strconv.Itoa(p.Number) + rawSuffix, File: &tree.File{
				Time: i.time, Size: p.Size, Stored: min(p.Size, d.stored), Writable: i.m.opt.overlay.path != "",
				Open: func(ctx context.Context) (*tree.Handle, error) {
					h, err := d.open(ctx)
					if err != nil {
						return nil, err
					}
					h.View = p.View(h.View)
					if h.Writer != nil {
						h.Writer = &partWriter{h.Writer, p}
					}
					return h, nil
				},
			}})
		}
		return entries, nil
	}}
}

// damage is err, if w could not be read. Else it is about the content of a disk:
// that is said, and the directory is empty.
func (i *instant) damage(w *watchedView, what string, err error) error {
	if failed := w.failed.Load(); failed != nil {
		return *failed
	}
	if !errors.Is(err, partition.ErrNoTable) {
		i.m.log.Warnf("%s: %s: %v", i.name, what, err)
	}
	return nil
}

// watchedView notes that it could not be read.
type watchedView struct {
	sparse.View
	failed atomic.Pointer[error]
}

func (w *watchedView) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.View.ReadAt(p, off)
	if err != nil && err != io.EOF {
		w.failed.Store(&err)
	}
	return n, err
}

// volumes is the directory of volume groups on all disks together.
func (i *instant) volumes() *tree.Dir {
	return &tree.Dir{Time: i.time, List: func(ctx context.Context) ([]tree.Entry, error) {
		g, release, err := i.groups(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
		var named []tree.Named
		for _, vg := range g.groups {
			named = append(named, tree.Named{Name: vg.Name, ID: vg.ID})
		}
		var entries []tree.Entry
		for n, name := range tree.Names(named, "") {
			entries = append(entries, tree.Entry{Name: name, Dir: i.group(n)})
		}
		return entries, nil
	}}
}

// group is the directory of the n-th group's volumes: those that users see and
// that can be read.
func (i *instant) group(n int) *tree.Dir {
	return &tree.Dir{Time: i.time, List: func(ctx context.Context) ([]tree.Entry, error) {
		g, release, err := i.groups(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
		if n >= len(g.groups) {
			return nil, fmt.Errorf("%s: its volume groups are not what they were", i.name)
		}
		var named []tree.Named
		var files []*tree.File
		for _, lv := range g.groups[n].LVs {
			if !lv.Visible() || lv.Type() == "thin-pool" {
				continue
			}
			v, err := g.open(n, lv.Name)
			if err != nil {
				i.m.log.Warnf("%s: %v", i.name, err)
				continue
			}
			named = append(named, tree.Named{Name: lv.Name, ID: lv.ID})
			files = append(files, &tree.File{
				Time: i.time, Size: v.Size(), Stored: storedIn(v), Writable: i.m.opt.overlay.path == overlayTmp,
				Open: func(ctx context.Context) (*tree.Handle, error) { return i.volume(n, lv.Name)(ctx) },
			})
		}
		var entries []tree.Entry
		for k, name := range tree.Names(named, rawSuffix) {
			entries = append(entries, tree.Entry{Name: name, File: files[k]})
		}
		return entries, nil
	}}
}

// storedIn is what a volume takes: of a thin one what is mapped.
func storedIn(v *lvm.Volume) int64 {
	if t := v.Thin(); t != nil {
		chunk := t.Metadata().Superblock().DataBlockSize
		return int64(min(t.Device().MappedBlocks, uint64(v.Size()/chunk+1))) * chunk
	}
	return v.Size()
}

// volume is how a volume is opened. What is written to it is in an overlay of its
// own, over what its disks show.
func (i *instant) volume(n int, name string) func(context.Context) (*tree.Handle, error) {
	below := func(ctx context.Context) (*tree.Handle, error) { return i.openVolume(ctx, n, name) }
	if i.m.opt.overlay.path != overlayTmp {
		return below
	}
	key := fmt.Sprintf("%d/%s", n, name)
	d, _ := i.written.LoadOrStore(key, &scratchDisk{m: i.m, below: below, put: i.m.scratch})
	return d.(*scratchDisk).open
}

func (i *instant) openVolume(ctx context.Context, n int, name string) (*tree.Handle, error) {
	g, release, err := i.groups(ctx)
	if err != nil {
		return nil, err
	}
	if n >= len(g.groups) {
		release()
		return nil, fmt.Errorf("%s: its volume groups are not what they were", i.name)
	}
	v, err := g.open(n, name)
	if err != nil {
		release()
		return nil, err
	}
	return &tree.Handle{View: v, Release: release}, nil
}

// openGroups are the volume groups of an instant, and the disks they are on.
type openGroups struct {
	groups []*lvm.Group
	opt    lvm.OpenOptions
	disks  []*tree.Handle
}

func (g *openGroups) open(n int, name string) (*lvm.Volume, error) {
	v, err := g.groups[n].Open(name, g.opt)
	if err != nil {
		return nil, volumeError(err)
	}
	return v, nil
}

// Close closes the disks.
func (g *openGroups) Close() error {
	for _, h := range g.disks {
		h.Close()
	}
	return nil
}

func (i *instant) groups(ctx context.Context) (*openGroups, func(), error) {
	return i.m.groups.Get(ctx, i, i.openGroups)
}

func (i *instant) openGroups() (_ *openGroups, err error) {
	g := &openGroups{opt: lvm.OpenOptions{AllowNeedsCheck: i.m.opt.source.Force}}
	defer func() {
		if err != nil {
			_ = g.Close()
		}
	}()
	var disks []lvm.Disk
	var all []*watchedView
	for _, d := range i.disks {
		h, err := d.open(i.m.ctx)
		if err != nil {
			return nil, err
		}
		g.disks = append(g.disks, h)
		w := &watchedView{View: h.View}
		all = append(all, w)
		found, _, err := pvsOn(d.name, w, func(format string, args ...any) {
			i.m.log.Warnf("%s: %s", i.name, fmt.Sprintf(format, args...))
		})
		if err != nil {
			if err := i.damage(w, "lvm", err); err != nil {
				return nil, err
			}
		}
		disks = append(disks, found...)
	}
	if g.groups, err = lvm.Assemble(disks); err != nil {
		for _, w := range all {
			if failed := w.failed.Load(); failed != nil {
				return nil, *failed
			}
		}
		i.m.log.Warnf("%s: lvm: %v", i.name, err)
		g.groups, err = nil, nil
	}
	for _, vg := range g.groups {
		for _, w := range vg.Warnings {
			i.m.log.Warnf("%s: %s: %s", i.name, vg.Name, w)
		}
	}
	return g, nil
}
