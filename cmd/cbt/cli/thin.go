package cli

import (
	"context"
	"fmt"

	"cbt/internal/fail"
	"cbt/lvm/thin"
	"cbt/sparse"
)

// barePool is a thin pool without a volume group: its metadata and, perhaps,
// its data.
type barePool struct {
	meta     *thin.Metadata
	data     thin.Data
	metadata *source
	datasrc  *source // nil if only metadata are there
}

// openThin opens a device of the pool that --thin-metadata names. How large it
// is the metadata do not say: it ends with its last mapped block.
func (o *opener) openThin(ctx context.Context, ref string, id uint32) (*source, error) {
	p, err := o.openBarePool(ctx)
	if err != nil {
		return nil, err
	}
	all, err := p.meta.View(id, 0, p.data, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	size, err := all.MappedEnd()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	v, err := p.meta.View(id, size, p.data, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return &source{View: v, Ref: ref, Path: ref, Format: formatVolume, bare: p, recheck: p.recheck}, nil
}

func (o *opener) openBarePool(ctx context.Context) (*barePool, error) {
	if o.bare != nil {
		return o.bare, nil
	}
	p := &barePool{}
	meta, err := o.openPart(ctx, "--thin-metadata", o.ThinMetadata, &p.metadata)
	if err != nil {
		return nil, err
	}
	if o.ThinData != "" {
		data, err := o.openPart(ctx, "--thin-data", o.ThinData, &p.datasrc)
		if err != nil {
			return nil, err
		}
		p.data = thin.Data{R: data, Size: data.Size()}
	}
	if p.meta, err = thin.Open(meta, meta.Size(), thin.Options{}); err != nil {
		return nil, fmt.Errorf("%s: %w", o.ThinMetadata, err)
	}
	sb := p.meta.Superblock()
	switch {
	case sb.NeedsCheck() && !o.Force:
		return nil, fail.Usage("%s: needs checking: an operation of the pool failed (--force reads it as it is, cbt check lists the faults)", o.ThinMetadata)
	case sb.HeldRoot != 0:
		o.Warnf("%s: the pool holds a metadata snapshot; its current state is read", o.ThinMetadata)
	}
	o.bare, o.thin = p, append(o.thin, p.meta)
	return p, nil
}

// openPart opens the metadata or the data of a bare pool, which must not be in
// use.
func (o *opener) openPart(ctx context.Context, flag, ref string, to **source) (sparse.View, error) {
	src, err := o.openImage(ctx, ref, refOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	*to = src
	if err := o.warnInUse(flag, src); err != nil {
		return nil, err
	}
	view, err := o.direct(src)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, ref, err)
	}
	return view, nil
}

func (p *barePool) recheck() error {
	if err := p.meta.Recheck(); err != nil {
		return fmt.Errorf("%s: %w", p.metadata.Ref, err)
	}
	if err := p.metadata.Recheck(); err != nil || p.datasrc == nil {
		return err
	}
	return p.datasrc.Recheck()
}

// nodesRead is how many nodes of mapping trees were read so far.
func (o *opener) nodesRead() int64 {
	var n int64
	for _, m := range o.thin {
		n += m.NodesRead()
	}
	return n
}
