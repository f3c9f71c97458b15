package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/retention"
	"cbt/internal/text"
)

type pruneOptions struct {
	rules  retention.Rules
	every  rebaseValue
	dryRun bool
	wait   waitValue
}

func newPruneCommand(a *app) *cobra.Command {
	opt := &pruneOptions{every: rebaseValue{retention.Span{Days: 30}}}
	c := &cobra.Command{
		Use:   "prune DIR",
		Short: "let points fall away and keep the others whole",
		Long: `prune keeps the points of a directory that one of the rules keeps, and merges the
others into the deltas that build on them. A full delta that falls away makes
those full that follow it. The rules count for each machine by itself, as the
deltas name it; of deltas that name none, for those that build on one another, or
whose names share the image of IMAGE-20261123T054000Z-ID.cbt. The newest point
of a machine is always kept, and while a rule finds fewer hours, days, ... than it
may keep, so is the oldest.

A full delta that falls away would make its child full: the whole image written
again, each night under a daily rule. So it stays, with what lies between it and
what is kept, until the oldest point kept on it is younger by --rebase-every (30d), or
moving it gives back half of what that writes. --rebase-every 0 lets it go at once.

Nothing is deleted before what takes its place is written, verified and synced:
whenever prune is killed, every kept point can be restored, and the same command
goes on. A group with a damaged delta, or one without its parent, is left alone
(exit 1). --dry-run says what would be done, and how much space it takes.

Times are UTC; a delta that does not know its own counts by that of its file.`,
		Example: `  cbt prune backups/ --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  cbt prune backups/ --keep-last 10 --keep-within 14d`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.BusyCode),
		Args:        wantArgs("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.prune(c.Context(), args[0], opt)
		},
	}
	flags := c.Flags()
	r := &opt.rules
	for _, rule := range []struct {
		name, usage string
		n           *int
	}{
		{"last", "keep the `N` newest points", &r.Last},
		{"hourly", "keep the newest point of each of the last `N` hours that have one", &r.Hourly},
		{"daily", "keep the newest point of each of the last `N` days that have one", &r.Daily},
		{"weekly", "keep the newest point of each of the last `N` weeks that have one", &r.Weekly},
		{"monthly", "keep the newest point of each of the last `N` months that have one", &r.Monthly},
		{"yearly", "keep the newest point of each of the last `N` years that have one", &r.Yearly},
	} {
		flags.Var(&countValue{rule.n}, "keep-"+rule.name, rule.usage)
	}
	flags.Var(&spanValue{&r.Within}, "keep-within", "keep what is within `TIME` (1y6mo, 2w, 14d, 36h) of the newest point")
	flags.Var(&opt.every, "rebase-every", "let a full delta that no rule keeps stay below what is kept for `TIME`; 0: write the next one full at once")
	flags.BoolVar(&opt.dryRun, "dry-run", false, "say what would be done, and do nothing")
	flags.Var(&opt.wait, "wait", "wait this `TIME` for a backup or mount of the directory to end (default: not at all)")
	return c
}

// countValue is the number of a rule.
type countValue struct{ n *int }

func (v *countValue) Set(s string) (err error) {
	*v.n, err = retention.ParseCount(s)
	return err
}

func (v *countValue) String() string {
	if v.n == nil {
		return "0"
	}
	return fmt.Sprint(*v.n)
}
func (v *countValue) Type() string { return "N" }

// spanValue is a time back from the newest point.
type spanValue struct{ s *retention.Span }

func (v *spanValue) Set(s string) (err error) {
	*v.s, err = retention.ParseSpan(s)
	return err
}

func (v *spanValue) String() string {
	if v.s == nil {
		return ""
	}
	return v.s.String()
}
func (v *spanValue) Type() string { return "TIME" }

// rebaseValue is how long a base may stay.
type rebaseValue struct{ retention.Span }

func (v *rebaseValue) Set(s string) (err error) {
	if s == "0" {
		v.Span = retention.Span{}
		return nil
	}
	v.Span, err = retention.ParseSpan(s)
	return err
}

func (v *rebaseValue) String() string {
	if v.Span == (retention.Span{}) {
		return "0"
	}
	return v.Span.String()
}
func (v *rebaseValue) Type() string { return "TIME" }

// pruned is the result for a directory.
type pruned struct {
	DryRun bool          `json:"dry-run"`
	Groups []*pruneGroup `json:"groups"`
}

// pruneGroup are deltas to which the rules apply together.
type pruneGroup struct {
	Name   string         `json:"group"`
	Deltas []*prunedDelta `json:"deltas"`
	Write  int64          `json:"write"`           // bytes: about how many will be written; afterwards, how many were
	Space  int64          `json:"space"`           // bytes more than before for a time, at most
	Freed  int64          `json:"freed"`           // bytes of the files that go
	Error  string         `json:"error,omitempty"` // why it was left alone, or as far as it came

	err     error
	steps   []retention.Step
	moves   []string // the bases that fall away, by the hashes of their points
	resumed bool     // an interrupted run had begun with it
	pending bool     // there are steps that are not done
}

