package retention

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// chain is a directory in memory: a full delta first, then an increment each night.
type chain struct {
	deltas []Delta
	wrote  []int64 // bytes, by night
	fulls  int     // how often a full delta was written
}

// prune carries out what is planned for a chain in memory.
func (c *chain) prune(rules Rules, every Span) {
	var times []time.Time
	for _, d := range c.deltas {
		times = append(times, d.Time)
	}
	for i, why := range rules.Keep(times) {
		c.deltas[i].Keep = len(why) > 0
	}
	for _, b := range Bases(c.deltas) {
		if !b.Due(c.deltas, every) {
			c.deltas[b.Base].Keep = true
			for _, i := range b.Between {
				c.deltas[i].Keep = true
			}
		}
	}
	size := func(run []int) (n int64) {
		for _, i := range run {
			n = max(n, c.deltas[i].Size) // all blocks are the same ones
		}
		return n
	}
	steps, cost := Plan(c.deltas, size)
	c.wrote = append(c.wrote, cost.Write)
	gone := map[int]bool{}
	for _, s := range steps {
		if !s.Merge() {
			gone[s.Into] = true
			continue
		}
		first := c.deltas[s.Run[0]]
		c.deltas[s.Into].Size = size(append(slices.Clone(s.Run), s.Into))
		if c.deltas[s.Into].Parent = first.Parent; first.Parent < 0 {
			c.fulls++
		}
	}
	var left []Delta
	at := map[int]int{-1: -1}
	for i, d := range c.deltas {
		if !gone[i] {
			at[i] = len(left)
			d.Parent = at[d.Parent]
			left = append(left, d)
		}
	}
	c.deltas = left
}

// A prune each night under a daily rule moves the base once a month, or when it pays.
func TestBaseIsMovedRarely(t *testing.T) {
	for _, test := range []struct {
		name      string
		every     Span
		increment int64 // of a full one of 1000
		fulls     int   // written in 100 nights
		most      int   // deltas
	}{
		{"at once, as it was", Span{}, 5, 93, 8},
		{"small increments: every 30 days", Span{Days: 30}, 5, 3, 8 + 30},
		{"every week", Span{Days: 7}, 5, 13, 8 + 7},
		{"large increments: when half of it comes back", Span{Days: 30}, 100, 18, 8 + 5},
		{"an increment is as large as the base", Span{Days: 30}, 1000, 93, 8},
	} {
		var c chain
		for night := range 100 {
			d := Delta{Size: test.increment, Parent: len(c.deltas) - 1, Time: at("2026-01-01 02:30").AddDate(0, 0, night)}
			if night == 0 {
				d.Size = 1000
			}
			c.deltas = append(c.deltas, d)
			c.prune(Rules{Daily: 7}, test.every)
			if len(c.deltas) > test.most {
				t.Fatalf("%s: night %d: %d deltas are there", test.name, night, len(c.deltas))
			}
		}
		if c.fulls != test.fulls {
			t.Errorf("%s: %d full deltas were written, not %d", test.name, c.fulls, test.fulls)
		}
	}
}

func TestBases(t *testing.T) {
	day := func(n int) time.Time { return at("2026-01-01 00:00").AddDate(0, 0, n) }
	deltas := []Delta{
		0:  {Parent: -1, Size: 100, Time: day(0)},
		1:  {Parent: 0, Size: 10, Time: day(1)},
		2:  {Parent: 1, Size: 10, Time: day(2), Keep: true},
		3:  {Parent: 1, Size: 10, Time: day(3)},
		4:  {Parent: 3, Size: 10, Time: day(4), Keep: true},
		5:  {Parent: 3, Size: 10, Time: day(4)}, // needed by nobody
		6:  {Parent: 4, Size: 10, Time: day(5)}, // merged into an increment
		7:  {Parent: 6, Size: 10, Time: day(6), Keep: true},
		8:  {Parent: -1, Size: 100, Time: day(7), Keep: true},
		9:  {Parent: -1, Size: 100, Time: day(8)}, // falls away with all that builds on it
		10: {Parent: 9, Size: 100, Time: day(9)},
	}
	got := Bases(deltas)
	if len(got) != 1 || got[0].Base != 0 || !slices.Equal(got[0].Between, []int{1, 3}) || !slices.Equal(got[0].Children, []int{2, 4}) {
		t.Fatalf("%+v", got)
	}
	if b := got[0]; b.Due(deltas, Span{Days: 3}) || !b.Due(deltas, Span{Days: 2}) || !b.Due(deltas, Span{}) {
		t.Error("the oldest kept on it is two days younger")
	}
	deltas[0].Moving = true
	if !got[0].Due(deltas, Span{Days: 3}) {
		t.Error("a killed run had begun with it")
	}
}

// Whatever the tree: a base that stays costs less than half of what it would take to move it, all of its
// family is on the list, and nobody's twice.
func TestSlackIsBounded(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 2))
		deltas := random(r, 1+r.IntN(25))
		every := Span{Days: r.IntN(4)}
		seen := map[int]bool{}
		for _, b := range Bases(deltas) {
			var before, after int64
			oldest := deltas[b.Children[0]].Time
			for _, i := range append(append([]int{b.Base}, b.Between...), b.Children...) {
				if seen[i] {
					t.Fatalf("seed %d: %d is there twice", seed, i)
				}
				seen[i] = true
				before += deltas[i].Size
				if p := deltas[i].Parent; i != b.Base && (p < 0 || !seen[p] && !slices.Contains(b.Between, p)) {
					t.Fatalf("seed %d: %d does not build on base %d", seed, i, b.Base)
				}
			}
			for _, i := range b.Children {
				after += max(deltas[i].Size, deltas[b.Base].Size)
				if deltas[i].Time.Before(oldest) {
					oldest = deltas[i].Time
				}
			}
			if !b.Due(deltas, every) && (2*before >= 3*after || oldest.Sub(deltas[b.Base].Time) >= time.Duration(every.Days)*24*time.Hour) {
				t.Fatalf("seed %d: base %d is not due: %d bytes before, %d after", seed, b.Base, before, after)
			}
		}
		for i, d := range deltas {
			if d.Keep && d.Parent >= 0 && !deltas[d.Parent].Keep {
				root := d.Parent
				for ; deltas[root].Parent >= 0 && !deltas[deltas[root].Parent].Keep; root = deltas[root].Parent {
				}
				if deltas[root].Parent < 0 && !seen[i] {
					t.Fatalf("seed %d: %d builds on base %d, and is not seen", seed, i, root)
				}
			}
		}
	}
}
