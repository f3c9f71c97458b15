package retention

// Base is a full delta that no rule keeps and that what is kept builds on. To
// let it fall away, each of Children has to become full: that writes a whole
// image, where everything else that falls away costs some increments.
type Base struct {
	Base     int
	Between  []int // what falls away between it and what is kept
	Children []int // what is kept, and builds on one of these
}

// Bases are those of deltas, in their order.
func Bases(deltas []Delta) []Base {
	of := map[int]*Base{}
	root := make([]int, len(deltas)) // of what was looked at: 1 + where its run begins
	for i, d := range deltas {
		if !d.Keep || d.Parent < 0 || deltas[d.Parent].Keep {
			continue
		}
		var run []int
		a := d.Parent
		for ; root[a] == 0; a = deltas[a].Parent {
			run = append(run, a)
			if p := deltas[a].Parent; p < 0 || deltas[p].Keep {
				root[a] = 1 + a
				break
			}
		}
		first := root[a] - 1
		for _, r := range run {
			root[r] = 1 + first
		}
		if deltas[first].Parent >= 0 {
			continue // these are merged into increments
		}
		b := of[first]
		if b == nil {
			b = &Base{Base: first}
			of[first] = b
		}
		b.Children = append(b.Children, i)
		for _, r := range run {
			if r != first {
				b.Between = append(b.Between, r)
			}
		}
	}
	var list []Base
	for i := range deltas {
		if b := of[i]; b != nil {
			list = append(list, *b)
		}
	}
	return list
}

// Due says whether a base is to be moved. It may stay while the oldest of what
// is kept on it is younger by less than every, and while to move it would give
// back less than half of what that writes; so the deltas that linger are never
// more than half as large as the full ones that would take their place. If
// every is nothing it is always due, and so it is once a run has begun to move
// it: what that run was about to do does not change when it is killed.
func (b Base) Due(deltas []Delta, every Span) bool {
	base := deltas[b.Base]
	if base.Moving || every == (Span{}) {
		return true
	}
	before, after := base.Size, int64(0)
	for _, i := range b.Between {
		before += deltas[i].Size
	}
	oldest := deltas[b.Children[0]].Time
	for _, i := range b.Children {
		before += deltas[i].Size
		after += max(base.Size, deltas[i].Size) // about: the image has not become another one
		if t := deltas[i].Time; t.Before(oldest) {
			oldest = t
		}
	}
	return !oldest.Before(every.After(base.Time)) || 2*(before-after) >= after
}
