package cli

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cbt/internal/store"
	"cbt/lvm"
)

// kept is a frozen state that the source of a backup has: NEW itself, or what
// NEW can be compared with.
type kept struct {
	point   string
	ref     string // as the user would name it
	name    string // of the snapshot
	id      string // of the snapshot
	img     *image // that holds it; nil: it is a volume
	alone   bool   // no other snapshot of the image has its name
	instant time.Time
	ram     bool     // it was saved with RAM
	mayRAM  bool     // it was taken of a machine that had run: its RAM may lie elsewhere
	remove  []string // the words of the command that deletes it; nil: there is none to give
	below   bool     // it is a backing file, which others may stand on too
	spare   bool     // it is a snapshot, which somebody might want to delete
	open    func() (*source, error)
}

// look finds what the source has of each disk.
func (b *backupRun) look(ctx context.Context) error {
	for i, d := range b.disks {
		wanted := func(point string) bool { return b.store.Leading(d.stream(), point) != nil }
		var err error
		switch {
		case d.img.vol != nil:
			b.kept[i], err = b.opener.keptVolumes(ctx, d.img, func(point string) bool {
				return wanted(point) || b.store.Begins(d.stream(), point)
			})
		case d.img.Img != nil:
			b.kept[i] = b.opener.keptSnapshots(d.img)
		}
		if err != nil {
			return err
		}
		b.own[i] = map[string]bool{store.WithoutTimes(d.img.Point): d.img.Point != "", store.WithoutTimes(d.img.perhaps): d.img.perhaps != ""}
		for _, k := range b.kept[i] {
			if !k.below && k.point != "" {
				b.own[i][store.WithoutTimes(k.point)] = true
			}
		}
		b.lost[i] = slices.DeleteFunc(slices.Clone(b.kept[i]), func(k kept) bool {
			return !k.spare || k.point == "" || wanted(k.point) || b.store.MayHave(d.stream(), k.point)
		})
		b.kept[i] = slices.DeleteFunc(b.kept[i], func(k kept) bool {
			return k.point == "" || k.point != d.img.Point && !wanted(k.point)
		})
	}
	return nil
}

// keptSnapshots are the internal snapshots of an image and the files of its
// backing chain.
func (o *opener) keptSnapshots(s *source) []kept {
	var list []kept
	table := s.Img.Snapshots()
	names := map[string]int{}
	for _, snap := range table {
		names[qemuName(snap.Name)]++
	}
	for i := range table {
		snap := &table[i]
		k := kept{
			point: snapshotPoint(s.img, snap), ref: s.Path + "@" + snap.Name, name: snap.Name, id: snap.ID, img: s.img,
			instant: snap.Date, ram: snap.VMStateSize > 0, mayRAM: mayHaveStateElsewhere(snap), spare: true, alone: names[snap.Name] == 1,
		}
		if snap.Name != "" && qemuName(snap.Name) == snap.Name && k.alone && s.img.file.vol == nil { // qemu-img goes by the name
			k.remove = []string{"qemu-img", "snapshot", "-d", snap.Name, qemuPath(s.Path)}
		}
		k.open = func() (*source, error) {
			old := &source{Ref: k.ref, Path: s.Path, Format: s.Format, Img: s.Img, img: s.img}
			return old, refError(k.ref, old.setSnapshot(i))
		}
		list = append(list, k)
	}
	for img := s.img.backing; img != nil; img = img.backing {
		old := &source{Ref: img.file.Path, Path: img.file.Path, Format: img.format, Img: img.qcow, img: img}
		k := kept{ref: old.Ref, instant: img.file.Info.LastChange(), below: true, open: func() (*source, error) { return old, nil }}
		if img.format == formatRaw {
			if o.openRaw(old) != nil {
				continue
			}
		} else {
			o.openActive(old)
			old.Point = activePoint(img)
		}
		k.point = old.Point
		list = append(list, k)
	}
	return list
}

// qemuName is what qemu-img takes for the name of a snapshot: up to a zero byte,
// and 255 bytes at most.
func qemuName(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	return name[:min(len(name), 255)]
}

