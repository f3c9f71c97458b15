package retention

import (
	"cmp"
	"slices"
	"time"
)

// Delta is one file of a directory, as the plan sees it.
type Delta struct {
	Size   int64 // bytes
	Parent int   // the delta that it builds on; -1: none, it is full
	Keep   bool
	Time   time.Time // of its point
	Moving bool      // it is full, and a run that was killed had begun to let it fall away
}

// Step is one change of the directory that either happens or not: Into becomes
// one delta that stands for the deltas of Run, oldest first, and itself; or
// Into is deleted, if Run is empty.
type Step struct {
	Run  []int
	Into int
}

// Merge says that the step is no deletion.
func (s Step) Merge() bool { return len(s.Run) > 0 }

// Cost is what a plan needs. Sizes of what it writes are upper bounds, so that
// the peak is one too.
type Cost struct {
	Write int64 // bytes of new files
	Peak  int64 // bytes that the directory is larger for a time
	Freed int64 // bytes of the files that are deleted
}

// Plan says how the deltas that are not kept fall away. After each step every
// delta that is there has its parents, up to a full one, and no kept one is
// gone; so whoever makes a new plan after any step goes on where the old one
// ended. bound is the largest size that the merge of a run can have. Steps that
// free space come as early as they can.
func Plan(deltas []Delta, bound func(run []int) int64) ([]Step, Cost) {
	p := planner{deltas: deltas, bound: bound, children: make([][]int, len(deltas)), needed: make([]bool, len(deltas))}
	for i, d := range deltas {
		if d.Parent >= 0 {
			p.children[d.Parent] = append(p.children[d.Parent], i)
		}
		// What a kept delta is merged with is needed, and no further.
		if d.Keep {
			for a := d.Parent; a >= 0 && !deltas[a].Keep && !p.needed[a]; a = deltas[a].Parent {
				p.needed[a] = true
			}
		}
	}
	var parts []part
	for i, d := range deltas {
		if !d.Keep && (d.Parent < 0 || deltas[d.Parent].Keep) {
			p.part = part{}
			p.drop(i)
			parts = append(parts, p.part)
		}
	}
	slices.SortStableFunc(parts, cheapestFirst)
	var all part
	for _, q := range parts {
		all.peak = max(all.peak, all.now+q.peak)
		all.now += q.now
		all.steps = append(all.steps, q.steps...)
		all.cost.Write += q.cost.Write
		all.cost.Freed += q.cost.Freed
	}
	all.cost.Peak = all.peak
	return all.steps, all.cost
}

type planner struct {
	deltas   []Delta
	bound    func(run []int) int64
	children [][]int
	needed   []bool
	run      []int // what falls away above the one looked at
	part
}

// part is the plan for deltas that hang together and all fall away.
type part struct {
	steps     []Step
	now, peak int64 // how much larger the directory is at the end, and at most
	cost      Cost
}

// cheapestFirst puts first what ends with less than it began with, the smallest
// peak first, and then the rest, those first that give back the most of their
// peak: that keeps the peak of all small.
func cheapestFirst(a, b part) int {
	frees := func(p part) int {
		if p.now <= 0 {
			return 0
		}
		return 1
	}
	if c := cmp.Compare(frees(a), frees(b)); c != 0 {
		return c
	}
	if a.now <= 0 {
		return cmp.Compare(a.peak, b.peak)
	}
	return cmp.Compare(b.peak-b.now, a.peak-a.now)
}

// drop lets delta i fall away, with all below it that does.
func (p *planner) drop(i int) {
	p.run = append(p.run, i)
	children := slices.Clone(p.children[i])
	rank := func(c int) int {
		switch {
		case p.deltas[c].Keep:
			return 2
		case p.needed[c]:
			return 1
		}
		return 0 // nothing is written: first
	}
	slices.SortStableFunc(children, func(a, b int) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(p.deltas[a].Size, p.deltas[b].Size))
	})
	for _, c := range children {
		if !p.deltas[c].Keep {
			p.drop(c)
			continue
		}
		run := append(slices.Clone(p.run), c)
		size := p.bound(run)
		p.steps = append(p.steps, Step{Run: run[:len(run)-1], Into: c})
		p.cost.Write += size
		p.peak = max(p.peak, p.now+size)
		p.now += size - p.deltas[c].Size
	}
	p.run = p.run[:len(p.run)-1]
	p.steps = append(p.steps, Step{Into: i})
	p.now -= p.deltas[i].Size
	p.cost.Freed += p.deltas[i].Size
}
