package store

import (
	"slices"
	"strings"

	"cbt/cbt"
	"cbt/internal/machines"
)

// MachinesOf says which deltas of a list, in its order, are of one machine.
func MachinesOf(list []*Entry) *machines.Directory {
	all := make([]machines.Delta, len(list))
	for i, l := range list {
		d := machines.Delta{Machine: l.Machine}
		d.Image, d.Time, _ = SplitName(l.File)
		if l.Instant != nil {
			d.Time = *l.Instant
		}
		for _, s := range l.Streams {
			d.Streams = append(d.Streams, machines.Stream{Name: s.Name, Source: s.Source, From: s.From, To: s.To})
		}
		all[i] = d
	}
	return machines.Group(all)
}

// Point is a point of a stream: points are of images, and a chain is of
// streams of one name.
type Point struct{ Stream, Point string }

// Graph is the catalogue of the deltas of a list that could be read.
type Graph struct {
	*cbt.Catalogue
	Of map[*cbt.Ends]*Entry
}

// NewGraph orders the list by time and notes which streams no chain leads to.
func NewGraph(list []*Entry) *Graph {
	slices.SortFunc(list, byTime)
	g := &Graph{Of: map[*cbt.Ends]*Entry{}}
	var all []*cbt.Ends
	for _, l := range list {
		if l.Ends != nil {
			all = append(all, l.Ends)
			g.Of[l.Ends] = l
		}
	}
	g.Catalogue = cbt.NewCatalogue(all)
	for _, e := range all {
		for i, s := range e.Header.Streams {
			if _, err := g.Route(e, i); err != nil {
				g.Of[e].Missing = append(g.Of[e].Missing, s.Name)
			}
		}
	}
	return g
}

// OtherWays takes from what is missing the streams whose state can be restored all the
// same, because a chain that ends with another delta leads to it.
func (g *Graph) OtherWays(list []*Entry) {
	for _, l := range list {
		l.Missing = slices.DeleteFunc(l.Missing, func(stream string) bool {
			_, err := g.AnyRoute(l.Ends, l.Ends.Stream(stream))
			return err == nil
		})
	}
}

// Link notes what each delta of the list builds on, and which of these it is drawn
// below: the one from which all its streams go on, else the one before it on the
// way to its first stream.
func (g *Graph) Link(list []*Entry) {
	place := map[*Entry]int{}
	for i, l := range list {
		place[l] = i
	}
	parents := g.Catalogue.Parents()
	for _, l := range list {
		if l.Ends == nil {
			continue
		}
		if p := parents[l.Ends].Ends; p != nil {
			l.Below = g.Of[p]
		}
		for i := range l.Streams {
			if r, err := g.Route(l.Ends, i); err == nil && r.Before != nil && l.Below == nil {
				l.Below = g.Of[r.Before.Ends]
			}
		}
		var before []*Entry
		for _, p := range g.Before(l.Ends) {
			before = append(before, g.Of[p])
		}
		slices.SortFunc(before, func(a, b *Entry) int { return place[a] - place[b] })
		for _, p := range before {
			l.Parents = append(l.Parents, p.File)
			if l.Below == nil {
				l.Below = p
			}
		}
	}
}

func byTime(a, b *Entry) int {
	switch {
	case a.Instant != nil && b.Instant != nil && !a.Instant.Equal(*b.Instant):
		return a.Instant.Compare(*b.Instant)
	case (a.Instant == nil) != (b.Instant == nil):
		if a.Instant == nil {
			return -1
		}
		return 1
	}
	return strings.Compare(a.File, b.File)
}
