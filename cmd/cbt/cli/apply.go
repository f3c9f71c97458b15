package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/record"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/sparse"
)

type applyOptions struct {
	chain      store.ChainOptions
	base       string
	assumeBase bool
	stateDir   string
	raw        string
	dryRun     bool
}

func newApplyCommand(a *app) *cobra.Command {
	opt := &applyOptions{}
	c := &cobra.Command{
		Use:   "apply DELTA... TARGET",
		Short: "take an image from its point to a later one, in place",
		Long: `apply writes deltas over an existing raw image or device. The first delta must
have been made from the very point that the target is at; the following ones
each from where the one before leads. Several are applied as one: each block
goes from first to last.

What point the target is at is known from TARGET.cbt-state, which restore and
apply keep beside it, or because the first delta was made from the target
itself. Otherwise --base compares all of it with the state after a delta, or
--assume-base takes your word. Every byte of the deltas is verified, and old
content that the deltas know is compared, before the first byte is written.

An apply that is killed leaves the target marked incomplete; the same command
completes it. Before that it compares all of the target with the base, whose
deltas it finds as restore does (or by --chain, --base), and with what the new
ones lead to: if anybody else wrote to the target meanwhile it is refused.
DELTA may be - for standard input. Several disks: NAME=TARGET.

--dry-run makes all these checks, says what would be written, and writes nothing.`,
		Example: `  cbt apply tuesday.cbt wednesday.cbt disk.raw
  cbt diff disk.qcow2@mon disk.qcow2@tue -o - | ssh host cbt apply - disk.raw`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode, fail.BusyCode),
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fail.Usage("apply: %s is missing: usage is `cbt apply DELTA... TARGET`", []string{"DELTA", "TARGET"}[len(args)])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.apply(c.Context(), args, opt)
		},
	}
	flags := c.Flags()
	flags.StringVar(&opt.base, "base", "", "the target is at the state after `DELTA`: compare all of it with that")
	flags.BoolVar(&opt.assumeBase, "assume-base", false, "the target is at the right point, take my word")
	flags.StringVar(&opt.stateDir, "state-dir", "", "keep the records of devices in `DIR`")
	flags.StringVar(&opt.raw, "target-format", "", "`FORMAT`: raw: write raw bytes even over what looks like another format")
	flags.BoolVar(&opt.dryRun, "dry-run", false, "make all checks, say what would be written, and write nothing")
	addChainFlag(&opt.chain, flags)
	addSpoolFlag(&opt.chain, flags)
	return c
}

// task is one target and the layers that go there.
type task struct {
	target *imageTarget
	layers []cbt.Layer
	merge  *cbt.Merge
	resume bool // its own work was interrupted
	done   bool // it is where the deltas lead already
	doubt  bool // that it is there, or at the base, bytes have to confirm

	compared bool // with resume: all of the target was compared with what it may hold
}

func (a *app) apply(ctx context.Context, args []string, opt *applyOptions) error {
	if opt.raw != "" && opt.raw != formatRaw {
		return fail.Usage("--target-format %s: deltas are applied to raw images only", text.Printable(opt.raw))
	}
	if opt.base != "" && opt.assumeBase {
		return fail.Usage("--base and --assume-base exclude each other")
	}
	names, targets, err := splitTargets(args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fail.Usage("apply: no delta before the targets: usage is `cbt apply DELTA... TARGET`")
	}
	o, err := a.newOpener(openerOptions{})
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	deltas, err := a.openDeltas(ctx, o, names, opt.chain)
	if err != nil {
		return deltaFirst(o, "apply", names, targets, err)
	}
	if err := o.refuseSources(targets); err != nil {
		return err
	}
	streams, err := matchTargets(deltas[len(deltas)-1], targets)
	if err != nil {
		return err
	}
	if len(streams) > 1 && opt.base != "" {
		return fail.Usage("--base is for one target at a time")
	}

	tasks := make([]*task, len(targets))
	for i, t := range targets {
		if tasks[i], err = o.newApplyTask(deltas, streams[i], opt.chain); err != nil {
			return err
		}
		if tasks[i].target, err = openTarget(a.audit, t.path, opt.stateDir, opt.raw == formatRaw); err != nil {
			return err
		}
		defer tasks[i].target.Close()
		if err := a.checkPoint(ctx, o, tasks[i], opt); err != nil {
			return err
		}
	}
	all := tasks
	if tasks, err = a.unfinished(ctx, o, tasks, deltas, opt); err != nil {
		return err
	}
	if err := o.VerifyAll(ctx, layersOf(tasks)); err != nil {
		return err
	}
	var checked int64
	for _, t := range tasks {
		if t.resume {
			seen, err := a.checkHalf(ctx, o, t, deltas, opt)
			if err != nil {
				return err
			}
			checked += seen
			continue
		}
		if t.doubt {
			if err := a.confirm(ctx, o, t, deltas, opt); err != nil {
				return err
			}
		}
		st, err := t.merge.CheckBase(ctx, t.target, cbt.ApplyOptions{})
		if err != nil {
			return fmt.Errorf("%s: %w", t.target.path, baseError(err))
		}
		checked += st.Checked
	}
	result := writtenImages{Checked: &checked}
	for i, t := range targets {
		result.Targets = append(result.Targets, wroteTarget(t.path, all[i].layers))
	}
	if opt.dryRun {
		return a.planApply(ctx, o, tasks, result)
	}
	st, err := a.writeTasks(ctx, tasks, "apply", cbt.ApplyOptions{})
	if err != nil {
		return err
	}
	if last := deltas[len(deltas)-1]; last.Stream(store.StateStream) >= 0 {
		a.Notef("%s: has the machine's RAM too, which is left out: cbt restore %s --state FILE writes it", last.Name, text.Quote(text.PathArgument(last.Name)))
	}
	for _, t := range tasks {
		if t.compared {
			checked += t.target.wrote.Written + t.target.wrote.Zeroed
		}
	}
	unchecked := max(0, st.Written+st.Zeroed-checked)
	a.Notef("applied %s: %s written, %s zeroed; %s of the old content checked, %s unchecked",
		text.Count(len(deltas), "delta"), text.Size(st.Written), text.Size(st.Zeroed), text.Size(checked), text.Size(unchecked))
	result.Written, result.Zeroed, result.Unchecked, result.Read = st.Written, st.Zeroed, &unchecked, o.BytesRead()
	return a.result(result)
}

