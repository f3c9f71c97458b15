package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cbt/cbt"
	"cbt/internal/ordered"
)

type logOptions struct {
	maxAge time.Duration
}

func newLogCommand(a *app) *cobra.Command {
	opt := &logOptions{}
	c := &cobra.Command{
		Use:   "log DIR",
		Short: "show the chains in a directory",
		Long: `log draws the deltas of a directory as a tree: each below the one that it builds
on, with the time of its point, its size and what it holds. Points alone decide
what builds on what, not names. It reads no more than the ends of each file.

--max-age is for monitoring: the exit code is 3 if the newest point is older.`,
		Example: `  cbt log backups/
  cbt log --max-age 26h backups/`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitFindings),
		Args:        wantArgs("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.log(c.Context(), args[0], opt)
		},
	}
	c.Flags().DurationVar(&opt.maxAge, "max-age", 0, "fail if the newest point is older than this `DURATION` (26h)")
	return c
}

// logged is one delta as log shows it.
type logged struct {
	File        string      `json:"file"` // in the directory
	ID          string      `json:"id,omitempty"`
	Size        int64       `json:"size"`
	Payload     int64       `json:"payload"`
	Instant     *time.Time  `json:"instant,omitempty"`
	Consistency string      `json:"consistency,omitempty"`
	Machine     string      `json:"machine,omitempty"` // as its header has it
	Full        bool        `json:"full"`              // all streams are
	Parents     []string    `json:"parents,omitempty"` // files, each of which leads to where this one begins
	Missing     []string    `json:"missing,omitempty"` // streams that no full delta leads to
	Streams     []logStream `json:"streams,omitempty"`
	Error       string      `json:"error,omitempty"`

	ends  *cbt.Ends // nil: it cannot be read
	below *logged   // the parent that it is drawn below; nil: none
}

type logStream struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	Full bool   `json:"full"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`

	Source string `json:"source,omitempty"`
}

func (a *app) log(ctx context.Context, dir string, opt *logOptions) error {
	if opt.maxAge < 0 {
		return usageErrorf("--max-age %v: must not be negative", opt.maxAge)
	}
	names, err := deltaNames(dir)
	if err != nil {
		return err
	}
	list, err := a.readLogged(ctx, dir, names)
	if err != nil {
		return err
	}
	graphOf(list).link(list)
	if a.json {
		err = writeJSON(a.Stdout, list)
	} else {
		err = printLogged(a.Stdout, list)
	}
	if err != nil {
		return err
	}
	damaged := 0
	for _, l := range list {
		if l.Error != "" {
			damaged++
		}
	}
	switch {
	case damaged > 0:
		return findings("%d of %s cannot be read as deltas", damaged, countOf(len(list), "file"))
	case len(list) == 0 && opt.maxAge == 0:
		a.notef("%s: has no .cbt files", printable(dir))
	}
	return a.tooOld(dir, list, opt.maxAge)
}

// tooOld says that the newest point is older than it may be. One of a time to
// come, which a clock once was at, does not hide for ever that nothing newer
// comes.
func (a *app) tooOld(dir string, list []*logged, most time.Duration) error {
	if most == 0 {
		return nil
	}
	var newest time.Time
	for _, l := range list {
		if l.Instant != nil && time.Until(*l.Instant) > time.Hour {
			a.warnf("%s: is of a time to come, %s: not counted", printable(l.File), l.Instant.Format(timeLayout))
			continue
		}
		if l.Instant != nil && l.Error == "" && len(l.Missing) == 0 && l.Instant.After(newest) {
			newest = *l.Instant
		}
	}
	switch age := time.Since(newest); {
	case newest.IsZero():
		return findings("%s: no delta tells when its point was", printable(dir))
	case age > most:
		return findings("%s: the newest point is of %s, %s ago", printable(dir), newest.Format(timeLayout), age.Round(time.Minute))
	}
	return nil
}

// readLogged reads the ends of all deltas. What cannot be read is noted; what was
// there and is no more, as prune may run, is left out.
func (a *app) readLogged(ctx context.Context, dir string, names []string) (list []*logged, err error) {
	list = []*logged{}
	err = ordered.Map(ctx, 2*runtime.GOMAXPROCS(0),
		func(_ context.Context, emit func(string) error) error {
			for _, name := range names {
				if err := emit(name); err != nil {
					return err
				}
			}
			return nil
		},
		func(_ context.Context, name string) (*logged, error) { return a.readOneLogged(dir, name), nil },
		func(l *logged) error {
			if l.Error != "" {
				if _, err := os.Lstat(filepath.Join(dir, l.File)); isNotExist(err) {
					return nil
				}
			}
			list = append(list, l)
			return nil
		})
	return list, err
}

func (a *app) readOneLogged(dir, path string) *logged {
	o := &opener{}
	o.reads.audit = a.audit
	defer o.Close()
	l := &logged{File: strings.TrimLeft(strings.TrimPrefix(path, dir), "/")}
	d, err := o.openDeltaFile(path)
	if err != nil {
		l.Error = oneLine(err.Error())
		return l
	}
	l.ends = d.Ends()
	l.ID, l.Size, l.Payload = fmt.Sprintf("%x", l.ends.ID[:]), d.Size(), d.Payload()
	l.Instant, l.Consistency, l.Full = d.Header.Instant, string(d.Header.Consistency), true
	l.Machine = d.Header.Machine
	for _, s := range d.Header.Streams {
		line := logStream{Name: s.Name, Size: s.Size, Full: s.Full, To: s.To, Source: s.Source}
		if s.From != nil {
			line.From, l.Full = s.From.Point, false
		}
		l.Streams = append(l.Streams, line)
	}
	return l
}

// streamPoint is a point of a stream: points are of images, and a chain is of
// streams of one name.
type streamPoint struct{ stream, point string }

// deltaGraph is the catalogue of the deltas of a list that could be read.
type deltaGraph struct {
	*cbt.Catalogue
	of map[*cbt.Ends]*logged
}

// graphOf orders the list by time and notes which streams no chain leads to.
func graphOf(list []*logged) *deltaGraph {
	slices.SortFunc(list, byTime)
	g := &deltaGraph{of: map[*cbt.Ends]*logged{}}
	var all []*cbt.Ends
	for _, l := range list {
		if l.ends != nil {
			all = append(all, l.ends)
			g.of[l.ends] = l
		}
	}
	g.Catalogue = cbt.NewCatalogue(all)
	for _, e := range all {
		for i, s := range e.Header.Streams {
			if _, err := g.Route(e, i); err != nil {
				g.of[e].Missing = append(g.of[e].Missing, s.Name)
			}
		}
	}
	return g
}

// link notes what each delta of the list builds on, and which of these it is drawn
// below: the one from which all its streams go on, else the one before it on the
// way to its first stream.
func (g *deltaGraph) link(list []*logged) {
	place := map[*logged]int{}
	for i, l := range list {
		place[l] = i
	}
	parents := g.Catalogue.Parents()
	for _, l := range list {
		if l.ends == nil {
			continue
		}
		if p := parents[l.ends].Ends; p != nil {
			l.below = g.of[p]
		}
		for i := range l.Streams {
			if r, err := g.Route(l.ends, i); err == nil && r.Before != nil && l.below == nil {
				l.below = g.of[r.Before.Ends]
			}
		}
		var before []*logged
		for _, p := range g.Before(l.ends) {
			before = append(before, g.of[p])
		}
		slices.SortFunc(before, func(a, b *logged) int { return place[a] - place[b] })
		for _, p := range before {
			l.Parents = append(l.Parents, p.File)
			if l.below == nil {
				l.below = p
			}
		}
	}
}
