package cbt

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// way makes a delta of which only header and ID are known.
func way(id byte, from, to string, sizes ...int64) *Ends {
	s := Stream{Name: "disk/0", To: to, Size: 8192, Full: from == ""}
	if !s.Full {
		s.From = &Base{from, 8192}
	}
	if len(sizes) == 2 {
		s.From.Size, s.Size = sizes[0], sizes[1]
	}
	return &Ends{Header: Header{Streams: []Stream{s}}, ID: ID{id}, Payload: int64(id)}
}

func ids(steps []Step) (list []byte) {
	for _, s := range steps {
		list = append(list, s.ID[0])
	}
	return list
}

// stepsTo returns the IDs on the route that a catalogue finds to the state after d.
func stepsTo(all []*Ends, d *Ends) ([]byte, error) {
	r, err := NewCatalogue(all).Route(d, 0)
	if err != nil {
		return nil, err
	}
	list := ids(r.Steps())
	var payload int64
	for _, id := range list {
		payload += int64(id)
	}
	if r.Len != len(list) || r.Payload != payload {
		return nil, fmt.Errorf("%d steps with %d bytes, of %v", r.Len, r.Payload, list)
	}
	return list, nil
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
		all  []*Ends
		d    *Ends
		want []byte
	}{
		"a full one":                 {[]*Ends{full, a, b}, full, []byte{9}},
		"one after another":          {[]*Ends{b, a, full}, b, []byte{9, 8, 7}},
		"not in the catalogue":       {[]*Ends{a, full}, b, []byte{9, 8, 7}},
		"a tip":                      {[]*Ends{a, full, b, tip}, tip, []byte{9, 8, 7, 3}},
		"fewest deltas":              {[]*Ends{a, full, b, ab, tip}, tip, []byte{9, 6, 3}},
		"smallest ID":                {[]*Ends{a, full, b, again}, b, []byte{9, 5, 7}},
		"a later full one":           {[]*Ends{a, full, b, late, tip}, tip, []byte{4, 3}},
		"the last delta is the word": {[]*Ends{a, full, b, late}, b, []byte{9, 8, 7}},
		"the size fits":              {[]*Ends{full, ab, other, short}, short, []byte{9, 6, 2, 1}},
		"no tips below":              {[]*Ends{full, way(0, "", ""), a}, a, []byte{9, 8}},
		"twice the same":             {[]*Ends{full, full, a, a, b}, b, []byte{9, 8, 7}},
		"a loop":                     {[]*Ends{full, ab, other, short, loop}, short, []byte{9, 6, 2, 1}},
	} {
		r := rand.New(rand.NewPCG(1, 2))
		for range 5 {
			r.Shuffle(len(c.all), func(i, j int) { c.all[i], c.all[j] = c.all[j], c.all[i] })
			got, err := stepsTo(c.all, c.d)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
			}
		}
	}
	for name, c := range map[string]struct {
		all   []*Ends
		d     *Ends
		point string
	}{
		"nothing at hand":  {nil, b, "p1"},
		"a gap":            {[]*Ends{full, b, tip}, tip, "p1"},
		"the longest way":  {[]*Ends{tip, b, ab, a}, tip, "p0"},
		"a loop":           {[]*Ends{loop}, loop, "p4"},
		"the wrong size":   {[]*Ends{full, ab, other, long}, long, "p3"},
		"unfrozen":         {[]*Ends{full}, &Ends{Header: Header{Streams: []Stream{{Name: "disk/0", From: &Base{}}}}}, ""},
		"an unfrozen base": {[]*Ends{full, way(0, "", "")}, &Ends{Header: Header{Streams: []Stream{{Name: "disk/0", From: &Base{Size: 8192}}}}}, ""},
		"another stream":   {[]*Ends{full}, &Ends{Header: Header{Streams: []Stream{{Name: "disk/1", From: &Base{"p0", 8192}}}}}, "p0"},
	} {
		var missing *MissingError
		if got, err := stepsTo(c.all, c.d); !errors.As(err, &missing) || missing.Point != c.point {
			t.Errorf("%s: %v, %v, want %q missing", name, got, err, c.point)
		}
	}
	all := NewCatalogue([]*Ends{late, full, a, b, ab, other, tip})
	if got := ids(all.Leading("disk/0", "p2")); !slices.Equal(got, []byte{4, 6, 7}) {
		t.Errorf("leading to p2: %v", got)
	}
	if got := all.Leading("disk/1", "p2"); len(got) != 0 {
		t.Errorf("leading to p2 of another stream: %v", got)
	}
}

// TestCatalogueModel compares the catalogue with a search through all ways, on random graphs.
func TestCatalogueModel(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		var all []*Ends
		for i := range 2 + r.IntN(8) {
			from := ""
			if r.IntN(5) > 0 {
				from = fmt.Sprint("p", r.IntN(5))
			}
			all = append(all, way(byte(i+1), from, fmt.Sprint("p", r.IntN(5))))
		}
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, d := range all {
			var best []byte // from d backwards
			var walk func(at *Ends, way []byte)
			walk = func(at *Ends, way []byte) {
				if slices.Contains(way, at.ID[0]) {
					return
				}
				way = append(slices.Clone(way), at.ID[0])
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
			got, err := stepsTo(all, d)
			slices.Reverse(got)
			if (err == nil) != (best != nil) || !slices.Equal(got, best) {
				t.Fatalf("seed %d: %v, %v, want %v", seed, got, err, best)
			}
		}
	}
}

// machine makes a delta of several streams, from one point to another. A stream whose from is empty
// is full.
func machine(id byte, to string, from ...string) *Ends {
	e := &Ends{ID: ID{id}}
	for i, f := range from {
		s := Stream{Name: fmt.Sprint("disk/", i), To: to, Size: 8192, Full: f == ""}
		if !s.Full {
			s.From = &Base{f, 8192}
		}
		e.Header.Streams = append(e.Header.Streams, s)
	}
	return e
}

func TestParentsTakeAllStreams(t *testing.T) {
	full := machine(9, "p0", "", "")
	one := machine(1, "p1", "p0") // of the first disk only
	both := machine(8, "p1", "p0", "p0")
	late := machine(7, "p1", "p1", "p1") // a longer way to the same point
	next := machine(5, "p2", "p1", "p1")
	split := machine(4, "p3", "p0", "p1")
	lost := machine(3, "p4", "p9")
	unfrozen := &Ends{ID: ID{2}, Header: Header{Streams: []Stream{{Name: "disk/0", From: &Base{}}}}}
	grown := machine(6, "p5", "p0")
	grown.Header.Streams[0].From.Size = 4096
	all := []*Ends{full, one, both, late, next, split, lost, unfrozen, grown}
	r := rand.New(rand.NewPCG(4, 5))
	for range 10 {
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		parents := NewCatalogue(all).Parents()
		for e, want := range map[*Ends]struct {
			parent *Ends
			depth  int
		}{full: {nil, 0}, one: {full, 1}, both: {full, 1}, late: {both, 2}, next: {both, 2}} {
			if p := parents[e]; p.Err != nil || p.Ends != want.parent || p.Depth != want.depth {
				t.Errorf("parent of %d: %+v", e.ID[0], p)
			}
		}
		for _, e := range []*Ends{split, lost, unfrozen, grown} {
			if p := parents[e]; p.Err == nil {
				t.Errorf("%d has parent %v", e.ID[0], p.Ends)
			}
		}
	}
	if list := NewCatalogue(all).Before(split); len(list) != 3 || list[0] != full || list[1] != late || list[2] != both {
		t.Errorf("before split: %d", len(list))
	}
}
