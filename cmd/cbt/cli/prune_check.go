package cli

import (
	"context"
	"errors"
	"fmt"

	"cbt/cbt"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/sparse"
)

// unknownPlace is the first delta of which nothing tells what it builds on.
// Whatever falls away may be just that.
func unknownPlace(list []*prunedDelta) *prunedDelta {
	for _, d := range list {
		if d.err == nil {
			continue
		}
		if _, _, named := store.SplitName(d.File); !named || !errors.As(d.err, new(*sparse.FormatError)) {
			return d
		}
	}
	return nil
}

// checkRun looks, before anything of a group changes, whether what is merged
// belongs together: what each delta replaces must be what its parent holds, and
// several ways to one point must lead to the same bytes. Afterwards nobody could
// tell any more.
func (p *pruner) checkRun(ctx context.Context, g *pruneGroup) error {
	o := p.reader()
	defer o.Close()
	var files []*store.File
	var run []cbt.Layer
	for _, d := range g.Deltas {
		f, err := o.OpenDelta(p.path(d))
		if err != nil {
			return err
		}
		files = append(files, f)
		for s := range f.Header.Streams {
			if d.run {
				run = append(run, cbt.Layer{Delta: f.Delta, Stream: s})
			}
		}
	}
	all := store.Catalogue(files)
	err := o.CheckLinks(ctx, all, run, func(l cbt.Layer, err error) error {
		if errors.As(err, new(*cbt.MissingError)) {
			return err
		}
		if errors.As(err, new(*cbt.DeltaError)) {
			return o.Damaged(err)
		}
		return fmt.Errorf("%s: what it replaces is not what its parent holds: %w", o.NameOf(l.Delta), err)
	})
	if err != nil {
		return err
	}
	for r, err := range o.OtherRoutes(files, all) {
		if err != nil {
			return err
		}
		e, err := cbt.Disagree(ctx, r.First, r.Other)
		if err != nil {
			return o.Damaged(err)
		}
		if e.Len > 0 {
			return fmt.Errorf("%s and %s lead to the same point of %s, and not to the same bytes: first at offset %d (cbt verify tells more)",
				o.NameOf(r.First[len(r.First)-1].Delta), o.NameOf(r.Other[len(r.Other)-1].Delta), text.Printable(r.Stream), e.Off)
		}
	}
	return nil
}
