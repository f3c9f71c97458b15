package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"syscall"
	"time"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/outfile"
	"cbt/internal/retention"
	"cbt/internal/store"
	"cbt/internal/text"
)

// pruneSample is how many bytes of what a merge wrote are compared with what it
// was made of, besides that all of it is verified.
const pruneSample = 16 << 20

// pruner prunes one directory.
type pruner struct {
	*app
	dir    string
	every  retention.Span  // how long a base may stay
	moving map[string]bool // the bases that a killed run had begun to move, by the hashes of their points
}

// machinePoint is a point of a machine.
type machinePoint struct {
	of    int
	point string
}

// plan decides what becomes of each delta of a group.
func (p *pruner) plan(g *pruneGroup, rules retention.Rules) error {
	switch err := g.link(); {
	case errors.As(err, new(*cbt.MissingError)):
		return fmt.Errorf("left alone: %w: while the machine has the snapshot, `cbt backup` prints the command that writes it again; else move elsewhere what `cbt verify %s` names: it cannot be restored", err, text.Quote(text.PathArgument(p.dir)))
	case err != nil:
		return fmt.Errorf("left alone: %w", err)
	}
	times := make([]time.Time, len(g.Deltas))
	first := map[machinePoint]time.Time{} // of a machine, one point has one time, however many deltas lead there
	for i, d := range g.Deltas {
		at := machinePoint{d.of, d.point}
		if t, ok := first[at]; ok {
			times[i] = t
		} else {
			times[i], first[at] = *d.Time, *d.Time
		}
	}
	nodes := make([]retention.Delta, len(g.Deltas))
	lines := map[int][]int{} // what the rules apply to together
	for i, d := range g.Deltas {
		lines[d.line] = append(lines[d.line], i)
	}
	for _, line := range lines {
		var of []time.Time
		for _, i := range line {
			of = append(of, times[i])
		}
		for k, why := range rules.Keep(of) {
			d := g.Deltas[line[k]]
			d.Reasons = why
			nodes[line[k]] = retention.Delta{Size: d.Size, Parent: d.parent, Keep: len(why) > 0, Time: of[k], Moving: p.moving[d.pointHash()]}
		}
	}
	linked := g.keepLinked(nodes)
	stays := p.bases(g, nodes)
	maps.Copy(stays, linked)
	g.dropSpare(nodes)
	bound := func(run []int) int64 {
		var line []cbt.Weight
		for _, i := range run {
			line = append(line, g.Deltas[i].weight)
		}
		return cbt.MergedSize(line)
	}
	var cost retention.Cost
	g.steps, cost = retention.Plan(nodes, bound)
	g.Write, g.Space, g.Freed = cost.Write, cost.Peak, cost.Freed
	for i, n := range nodes {
		switch d := g.Deltas[i]; {
		case stays[i]:
			d.Action = pruneStay
		case n.Keep:
			d.Action = pruneKeep
		default:
			d.Action = pruneDrop
		}
	}
	for _, s := range g.steps {
		if s.Merge() {
			g.Deltas[s.Into].Action = pruneRewrite
			for _, i := range append(s.Run, s.Into) {
				g.Deltas[i].run = true
			}
		}
	}
	return nil
}

// keepLinked has deltas stay that are links, and what they build on: the file that
// a link leads to is not this directory's to change. It returns what stays though
// no rule keeps it.
func (g *pruneGroup) keepLinked(nodes []retention.Delta) map[int]bool {
	stays := map[int]bool{}
	for i, d := range g.Deltas {
		if !d.link {
			continue
		}
		why := "is a symbolic link"
		for at := i; at >= 0; at = g.Deltas[at].parent {
			if !nodes[at].Keep {
				nodes[at].Keep, stays[at] = true, true
				g.Deltas[at].Reasons = []string{why}
			}
			why = text.Printable(d.File) + ", a symbolic link, builds on it"
		}
	}
	return stays
}

// dropSpare lets a kept delta fall away that would have to be rewritten, on
// which nothing builds, and to whose points a shorter way of the same machine
// leads.
func (g *pruneGroup) dropSpare(nodes []retention.Delta) {
	shortest := map[machinePoint]int{}
	parent := map[int]bool{}
	for i, d := range g.Deltas {
		parent[d.parent] = true
		if k, ok := shortest[machinePoint{d.of, d.point}]; !ok || d.depth < g.Deltas[k].depth {
			shortest[machinePoint{d.of, d.point}] = i
		}
	}
	for i, d := range g.Deltas {
		best := shortest[machinePoint{d.of, d.point}]
		if best == i || g.Deltas[best].link || parent[i] || !nodes[i].Keep || d.depth == g.Deltas[best].depth || nodes[d.parent].Keep {
			continue
		}
		nodes[i].Keep = false
		d.Reasons = []string{"another delta leads to its point: " + g.Deltas[best].File}
		g.Deltas[best].run = true // relied on, so verified
	}
}

