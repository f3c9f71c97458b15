package cli

import (
	"context"
	"sync"
	"sync/atomic"

	"cbt/internal/fail"
	"cbt/internal/overlay"
	"cbt/internal/partition"
	"cbt/internal/text"
	"cbt/internal/tree"
	"cbt/sparse"
)

// scratchDisk is a disk or volume that may be written to: from the first write
// on, what is written is in an overlay, which stays until the mount ends. Until
// then it is what it is over.
type scratchDisk struct {
	m     *mounting
	below func(ctx context.Context) (*tree.Handle, error)
	put   func(view sparse.View) (*overlay.Image, error)

	mu   sync.Mutex
	over atomic.Pointer[overlay.Image]
}

// writable makes what below opens one that may be written to, if that is asked
// for.
func (m *mounting) writable(below func(ctx context.Context) (*tree.Handle, error)) func(ctx context.Context) (*tree.Handle, error) {
	if m.opt.overlay.path == "" {
		return below
	}
	d := &scratchDisk{m: m, below: below, put: m.scratch}
	return d.open
}

// scratch makes an overlay that is gone when the mount ends.
func (m *mounting) scratch(view sparse.View) (*overlay.Image, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[0].overlay(nil, view, overlayTmp)
}

func (d *scratchDisk) open(ctx context.Context) (*tree.Handle, error) {
	h, err := d.below(ctx)
	if err != nil {
		return nil, err
	}
	v := &scratchView{h.View, d}
	return &tree.Handle{View: v, Writer: v, Release: h.Release}, nil
}

// image is the overlay, made when it is needed. What it is over stays open.
func (d *scratchDisk) image() (*overlay.Image, error) {
	if img := d.over.Load(); img != nil {
		return img, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if img := d.over.Load(); img != nil {
		return img, nil
	}
	h, err := d.below(d.m.ctx)
	if err != nil {
		return nil, err
	}
	img, err := d.put(h.View)
	if err != nil {
		h.Close()
		return nil, err
	}
	d.over.Store(img)
	return img, nil
}

// scratchView is an open scratchDisk.
type scratchView struct {
	below sparse.View
	disk  *scratchDisk
}

func (v *scratchView) now() sparse.View {
	if img := v.disk.over.Load(); img != nil {
		return img
	}
	return v.below
}

func (v *scratchView) Size() int64                             { return v.below.Size() }
func (v *scratchView) ReadAt(p []byte, off int64) (int, error) { return v.now().ReadAt(p, off) }
func (v *scratchView) Extents(off, n int64) sparse.Seq         { return v.now().Extents(off, n) }

func (v *scratchView) WriteAt(p []byte, off int64) (int, error) {
	img, err := v.disk.image()
	if err != nil {
		return 0, err
	}
	return img.WriteAt(p, off)
}

func (v *scratchView) Zero(off, n int64) error {
	img, err := v.disk.image()
	if err != nil {
		return err
	}
	return img.Zero(off, n)
}

// Sync has nothing to do for what is gone when the mount ends.
func (v *scratchView) Sync() error {
	if v.disk.m.opt.overlay.path == overlayTmp {
		return nil
	}
	if img := v.disk.over.Load(); img != nil {
		return img.Sync()
	}
	return nil
}

// partWriter writes to a partition's disk.
type partWriter struct {
	tree.Writer
	part partition.Partition
}

func (w *partWriter) WriteAt(p []byte, off int64) (int, error) {
	if err := sparse.CheckRange(off, int64(len(p)), w.part.Size); err != nil {
		return 0, err
	}
	return w.Writer.WriteAt(p, w.part.Off+off)
}

func (w *partWriter) Zero(off, n int64) error {
	if err := sparse.CheckRange(off, n, w.part.Size); err != nil {
		return err
	}
	return w.Writer.Zero(w.part.Off+off, n)
}

// overlayFile puts --overlay FILE over the only disk that there is.
func (m *mounting) overlayFile() error {
	path := m.opt.overlay.path
	if path == "" || path == overlayTmp {
		return nil
	}
	if len(m.shown) != 1 || len(m.shown[0].disks) != 1 {
		return fail.Usage("--overlay %s: is for one disk in one state, such as REF@SNAPSHOT (--overlay tmp is for all there are)", text.Quote(path))
	}
	d := &m.shown[0].disks[0]
	if d.source == nil {
		return fail.Usage("--overlay %s: is not for a disk that %s is one of", text.Quote(path), m.shown[0].name)
	}
	s := &scratchDisk{m: m, below: d.below, put: func(view sparse.View) (*overlay.Image, error) {
		o, src, err := d.source()
		if err != nil {
			return nil, err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.overlays = o
		return o.overlay(src, view, path)
	}}
	d.open = s.open
	_, err := s.image() // so that a wrong one shows now
	return err
}

// sync makes what was written to --overlay FILE durable.
func (m *mounting) sync() error {
	if m.overlays == nil {
		return nil
	}
	written, err := m.overlays.syncOverlays()
	if err == nil {
		m.a.Notef("%s in %s", text.Size(written), text.Printable(m.opt.overlay.path))
	}
	return err
}
