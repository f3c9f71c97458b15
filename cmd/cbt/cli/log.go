package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/ordered"
	"cbt/internal/report"
	"cbt/internal/retention"
	"cbt/internal/text"
)

type logOptions struct {
	maxAge   ageValue
	machines []string
	nagios   bool
}

func newLogCommand(a *app) *cobra.Command {
	opt := &logOptions{}
	c := &cobra.Command{
		Use:   "log DIR",
		Short: "show the chains in a directory",
		Long: `log draws the deltas of a directory as a tree: each below the one that it builds
on, with the time of its point, its size, what it holds and of which machine it
is. Points alone decide what builds on what, not names. It reads no more than the
ends of each file.

--max-age is for monitoring: the exit code is 3 if the newest point that can be
restored is older, of any machine of the directory; of those that --machine
names, if it does. A machine that is gone is left out by naming the others, or
once its deltas are elsewhere.

--nagios prints one line instead, for Nagios and what takes its plugins, and ends
with 0 OK; 1 WARNING: files cannot be read, or deltas not be restored, though
all newest points are young enough; 2 CRITICAL: one is not; 3 UNKNOWN: the
directory cannot be read, or this user may not read a file in it, or the command
line is wrong.`,
		Example: `  cbt log backups/
  cbt log --max-age 26h backups/
  cbt log --nagios --max-age 1d2h backups/`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.FindingsCode),
		Args:        wantArgs("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.log(c.Context(), args[0], opt)
		},
	}
	flags := c.Flags()
	flags.Var(&opt.maxAge, "max-age", "fail if the newest point of a machine is older than `AGE` (26h, 1d, 2w)")
	flags.StringArrayVar(&opt.machines, "machine", nil, "show and judge only the machine `NAME` (repeatable)")
	flags.BoolVar(&opt.nagios, "nagios", false, "print one line and end with the exit code that Nagios takes: 0, 1, 2 or 3")
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

	denied bool // Error is that this user may not read it
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
	switch {
	case opt.maxAge.set && opt.maxAge.Span == retention.Span{}:
		return fail.Usage("--max-age: must be a time like 26h, 1d or 2w")
	case opt.nagios && !opt.maxAge.set:
		return fail.Usage("--nagios: --max-age says how old the newest points may be")
	case opt.nagios && a.json:
		return fail.Usage("--nagios and --json exclude each other")
	}
	names, err := deltaNames(dir)
	if err != nil {
		return err
	}
	list, err := readLogged(ctx, a.audit, dir, names)
	if err != nil {
		return err
	}
	graphOf(list).link(list)
	damaged, denied := 0, 0
	for _, l := range list {
		switch {
		case l.denied:
			denied++
		case l.Error != "":
			damaged++
		}
	}
	shown := list
	var none []string
	if len(opt.machines) > 0 {
		shown, none = ofMachines(list, machinesOf(list), opt.machines)
	}
	var now state
	var ages []*machineAge
	if opt.maxAge.set {
		ages = a.agesOf(shown, machinesOf(shown))
		now = judge(ages, opt.maxAge, time.Now())
	}
	for _, name := range none {
		now.old = append(now.old, text.Printable(name)+": there is no delta of it")
	}
	if len(ages) == 0 && len(none) == 0 && opt.maxAge.set {
		now.old = append(now.old, "there is no delta")
	}
	switch {
	case opt.nagios && denied > 0:
		return deniedError(dir, denied, len(list))
	case opt.nagios:
		return a.printNagios(dir, now, len(ages), damaged)
	case a.json:
		err = writeJSON(a.Stdout, append([]*logged{}, shown...))
	default:
		err = printLogged(a.Stdout, shown, machinesOf(shown))
	}
	if err != nil {
		return err
	}
	if len(list) == 0 && !opt.maxAge.set {
		a.Notef("%s: has no .cbt files", text.Printable(dir))
	}
	if damaged > 0 {
		now.old = append([]string{fmt.Sprintf("%d of %s cannot be read as deltas", damaged, text.Count(len(list), "file"))}, now.old...)
	}
	switch {
	case denied > 0: // any of them may be the newest, or what others build on
		return deniedError(dir, denied, len(list))
	case len(now.old) > 0:
		return fail.Findings("%s: %s", text.Printable(dir), strings.Join(now.old, "; "))
	}
	return nil
}

// deniedError is for files that this user may not read: of what is in them nothing
// is known.
func deniedError(dir string, denied, all int) error {
	return fmt.Errorf("%s: %d of %s may not be read by this user: permission denied (root may, and who made them)", text.Printable(dir), denied, text.Count(all, "file"))
}

// readLogged reads the ends of all deltas. What cannot be read is noted; what was
// there and is no more, as prune may run, is left out.
func readLogged(ctx context.Context, u *audit.Recorder, dir string, names []string) (list []*logged, err error) {
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
		func(_ context.Context, name string) (*logged, error) { return readOneLogged(u, dir, name), nil },
		func(l *logged) error {
			if l.Error != "" {
				if _, err := os.Lstat(filepath.Join(dir, l.File)); errors.Is(err, fs.ErrNotExist) {
					return nil
				}
			}
			list = append(list, l)
			return nil
		})
	return list, err
}

func readOneLogged(u *audit.Recorder, dir, path string) *logged {
	o := newDeltaFiles(&audit.Reading{Audit: u}, report.None{}, nil)
	defer o.Close()
	l := &logged{File: filepath.Base(path)}
	if rel, err := filepath.Rel(dir, path); err == nil { // dir may be ./b or b//
		l.File = rel
	}
	d, err := o.openDeltaFile(path)
	if err != nil {
		l.Error, l.denied = text.OneLine(err.Error()), errors.Is(err, fs.ErrPermission)
		return l
	}
	l.ends = d.Ends()
	l.ID, l.Size, l.Payload = l.ends.ID.String(), d.Size(), d.Payload()
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
