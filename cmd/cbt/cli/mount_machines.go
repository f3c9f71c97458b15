package cli

import (
	"cmp"
	"strings"

	"cbt/internal/store"
	"cbt/internal/tree"
)

const machinesDir = "machines"

// byMachine are the points of a directory that has several machines, in a
// directory for each; nil if it has one, or if points can be written to, which
// then are in one place only. names are those of the points.
func (p *points) byMachine(shown []*store.Entry, names []string) []tree.Entry {
	in := store.MachinesOf(shown)
	if p.m.opt.overlay.path != "" {
		return nil
	}
	points, labels, ids := map[int][]tree.Entry{}, labelsOf(in), map[int]string{}
	var order []int
	for i, l := range shown {
		n := in.Of[i]
		if points[n] == nil {
			order = append(order, n)
			ids[n] = l.ID[:12]
		}
		points[n] = append(points[n], tree.Entry{Name: names[i], Dir: p.point(l).instant("").dir()})
	}
	if len(order) < 2 {
		return nil
	}
	var list []tree.Named
	for _, n := range order {
		name, _, _ := strings.Cut(labels[n], " (") // what cbt calls it itself is for readers only
		list = append(list, tree.Named{Name: cmp.Or(name, "unnamed"), ID: ids[n]})
	}
	var entries []tree.Entry
	for i, name := range tree.Names(list, "") {
		entries = append(entries, tree.Entry{Name: name, Dir: tree.Static(p.time(), points[order[i]]...)})
	}
	return entries
}