// carryOut does the steps of a group. After each of them the directory is
// whole; an error leaves it as it is then.
func (p *pruner) carryOut(ctx context.Context, g *pruneGroup) error {
	for _, d := range g.Deltas {
		if err := outfile.RemovePart(p.path(d)); err != nil {
			return err
		}
	}
	err := p.verifyRun(ctx, g)
	if err == nil && len(g.steps) > 0 {
		err = p.checkRun(ctx, g)
	}
	if err != nil {
		g.pending = g.resumed
		return fmt.Errorf("left alone: %w", err)
	}
	var removed, rewritten int
	var smaller, wrote int64
	for n, s := range g.steps {
		var err error
		was := g.Deltas[s.Into].Size
		if s.Merge() {
			err = p.mergeInto(ctx, g, s)
		} else {
			err = p.remove(g.Deltas[s.Into])
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
				err = fmt.Errorf("%w: no room for %s (at most) while it is written", err, text.Size(g.Space))
			}
			return fmt.Errorf("after %d of %s: %w; nothing is lost, the same command goes on", n, text.Count(len(g.steps), "step"), err)
		}
		if s.Merge() {
			rewritten++
			wrote += g.Deltas[s.Into].Size
			smaller += was - g.Deltas[s.Into].Size
		} else {
			removed++
			smaller += was
		}
	}
	g.pending, g.Write = false, wrote
	if len(g.steps) > 0 {
		less := text.Size(smaller) + " less"
		if smaller < 0 {
			less = text.Size(-smaller) + " more"
		}
		p.Notef("%s: %s removed, %d rewritten, %s than before", text.Printable(g.Name), text.Count(removed, "delta"), rewritten, less)
	}
	return nil
}

// reader opens deltas that are closed again long before the end.
func (p *pruner) reader() *store.Files {
	return store.NewFiles(&audit.Reading{Audit: p.audit}, p.app, nil)
}

func (p *pruner) path(d *prunedDelta) string { return filepath.Join(p.dir, d.File) }

// verifyRun reads all deltas that will be merged before the first is.
func (p *pruner) verifyRun(ctx context.Context, g *pruneGroup) error {
	var total int64
	for _, d := range g.Deltas {
		if d.run {
			total += d.Size
		}
	}
	bar := p.Start("verifying", total)
	defer bar.Finish()
	var before int64
	for _, d := range g.Deltas {
		if !d.run {
			continue
		}
		if err := p.verifyOne(ctx, d, func(done int64) { bar.Set(before + done) }); err != nil {
			return err
		}
		before += d.Size
	}
	return nil
}

func (p *pruner) verifyOne(ctx context.Context, d *prunedDelta, progress func(int64)) error {
	o := p.reader()
	defer o.Close()
	f, err := o.Reads.Open(p.path(d), nil)
	if err != nil {
		return err
	}
	defer f.Close()
	_, sum, err := cbt.Verify(ctx, f, cbt.VerifyOptions{Progress: progress})
	if err == nil && sum.ID != d.id {
		err = errors.New("changed while it was read")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.File, err)
	}
	return nil
}

// mergeInto replaces a delta by one that stands for it and for those of the run
// before it. Until the new one is verified and synced nothing changes.
func (p *pruner) mergeInto(ctx context.Context, g *pruneGroup, s retention.Step) error {
	o := p.reader()
	defer o.Close()
	into := g.Deltas[s.Into]
	h, merges, files, err := p.merged(o, g, s)
	if err != nil {
		return err
	}
	out, err := p.audit.Create(p.path(into), true)
	if err != nil {
		return err
	}
	defer out.Abort()
	bar := p.Start("merging", before(h.Streams, len(h.Streams)))
	defer bar.Finish()
	w := bufio.NewWriterSize(out, 1<<20)
	sum, err := cbt.WriteMerges(ctx, w, h, merges, cbt.Options{
		Progress: func(stream int, done int64) { bar.Set(before(h.Streams, stream) + done) },
		Finish:   func() error { return store.Unchanged(files) },
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = out.Sync()
	}
	bar.Finish()
	if err != nil {
		return fmt.Errorf("writing the new %s: %w", into.File, err)
	}
	if err := checkMerged(ctx, out, sum, merges); err != nil {
		return fmt.Errorf("the new %s, which is thrown away: %w", into.File, err)
	}
	if into.ByFile {
		if err := out.SetTime(into.own); err != nil {
			return err
		}
	}
	o.Close()
	if err := out.Commit(); err != nil {
		return err
	}
	into.id, into.Size = sum.ID, sum.Size
	into.ID = sum.ID.String()
	return nil
}

// checkMerged reads back what was written, and compares what it does with what
// its parts do.
func checkMerged(ctx context.Context, f io.ReaderAt, sum cbt.Summary, merges []*cbt.Merge) error {
	_, again, err := cbt.Verify(ctx, io.NewSectionReader(f, 0, sum.Size+1), cbt.VerifyOptions{})
	if err != nil {
		return err
	}
	if again.ID != sum.ID {
		return errors.New("is not what was written")
	}
	d, err := cbt.Open(f, sum.Size)
	if err != nil {
		return err
	}
	for i, parts := range merges {
		whole, err := cbt.NewMerge(cbt.Layer{Delta: d, Stream: i})
		if err == nil {
			err = cbt.SameEffect(ctx, parts, whole, pruneSample/int64(len(merges)))
		}
		if err != nil {
			return fmt.Errorf("%s does not do what its parts do: %w", d.Header.Streams[i].Name, err)
		}
	}
	return nil
}

// remove deletes a delta, durably: a parent must not be gone while its child is
// there.
func (p *pruner) remove(d *prunedDelta) error {
	if err := p.audit.Remove(p.path(d)); err != nil {
		return err
	}
	return outfile.SyncDir(p.dir)
}