// openDeltas opens the deltas of the command line; one may be standard input.
func (a *app) openDeltas(ctx context.Context, o *opener, names []string, opt store.ChainOptions) ([]*store.File, error) {
	var all []*store.File
	spooled := false
	for _, name := range names {
		var d *store.File
		var err error
		switch {
		case name != stdinName:
			if name, err = o.Resolve(name); err == nil {
				d, err = o.OpenDelta(name)
			}
		case spooled:
			err = fail.Usage("standard input (-) is named twice")
		default:
			spooled = true
			d, err = spool(a, ctx, o, opt)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// newApplyTask links one stream of the deltas.
func (o *opener) newApplyTask(deltas []*store.File, last int, opt store.ChainOptions) (*task, error) {
	name := deltas[len(deltas)-1].Header.Streams[last].Name
	t := &task{}
	for _, d := range deltas {
		i := d.Stream(name)
		if i < 0 {
			return nil, fail.WrongBase("%s: has no stream %s", d.Name, text.Printable(name))
		}
		if d.Header.Streams[i].Full {
			return nil, fail.WrongBase("%s: is a full delta, which has no base to be applied to: restore it instead", d.Name)
		}
		t.layers = append(t.layers, cbt.Layer{Delta: d.Delta, Stream: i})
	}
	var err error
	if t.merge, err = cbt.NewMerge(t.layers...); err != nil {
		return nil, fail.WrongBase("%s: %w", deltas[len(deltas)-1].Name, o.PointsByName(deltas[0], opt, err))
	}
	return t, nil
}

func (t *task) stream() string {
	l := t.layers[len(t.layers)-1]
	return l.Delta.Header.Streams[l.Stream].Name
}

func (t *task) pending(command string) *record.Pending {
	p := &record.Pending{Command: command, Deltas: idsOf(t.layers)}
	if from := t.merge.From(); from != nil {
		p.From = from.Point
	}
	l := t.layers[len(t.layers)-1]
	p.To = l.Delta.Header.Streams[l.Stream].To
	return p
}

func layersOf(tasks []*task) [][]cbt.Layer {
	var all [][]cbt.Layer
	for _, t := range tasks {
		all = append(all, t.layers)
	}
	return all
}

// writeTasks writes all targets in place. They are all marked before the first
// byte, and none is whole before the last: disks of one instant stay together.
func (a *app) writeTasks(ctx context.Context, tasks []*task, command string, opt cbt.ApplyOptions) (cbt.ApplyStats, error) {
	var total cbt.ApplyStats
	var payload, before int64
	for _, t := range tasks {
		payload += t.merge.Payload()
		if err := t.target.begin(t.stream(), t.pending(command)); err != nil {
			return total, err
		}
	}
	p := a.Start(strings.TrimSuffix(command, "y")+"ing", payload)
	defer p.Finish()
	for _, t := range tasks {
		opt.CompareZeros = opt.Compare && t.target.stat.Block
		if opt.Was = nil; opt.Compare && !t.target.stat.Block {
			was, err := sparse.OpenRaw(t.target.f)
			if err != nil {
				return total, err
			}
			opt.Was = was
		}
		opt.Progress = func(done int64) { p.Set(before + done) }
		st, err := t.merge.WriteTo(ctx, t.target, opt)
		total.Add(st)
		t.target.wrote = st
		if err != nil {
			return total, fmt.Errorf("%s: %w (the target is incomplete: the same command completes it)", t.target.path, err)
		}
		before += t.merge.Payload()
	}
	for _, t := range tasks {
		if err := t.target.finish(ctx, t.layers); err != nil {
			return total, fmt.Errorf("%s: %w", t.target.path, err)
		}
	}
	return total, nil
}
