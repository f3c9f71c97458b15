package lvm

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"cbt/lvm/cow"
	"cbt/lvm/thin"
	"cbt/sparse"
)

// Layer selects one content of a volume that has several.
type Layer string

const (
	// LayerVolume is what users see of a volume, or the volume itself if it is a part of others.
	LayerVolume Layer = ""
	// LayerStore is the exception store of a thick snapshot. It has the snapshot's name.
	LayerStore Layer = "cow"
)

// OpenOptions set how volumes are read. All volumes of one Group must be opened with the same
// options, because what was opened once is used again.
type OpenOptions struct {
	// Device, if not nil, is called for each volume that is needed, before its parts are looked at.
	// If it returns a reader and its size in bytes, they replace the parts; a nil reader changes
	// nothing. This is for volumes in use, which are read through their devices. The extents of
	// thin volumes and thick snapshots still come from their metadata.
	Device func(lv *LV, layer Layer) (io.ReaderAt, int64, error)
	// Held reads thin pools through the metadata snapshot that they hold.
	Held bool
	// AllowNeedsCheck reads thin pools whose metadata has needs_check set.
	AllowNeedsCheck bool
}

// maxNesting limits how deeply volumes may be nested.
const maxNesting = 32

// opener keeps the parts of a group that have been opened.
type opener struct {
	mu      sync.Mutex
	volumes map[string]*Volume
	raws    map[string]sparse.View
	pools   map[string]*thin.Metadata
}

// Volume is the content of a logical volume. It implements sparse.View and is
// safe for concurrent use.
type Volume struct {
	lv     *LV
	opt    OpenOptions
	view   sparse.View
	device io.ReaderAt // if not nil, it is read instead of view
	thin   *thin.View
	cow    *cow.View
	pool   *thin.Metadata
}

// Open opens the volume of that name, as users see it. Volumes that are parts of others can be
// opened too. Opening a volume twice returns the same *Volume. The error is a *MissingError, a
// *RefusedError, a *sparse.FormatError, or an error of reading. It names each volume on the way to
// the fault.
func (g *Group) Open(name string, opt OpenOptions) (*Volume, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := resolver{g: g, opt: opt}
	return r.volume(name)
}

// resolver opens one volume and everything that it is made of; g.mu is held.
type resolver struct {
	g    *Group
	opt  OpenOptions
	path []string // the volumes being opened, from the outermost inwards
}

// enter records that a volume is being opened, and refuses one that contains itself.
func (r *resolver) enter(lv *LV, what string) error {
	if slices.Contains(r.path, what) {
		return lv.formatError(nil, "it is made of itself: "+strings.Join(append(r.path, what), " -> "))
	}
	if len(r.path) == maxNesting {
		return lv.formatError(nil, fmt.Sprintf("volumes nested more than %d deep", maxNesting))
	}
	r.path = append(r.path, what)
	return nil
}

func (r *resolver) leave() { r.path = r.path[:len(r.path)-1] }

// volume opens a volume as users see it.
func (r *resolver) volume(name string) (*Volume, error) {
	lv := r.g.lvs[name]
	if lv == nil {
		return nil, fmt.Errorf("volume group %s has no logical volume %q", r.g.Name, name)
	}
	// The volume with the snapshot segment has a name of LVM's own.
	if s := lv.Segments; len(s) == 1 && s[0].Type == "snapshot" && lv.Fault == nil {
		lv = r.g.lvs[s[0].Store]
	}
	if v := r.g.volumes[lv.Name]; v != nil {
		return v, nil
	}
	if err := r.enter(lv, lv.Name); err != nil {
		return nil, err
	}
	defer r.leave()
	v := &Volume{lv: lv, opt: r.opt}
	var err error
	if v.device, err = r.device(lv, LayerVolume, lv.VolumeSize()); err != nil {
		return nil, err
	}
	if err := lv.mergeFault(); err != nil && v.device == nil {
		return nil, err
	}
	switch {
	case lv.Fault != nil:
		err = fmt.Errorf("%s: %w", lv.FullName(), lv.Fault)
	case lv.Snapshot != nil:
		err = r.snapshot(v)
	case lv.thin() != nil:
		err = r.thin(v)
	case v.device != nil:
		v.view = sparse.Plain(v.device, lv.Size)
	default:
		v.view, err = r.raw(lv)
	}
	if err != nil {
		return nil, err
	}
	if r.g.volumes == nil {
		r.g.volumes = map[string]*Volume{}
	}
	r.g.volumes[lv.Name] = v
	return v, nil
}

