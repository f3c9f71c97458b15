package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cbt/internal/hostlvm"
	"cbt/internal/imagelock"
	"cbt/internal/partition"
	"cbt/internal/text"
	"cbt/lvm"
	"cbt/sparse"
)

// pvPrefix begins the flags that say what --pv names.
const pvPrefix = "pv-"

// physical is what --pv names: the groups on it, and the sources that they
// are read from.
type physical struct {
	groups  []*lvm.Group
	sources []*source
}

// physical opens all that --pv names, once.
func (o *opener) physical(ctx context.Context) (*physical, error) {
	if o.pvs != nil {
		return o.pvs, nil
	}
	p := &physical{}
	var disks []lvm.Disk
	for _, ref := range o.PVs {
		src, err := o.openImage(ctx, ref, refOptions{prefix: pvPrefix})
		if err != nil {
			return nil, fmt.Errorf("--pv: %w", err)
		}
		if slices.ContainsFunc(p.sources, func(s *source) bool { return s.View == src.View }) {
			continue // named twice
		}
		if err := o.warnInUse("--pv", src); err != nil {
			return nil, err
		}
		view, err := o.direct(src)
		if err != nil {
			return nil, fmt.Errorf("--pv %s: %w", ref, err)
		}
		found, err := o.disksOf(src, view)
		if err != nil {
			return nil, fmt.Errorf("--pv %w", err)
		}
		p.sources = append(p.sources, src)
		disks = append(disks, found...)
	}
	groups, err := lvm.Assemble(disks)
	if err != nil {
		return nil, err
	}
	p.groups = groups
	for _, d := range disks {
		for _, w := range d.PV.Warnings {
			o.Warnf("%s: %s", d.Name, w)
		}
	}
	for _, g := range groups {
		for _, w := range g.Warnings {
			o.Warnf("%s: %s", g.Name, w)
		}
	}
	o.pvs = p
	return p, nil
}

// warnInUse warns of a physical volume, or a part of a thin pool, that this
// host's kernel may write to, where info looks at it: it is not frozen then. All
// others are refused such a one when they open it.
func (o *opener) warnInUse(flag string, src *source) error {
	if src.img == nil || !o.metadataOnly || o.Frozen {
		return nil
	}
	by, _, err := imagelock.Written(src.img.file.File)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", flag, src.Ref, err)
	}
	if by != "" {
		o.Warnf("%s %s: is in use: %s: what is read may be old", flag, src.Ref, text.Printable(by))
		o.inUse = true
	}
	return nil
}

// direct is how a source is read that device-mapper may have written to below
// the page cache: a device without it.
func (o *opener) direct(src *source) (sparse.View, error) {
	if src.img == nil || src.Format != formatRaw || !src.img.file.Info.Block {
		return src.View, nil
	}
	d, err := hostlvm.OpenDirect(src.img.file.Real)
	if err != nil {
		return nil, err
	}
	o.devices = append(o.devices, d)
	return &countedView{sparse.Plain(d, d.Size()), &o.reads.Int64}, nil
}

// disksOf finds the physical volumes of an image: all of it, or partitions.
func (o *opener) disksOf(src *source, disk sparse.View) ([]lvm.Disk, error) {
	disks, parts, err := pvsOn(src.Ref, disk, o.Warnf)
	switch {
	case errors.Is(err, partition.ErrNoTable):
		return nil, fmt.Errorf("%s: %w, and has no partitions", src.Ref, lvm.ErrNoLabel)
	case err == nil && len(disks) == 0:
		return nil, fmt.Errorf("%s: %w, and none of its %s is one", src.Ref, lvm.ErrNoLabel, text.Count(parts, "partition"))
	}
	return disks, err
}

// pvsOn finds the physical volumes of a disk, and how many partitions it has.
// That it is none and has no partitions is partition.ErrNoTable.
func pvsOn(ref string, disk sparse.View, warn func(string, ...any)) (disks []lvm.Disk, parts int, err error) {
	size := disk.Size()
	pv, err := lvm.ReadPV(disk, size)
	if err == nil {
		return []lvm.Disk{{Name: ref, PV: pv, R: disk, Size: size}}, 0, nil
	}
	if !errors.Is(err, lvm.ErrNoLabel) {
		return nil, 0, fmt.Errorf("%s: %w", ref, err)
	}
	table, err := partition.Read(disk, size, partition.Options{})
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", ref, err)
	}
	for _, w := range table.Warnings {
		warn("%s: %s", ref, w)
	}
	for _, part := range table.Partitions {
		name := fmt.Sprintf("%s partition %d", ref, part.Number)
		view := part.View(disk)
		pv, err := lvm.ReadPV(view, part.Size)
		if errors.Is(err, lvm.ErrNoLabel) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", name, err)
		}
		disks = append(disks, lvm.Disk{Name: name, PV: pv, R: view, Size: part.Size})
	}
	return disks, len(table.Partitions), nil
}

// recheck says whether somebody changed what --pv names.
func (p *physical) recheck() error {
	for _, s := range p.sources {
		if err := s.Recheck(); err != nil {
			return err
		}
	}
	return nil
}
