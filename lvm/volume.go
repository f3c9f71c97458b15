package lvm

import (
	"context"
	"fmt"
	"reflect"

	"cbt/lvm/cow"
	"cbt/lvm/thin"
	"cbt/sparse"
)

var _ sparse.View = (*Volume)(nil)

// LV returns the volume's description in the text of its group.
func (v *Volume) LV() *LV { return v.lv }

// Thin returns the volume's thin device, or nil if it is not a thin volume.
func (v *Volume) Thin() *thin.View { return v.thin }

// Pool returns the metadata of the volume's thin pool, or nil if it is not a thin volume.
func (v *Volume) Pool() *thin.Metadata { return v.pool }

// COW returns the volume's thick snapshot, or nil if it is not one. Its Origin is a *Volume.
func (v *Volume) COW() *cow.View { return v.cow }

// Size returns the size in bytes.
func (v *Volume) Size() int64 { return v.view.Size() }

// ReadAt implements io.ReaderAt.
func (v *Volume) ReadAt(p []byte, off int64) (int, error) {
	if v.device == nil {
		return v.view.ReadAt(p, off)
	}
	p, eof := sparse.ClipRead(p, off, v.Size())
	if len(p) == 0 {
		return 0, eof
	}
	n, err := sparse.ReadFull(v.device, p, off)
	if err == nil {
		err = eof
	}
	return n, err
}

// Extents implements sparse.View. Holes are what a thin pool does not map, what a segment of type
// zero covers, and what is a hole in the disks.
func (v *Volume) Extents(off, n int64) sparse.Seq { return v.view.Extents(off, n) }

// Method names the metadata that show what changed between two volumes.
type Method string

const (
	MethodThin Method = "thin metadata"   // the trees of the thin pool that holds both
	MethodCOW  Method = "exception table" // those of thick snapshots
)

// MethodOf returns the metadata that Changed uses for these two volumes. It is empty if they have
// no metadata in common; Changed then fails with sparse.ErrUnrelated.
func MethodOf(old, new *Volume) Method {
	switch {
	case cowRelated(old, new):
		return MethodCOW
	case old.thin != nil && new.thin != nil && old.pool == new.pool:
		return MethodThin
	}
	return ""
}

var errUnrelated = fmt.Errorf("%w: neither two volumes of one thin pool, nor a thick snapshot and its origin, nor two snapshots of one origin", sparse.ErrUnrelated)

// Changed returns the extents of new in [off, off+n) that may differ from old, from metadata alone
// and with the kinds of new. It may name too much. It never names too little, as long as nobody
// writes to volumes that must be frozen. Outside the extents named, old and new read the same, and
// an image reads as zeros past its end. The range may reach as far as the end of the larger of the
// two; what lies past new's end is not named. For volumes that have no metadata in common
// (MethodOf) the error is sparse.ErrUnrelated.
func Changed(old, new *Volume, off, n int64) sparse.Seq {
	switch MethodOf(old, new) {
	case MethodCOW:
		return cow.Changed(old.cowSide(), new.cowSide(), off, n)
	case MethodThin:
		return thin.Changed(old.thin, new.thin, off, n)
	}
	return sparse.Fail(fmt.Errorf("%s and %s: %w", old.lv.FullName(), new.lv.FullName(), errUnrelated))
}

// cowRelated reports whether one is a thick snapshot of the other, or both are snapshots of one
// origin.
func cowRelated(a, b *Volume) bool {
	switch {
	case a.cow != nil && b.cow != nil && a.cow.Origin() == b.cow.Origin():
		return true
	case a.cow != nil && a.cow.Origin() == sparse.View(b):
		return true
	}
	return b.cow != nil && b.cow.Origin() == sparse.View(a)
}

// cowSide returns the volume as package cow knows it.
func (v *Volume) cowSide() sparse.View {
	if v.cow != nil {
		return v.cow
	}
	return v
}

var errChanged = fmt.Errorf("the volume group %w", sparse.ErrChanged)

