package fuzz

import (
	"maps"
	"slices"
	"testing"
	"time"

	"cbt/internal/retention"
)

// onDisk is a delta of a directory in memory.
type onDisk struct {
	parent int
	size   int64
}

// tree makes deltas out of times: whose bits say what each builds on and how large it is.
func tree(times []time.Time) map[int]onDisk {
	dir := map[int]onDisk{}
	for i, at := range times {
		u := uint64(at.Unix()) * 0x9e3779b97f4a7c15
		d := onDisk{parent: -1, size: 1 + int64(u>>40%1000)}
		if i > 0 && u>>20%8 > 0 {
			d.parent = max(0, i-1-int(u>>24%3))
		} else {
			d.size *= 20
		}
		dir[i] = d
	}
	return dir
}

// plan makes the plan of a directory: its steps in terms of the directory, what a rule keeps, and the bases
// that are moved.
func plan(dir map[int]onDisk, times []time.Time, rules retention.Rules, every retention.Span, moving []int) (steps []retention.Step, keep, moves []int) {
	there := slices.Sorted(maps.Keys(dir))
	var list []time.Time
	for _, i := range there {
		list = append(list, times[i])
	}
	deltas := make([]retention.Delta, len(there))
	for k, why := range rules.Keep(list) {
		i := there[k]
		deltas[k] = retention.Delta{Size: dir[i].size, Parent: slices.Index(there, dir[i].parent), Keep: len(why) > 0, Time: times[i], Moving: slices.Contains(moving, i)}
		if len(why) > 0 {
			keep = append(keep, i)
		}
	}
	for _, b := range retention.Bases(deltas) {
		if b.Due(deltas, every) {
			moves = append(moves, there[b.Base])
			continue
		}
		for _, k := range append(b.Between, b.Base) {
			deltas[k].Keep = true
		}
	}
	steps, _ = retention.Plan(deltas, func(run []int) (n int64) {
		for _, k := range run {
			n += deltas[k].Size
		}
		return n
	})
	for n := range steps {
		s := &steps[n]
		s.Into = there[s.Into]
		for k := range s.Run {
			s.Run[k] = there[s.Run[k]]
		}
	}
	return steps, keep, moves
}

// do does one step, as prune does.
func do(t *testing.T, dir map[int]onDisk, s retention.Step) {
	if !s.Merge() {
		delete(dir, s.Into)
	} else {
		d := dir[s.Into]
		for _, r := range slices.Backward(s.Run) {
			if d.parent != r {
				t.Fatalf("%+v: %d does not follow", s, r)
			}
			d.parent, d.size = dir[r].parent, d.size+dir[r].size
		}
		dir[s.Into] = d
	}
	for i, d := range dir {
		if _, ok := dir[d.parent]; !ok && d.parent >= 0 {
			t.Fatalf("after %+v delta %d has no parent", s, i)
		}
	}
}

// planTree fails if a kept point goes, a plan leaves more than it may, or one that is made after some steps
// of another ends elsewhere.
func planTree(t *testing.T, rules retention.Rules, every retention.Span, times []time.Time) {
	if times = times[:min(len(times), 60)]; len(times) == 0 {
		return
	}
	dir := tree(times)
	steps, keep, moves := plan(dir, times, rules, every, nil)
	stop := int(uint64(times[0].Unix()) % uint64(len(steps)+1))
	var killed map[int]onDisk
	for n, s := range steps {
		if n == stop {
			killed = maps.Clone(dir)
		}
		do(t, dir, s)
	}
	for _, i := range keep {
		if _, ok := dir[i]; !ok {
			t.Fatalf("point %d is to be kept, and is gone", i)
		}
	}
	if every == (retention.Span{}) && len(dir) != len(keep) {
		t.Fatalf("%d deltas are left, %d are to be kept", len(dir), len(keep))
	}
	more, _, _ := plan(dir, times, rules, every, nil)
	if len(more) > 0 {
		t.Fatalf("there is more to do after all is done: %+v", more)
	}
	if killed == nil {
		return
	}
	steps, _, _ = plan(killed, times, rules, every, moves)
	for _, s := range steps {
		do(t, killed, s)
	}
	for i, d := range dir {
		if k, ok := killed[i]; !ok || k.parent != d.parent {
			t.Fatalf("stopped before step %d: delta %d builds on %d, not on %d (%v)", stop, i, k.parent, d.parent, ok)
		}
	}
	if len(killed) != len(dir) {
		t.Fatalf("stopped before step %d: %d deltas are left, not %d", stop, len(killed), len(dir))
	}
}
