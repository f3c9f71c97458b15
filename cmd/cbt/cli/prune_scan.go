package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cbt/cbt"
	"cbt/internal/machines"
	"cbt/internal/store"
	"cbt/internal/text"
)

// pruneNode is what prune knows of a delta.
type pruneNode struct {
	err    error
	id     cbt.ID
	ends   *cbt.Ends
	weight cbt.Weight
	point  string // equal for deltas that lead to the same points
	parent int    // in the group; -1: none
	depth  int    // deltas before it
	facts  machines.Delta
	own    time.Time // its own, where Time is that which the graph gives it
	of     int       // its machine in the directory
	line   int       // the same in deltas to which the rules apply together
	link   bool      // its file is elsewhere
	run    bool      // its bytes will be read: to merge it, or to rely on it
}

// scan reads the ends of all deltas of the directory, and the sizes of their
// tables. What cannot be read as one is in the list too, with its error.
func (p *pruner) scan(ctx context.Context) ([]*prunedDelta, error) {
	names, err := store.Names(p.dir)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, noDeltas(p.dir)
	}
	var list []*prunedDelta
	for _, name := range names {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		d := &prunedDelta{File: filepath.Base(name)}
		if d.err = d.read(p.reader(), name); d.err != nil {
			d.Error = text.OneLine(d.err.Error())
		}
		list = append(list, d)
	}
	return list, nil
}

func (d *prunedDelta) read(o *store.Files, path string) error {
	defer o.Close()
	st, err := os.Lstat(path)
	if err == nil && st.Mode()&os.ModeSymlink != 0 {
		d.link = true
		st, err = os.Stat(path)
	}
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: is no regular file", path)
	}
	f, err := o.OpenDelta(path)
	if err != nil {
		return err
	}
	if d.weight, err = f.Weight(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	d.id, d.Size, d.ends = f.ID(), f.Size(), f.Ends()
	d.ID = d.id.String()
	when := st.ModTime().UTC()
	if f.Header.Instant != nil {
		when = f.Header.Instant.UTC()
	} else {
		d.ByFile = true
	}
	d.Time, d.own = &when, when
	d.facts, d.Machine = store.MachineFacts(f.Header), f.Header.Machine
	var tos []string
	for _, s := range f.Header.Streams {
		if s.To == "" { // a tip: a point of its own
			tos = []string{"tip " + d.File}
			break
		}
		tos = append(tos, s.Name+"="+s.To)
	}
	slices.Sort(tos)
	d.point = strings.Join(tos, "\n")
	return nil
}

// groupPruned puts together what hangs together by points, or did when an
// earlier run was killed, and what is of one machine, in the order of the names. In
// a group the rules apply to each machine by itself.
func groupPruned(list []*prunedDelta, together map[string]int) []*pruneGroup {
	root := make([]int, len(list))
	for i := range root {
		root[i] = i
	}
	find := func(i int) int {
		for root[i] != i {
			root[i] = root[root[i]]
			i = root[i]
		}
		return i
	}
	points, before := map[store.Point]int{}, map[int]int{}
	facts := make([]machines.Delta, len(list))
	for i, d := range list {
		facts[i] = d.facts
		facts[i].Image, _, _ = store.SplitName(d.File)
		if d.Time != nil {
			facts[i].Time = *d.Time
		}
		if n, ok := together[d.pointHash()]; ok {
			facts[i].Together = n + 1
			join(before, n, i, root, find)
		}
		for _, s := range d.weight.Streams {
			if s.To != "" {
				join(points, store.Point{Stream: s.Name, Point: s.To}, i, root, find)
			}
			if !s.Full && s.From.Point != "" {
				join(points, store.Point{Stream: s.Name, Point: s.From.Point}, i, root, find)
			}
		}
	}
	in := machines.Group(facts)
	known := map[int]int{}
	for i, d := range list {
		d.of, d.line = in.Of[i], in.Line[i]
		if d.Time != nil {
			d.Time = &in.List[i].Time
		}
		join(known, d.of, i, root, find)
	}
	joinDamaged(list, facts, root, find)
	byRoot := map[int]*pruneGroup{}
	var groups []*pruneGroup
	for i, d := range list {
		g := byRoot[find(i)]
		if g == nil {
			g = &pruneGroup{}
			byRoot[find(i)] = g
			groups = append(groups, g)
		}
		if g.Name == "" {
			g.Name = facts[i].Image
		}
		if _, ok := together[d.pointHash()]; ok {
			g.resumed = true
		}
		g.Deltas = append(g.Deltas, d)
	}
	names := map[string]int{}
	for _, g := range groups {
		slices.SortFunc(g.Deltas, byPruneTime)
		if g.Name == "" {
			g.Name = strings.TrimSuffix(g.Deltas[0].File, ".cbt")
		}
		names[g.Name]++
	}
	for _, g := range groups {
		if at := g.Deltas[0].Time; names[g.Name] > 1 && at != nil {
			g.Name += " from " + at.Format(time.DateTime)
		}
	}
	return groups
}

// joinDamaged joins a damaged delta to all that have its image in their names: it
// may be of any of them.
func joinDamaged(list []*prunedDelta, facts []machines.Delta, root []int, find func(int) int) {
	damaged := map[string]int{}
	for i, d := range list {
		if image := facts[i].Image; d.Time == nil && image != "" {
			join(damaged, image, i, root, find)
		}
	}
	for i := range list {
		if k, ok := damaged[facts[i].Image]; ok {
			root[find(i)] = find(k)
		}
	}
}

func join[K comparable](first map[K]int, key K, i int, root []int, find func(int) int) {
	if k, ok := first[key]; ok {
		root[find(i)] = find(k)
	} else {
		first[key] = i
	}
}

func byPruneTime(a, b *prunedDelta) int {
	switch {
	case a.Time != nil && b.Time != nil:
		return cmp.Or(a.Time.Compare(*b.Time), strings.Compare(a.File, b.File))
	case a.Time == nil && b.Time == nil:
		return strings.Compare(a.File, b.File)
	case a.Time == nil:
		return -1
	}
	return 1
}

// link finds the parent of each delta of the group.
func (g *pruneGroup) link() error {
	var all []*cbt.Ends
	place := map[*cbt.Ends]int{}
	for i, d := range g.Deltas {
		if d.err != nil {
			return d.err
		}
		all, place[d.ends] = append(all, d.ends), i
	}
	parents := cbt.NewCatalogue(all).Parents()
	for _, d := range g.Deltas {
		p := parents[d.ends]
		if p.Err != nil {
			return fmt.Errorf("%s: %w", d.File, p.Err)
		}
		d.parent, d.depth = -1, p.Depth
		if p.Ends != nil {
			d.parent = place[p.Ends]
		}
	}
	return nil
}