// Recheck reads again the metadata that tell where the volume's content lies. These are the texts
// of the group on all disks, the superblocks of the thin pools, and the exception tables that the
// volume depends on. It returns an error that is sparse.ErrChanged if they are no longer as they
// were when the volume was opened. Changes to the group that do not concern the volume do not
// count. Recheck cannot tell whether the content itself was written to.
func (v *Volume) Recheck(ctx context.Context) error {
	g := v.lv.group
	g.mu.Lock()
	defer g.mu.Unlock()
	parts := g.closure(v.lv)
	if err := g.recheck(ctx, parts); err != nil {
		return err
	}
	for _, lv := range parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if m := g.pools[lv.Name]; m != nil {
			if err := m.Recheck(); err != nil {
				return fmt.Errorf("%s: %w", lv.FullName(), err)
			}
		}
		if o := g.volumes[lv.Name]; o != nil && o.cow != nil {
			check := o.cow.Recheck
			if v.device != nil || o.device != nil {
				check = o.cow.Store().Recheck
			}
			if err := check(); err != nil {
				return fmt.Errorf("%s: %w", lv.FullName(), err)
			}
		}
	}
	return nil
}

// recheck compares what the text said about some volumes with what it says now.
func (g *Group) recheck(ctx context.Context, parts []*LV) error {
	same := true
	var disks []Disk
	for _, d := range g.disks {
		if err := ctx.Err(); err != nil {
			return err
		}
		pv, err := ReadPV(d.R, d.Size)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errChanged, d.Name, err)
		}
		same = same && pv.same(d.PV)
		d.PV = pv
		disks = append(disks, d)
	}
	if same {
		return nil
	}
	groups, err := Assemble(disks)
	if err != nil {
		return fmt.Errorf("%w: %w", errChanged, err)
	}
	for _, now := range groups {
		if now.ID != g.ID {
			continue
		}
		for _, lv := range parts {
			if !sameLV(lv, now.lvs[lv.Name]) {
				return fmt.Errorf("%w: %s", errChanged, lv.FullName())
			}
		}
		if now.ExtentSize != g.ExtentSize || !samePlaces(g, now) {
			return fmt.Errorf("%w: physical volumes of %s", errChanged, g.Name)
		}
		return nil
	}
	return fmt.Errorf("%w: %s is gone", errChanged, g.Name)
}

// sameLV compares everything that a volume's content depends on. A pool's transaction is left to
// the pool's own metadata.
func sameLV(a, b *LV) bool {
	if b == nil || a.ID != b.ID || a.Size != b.Size || a.SnapshotSize != b.SnapshotSize || a.merging != b.merging || len(a.Segments) != len(b.Segments) {
		return false
	}
	for i := range a.Segments {
		x, y := a.Segments[i], b.Segments[i]
		x.pos, y.pos = Pos{}, Pos{}
		if x.Type == "thin-pool" {
			x.TransactionID, x.Messages = y.TransactionID, y.Messages
		}
		// The name of the origin vanishes with the origin.
		if x.Type == "thin" {
			x.Origin = y.Origin
		}
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return (a.Snapshot == nil) == (b.Snapshot == nil)
}

// samePlaces reports whether b has the members of a in the same places.
func samePlaces(a, b *Group) bool {
	for _, m := range a.PVs {
		n := b.pvs[m.Name]
		if n == nil || n.ID != m.ID || n.Start != m.Start || m.Missing == "" && n.Missing != "" {
			return false
		}
	}
	return true
}

// closure returns lv and all volumes that it depends on.
func (g *Group) closure(lv *LV) []*LV {
	var all []*LV
	seen := map[*LV]bool{nil: true}
	var add func(lv *LV)
	add = func(lv *LV) {
		if seen[lv] {
			return
		}
		seen[lv] = true
		all = append(all, lv)
		if lv.Snapshot != nil {
			add(g.lvs[lv.Snapshot.Origin])
		}
		for _, s := range lv.Segments {
			for _, a := range s.Areas {
				if g.pvs[a.Name] == nil {
					add(g.lvs[a.Name])
				}
			}
			for _, names := range [][]string{s.Images, s.Metas, {s.Data, s.Metadata, s.ThinPool, s.ExternalOrigin, s.Store}} {
				for _, name := range names {
					add(g.lvs[name])
				}
			}
		}
	}
	add(lv)
	return all
}
