package cbt

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// way makes a delta of which nothing is known but its header and its ID.
func way(id byte, from, to string, sizes ...int64) *Delta {
	s := Stream{Name: "disk/0", To: to, Size: 8192, Full: from == ""}
	if !s.Full {
		s.From = &Base{from, 8192}
	}
	if len(sizes) == 2 {
		s.From.Size, s.Size = sizes[0], sizes[1]
	}
	return &Delta{Header: Header{Streams: []Stream{s}}, trailer: trailer{sum: ID{id}}}
}

func ids(layers []Layer) (list []byte) {
	for _, l := range layers {
		id := l.Delta.ID()
		list = append(list, id[0])
	}
	return list
}

func TestCatalogueChoosesRoutes(t *testing.T) {
	full, a, b, ab := way(9, "", "p0"), way(8, "p0", "p1"), way(7, "p1", "p2"), way(6, "p0", "p2")
	again := way(5, "p0", "p1")
	late := way(4, "", "p2")
	tip := way(3, "p2", "")
	other := way(2, "p2", "p3", 8192, 4096)
	short := way(1, "p3", "p4", 4096, 4096)
	long := way(1, "p3", "p4")
	loop := way(10, "p4", "p4")
	for name, c := range map[string]struct {
		all  []*Delta
		d    *Delta
		want []byte
	}{
		"a full one":                 {[]*Delta{full, a, b}, full, []byte{9}},
		"one after another":          {[]*Delta{b, a, full}, b, []byte{9, 8, 7}},
		"not in the catalogue":       {[]*Delta{a, full}, b, []byte{9, 8, 7}},
		"a tip":                      {[]*Delta{a, full, b, tip}, tip, []byte{9, 8, 7, 3}},
		"fewest deltas":              {[]*Delta{a, full, b, ab, tip}, tip, []byte{9, 6, 3}},
		"smallest ID":                {[]*Delta{a, full, b, again}, b, []byte{9, 5, 7}},
		"a later full one":           {[]*Delta{a, full, b, late, tip}, tip, []byte{4, 3}},
		"the last delta is the word": {[]*Delta{a, full, b, late}, b, []byte{9, 8, 7}},
		"the size fits":              {[]*Delta{full, ab, other, short}, short, []byte{9, 6, 2, 1}},
		"no tips below":              {[]*Delta{full, way(0, "", ""), a}, a, []byte{9, 8}},
		"twice the same":             {[]*Delta{full, full, a, a, b}, b, []byte{9, 8, 7}},
		"a loop":                     {[]*Delta{full, ab, other, short, loop}, short, []byte{9, 6, 2, 1}},
	} {
		r := rand.New(rand.NewPCG(1, 2))
		for range 5 {
			r.Shuffle(len(c.all), func(i, j int) { c.all[i], c.all[j] = c.all[j], c.all[i] })
			chain, err := NewCatalogue(c.all).Chain(c.d, 0)
			if err != nil || !slices.Equal(ids(chain), c.want) {
				t.Errorf("%s: %v, %v, want %v", name, ids(chain), err, c.want)
			}
		}
	}
	for name, c := range map[string]struct {
		all   []*Delta
		d     *Delta
		point string
	}{
		"nothing at hand":  {nil, b, "p1"},
		"a gap":            {[]*Delta{full, b, tip}, tip, "p1"},
		"the longest way":  {[]*Delta{tip, b, ab, a}, tip, "p0"},
		"a loop":           {[]*Delta{loop}, loop, "p4"},
		"the wrong size":   {[]*Delta{full, ab, other, long}, long, "p3"},
		"unfrozen":         {[]*Delta{full}, &Delta{Header: Header{Streams: []Stream{{Name: "disk/0", From: &Base{}}}}}, ""},
		"an unfrozen base": {[]*Delta{full, way(0, "", "")}, &Delta{Header: Header{Streams: []Stream{{Name: "disk/0", From: &Base{Size: 8192}}}}}, ""},
		"another stream":   {[]*Delta{full}, &Delta{Header: Header{Streams: []Stream{{Name: "disk/1", From: &Base{"p0", 8192}}}}}, "p0"},
	} {
		var missing *MissingError
		if chain, err := NewCatalogue(c.all).Chain(c.d, 0); !errors.As(err, &missing) || missing.Point != c.point {
			t.Errorf("%s: %v, %v, want %q missing", name, ids(chain), err, c.point)
		}
	}
	all := NewCatalogue([]*Delta{late, full, a, b, ab, other, tip})
	if got := ids(all.Leading("disk/0", "p2")); !slices.Equal(got, []byte{4, 6, 7}) {
		t.Errorf("leading to p2: %v", got)
	}
	if got := all.Leading("disk/1", "p2"); len(got) != 0 {
		t.Errorf("leading to p2 of another stream: %v", got)
	}
}

// The catalogue against a search through all ways, on random graphs.
func TestCatalogueModel(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		var all []*Delta
		for i := range 2 + r.IntN(8) {
			from := ""
			if r.IntN(5) > 0 {
				from = fmt.Sprint("p", r.IntN(5))
			}
			all = append(all, way(byte(i+1), from, fmt.Sprint("p", r.IntN(5))))
		}
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		c := NewCatalogue(all)
		for _, d := range all {
			var best []byte // from d backwards
			var walk func(at *Delta, way []byte)
			walk = func(at *Delta, way []byte) {
				id := at.ID()
				if slices.Contains(way, id[0]) {
					return
				}
				way = append(slices.Clone(way), id[0])
				if s := at.Header.Streams[0]; !s.Full {
					for _, p := range all {
						if p.Header.Streams[0].To == s.From.Point {
							walk(p, way)
						}
					}
				} else if best == nil || len(way) < len(best) || len(way) == len(best) && slices.Compare(way, best) < 0 {
					best = way
				}
			}
			walk(d, nil)
			chain, err := c.Chain(d, 0)
			got := ids(chain)
			slices.Reverse(got)
			if (err == nil) != (best != nil) || !slices.Equal(got, best) {
				t.Fatalf("seed %d: %v, %v, want %v", seed, got, err, best)
			}
		}
	}
}
