package machines

import "time"

// InTime gives points of one time their order: one that goes on from another is
// newer by a nanosecond. A point whose own time is before that of what it goes on
// from keeps it, as that of an older snapshot which was backed up later.
func InTime(list []Delta) {
	own := make([]time.Time, len(list))
	leads := map[Stream]int{} // by stream and point: the earliest; others are of the same point, made later
	for i, d := range list {
		own[i] = d.Time
		for _, st := range d.Streams {
			k := Stream{Name: st.Name, To: st.To}
			if best, ok := leads[k]; st.To != "" && !d.Time.IsZero() && (!ok || d.Time.Before(own[best])) {
				leads[k] = i
			}
		}
	}
	const (
		todo = iota
		underWay
		done
	)
	state := make([]byte, len(list))
	before := func(st Stream) int {
		p, ok := leads[Stream{Name: st.Name, To: st.From}]
		if !ok || st.From == "" || st.From == st.To {
			return -1
		}
		return p
	}
	var stack []int
	for start := range list {
		stack = append(stack[:0], start)
		for len(stack) > 0 {
			i := stack[len(stack)-1]
			if state[i] == done {
				stack = stack[:len(stack)-1]
				continue
			}
			first := state[i] == todo
			state[i] = underWay
			if first {
				for _, st := range list[i].Streams {
					if p := before(st); p >= 0 && state[p] == todo {
						stack = append(stack, p)
					}
				}
				continue
			}
			for _, st := range list[i].Streams {
				// What is under way yet is in a circle.
				if p := before(st); p >= 0 && state[p] == done && !own[i].Before(own[p]) && !list[i].Time.After(list[p].Time) {
					list[i].Time = list[p].Time.Add(1)
				}
			}
			state[i] = done
			stack = stack[:len(stack)-1]
		}
	}
}
