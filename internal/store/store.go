// Package store is a directory of deltas: what it has, what builds on what, how its
// files are named and opened, and the locks that keep runs out of each other's way.
package store

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"cbt/internal/audit"
	"cbt/internal/machines"
)

// Store is what a directory of deltas has, by the ends of its files.
type Store struct {
	Dir     string
	Entries []*Entry // in the order of log
	ByFile  map[string]*Entry
	graph   *Graph
	Ends    map[Point][]*Entry // those that a whole chain leads to

	Machines *machines.Directory // of list
	Place    map[*Entry]int      // in list
}

// Read reads the ends of all deltas in dir. What cannot be read is as if
// it were not there: what only it leads to is written again.
func Read(ctx context.Context, u *audit.Recorder, dir string) (*Store, error) {
	names, err := Names(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{Dir: dir, ByFile: map[string]*Entry{}, Ends: map[Point][]*Entry{}}
	if s.Entries, err = ReadEntries(ctx, u, dir, names); err != nil {
		return nil, err
	}
	s.graph = NewGraph(s.Entries)
	s.graph.Link(s.Entries)
	s.Machines, s.Place = MachinesOf(s.Entries), map[*Entry]int{}
	for i, l := range s.Entries {
		s.ByFile[l.File], s.Place[l] = l, i
		for _, st := range l.Streams {
			if st.To != "" && !slices.Contains(l.Missing, st.Name) {
				end := Point{st.Name, st.To}
				s.Ends[end] = append(s.Ends[end], l)
			}
		}
	}
	return s, nil
}

// Unread counts what cannot be read as deltas, and says why of the first.
func (s *Store) Unread() (n int, first string) {
	for _, l := range s.Entries {
		if l.Error != "" {
			if n++; n == 1 {
				first = l.Error
			}
		}
	}
	return n, first
}

// Readable counts the deltas that can be read.
func (s *Store) Readable() int {
	n, _ := s.Unread()
	return len(s.Entries) - n
}

// Leading is a delta that leads to a point of a stream, of several that with
// the fewest deltas; nil if there is none.
func (s *Store) Leading(stream, point string) *Entry {
	var best *Entry
	for _, l := range s.Ends[Point{stream, point}] {
		if best == nil || s.Length(l, stream) < s.Length(best, stream) {
			best = l
		}
	}
	return best
}

// Begins says whether a delta builds on a point of a stream.
func (s *Store) Begins(stream, point string) bool {
	return point != "" && slices.ContainsFunc(s.Entries, func(l *Entry) bool { return l.From(stream) == point })
}

// MayHave says whether a delta leads to a point that differs only in times.
func (s *Store) MayHave(stream, point string) bool {
	return slices.ContainsFunc(s.Entries, func(l *Entry) bool { return MayBe(l.To(stream), point) })
}

// Tips says whether all deltas of some machines that have a stream are of images
// that were not frozen.
func (s *Store) Tips(of map[int]bool, stream string) bool {
	tips := false
	for i, l := range s.Entries {
		if of[s.Machines.Of[i]] && l.Has(stream) {
			if l.To(stream) != "" {
				return false
			}
			tips = true
		}
	}
	return tips
}

// With is a delta that leads to all of these points, and has RAM if that is
// wanted; nil if there is none. What of says no to does not count; nil takes all.
func (s *Store) With(ends []Point, ram bool, of func(*Entry) bool) *Entry {
	for _, l := range s.Ends[ends[0]] {
		if (of == nil || of(l)) && (!ram || l.Has(StateStream)) && !slices.ContainsFunc(ends, func(e Point) bool { return !slices.Contains(s.Ends[e], l) }) {
			return l
		}
	}
	return nil
}

// Newest is the newest delta of some machines that has a stream which something
// can build on, at another point than img's; rather one of the same disk than a
// newer one of another; nil if there is none. there counts all of these machines.
func (s *Store) Newest(of map[int]bool, stream, source, point string) (best *Entry, there int) {
	var at time.Time
	var own bool
	for i, l := range s.Entries {
		if l.Error != "" || !of[s.Machines.Of[i]] {
			continue
		}
		there++
		to := l.To(stream)
		if to == "" || to == point || !slices.Contains(s.Ends[Point{stream, to}], l) {
			continue
		}
		same := source != "" && l.Source(stream) == source
		if t := s.Machines.List[i].Time; same && !own || same == own && !t.Before(at) {
			best, at, own = l, t, same
		}
	}
	return best, there
}

// Length is the number of deltas that a stream of l is read from; 0 if no chain
// leads there.
func (s *Store) Length(l *Entry, stream string) int {
	r, err := s.graph.Route(l.Ends, l.Ends.Stream(stream))
	if err != nil {
		return 0
	}
	return r.Len
}

// OpenChainOf opens l and all that it could build on, and nothing else of what
// may be a large directory.
func (o *Files) OpenChainOf(s *Store, l *Entry) error {
	if o.dirs == nil {
		o.dirs = make(map[string]*directory)
	}
	all := o.dirs[s.Dir]
	if all == nil {
		all = &directory{}
		o.dirs[s.Dir] = all
	}
	open := map[string]bool{}
	for _, d := range all.files {
		open[filepath.Base(d.Name)] = true
	}
	seen := map[string]bool{l.File: true}
	queue := []string{l.File}
	for _, st := range l.Streams { // those that could stand for l
		for _, other := range s.Ends[Point{st.Name, st.To}] {
			if !seen[other.File] {
				seen[other.File] = true
				queue = append(queue, other.File)
			}
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		if !open[queue[0]] {
			d, err := o.OpenDelta(filepath.Join(s.Dir, queue[0]))
			if err != nil {
				return err
			}
			all.files = append(all.files, d)
		}
		for _, p := range s.ByFile[queue[0]].Parents {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	all.Catalogue = Catalogue(all.files)
	return nil
}

func (l *Entry) To(stream string) string {
	for _, s := range l.Streams {
		if s.Name == stream {
			return s.To
		}
	}
	return ""
}

func (l *Entry) From(stream string) string {
	for _, s := range l.Streams {
		if s.Name == stream {
			return s.From
		}
	}
	return ""
}

func (l *Entry) Source(stream string) string {
	for _, s := range l.Streams {
		if s.Name == stream {
			return s.Source
		}
	}
	return ""
}

func (l *Entry) Has(stream string) bool {
	return slices.ContainsFunc(l.Streams, func(s Stream) bool { return s.Name == stream })
}
