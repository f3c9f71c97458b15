package cli

import (
	"context"
	"errors"
	"fmt"

	"cbt/internal/imagelock"
	"cbt/internal/partition"
	"cbt/lvm"
)

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
		src, err := o.openImage(ctx, ref, refOptions{prefix: "pv-"})
		if err != nil {
			return nil, fmt.Errorf("--pv: %w", err)
		}
		if err := o.refuseInUse(src); err != nil {
			return nil, err
		}
		found, err := o.disksOf(src)
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
			o.warn("%s: %s", d.Name, w)
		}
	}
	for _, g := range groups {
		for _, w := range g.Warnings {
			o.warn("%s: %s", g.Name, w)
		}
	}
	o.pvs = p
	return p, nil
}

// refuseInUse refuses a physical volume whose volumes may be written to, by this
// host's kernel and past what is read here.
func (o *opener) refuseInUse(src *source) error {
	if src.img == nil || src.Format != formatRaw || o.metadataOnly || o.Frozen {
		return nil
	}
	by, err := imagelock.InUse(src.img.file.File)
	if err != nil {
		return fmt.Errorf("--pv: %s: %w", src.Ref, err)
	}
	if by != "" {
		return busy("--pv %s: is in use: %s (volumes of this host are read without --pv; --frozen: nobody writes to them)", src.Ref, by)
	}
	return nil
}

// disksOf finds the physical volumes of an image: all of it, or partitions.
func (o *opener) disksOf(src *source) ([]lvm.Disk, error) {
	size := src.View.Size()
	pv, err := lvm.ReadPV(src.View, size)
	if err == nil {
		return []lvm.Disk{{Name: src.Ref, PV: pv, R: src.View, Size: size}}, nil
	}
	if !errors.Is(err, lvm.ErrNoLabel) {
		return nil, fmt.Errorf("%s: %w", src.Ref, err)
	}
	table, perr := partition.Read(src.View, size, partition.Options{})
	if errors.Is(perr, partition.ErrNoTable) {
		return nil, fmt.Errorf("%s: %w, and has no partitions", src.Ref, err)
	}
	if perr != nil {
		return nil, fmt.Errorf("%s: %w", src.Ref, perr)
	}
	for _, w := range table.Warnings {
		o.warn("%s: %s", src.Ref, w)
	}
	var disks []lvm.Disk
	for _, part := range table.Partitions {
		name := fmt.Sprintf("%s partition %d", src.Ref, part.Number)
		view := part.View(src.View)
		pv, err := lvm.ReadPV(view, part.Size)
		if errors.Is(err, lvm.ErrNoLabel) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		disks = append(disks, lvm.Disk{Name: name, PV: pv, R: view, Size: part.Size})
	}
	if len(disks) == 0 {
		return nil, fmt.Errorf("%s: %w, and none of its %s is one", src.Ref, lvm.ErrNoLabel, countOf(len(table.Partitions), "partition"))
	}
	return disks, nil
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