// mergeFault returns an error if a snapshot is to be merged back, or is being merged. The volume's
// content then depends on how far the merge has got.
func (lv *LV) mergeFault() error {
	switch s := lv.thin(); {
	case lv.merging != "":
		return lv.refuse("the snapshot " + lv.merging + " is being merged into it")
	case lv.Snapshot != nil && lv.Snapshot.Merging:
		return lv.refuse("it is being merged into " + lv.Snapshot.Origin)
	case s != nil && s.Merge != "":
		return lv.refuse("it is being merged into " + s.Merge)
	}
	return nil
}

// device asks the caller for a device, which must have at least size bytes. It returns nil if there
// is none.
func (r *resolver) device(lv *LV, layer Layer, size int64) (io.ReaderAt, error) {
	if r.opt.Device == nil {
		return nil, nil
	}
	d, n, err := r.opt.Device(lv, layer)
	if err != nil || d == nil {
		return nil, err
	}
	if n < size {
		return nil, fmt.Errorf("%s: its device has %d bytes, not the %d of the group's text", lv.FullName(), n, size)
	}
	return d, nil
}

// component returns the content of a volume that another volume is made of.
func (r *resolver) component(by *LV, name string) (sparse.View, error) {
	lv := r.g.lvs[name]
	if lv == nil {
		return nil, by.formatError(name, "names a volume that is not there")
	}
	d, err := r.device(lv, LayerVolume, lv.Size)
	if err != nil {
		return nil, err
	}
	if d != nil {
		return sparse.Plain(d, lv.Size), nil
	}
	return r.raw(lv)
}

// raw returns what the segments of a volume describe; for a thick snapshot that is its store.
func (r *resolver) raw(lv *LV) (sparse.View, error) {
	if v := r.g.raws[lv.Name]; v != nil {
		return v, nil
	}
	if lv.Fault != nil {
		return nil, fmt.Errorf("%s: %w", lv.FullName(), lv.Fault)
	}
	if err := r.enter(lv, lv.Name+"'s extents"); err != nil {
		return nil, err
	}
	defer r.leave()
	var views []sparse.View
	for i := range lv.Segments {
		v, err := r.segment(lv, &lv.Segments[i])
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	v := join(views)
	if r.g.raws == nil {
		r.g.raws = map[string]sparse.View{}
	}
	r.g.raws[lv.Name] = v
	return v, nil
}

func (r *resolver) segment(lv *LV, s *Segment) (sparse.View, error) {
	size := s.Count * r.g.ExtentSize
	switch {
	case s.Refused != "":
		return nil, lv.refuse(s.Refused)
	case s.Type == "zero":
		return sparse.Zeros(size), nil
	case s.Type == "error":
		return faulty(size), nil
	case s.Type == "striped":
		return r.stripes(lv, s)
	case s.Type == "mirror":
		// The first leg is always current: regions that are not yet in sync are served from it, and
		// in a pvmove it is the source.
		return r.area(lv, s.Areas[0], s.Count)
	case s.Type == "thin-pool":
		return nil, lv.refuse("it is a thin pool, not a volume")
	case s.Type == "thin":
		v, err := r.volume(lv.Name)
		if err != nil {
			return nil, err
		}
		return v, nil
	case s.Type == "snapshot":
		return nil, lv.refuse("it is the snapshot segment of " + s.Store)
	}
	return r.raid(lv, s)
}

// stripes returns the content of a linear or striped segment.
func (r *resolver) stripes(lv *LV, s *Segment) (sparse.View, error) {
	n := int64(len(s.Areas))
	if n == 1 {
		return r.area(lv, s.Areas[0], s.Count)
	}
	lay := layout{legs: n, copies: 1, image: inOrder}
	each := s.Count / n * r.g.ExtentSize
	if each%s.StripeSize != 0 {
		return nil, lv.formatError(s.StripeSize, fmt.Sprintf("the stripe size does not divide the %d bytes of a stripe", each))
	}
	legs := make([]sparse.View, n)
	for i, a := range s.Areas {
		var err error
		if legs[i], err = r.area(lv, a, s.Count/n); err != nil {
			return nil, err
		}
	}
	return &striped{layout: lay, unit: s.StripeSize, size: each * n, legs: legs}, nil
}

// area returns count extents of a PV or of another volume.
func (r *resolver) area(lv *LV, a ExtentArea, count int64) (sparse.View, error) {
	size := r.g.ExtentSize
	if m := r.g.pvs[a.Name]; m != nil {
		if m.Missing != "" {
			return nil, &MissingError{lv.FullName(), m.String(), m.Missing}
		}
		v, err := m.dataAt(a.Extent, count, size)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", lv.FullName(), err)
		}
		return v, nil
	}
	v, err := r.component(lv, a.Name)
	if err != nil {
		return nil, err
	}
	return section(v, a.Extent*size, count*size), nil
}