// qemuPath keeps qemu-img from taking a path for an option or a protocol.
func qemuPath(path string) string {
	first, _, _ := strings.Cut(path, "/")
	if strings.HasPrefix(path, "-") || strings.Contains(first, ":") {
		return "." + string(filepath.Separator) + path
	}
	return path
}

// keptVolumes are the snapshots of the same origin as a volume, that itself,
// and its own snapshots, as far as they are at points that are wanted.
func (o *opener) keptVolumes(ctx context.Context, s *source, wanted func(string) bool) ([]kept, error) {
	lv := s.vol.LV()
	var list []kept
	for _, other := range lv.Group().LVs {
		if other.Name == lv.Name {
			list = append(list, kept{
				ref: lvmPrefix + other.FullName(), name: other.Name, id: other.ID, spare: isSnapshot(other),
				point: s.Point, instant: s.Instant, open: func() (*source, error) { return s, nil },
			})
			continue
		}
		if !relatedVolumes(lv, other) {
			continue
		}
		k, err := o.keptVolume(ctx, s, other, wanted)
		if err != nil {
			return nil, err
		}
		if k == nil {
			continue
		}
		if k.spare = isSnapshot(other); len(o.PVs) == 0 && k.spare {
			k.remove = []string{"lvremove", other.FullName()}
		}
		list = append(list, *k)
	}
	return list, nil
}

// keptVolume is a volume that another one may be compared with; nil if it is at
// no point that is wanted. What cannot be read (in use, incomplete, ...) is no
// base; the error is for a run that was ended.
func (o *opener) keptVolume(ctx context.Context, s *source, other *lvm.LV, wanted func(string) bool) (*kept, error) {
	ref := lvmPrefix + other.FullName()
	old, err := o.open(ctx, ref, refOptions{Format: formatRaw})
	if err == nil {
		old.Point, err = old.vol.pointIf(ctx, o.Frozen, s, wanted)
	}
	switch {
	case ctx.Err() != nil:
		return nil, err
	case err != nil || old.Point == "":
		return nil, nil
	}
	return &kept{
		ref: ref, name: other.Name, id: other.ID, point: old.Point, instant: old.Instant,
		open: func() (*source, error) { return old, nil },
	}, nil
}

// lookFurther looks, where a disk has no state that the directory has, among all
// volumes of its thin pool: a rollback (lvremove and lvcreate -s, lvconvert
// --merge) leaves older snapshots without anything that tells what they are of,
// and they compare by metadata as before. Those count that a delta of the same
// machine leads to.
func (b *backupRun) lookFurther(ctx context.Context) error {
	for i, d := range b.disks {
		v := d.img.vol
		if b.opt.full || v == nil || v.Thin() == nil || b.newestKept(i) != nil {
			continue
		}
		mine := func(l *store.Entry) bool { return b.of[b.store.Machines.Of[b.store.Place[l]]] }
		wanted := func(point string) bool {
			l := b.store.Leading(d.stream(), point)
			return l != nil && mine(l)
		}
		if !slices.ContainsFunc(b.store.Entries, func(l *store.Entry) bool { return mine(l) && strings.HasPrefix(l.To(d.stream()), formatVolume+":") }) {
			continue // the directory has no point of a volume of this machine
		}
		lv := v.LV()
		for _, other := range lv.Group().LVs {
			if other.Name == lv.Name || other.Pool() != lv.Pool() || relatedVolumes(lv, other) {
				continue
			}
			k, err := b.opener.keptVolume(ctx, d.img, other, wanted)
			if err != nil {
				return err
			}
			if k != nil {
				b.kept[i] = append(b.kept[i], *k)
			}
		}
	}
	return nil
}

func isSnapshot(lv *lvm.LV) bool { return lv.Snapshot != nil || lv.Origin() != "" }

// relatedVolumes says whether two volumes were one once, as far as names tell.
func relatedVolumes(a, b *lvm.LV) bool {
	origin := func(lv *lvm.LV) string {
		if lv.Snapshot != nil {
			return lv.Snapshot.Origin
		}
		return lv.Origin()
	}
	if a.Pool() != b.Pool() && a.Snapshot == nil && b.Snapshot == nil {
		return false
	}
	x, y := origin(a), origin(b)
	return x != "" && (x == y || x == b.Name) || y != "" && y == a.Name
}
