package cli

import (
	"context"
	"fmt"
	"slices"

	"cbt/cbt"
	"cbt/internal/retention"
	"cbt/internal/store"
	"cbt/internal/text"
)

// bases has those full deltas stay, with what lies between them and what is
// kept, that it is not yet time to move, and notes which ones go. It returns
// what stays though no rule keeps it.
func (p *pruner) bases(g *pruneGroup, nodes []retention.Delta) (stays map[int]bool) {
	stays = map[int]bool{}
	for _, b := range retention.Bases(nodes) {
		base := g.Deltas[b.Base]
		if b.Due(nodes, p.every) {
			g.moves = append(g.moves, base.pointHash())
			continue
		}
		oldest := slices.MinFunc(b.Children, func(x, y int) int { return nodes[x].Time.Compare(nodes[y].Time) })
		for _, i := range append(b.Between, b.Base) {
			nodes[i].Keep = true
			stays[i] = true
			g.Deltas[i].Reasons = []string{"what is kept builds on it"}
		}
		base.Reasons = []string{fmt.Sprintf("base of %s until what is kept on it is %s younger, or moving it pays", text.Printable(g.Deltas[oldest].File), p.every)}
	}
	return stays
}

// estimate says about how much the plan of a group will write, from the tables
// of what is merged.
func (p *pruner) estimate(ctx context.Context, g *pruneGroup) (int64, error) {
	var n int64
	for _, s := range g.steps {
		if !s.Merge() {
			continue
		}
		size, err := p.estimateOne(ctx, g, s)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", g.Deltas[s.Into].File, err)
		}
		n += size
	}
	return min(n, g.Write), nil
}

func (p *pruner) estimateOne(ctx context.Context, g *pruneGroup, s retention.Step) (int64, error) {
	o := p.reader()
	defer o.Close()
	_, merges, _, err := p.merged(o, g, s)
	if err != nil {
		return 0, err
	}
	return cbt.Estimate(ctx, merges)
}

// merged opens what a step merges.
func (p *pruner) merged(o *store.Files, g *pruneGroup, s retention.Step) (cbt.Header, []*cbt.Merge, []*store.File, error) {
	var line []*cbt.Delta
	var files []*store.File
	for _, i := range append(s.Run[:len(s.Run):len(s.Run)], s.Into) {
		d := g.Deltas[i]
		f, err := o.OpenDelta(p.path(d))
		if err != nil {
			return cbt.Header{}, nil, nil, err
		}
		if f.ID() != d.id {
			return cbt.Header{}, nil, nil, fmt.Errorf("%s: is another one than before", d.File)
		}
		line, files = append(line, f.Delta), append(files, f)
	}
	h, merges, err := cbt.Merged(line)
	if err != nil {
		err = fmt.Errorf("%s: %w", g.Deltas[s.Into].File, o.LineError(err))
	}
	return h, merges, files, err
}
