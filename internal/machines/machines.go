// Package machines tells which deltas of a directory are of one machine. It does
// no input or output: it goes by what headers and file names say.
package machines

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Delta is what is known of one file of a directory.
type Delta struct {
	Image    string    // in the file's name, as backup gives it; empty: another name
	Time     time.Time // zero: unknown
	Machine  string    // of its header; empty: the delta does not say
	Streams  []Stream
	Together int // above 0: the same in deltas that are known to belong together
}

// Stream is one stream of a delta.
type Stream struct {
	Name     string
	Source   string // identity of the disk; empty: unknown
	From, To string // points; empty: none
}

// Named says that a user gave the machine this name: the identities that cbt
// makes have a colon, and --name takes none.
func Named(machine string) bool { return machine != "" && !strings.Contains(machine, ":") }

// Short is an identity for people: of a hash the first digits.
func Short(machine string) string {
	const digits = 12
	kind, rest, ok := strings.Cut(machine, ":")
	if !ok || len(rest) <= digits {
		return machine
	}
	return kind + ":" + rest[:digits]
}

// Directory is a directory of deltas with its machines, which have numbers from
// 0 in the order of the list.
type Directory struct {
	List []Delta // with the times that InTime gives
	Of   []int   // the machine of each delta

	// Line is finer than Of: the deltas of a machine whose disks were, at one and
	// the same time, different ones. It happens if two disks are backed up under
	// one name. What is newer in one line replaces nothing in another.
	Line []int
}

// Group finds the machines of a directory:
//
//   - Deltas that name the same machine are of it. What cbt called by the disk's
//     own identity, and a user later gave a name, is the machine of that name.
//   - Deltas that name none, as older ones do, are of one machine if points or an
//     interrupted prune link them; together they are of the machine that goes
//     on from them, if just one does.
//   - What is left is one machine if it has one name, by the names of the files
//     or as its header has it, and follows one another in time, as a new full delta
//     does the chain before. Two of one name at one time are two machines. A name
//     joins no two machines that deltas name, and nothing to what one of these
//     goes on from: that is its, whatever its files are called.
func Group(list []Delta) *Directory {
	list = slices.Clone(list)
	InTime(list)
	d := &Directory{List: list}
	s := newSets(len(list))
	joinSame(s, list)
	joinRenamed(s, list)
	joinLinked(s, list)
	known := map[int]bool{}
	for i, d := range list {
		if d.Machine != "" {
			known[i] = true
		}
	}
	joinInTime(s, list, known, func(i int) []string {
		switch m := list[i].Machine; {
		case Named(m):
			return []string{m}
		case m == "" && list[i].Image != "":
			return []string{list[i].Image}
		}
		return nil
	})
	d.Of = s.numbers()
	d.Line = splitBySource(list, d.Of)
	return d
}

// joinSame joins deltas whose headers name one machine, and older ones that
// points or an interrupted prune link.
func joinSame(s *sets, list []Delta) {
	machine, together, points := map[string]int{}, map[int]int{}, map[Stream]int{}
	for i, d := range list {
		if d.Machine != "" {
			join(s, machine, d.Machine, i)
			continue
		}
		if d.Together > 0 {
			join(s, together, d.Together, i)
		}
		for _, st := range d.Streams {
			for _, point := range []string{st.From, st.To} {
				if point != "" {
					join(s, points, Stream{Name: st.Name, To: point}, i)
				}
			}
		}
	}
}

// joinRenamed joins a machine without a name to the one named machine whose
// deltas are of the same disk.
func joinRenamed(s *sets, list []Delta) {
	named := map[string]map[string]int{} // by source: the machines, and one delta of each
	for i, d := range list {
		if !Named(d.Machine) {
			continue
		}
		for _, st := range d.Streams {
			if st.Source != "" {
				if named[st.Source] == nil {
					named[st.Source] = map[string]int{}
				}
				named[st.Source][d.Machine] = i
			}
		}
	}
	found := map[string]map[string]int{} // by machine
	for _, d := range list {
		if d.Machine == "" || Named(d.Machine) {
			continue
		}
		for _, st := range d.Streams {
			for name, i := range named[st.Source] {
				if found[d.Machine] == nil {
					found[d.Machine] = map[string]int{}
				}
				found[d.Machine][name] = i
			}
		}
	}
	for i, d := range list {
		if len(found[d.Machine]) == 1 {
			for _, k := range found[d.Machine] {
				s.join(i, k)
			}
		}
	}
}

// joinLinked joins older deltas to the machine that goes on from them, or that
// they go on from.
func joinLinked(s *sets, list []Delta) {
	known := map[Stream][]int{}
	for i, d := range list {
		if d.Machine == "" {
			continue
		}
		for _, st := range d.Streams {
			for _, point := range []string{st.From, st.To} {
				if point != "" {
					k := Stream{Name: st.Name, To: point}
					known[k] = append(known[k], i)
				}
			}
		}
	}
	next := map[int]map[int]bool{} // by set of older ones: the sets of machines
	for i, d := range list {
		if d.Machine != "" {
			continue
		}
		at := s.find(i)
		for _, st := range d.Streams {
			for _, point := range []string{st.From, st.To} {
				if point == "" {
					continue
				}
				for _, k := range known[Stream{Name: st.Name, To: point}] {
					if next[at] == nil {
						next[at] = map[int]bool{}
					}
					next[at][s.find(k)] = true
				}
			}
		}
	}
	for at, machines := range next {
		if len(machines) == 1 {
			for m := range machines {
				s.join(at, m)
			}
		}
	}
}

// inSeveral are the disks of which several machines have deltas: a wrong name was
// given once, so in one of them the disk is no copy of the one before.
func inSeveral(list []Delta, of []int) map[string]bool {
	first, several := map[string]int{}, map[string]bool{}
	for i, d := range list {
		for _, st := range d.Streams {
			if n, ok := first[st.Source]; ok && n != of[i] && st.Source != "" {
				several[st.Source] = true
			} else if !ok {
				first[st.Source] = of[i]
			}
		}
	}
	return several
}

// splitBySource splits machines whose disks differ at one time. Deltas that do
// not say what disk they are of stay with the first line of their machine.
func splitBySource(list []Delta, of []int) []int {
	s := newSets(len(list))
	type disk struct {
		machine        int
		stream, source string
	}
	first := map[disk]int{}
	knows := make([]bool, len(list))
	for i, d := range list {
		for _, st := range d.Streams {
			if d.Machine != "" && st.Source != "" {
				knows[i] = true
				join(s, first, disk{of[i], st.Name, st.Source}, i)
			}
		}
	}
	several := inSeveral(list, of)
	joinInTime(s, list, nil, func(i int) []string {
		if knows[i] && !slices.ContainsFunc(list[i].Streams, func(st Stream) bool { return several[st.Source] }) {
			return []string{strconv.Itoa(of[i])}
		}
		return nil
	})
	line := map[int]int{}
	for i := range list {
		if k, ok := line[of[i]]; knows[i] && (!ok || list[i].Time.Before(list[k].Time)) {
			line[of[i]] = i
		}
	}
	rest := map[int]int{}
	for i := range list {
		if knows[i] {
			continue
		}
		if k, ok := line[of[i]]; ok {
			s.join(i, k)
		} else {
			join(s, rest, of[i], i)
		}
	}
	return s.numbers()
}
