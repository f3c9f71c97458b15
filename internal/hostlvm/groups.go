package hostlvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"cbt/internal/dm"
	"cbt/lvm"
	"cbt/lvm/thin"
	"cbt/sparse"
)

// Groups reads the volume groups of this host from their disks, which h keeps
// open. A disk that keeps them from being put together (lvm.DiskError) is left
// out: notes says so, and whatever Disks notes.
func (h *Host) Groups(ctx context.Context) (groups []*lvm.Group, notes []string, err error) {
	found, notes, err := h.Disks(ctx)
	if err != nil {
		return nil, nil, err
	}
	h.mu.Lock()
	h.disks = append(h.disks, found...)
	h.mu.Unlock()
	disks := make([]lvm.Disk, 0, len(found))
	for _, d := range found {
		if err := h.opened(d.Name(), d.Number(), d.Size()); err != nil {
			return nil, nil, err
		}
		disks = append(disks, lvm.Disk{Name: d.Name(), R: d, Size: d.Size()})
	}
	for {
		groups, err = lvm.Assemble(disks)
		var bad *lvm.DiskError
		if !errors.As(err, &bad) {
			return groups, notes, err
		}
		i := slices.IndexFunc(disks, func(d lvm.Disk) bool { return d.Name == bad.Name })
		if i < 0 {
			return nil, notes, err
		}
		notes = append(notes, fmt.Sprintf("left out: %v", err))
		disks = slices.Delete(disks, i, i+1)
	}
}

// Device finds the device of a volume in use: it is what lvm.OpenOptions asks
// for. A volume that has none gives a nil reader.
func (h *Host) Device(lv *lvm.LV, layer lvm.Layer) (io.ReaderAt, int64, error) {
	vg := lv.Group().ID
	want := dm.LayerNone
	if layer == lvm.LayerStore {
		want = dm.LayerCOW
	}
	d, err := h.Volume(vg, lv.ID, want)
	if errors.Is(err, ErrInactive) && layer == lvm.LayerVolume && !lv.Visible() {
		d, err = h.part(vg, lv.ID)
	}
	switch {
	case errors.Is(err, ErrInactive):
		return nil, 0, nil
	case err != nil:
		return nil, 0, fmt.Errorf("%s: %w", lv.FullName(), err)
	}
	return d, d.Size(), nil
}

// part opens the device of a volume that others are made of: its UUID ends in
// what it is to them (tmeta, tdata, rimage, mlog, ...).
func (h *Host) part(vg, lv string) (*Direct, error) {
	layers, err := h.layers(vg, lv)
	if err != nil {
		return nil, err
	}
	for _, d := range layers {
		switch _, _, layer, _ := dm.SplitLVMUUID(d.UUID); layer {
		case dm.LayerPool, dm.LayerCOW, dm.LayerReal, "pool":
		default:
			if d.Live {
				return h.open(d)
			}
		}
	}
	return nil, ErrInactive
}

// RefOf says which pool a volume is, or, if it is a thin one, lies in.
func RefOf(lv *lvm.LV) (PoolRef, error) {
	pool, g := lv, lv.Group()
	if name := lv.Pool(); name != "" {
		pool = g.LV(name)
	}
	if pool == nil || len(pool.Segments) != 1 || pool.Segments[0].Type != "thin-pool" {
		return PoolRef{}, fmt.Errorf("%s: %w", lv.FullName(), lvm.ErrNoPool)
	}
	s := &pool.Segments[0]
	ref := PoolRef{
		Name: pool.FullName(), VG: g.ID, Pool: pool.ID,
		TransactionID: uint64(s.TransactionID), Messages: s.Messages > 0, ChunkSize: s.ChunkSize,
	}
	for name, id := range map[string]*string{s.Metadata: &ref.Metadata, s.Data: &ref.Data} {
		part := g.LV(name)
		if part == nil {
			return PoolRef{}, fmt.Errorf("%s: names a volume %q that is not there", ref.Name, name)
		}
		*id = part.ID
	}
	return ref, nil
}

var errMetadata = fmt.Errorf("the thin pool's metadata %w", sparse.ErrChanged)

// Verify takes a further metadata snapshot, waiting as Snapshot does, and
// returns an error that is sparse.ErrChanged unless the devices are what they
// were when their fingerprints were taken: nobody removed them or wrote to
// blocks of theirs that they share. It is for the time after the data was
// copied, and cares for no transaction: others may have made and removed
// snapshots meanwhile.
func (p *Pool) Verify(ctx context.Context, wait time.Duration, was ...thin.Fingerprint) error {
	return p.snapshot(ctx, wait, func(ctx context.Context, held uint64, _ dm.PoolStatus) error {
		r, err := p.Metadata()
		if err != nil {
			return err
		}
		m, err := thin.Open(r, r.Size(), thin.Options{Held: true})
		if err != nil {
			return err
		}
		if got := m.Superblock().Block; got != held {
			return fmt.Errorf("the metadata name a snapshot at block %d, the kernel one at %d: %w", got, held, errMetadata)
		}
		for _, f := range was {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			d, err := m.Device(f.ID)
			if errors.Is(err, thin.ErrNoDevice) {
				return fmt.Errorf("thin device %d was removed while it was read: %w", f.ID, errMetadata)
			} else if err != nil {
				return err
			}
			is, err := m.Fingerprint(d)
			if err != nil {
				return err
			}
			if is != f {
				return fmt.Errorf("thin device %d was written to while it was read: it was %v, it is %v: %w", f.ID, f, is, errMetadata)
			}
		}
		return nil
	})
}
