package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/machines"
	"cbt/internal/text"
)

type mergeOptions struct {
	out      string
	name     string
	workers  int
	spoolDir chainOptions
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
		if len(args) > 2 && last != stdinName && !exists(last) {
			return fail.Usage("merge: -o is missing: -o %s writes the delta there", text.Quote(last))
		}
		return fail.Usage("merge: -o FILE is missing: where should the delta go?")
	case opt.name != "" && fileName(opt.name) != opt.name:
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
	line, err := o.line(deltas)
	if err != nil {
		return err
	}
	if opt.name == "" {
		if err := o.oneMachine(line); err != nil {
			return err
		}
	}
	h, merges, err := cbt.Merged(line)
	if err != nil {
		return o.lineError(err)
	}
	h.Machine = cmp.Or(opt.name, h.Machine)
	out, commit, abort, err := a.output(opt.out)
	if err != nil {
		return err
	}
	defer abort()
	if err := o.verifyAll(ctx, [][]cbt.Layer{anyLayers(line)}); err != nil {
		return err
	}
	w := bufio.NewWriterSize(out, 1<<20)
	p := a.Start("merging", before(h.Streams, len(h.Streams)))
	defer p.Finish()
	sum, err := cbt.WriteMerges(ctx, w, h, merges, cbt.Options{
		Workers:  opt.workers,
		Progress: func(stream int, done int64) { p.Set(before(h.Streams, stream) + done) },
		Finish:   func() error { return unchanged(deltas) },
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

// line puts deltas in the order in which they follow one another.
func (o *deltaFiles) line(deltas []*deltaFile) ([]*cbt.Delta, error) {
	var list []*cbt.Delta
	for _, d := range deltas {
		list = append(list, d.Delta)
	}
	line, err := cbt.Line(list)
	return line, o.lineError(err)
}

// lineError names the two files of a *cbt.LineError.
func (o *deltaFiles) lineError(err error) error {
	var line *cbt.LineError
	if !errors.As(err, &line) {
		return err
	}
	return fail.WrongBase("%s and %s: %w", o.deltaName(line.A), o.deltaName(line.B), err)
}

// oneMachine says whether deltas that follow one another are of two machines, as
// an overlay and a backing file can be that both were backed up.
func (o *deltaFiles) oneMachine(line []*cbt.Delta) error {
	list := make([]machines.Delta, len(line))
	for i, d := range line {
		list[i] = machineFacts(d.Header)
	}
	of := machines.Group(list).Of
	for i, n := range of {
		if n != of[0] {
			return fail.WrongBase("%s and %s: are of two machines, %s and %s (--name NAME says whose the result is)", o.deltaName(line[0]), o.deltaName(line[i]),
				text.Printable(machines.Short(cmp.Or(line[0].Header.Machine, "one without a name"))), text.Printable(machines.Short(cmp.Or(line[i].Header.Machine, "one without a name"))))
		}
	}
	return nil
}

// machineFacts is what a header says of a machine.
func machineFacts(h cbt.Header) machines.Delta {
	d := machines.Delta{Machine: h.Machine}
	if h.Instant != nil {
		d.Time = *h.Instant
	}
	for _, s := range h.Streams {
		st := machines.Stream{Name: s.Name, Source: s.Source, To: s.To}
		if s.From != nil {
			st.From = s.From.Point
		}
		d.Streams = append(d.Streams, st)
	}
	return d
}

// anyLayers is a layer of each delta, for what looks at whole deltas.
func anyLayers(deltas []*cbt.Delta) (layers []cbt.Layer) {
	for _, d := range deltas {
		layers = append(layers, cbt.Layer{Delta: d})
	}
	return layers
}

// unchanged says whether somebody wrote to the deltas since they were opened.
func unchanged(deltas []*deltaFile) error {
	for _, d := range deltas {
		if d.dir == "" { // standard input, in a file of our own
			continue
		}
		if err := d.f.Written(); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) reportMerge(o *opener, opt *mergeOptions, h cbt.Header, deltas []*deltaFile, sum cbt.Summary, took time.Duration) error {
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
