package cli

import (
	"bufio"
	"cmp"
	"context"
	"time"

	"github.com/spf13/cobra"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/store"
	"cbt/internal/text"
)

type mergeOptions struct {
	out      string
	name     string
	workers  int
	spoolDir store.ChainOptions
}

func newMergeCommand(a *app) *cobra.Command {
	opt := &mergeOptions{}
	c := &cobra.Command{
		Use:   "merge A B... -o C",
		Short: "one delta in place of several that follow one another",
		Long: `merge writes one delta that does what the given ones do in turn: from where the
first begins to where the last ends, each changed block once, with the disks and
the RAM of the last. Points alone say in which order they follow one another,
not the order of the arguments; a gap or a branch among them is refused (exit 4).
If the first is full, so is the result. What the deltas know of old content is
kept, so that a wrong base is still found.

Every byte of the deltas is verified first. An existing file is never replaced;
-o - writes to stdout. One of the deltas may be - for standard input.`,
		Example: `  cbt merge monday.cbt tuesday.cbt wednesday.cbt -o week.cbt
  cbt merge backups/@2026-11-23 backups/@2026-11-24 -o two-days.cbt`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fail.Usage("merge: takes two deltas or more: usage is `cbt merge A B... -o C`")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.merge(c.Context(), args, opt)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&opt.out, "output", "o", "", "write the delta to `FILE`, which must not exist; - is stdout")
	flags.Var(workersValue(&opt.workers), "workers", "`N`: how many read and compress (default: one per processor, at most 16)")
	flags.StringVar(&opt.name, "name", "", "the result is of the machine `NAME`, also if the deltas are of machines called otherwise")
	addSpoolFlag(&opt.spoolDir, flags)
	return c
}

func (a *app) merge(ctx context.Context, args []string, opt *mergeOptions) error {
	switch {
	case opt.out == "":
		last := args[len(args)-1]
		if len(args) > 2 && last != stdinName && !infile.Exists(last) {
			return fail.Usage("merge: -o is missing: -o %s writes the delta there", text.Quote(last))
		}
		return fail.Usage("merge: -o FILE is missing: where should the delta go?")
	case opt.name != "" && store.ImageName(opt.name) != opt.name:
		return badName(opt.name)
	case opt.out == stdinName && a.StdoutTerminal:
		return fail.Usage("-o -: stdout is a terminal: redirect it, or name a file")
	case opt.out == stdinName:
		if err := a.keepsStdout(); err != nil {
			return err
		}
	}
	start := time.Now()
	o, err := a.newOpener(openerOptions{})
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	deltas, err := a.openDeltas(ctx, o, args, opt.spoolDir)
	if err != nil {
		return err
	}
	line, err := o.Line(deltas)
	if err != nil {
		return err
	}
	if opt.name == "" {
		if err := o.OneMachine(line); err != nil {
			return err
		}
	}
	h, merges, err := cbt.Merged(line)
	if err != nil {
		return o.LineError(err)
	}
	h.Machine = cmp.Or(opt.name, h.Machine)
	out, commit, abort, err := a.output(opt.out)
	if err != nil {
		return err
	}
	defer abort()
	if err := o.VerifyAll(ctx, [][]cbt.Layer{store.AnyLayers(line)}); err != nil {
		return err
	}
	w := bufio.NewWriterSize(out, 1<<20)
	p := a.Start("merging", before(h.Streams, len(h.Streams)))
	defer p.Finish()
	sum, err := cbt.WriteMerges(ctx, w, h, merges, cbt.Options{
		Workers:  opt.workers,
		Progress: func(stream int, done int64) { p.Set(before(h.Streams, stream) + done) },
		Finish:   func() error { return store.Unchanged(deltas) },
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = commit()
	}
	p.Finish()
	if err != nil {
		return err
	}
	return a.reportMerge(o, opt, h, deltas, sum, time.Since(start))
}

func (a *app) reportMerge(o *opener, opt *mergeOptions, h cbt.Header, deltas []*store.File, sum cbt.Summary, took time.Duration) error {
	result := writtenDelta{Delta: opt.out, ID: sum.ID.String(), Size: sum.Size, Payload: sum.Payload, Read: o.BytesRead()}
	var data, zero, was int64
	for _, d := range deltas {
		was += d.Size()
	}
	for i, s := range h.Streams {
		t := sum.Streams[i]
		result.Streams = append(result.Streams, writtenStream{
			Name: s.Name, Size: s.Size, Full: s.Full, Data: t.Data, Zero: t.Zero, Checked: t.Checked, Tip: s.To == "",
		})
		data += t.Data
		zero += t.Zero
	}
	if a.json && opt.out != stdinName {
		return writeJSON(a.Stdout, result)
	}
	name := text.Printable(opt.out)
	if opt.out == stdinName {
		name = "stdout"
	}
	a.Notef("%s: %s of changes (and %s of zeros) in a delta of %s, from %s of %s, %s",
		name, text.Size(data), text.Size(zero), text.Size(sum.Size), text.Count(len(deltas), "delta"), text.Size(was), took.Round(time.Millisecond))
	a.Debugf("%d bytes written, sha256 %s", sum.Size, result.ID)
	return nil
}
