package cli

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"cbt/internal/audit"
	"cbt/internal/machines"
)

// store is what a directory of deltas has, by the ends of its files.
type store struct {
	dir    string
	list   []*logged // in the order of log
	byFile map[string]*logged
	graph  *deltaGraph
	ends   map[streamPoint][]*logged // those that a whole chain leads to

	machines *machines.Directory // of list
	place    map[*logged]int     // in list
}

// readStore reads the ends of all deltas in dir. What cannot be read is as if
// it were not there: what only it leads to is written again.
func readStore(ctx context.Context, u *audit.Recorder, dir string) (*store, error) {
	names, err := deltaNames(dir)
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, byFile: map[string]*logged{}, ends: map[streamPoint][]*logged{}}
	if s.list, err = readLogged(ctx, u, dir, names); err != nil {
		return nil, err
	}
	s.graph = graphOf(s.list)
	s.graph.link(s.list)
	s.machines, s.place = machinesOf(s.list), map[*logged]int{}
	for i, l := range s.list {
		s.byFile[l.File], s.place[l] = l, i
		for _, st := range l.Streams {
			if st.To != "" && !slices.Contains(l.Missing, st.Name) {
				end := streamPoint{st.Name, st.To}
				s.ends[end] = append(s.ends[end], l)
			}
		}
	}
	return s, nil
}

// unread counts what cannot be read as deltas, and says why of the first.
func (s *store) unread() (n int, first string) {
	for _, l := range s.list {
		if l.Error != "" {
			if n++; n == 1 {
				first = l.Error
			}
		}
	}
	return n, first
}

// readable counts the deltas that can be read.
func (s *store) readable() int {
	n, _ := s.unread()
	return len(s.list) - n
}

// leading is a delta that leads to a point of a stream, of several that with
// the fewest deltas; nil if there is none.
func (s *store) leading(stream, point string) *logged {
	var best *logged
	for _, l := range s.ends[streamPoint{stream, point}] {
		if best == nil || s.length(l, stream) < s.length(best, stream) {
			best = l
		}
	}
	return best
}

// begins says whether a delta builds on a point of a stream.
func (s *store) begins(stream, point string) bool {
	return point != "" && slices.ContainsFunc(s.list, func(l *logged) bool { return l.from(stream) == point })
}

// mayHave says whether a delta leads to a point that differs only in times.
func (s *store) mayHave(stream, point string) bool {
	return slices.ContainsFunc(s.list, func(l *logged) bool { return mayBe(l.to(stream), point) })
}

// tips says whether all deltas of some machines that have a stream are of images
// that were not frozen.
func (s *store) tips(of map[int]bool, stream string) bool {
	tips := false
	for i, l := range s.list {
		if of[s.machines.Of[i]] && l.has(stream) {
			if l.to(stream) != "" {
				return false
			}
			tips = true
		}
	}
	return tips
}

// with is a delta that leads to all of these points, and has RAM if that is
// wanted; nil if there is none. What of says no to does not count; nil takes all.
func (s *store) with(ends []streamPoint, ram bool, of func(*logged) bool) *logged {
	for _, l := range s.ends[ends[0]] {
		if (of == nil || of(l)) && (!ram || l.has(stateStream)) && !slices.ContainsFunc(ends, func(e streamPoint) bool { return !slices.Contains(s.ends[e], l) }) {
			return l
		}
	}
	return nil
}

// newest is the newest delta of some machines that has a stream which something
// can build on, at another point than img's; rather one of the same disk than a
// newer one of another; nil if there is none. there counts all of these machines.
func (s *store) newest(of map[int]bool, stream, source, point string) (best *logged, there int) {
	var at time.Time
	var own bool
	for i, l := range s.list {
		if l.Error != "" || !of[s.machines.Of[i]] {
			continue
		}
		there++
		to := l.to(stream)
		if to == "" || to == point || !slices.Contains(s.ends[streamPoint{stream, to}], l) {
			continue
		}
		same := source != "" && l.source(stream) == source
		if t := s.machines.List[i].Time; same && !own || same == own && !t.Before(at) {
			best, at, own = l, t, same
		}
	}
	return best, there
}

// length is the number of deltas that a stream of l is read from; 0 if no chain
// leads there.
func (s *store) length(l *logged, stream string) int {
	r, err := s.graph.Route(l.ends, l.ends.Stream(stream))
	if err != nil {
		return 0
	}
	return r.Len
}

// openChainOf opens l and all that it could build on, and nothing else of what
// may be a large directory.
func (o *deltaFiles) openChainOf(s *store, l *logged) error {
	if o.dirs == nil {
		o.dirs = make(map[string]*deltaDir)
	}
	all := o.dirs[s.dir]
	if all == nil {
		all = &deltaDir{}
		o.dirs[s.dir] = all
	}
	open := map[string]bool{}
	for _, d := range all.files {
		open[filepath.Base(d.name)] = true
	}
	seen := map[string]bool{l.File: true}
	queue := []string{l.File}
	for _, st := range l.Streams { // those that could stand for l
		for _, other := range s.ends[streamPoint{st.Name, st.To}] {
			if !seen[other.File] {
				seen[other.File] = true
				queue = append(queue, other.File)
			}
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		if !open[queue[0]] {
			d, err := o.openDeltaFile(filepath.Join(s.dir, queue[0]))
			if err != nil {
				return err
			}
			all.files = append(all.files, d)
		}
		for _, p := range s.byFile[queue[0]].Parents {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	all.Catalogue = catalogue(all.files)
	return nil
}

func (l *logged) to(stream string) string {
	for _, s := range l.Streams {
		if s.Name == stream {
			return s.To
		}
	}
	return ""
}

func (l *logged) from(stream string) string {
	for _, s := range l.Streams {
		if s.Name == stream {
			return s.From
		}
	}
	return ""
}

func (l *logged) source(stream string) string {
	for _, s := range l.Streams {
		if s.Name == stream {
			return s.Source
		}
	}
	return ""
}

func (l *logged) has(stream string) bool {
	return slices.ContainsFunc(l.Streams, func(s logStream) bool { return s.Name == stream })
}
