package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"cbt/cbt"
	"cbt/sparse"
)

// unknownPlace is the first delta of which nothing tells what it builds on.
// Whatever falls away may be just that.
func unknownPlace(list []*prunedDelta) *prunedDelta {
	for _, d := range list {
		if d.err == nil {
			continue
		}
		if _, _, named := splitDeltaName(d.File); !named || !errors.As(d.err, new(*sparse.FormatError)) {
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
	var files []*deltaFile
	var run []cbt.Layer
	for _, d := range g.Deltas {
		f, err := o.openDeltaFile(p.path(d))
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
	all := catalogue(files)
	var chains [][]cbt.Layer
	for _, l := range run {
		chain, err := all.Chain(l.Delta, l.Stream)
		if err != nil {
			return err
		}
		chains = append(chains, chain)
	}
	// From the full ones on each state is little more work than the one before.
	slices.SortStableFunc(chains, func(a, b []cbt.Layer) int { return cmp.Compare(len(a), len(b)) })
	cache := cbt.NewCache()
	for _, chain := range chains {
		err := checkLink(ctx, cache, chain)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: what it replaces is not what its parent holds: %w", o.deltaName(chain[len(chain)-1].Delta), err)
		}
	}
	return o.sameRoutes(ctx, files, all)
}

// sameRoutes compares what the ways to each point lead to.
func (o *opener) sameRoutes(ctx context.Context, files []*deltaFile, all *cbt.Catalogue) error {
	seen := map[end]bool{}
	for _, f := range files {
		for _, s := range f.Header.Streams {
			at := end{s.Name, s.To}
			if s.To == "" || seen[at] {
				continue
			}
			seen[at] = true
			var first []cbt.Layer
			for _, l := range all.Leading(s.Name, s.To) {
				chain, err := all.Chain(l.Delta, l.Stream)
				if err != nil {
					return err
				}
				if first == nil {
					first = chain
					continue
				}
				one := first[len(first)-1].Delta
				if one.ID() == l.Delta.ID() {
					continue
				}
				e, err := cbt.Disagree(ctx, first, chain)
				if err != nil {
					return err
				}
				if e.Len > 0 {
					return fmt.Errorf("%s and %s lead to the same point of %s, and not to the same bytes: first at offset %d (cbt verify tells more)",
						o.deltaName(one), o.deltaName(l.Delta), printable(s.Name), e.Off)
				}
			}
		}
	}
	return nil
}
