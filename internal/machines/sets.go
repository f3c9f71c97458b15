package machines

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// sets are disjoint sets of the places of a list.
type sets struct{ root []int }

func newSets(n int) *sets {
	s := &sets{make([]int, n)}
	for i := range s.root {
		s.root[i] = i
	}
	return s
}

func (s *sets) find(i int) int {
	for s.root[i] != i {
		s.root[i] = s.root[s.root[i]]
		i = s.root[i]
	}
	return i
}

func (s *sets) join(i, k int) { s.root[s.find(i)] = s.find(k) }

// join joins all places that are given with one key.
func join[K comparable](s *sets, first map[K]int, key K, i int) {
	if k, ok := first[key]; ok {
		s.join(i, k)
	} else {
		first[key] = i
	}
}

// numbers counts the sets from 0, in the order of their first places.
func (s *sets) numbers() []int {
	number := map[int]int{}
	list := make([]int, len(s.root))
	for i := range s.root {
		at := s.find(i)
		if _, ok := number[at]; !ok {
			number[at] = len(number)
		}
		list[i] = number[at]
	}
	return list
}

// joinInTime joins sets that share a name and follow one another in time. Known
// are places of known machines: their sets follow others, and nothing follows them.
func joinInTime(s *sets, list []Delta, known map[int]bool, names func(i int) []string) {
	for i := range known {
		known[s.find(i)] = true
	}
	type span struct {
		any         int // one of its places
		first, last time.Time
	}
	named := map[string]map[int]*span{} // by name and set
	for i, d := range list {
		if d.Time.IsZero() {
			continue
		}
		for _, name := range names(i) {
			if named[name] == nil {
				named[name] = map[int]*span{}
			}
			at := named[name][s.find(i)]
			if at == nil {
				at = &span{any: i, first: d.Time, last: d.Time}
				named[name][s.find(i)] = at
			}
			if d.Time.Before(at.first) {
				at.first = d.Time
			}
			if d.Time.After(at.last) {
				at.last = d.Time
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		parts := slices.SortedFunc(maps.Values(named[name]), func(a, b *span) int {
			return cmp.Or(a.first.Compare(b.first), cmp.Compare(a.any, b.any))
		})
		var lines []*span // each of several parts, with the last time of all
		for _, p := range parts {
			var best *span
			for _, l := range lines {
				if !known[s.find(l.any)] && l.last.Before(p.first) && (best == nil || best.last.Before(l.last)) {
					best = l
				}
			}
			if best == nil {
				lines = append(lines, p)
				continue
			}
			isKnown := known[s.find(p.any)]
			s.join(p.any, best.any)
			if isKnown {
				known[s.find(p.any)] = true
			}
			best.last = p.last
		}
	}
}
