package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cbt/cbt"
	"cbt/sparse"
)

type applyOptions struct {
	chain      chainOptions
	base       string
	assumeBase bool
	stateDir   string
	raw        string
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
completes it. DELTA may be - for standard input. Several disks: NAME=TARGET.`,
		Example: `  cbt apply monday.cbt tuesday.cbt disk.raw
  cbt diff disk.qcow2@mon disk.qcow2@tue -o - | ssh host cbt apply - disk.raw`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitWrongBase, exitBusy),
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageErrorf("apply: %s is missing: usage is `cbt apply DELTA... TARGET`", []string{"DELTA", "TARGET"}[len(args)])
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
	flags.StringVar(&opt.raw, "target-format", "", "raw: write raw bytes even over what looks like another format")
	opt.chain.addFlags(flags)
	opt.chain.addSpoolFlag(flags)
	return c
}

// task is one target and the layers that go there.
type task struct {
	target *imageTarget
	layers []cbt.Layer
	merge  *cbt.Merge
	resume bool // its own work was interrupted
	done   bool // it is where the deltas lead already
}

func (a *app) apply(ctx context.Context, args []string, opt *applyOptions) error {
	if opt.raw != "" && opt.raw != formatRaw {
		return usageErrorf("--target-format %s: deltas are applied to raw images only", printable(opt.raw))
	}
	if opt.base != "" && opt.assumeBase {
		return usageErrorf("--base and --assume-base exclude each other")
	}
	names, targets, err := splitTargets(args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return usageErrorf("apply: no delta before the targets: usage is `cbt apply DELTA... TARGET`")
	}
	o, err := a.newOpener(openerOptions{})
	if err != nil {
		return err
	}
	defer o.Close()
	deltas, err := a.openDeltas(ctx, o, names, opt.chain)
	if err != nil {
		return err
	}
	streams, err := deltas[len(deltas)-1].match(targets)
	if err != nil {
		return err
	}
	if len(streams) > 1 && opt.base != "" {
		return usageErrorf("--base is for one target at a time")
	}

	tasks := make([]*task, len(targets))
	for i, t := range targets {
		if tasks[i], err = newApplyTask(deltas, streams[i]); err != nil {
			return err
		}
		if tasks[i].target, err = openTarget(t.path, opt.stateDir, opt.raw == formatRaw); err != nil {
			return err
		}
		defer tasks[i].target.Close()
		if err := a.checkPoint(ctx, o, tasks[i], opt); err != nil {
			return err
		}
	}
	if tasks, err = unfinished(tasks); err != nil {
		return err
	}
	if err := a.verifyAll(ctx, o, layersOf(tasks)); err != nil {
		return err
	}
	var checked int64
	for _, t := range tasks {
		if t.resume {
			continue
		}
		st, err := t.merge.CheckBase(ctx, t.target, cbt.ApplyOptions{})
		if err != nil {
			return fmt.Errorf("%s: %w", t.target.path, baseError(err))
		}
		checked += st.Checked
	}
	st, err := a.writeTasks(ctx, tasks, "apply", cbt.ApplyOptions{})
	if err != nil {
		return err
	}
	a.notef("applied %s: %s written, %s zeroed; %s of the old content checked, %s unchecked",
		countOf(len(deltas), "delta"), formatSize(st.Written), formatSize(st.Zeroed), formatSize(checked), formatSize(max(0, st.Written+st.Zeroed-checked)))
	return nil
}

// openDeltas opens the deltas of the command line; one may be standard input.
func (a *app) openDeltas(ctx context.Context, o *opener, names []string, opt chainOptions) ([]*deltaFile, error) {
	var all []*deltaFile
	spooled := false
	for _, name := range names {
		var d *deltaFile
		var err error
		switch {
		case name != stdinName:
			d, err = o.openDeltaFile(name)
		case spooled:
			err = usageErrorf("standard input (-) is named twice")
		default:
			spooled = true
			d, err = a.spool(ctx, o, opt)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// newApplyTask links one stream of the deltas.
func newApplyTask(deltas []*deltaFile, last int) (*task, error) {
	name := deltas[len(deltas)-1].Header.Streams[last].Name
	t := &task{}
	for _, d := range deltas {
		i := d.Stream(name)
		if i < 0 {
			return nil, wrongBase("%s: has no stream %s", d.name, printable(name))
		}
		if d.Header.Streams[i].Full {
			return nil, wrongBase("%s: is a full delta, which has no base to be applied to: restore it instead", d.name)
		}
		t.layers = append(t.layers, cbt.Layer{Delta: d.Delta, Stream: i})
	}
	var err error
	if t.merge, err = cbt.NewMerge(t.layers...); err != nil {
		return nil, wrongBase("%s: %w", deltas[len(deltas)-1].name, err)
	}
	return t, nil
}

// checkPoint refuses a target that is not known to be at the base.
func (a *app) checkPoint(ctx context.Context, o *opener, t *task, opt *applyOptions) error {
	from, target := t.merge.From(), t.target
	r, err := readRecord(target.record)
	if err != nil {
		return err
	}
	if r != nil && !r.fits(target.stat) {
		a.debugf("%s is of another file, or the target was written to since", target.record)
		r = nil
	}
	if r != nil && r.Pending != nil {
		if !r.Pending.continues(t.pending("apply")) {
			return r.incomplete(target.path)
		}
		t.resume = true
		return nil
	}
	if r != nil && r.Delta == t.lastID() {
		t.done = true
		return nil
	}
	if st := target.stat; st.size != from.Size && !(st.block && st.size > from.Size) {
		return wrongBase("%s: wrong base: has %d bytes, the delta was made from an image of %d", target.path, st.size, from.Size)
	}
	if !target.stat.block && t.merge.Size() > target.stat.size {
		a.debugf("%s grows from %d to %d bytes", target.path, target.stat.size, t.merge.Size())
	} else if target.stat.block && t.merge.Size() > target.stat.size {
		return fmt.Errorf("%s: a device of %d bytes cannot hold the image of %d", target.path, target.stat.size, t.merge.Size())
	}
	have := ""
	switch {
	case opt.assumeBase:
		return nil
	case opt.base != "":
		return a.compareBase(ctx, o, t, opt)
	case from.Point == "":
		return wrongBase("%s: the delta was made from an image that was not frozen: only --assume-base applies it", target.path)
	case r != nil && r.Point == from.Point, rawPoint(target.stat) == from.Point:
		return nil
	case r != nil:
		have = r.Point
	default:
		return wrongBase("%s: wrong base, or unknown: no record says at which point it is (--base DELTA compares it with the state after DELTA)", target.path)
	}
	return wrongBase("%s: %w", target.path, &cbt.WrongBaseError{Stream: t.stream(), Want: from.Point, Have: have})
}

// compareBase compares the whole target with the state after --base.
func (a *app) compareBase(ctx context.Context, o *opener, t *task, opt *applyOptions) error {
	base, err := o.openChain(opt.base, opt.base, refOptions{}, opt.chain)
	if err != nil {
		return err
	}
	from := t.merge.From()
	if base.Point != from.Point || from.Point == "" {
		return wrongBase("--base %s: %w", opt.base, &cbt.WrongBaseError{Stream: t.stream(), Want: from.Point, Have: base.Point})
	}
	img := sparse.Resize(sparse.Plain(t.target, t.target.Size()), base.View.Size())
	p := a.startProgress("comparing the base", base.View.Size())
	defer p.finish()
	for e, err := range sparse.Compare(img, base.View, 0, base.View.Size()) {
		if err != nil {
			return err
		}
		return wrongBase("%s: wrong base: differs from the state after %s at offset %d", t.target.path, opt.base, e.Off)
	}
	return ctx.Err()
}

// unfinished leaves out the targets that an interrupted run of the same
// command finished. If it finished all, or never ran, being there already is a
// wrong base.
func unfinished(tasks []*task) ([]*task, error) {
	var rest []*task
	resumed := false
	for _, t := range tasks {
		if resumed = resumed || t.resume; !t.done {
			rest = append(rest, t)
		}
	}
	for _, t := range tasks {
		if t.done && !resumed {
			return nil, wrongBase("%s: wrong base: is already at the state that the deltas lead to", t.target.path)
		}
	}
	return rest, nil
}

// lastID is the ID of the delta that the target will be at.
func (t *task) lastID() string {
	ids := idsOf(t.layers[len(t.layers)-1:])
	return ids[0]
}

func (t *task) stream() string {
	l := t.layers[len(t.layers)-1]
	return l.Delta.Header.Streams[l.Stream].Name
}

func (t *task) pending(command string) *pending {
	p := &pending{Command: command, Deltas: idsOf(t.layers)}
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
	p := a.startProgress(strings.TrimSuffix(command, "y")+"ing", payload)
	defer p.finish()
	for _, t := range tasks {
		opt.CompareZeros = opt.Compare && t.target.stat.block
		opt.Progress = func(done int64) { p.set(before + done) }
		st, err := t.merge.WriteTo(ctx, t.target, opt)
		total.Add(st)
		if err != nil {
			return total, fmt.Errorf("%s: %w (the target is incomplete: the same command completes it)", t.target.path, err)
		}
		before += t.merge.Payload()
	}
	for _, t := range tasks {
		if err := t.target.finish(ctx, t.layers[len(t.layers)-1]); err != nil {
			return total, fmt.Errorf("%s: %w", t.target.path, err)
		}
	}
	return total, nil
}

// baseError gives errors about bases their exit code.
func baseError(err error) error {
	var mismatch *cbt.BaseMismatchError
	var wrong *cbt.WrongBaseError
	if errors.As(err, &mismatch) || errors.As(err, &wrong) {
		return &exitError{exitWrongBase, err}
	}
	return err
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
