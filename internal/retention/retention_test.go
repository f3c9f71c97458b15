package retention

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func at(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		panic(err)
	}
	return t
}

func kept(r Rules, times ...string) string {
	var list []time.Time
	for _, s := range times {
		list = append(list, at(s))
	}
	var names []string
	for i, why := range r.Keep(list) {
		if len(why) > 0 {
			names = append(names, times[i])
		}
	}
	return strings.Join(names, ", ")
}

func TestKeep(t *testing.T) {
	days := []string{"2026-11-20 23:59", "2026-11-21 00:00", "2026-11-21 08:00", "2026-11-22 09:00", "2026-11-23 01:00", "2026-11-23 05:00"}
	for _, test := range []struct {
		name  string
		rules Rules
		want  []int
	}{
		{"last", Rules{Last: 2}, []int{4, 5}},
		{"daily is the newest of each day, in UTC", Rules{Daily: 3}, []int{2, 3, 5}},
		{"weekly, which is not full and keeps the oldest", Rules{Weekly: 5}, []int{0, 3, 5}},
		{"full to the last", Rules{Daily: 4}, []int{0, 2, 3, 5}},
		{"within is of the newest", Rules{Within: Span{Days: 2}}, []int{2, 3, 4, 5}},
		{"union", Rules{Last: 1, Hourly: 1, Yearly: 1}, []int{5}},
		{"nothing keeps the newest", Rules{}, []int{5}},
		{"hourly", Rules{Hourly: 2}, []int{4, 5}},
	} {
		var want []string
		for _, i := range test.want {
			want = append(want, days[i])
		}
		if got := kept(test.rules, days...); got != strings.Join(want, ", ") {
			t.Errorf("%s: kept %s", test.name, got)
		}
	}
	// The ISO year of a week is not that of its days.
	if got := kept(Rules{Weekly: 1}, "2026-12-31 10:00", "2027-01-01 10:00"); got != "2027-01-01 10:00" {
		t.Errorf("weekly: %s", got)
	}
	// Disks of one instant stay together.
	if got := kept(Rules{Last: 1}, "2026-11-23 01:00", "2026-11-23 01:00", "2026-11-22 01:00"); got != "2026-11-23 01:00, 2026-11-23 01:00" {
		t.Errorf("one instant: %s", got)
	}
	if why := (Rules{Daily: 2, Last: 1}).Keep([]time.Time{at("2026-11-23 01:00")}); fmt.Sprint(why) != "[[last daily 2026-11-23 oldest (daily not full)]]" {
		t.Errorf("%q", why)
	}
	if got := (Rules{Last: 3}).Keep(nil); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]Span{
		"1y6mo": {Years: 1, Months: 6}, "2w": {Days: 14}, "1w2d": {Days: 9}, "36h": {Hours: 36}, "1y1mo1w1d1h": {1, 1, 8, 1, 0, 0}, "014d": {Days: 14},
	} {
		if got, err := ParseSpan(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0d", "1", "d", "-1d", "1d1d", "1h1d", "1.5d", "99999999999999999999d", "1000001y", "1d ", "+1d", "1s", "1d1s", "m", "mo", "٣d"} {
		if got, err := ParseSpan(s); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
	// m was months once, and is minutes elsewhere.
	for s, want := range map[string]string{"6m": "6mo", "1y6m": "1y6mo", "6m2w": "months are mo", "1y6m2d": "months are mo"} {
		if got, err := ParseSpan(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for s, want := range map[string]Span{"10m": {Minutes: 10}, "1h30m": {Hours: 1, Minutes: 30}, "2mo10m": {Months: 2, Minutes: 10}, "0s": {}, "26h": {Hours: 26}, "1d12h": {Days: 1, Hours: 12}} {
		if got, err := ParseTime(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1s", "1", "m", "1m1h", "1.5h", "1ms", "1min", "10 m"} {
		if got, err := ParseTime(s); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
	for _, s := range []string{"", "-1", "+1", "1e3", "0x1", "99999999999999999999", "1000001", " 1", "all"} {
		if n, err := ParseCount(s); err == nil {
			t.Errorf("%q: %d", s, n)
		}
	}
	if n, err := ParseCount("7"); n != 7 || err != nil {
		t.Error(n, err)
	}
}

// directory is what is there while a plan is carried out: of each file the
// one that it builds on.
type directory map[int]int

func newDirectory(deltas []Delta) directory {
	d := directory{}
	for i, x := range deltas {
		d[i] = x.Parent
	}
	return d
}

// do does one step and fails if the step is not possible or the directory is
// not whole after it.
func (d directory) do(t *testing.T, s Step, keep func(int) bool) {
	t.Helper()
	base, ok := d[s.Into]
	if !ok {
		t.Fatalf("%v: is gone", s)
	}
	if s.Merge() {
		for _, r := range slices.Backward(s.Run) {
			if base != r {
				t.Fatalf("%v: %d does not follow", s, r)
			}
			if base, ok = d[r]; !ok {
				t.Fatalf("%v: %d is gone", s, r)
			}
		}
		d[s.Into] = base
	} else {
		if keep(s.Into) {
			t.Fatalf("%v: deletes what is kept", s)
		}
		delete(d, s.Into)
	}
	for i, base := range d {
		if base >= 0 {
			if _, ok := d[base]; !ok {
				t.Fatalf("after %v: %d has no parent", s, i)
			}
		}
	}
}

// random is a tree whose indexes say nothing about its order.
func random(r *rand.Rand, n int) []Delta {
	deltas := make([]Delta, n)
	names := r.Perm(n)
	for k, i := range names {
		deltas[i] = Delta{Time: at("2026-01-01 00:00").Add(time.Duration(k) * 6 * time.Hour),
			Size: 1 + r.Int64N(1000), Parent: -1, Keep: r.IntN(3) == 0}
		if k > 0 && r.IntN(8) > 0 {
			deltas[i].Parent = names[max(0, k-1-r.IntN(1+r.IntN(5)))]
		} else {
			deltas[i].Size *= 1 + r.Int64N(20)
		}
	}
	return deltas
}

// stay has those bases stay that are not due, and says which ones are.
func stay(deltas []Delta, every Span) (moving map[int]bool) {
	moving = map[int]bool{}
	for _, b := range Bases(deltas) {
		if moving[b.Base] = b.Due(deltas, every); moving[b.Base] {
			continue
		}
		for _, i := range append(b.Between, b.Base) {
			deltas[i].Keep = true
		}
	}
	return moving
}

// After every step the directory is whole, and a plan made then ends the same, also one that has bases
// stay for a while.
func TestPlanIsWholeAfterEveryStep(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		deltas := random(r, 1+r.IntN(25))
		every := Span{Days: r.IntN(4)}
		kept := make([]bool, len(deltas))
		for i, d := range deltas {
			kept[i] = d.Keep
		}
		moving := stay(deltas, every)
		sum := func(deltas []Delta) func([]int) int64 {
			return func(run []int) (n int64) {
				for _, i := range run {
					n += deltas[i].Size
				}
				return n
			}
		}
		steps, cost := Plan(deltas, sum(deltas))
		keep := func(i int) bool { return deltas[i].Keep }
		dir := newDirectory(deltas)
		stop := r.IntN(len(steps) + 1)
		var size, peak, wrote int64
		sizes := make([]int64, len(deltas))
		for i, d := range deltas {
			sizes[i] = d.Size
		}
		var killed directory
		var left []int64 // the sizes then
		for n, s := range steps {
			if n == stop {
				killed, left = directory{}, slices.Clone(sizes)
				for i, base := range dir {
					killed[i] = base
				}
			}
			dir.do(t, s, keep)
			if s.Merge() {
				b := sum(deltas)(append(slices.Clone(s.Run), s.Into))
				peak, wrote = max(peak, size+b), wrote+b
				size += b - sizes[s.Into]
				sizes[s.Into] = b
			} else {
				size -= sizes[s.Into]
			}
		}
		if cost.Peak != peak || cost.Write != wrote {
			t.Fatalf("seed %d: cost %+v, but the peak is %d and %d are written", seed, cost, peak, wrote)
		}
		for i, d := range deltas {
			if _, ok := dir[i]; ok != d.Keep {
				t.Fatalf("seed %d: %d is there: %v", seed, i, ok)
			}
		}
		if killed == nil {
			continue
		}
		// The plan of whoever comes after a kill.
		var index []int
		for i := range killed {
			index = append(index, i)
		}
		slices.Sort(index)
		var rest []Delta
		for _, i := range index {
			rest = append(rest, Delta{Size: left[i], Parent: slices.Index(index, killed[i]), Keep: kept[i], Time: deltas[i].Time, Moving: moving[i]})
		}
		stay(rest, every)
		again := newDirectory(rest)
		steps, _ = Plan(rest, sum(rest))
		for _, s := range steps {
			again.do(t, s, func(i int) bool { return rest[i].Keep })
		}
		for k, base := range again {
			if base >= 0 {
				base = index[base]
			}
			if dir[index[k]] != base {
				t.Fatalf("seed %d: stopped before step %d, %d builds on %d, not on %d", seed, stop, index[k], base, dir[index[k]])
			}
		}
		if len(again) != len(dir) {
			t.Fatalf("seed %d: stopped before step %d: %d deltas are left, not %d", seed, stop, len(again), len(dir))
		}
	}
}

// A long chain is merged once, not once for each of its deltas.
func TestPlanMergesRunsAtOnce(t *testing.T) {
	deltas := make([]Delta, 1000)
	for i := range deltas {
		deltas[i] = Delta{Size: 1, Parent: i - 1}
	}
	deltas[999].Keep = true
	steps, cost := Plan(deltas, func(run []int) int64 { return int64(len(run)) })
	if len(steps) != 1000 || len(steps[0].Run) != 999 || cost != (Cost{Write: 1000, Peak: 1000, Freed: 999}) {
		t.Fatalf("%d steps, %+v", len(steps), cost)
	}
}