// What becomes of a delta.
const (
	pruneKeep    = "keep"
	pruneRewrite = "rewrite" // kept, and those that fall away before it merged into it
	pruneDrop    = "drop"
	pruneStay    = "stay" // no rule keeps it, but it is not yet time to move the base
)

// prunedDelta is one file of the directory.
type prunedDelta struct {
	File    string     `json:"file"`
	ID      string     `json:"id,omitempty"`
	Machine string     `json:"machine,omitempty"` // as its header has it
	Time    *time.Time `json:"time,omitempty"`
	ByFile  bool       `json:"time-of-file,omitempty"` // the delta has none
	Size    int64      `json:"size"`
	Action  string     `json:"action,omitempty"`
	Reasons []string   `json:"reasons,omitempty"`
	Error   string     `json:"error,omitempty"`

	pruneNode
}

func (a *app) prune(ctx context.Context, dir string, opt *pruneOptions) error {
	if opt.rules.None() {
		return fail.Usage("prune: no rule says what to keep: --keep-last, --keep-daily, ...")
	}
	o, err := a.newOpener(openerOptions{})
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	lock := o.Own
	if opt.dryRun {
		lock = o.Share
	}
	if err := lock(ctx, dir, opt.wait.d); err != nil {
		return err
	}
	p := &pruner{app: a, dir: dir, every: opt.every.Span}
	list, err := p.scan(ctx)
	if err != nil {
		return err
	}
	together, err := p.readJournal()
	if err != nil {
		return err
	}
	result := pruned{DryRun: opt.dryRun, Groups: groupPruned(list, together)}
	unknown := unknownPlace(list)
	for _, g := range result.Groups {
		if g.err = p.plan(g, opt.rules); g.err == nil && unknown != nil && len(g.steps) > 0 {
			g.err = fmt.Errorf("left alone: %s cannot be read, and may build on what would fall away: repair it, or move it elsewhere", text.Printable(unknown.File))
		}
		g.pending = g.err == nil && len(g.steps) > 0 || g.err != nil && g.resumed
		if g.err == nil && opt.dryRun {
			g.Write, g.err = p.estimate(ctx, g)
		}
	}
	if !opt.dryRun {
		if err := p.writeJournal(result.Groups); err != nil {
			return err
		}
	}
	failed := 0
	for _, g := range result.Groups {
		if g.err == nil && !opt.dryRun {
			g.err = p.carryOut(ctx, g)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if g.err != nil {
			failed++
			g.Error = text.OneLine(g.err.Error())
			for _, d := range g.Deltas {
				d.Action = ""
			}
			a.Warnf("%s: %s", text.Printable(g.Name), g.Error)
		}
		if !a.json && (opt.dryRun || !a.quiet) { // what was not pruned is on stderr
			if err := g.print(a.Stdout, opt.dryRun); err != nil {
				return err
			}
		}
	}
	if !opt.dryRun {
		if err := p.writeJournal(result.Groups); err != nil {
			return err
		}
	}
	if a.json {
		if err := writeJSON(a.Stdout, result); err != nil {
			return err
		}
	}
	switch {
	case failed == 1 && len(result.Groups) == 1:
		return errors.New("the deltas were not pruned")
	case failed > 0:
		return fmt.Errorf("%d of %s not pruned", failed, text.Count(len(result.Groups), "group"))
	}
	return nil
}

// print shows one group.
func (g *pruneGroup) print(w io.Writer, dryRun bool) error {
	var b strings.Builder
	kept, stay := 0, 0
	for _, d := range g.Deltas {
		switch d.Action {
		case pruneKeep, pruneRewrite:
			kept++
		case pruneStay:
			stay++
		}
	}
	if g.err != nil {
		fmt.Fprintf(&b, "%s: %s, NOT PRUNED: %s\n", text.Printable(g.Name), text.Count(len(g.Deltas), "delta"), g.Error)
	} else {
		fmt.Fprintf(&b, "%s: %s, %d kept", text.Printable(g.Name), text.Count(len(g.Deltas), "delta"), kept)
		if stay > 0 {
			fmt.Fprintf(&b, ", the base below them not moved yet (%s; --rebase-every 0 moves it at once)", text.Count(stay, "delta"))
		}
		b.WriteString("\n")
	}
	for _, d := range g.Deltas {
		if d.Action == "" {
			continue
		}
		when := d.Time.Format(text.TimeLayout)
		if d.ByFile {
			when += " (of the file)"
		}
		line := fmt.Sprintf("  %-7s  %s  %s  %s", d.Action, when, text.Printable(d.File), strings.Join(d.Reasons, ", "))
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
	}
	if g.err == nil && len(g.steps) > 0 && dryRun {
		fmt.Fprintf(&b, "  to write: about %s; space needed for that: at most %s; in files that go: %s\n",
			text.Size(g.Write), text.Size(g.Space), text.Size(g.Freed))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
