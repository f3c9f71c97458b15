package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/retention"
	"cbt/internal/store"
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

func (a *app) log(ctx context.Context, dir string, opt *logOptions) error {
	switch {
	case opt.maxAge.set && opt.maxAge.Span == retention.Span{}:
		return fail.Usage("--max-age: must be a time like 26h, 1d or 2w")
	case opt.nagios && !opt.maxAge.set:
		return fail.Usage("--nagios: --max-age says how old the newest points may be")
	case opt.nagios && a.json:
		return fail.Usage("--nagios and --json exclude each other")
	}
	names, err := store.Names(dir)
	if err != nil {
		return err
	}
	list, err := store.ReadEntries(ctx, a.audit, dir, names)
	if err != nil {
		return err
	}
	g := store.NewGraph(list)
	g.Link(list)
	g.OtherWays(list)
	damaged, denied := 0, 0
	for _, l := range list {
		switch {
		case l.Denied:
			denied++
		case l.Error != "":
			damaged++
		}
	}
	shown := list
	var none []string
	if len(opt.machines) > 0 {
		shown, none = ofMachines(list, store.MachinesOf(list), opt.machines)
	}
	var now state
	var ages []*machineAge
	if opt.maxAge.set {
		ages = a.agesOf(shown, store.MachinesOf(shown))
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
		err = writeJSON(a.Stdout, append([]*store.Entry{}, shown...))
	default:
		err = printLogged(a.Stdout, shown, store.MachinesOf(shown))
	}
	if err != nil {
		return err
	}
	if len(list) == 0 && !opt.maxAge.set {
		return noDeltas(dir)
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
