package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/text"
)

type restoreOptions struct {
	chain     store.ChainOptions
	overwrite bool
	inPlace   bool
	format    string
	stateDir  string
	dryRun    bool

	state       string
	stateFormat string
	domain      string
}

func newRestoreCommand(a *app) *cobra.Command {
	opt := &restoreOptions{}
	c := &cobra.Command{
		Use:   "restore DELTA [TARGET...]",
		Short: "make TARGET hold the state after DELTA",
		Long: `restore writes the image as it was at the point of DELTA. The deltas that it
builds on are found by their points among the .cbt files beside it, or in
--chain DIR. All of them are verified before the first byte is written; where one
is damaged and others lead past it to the same point, those are taken, with a
warning.

A new file appears only when it is whole. An existing one needs --overwrite,
which replaces it in the same way, or --in-place, which reads it and writes only
what differs; that is also how a device is written (with --state-dir for the
record of its state). A mounted or used target is refused.

A delta with the machine's RAM gives that to --state FILE, which appears last,
when the disks are synced: QEMU goes on from it with
-incoming "exec:cat FILE", beside the disks. The same state always has the same
bytes. --state-format libvirt makes a save image (virsh restore), mapped-ram a
file for QEMU from 9.0 on. Without --state the disks alone are restored, and the
machine wakes up without memory.

--dry-run verifies and checks all that a run would before its first byte, says
what it would write, and writes nothing.

DELTA may be - for standard input. A delta of several disks: NAME=TARGET for
each disk that is wanted.`,
		Example: `  cbt restore backups/@latest disk.raw
  cbt restore backups/@vm1/2026-11-24 disk.raw
  cbt restore --target-format qcow2 backups/@2026-11-24 disk.qcow2
  cbt restore tuesday.cbt disk.raw --state tuesday.state`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode, fail.BusyCode),
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && opt.state != "" {
				return nil
			}
			return wantArgs("DELTA", "TARGET...")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.restore(c.Context(), args, opt)
		},
	}
	flags := c.Flags()
	flags.BoolVar(&opt.overwrite, "overwrite", false, "replace an existing target once the new one is whole")
	flags.BoolVar(&opt.inPlace, "in-place", false, "write over an existing target, only where it differs")
	flags.StringVar(&opt.format, "target-format", "", "`FORMAT` of the target: raw (the default) or qcow2")
	flags.StringVar(&opt.state, "state", "", "write the state of the machine, with its RAM, to `FILE`")
	flags.StringVar(&opt.stateFormat, "state-format", stateAsStream, "`FORMAT` of the state: stream, libvirt or mapped-ram")
	flags.StringVar(&opt.domain, "domain", "", "domain XML in `FILE` for a save image whose state has none")
	flags.StringVar(&opt.stateDir, "state-dir", "", "keep the records of devices in `DIR`")
	flags.BoolVar(&opt.dryRun, "dry-run", false, "make all checks, say what would be written, and write nothing")
	addChainFlag(&opt.chain, flags)
	addSpoolFlag(&opt.chain, flags)
	return c
}

func (a *app) restore(ctx context.Context, args []string, opt *restoreOptions) error {
	switch {
	case opt.overwrite && opt.inPlace:
		return fail.Usage("--overwrite and --in-place exclude each other")
	case opt.format != "" && opt.format != formatRaw && opt.format != formatQcow2:
		return fail.Usage("--target-format %s: must be raw or qcow2", text.Printable(opt.format))
	case opt.format == formatQcow2 && opt.inPlace:
		return fail.Usage("--in-place is for raw targets: a qcow2 image is written anew (--overwrite)")
	}
	if err := opt.checkState(); err != nil {
		return err
	}
	names, targets := args, []namedTarget(nil)
	if len(args) > 1 {
		var err error
		if names, targets, err = splitTargets(args); err != nil {
			return err
		}
	}
	if len(names) != 1 {
		return fail.Usage("restore: takes one delta, got %d: usage is `cbt restore DELTA TARGET`, or NAME=TARGET for each of several disks", len(names))
	}
	start := time.Now()
	o, err := a.newOpener(openerOptions{})
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	o.spoolDir = a.spoolDir(opt.chain.SpoolDir)
	deltas, err := a.openDeltas(ctx, o, names, opt.chain)
	if err != nil {
		return deltaFirst(o, "restore", names, targets, err)
	}
	r := &restoration{app: a, opt: opt, opener: o, delta: deltas[0]}
	defer func() {
		if r != nil {
			r.close()
		}
	}()
	if err := r.open(targets); err != nil {
		return err
	}
	if opt.state == "" {
		a.withoutMemory(r.delta)
	}
	if left := len(r.delta.Disks()) - len(targets); left > 0 && opt.state != "" {
		a.Notef("%s: the machine's state works only beside its disks of the same point: %s of it, which no TARGET is named for", r.delta.Name, text.Count(left, "disk"))
	}
	for {
		err := o.VerifyAll(ctx, r.layers)
		if err == nil {
			break
		}
		if r = r.another(ctx, targets, err); r == nil {
			return err
		}
	}
	if opt.dryRun {
		return r.plan(ctx, targets)
	}
	total, state, err := r.write(ctx)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		a.Notef("restored from %s in %s%s; %s read", text.Count(len(r.layers[0]), "delta"), elapsed(start), r.state.describe(state), text.Size(o.BytesRead()))
	} else {
		a.Notef("restored %s from %s in %s: %s written, %s zeroed, %s left as they were%s; %s read",
			text.Count(len(targets), "image"), text.Count(len(r.layers[0]), "delta"), elapsed(start),
			text.Size(total.Written), text.Size(total.Zeroed), text.Size(total.Same), r.state.describe(state), text.Size(o.BytesRead()))
	}
	a.sayLevel(r.delta.Name, r.delta.Header.Consistency)
	result := writtenImages{Targets: []writtenTarget{}, Written: total.Written, Zeroed: total.Zeroed, Same: &total.Same, Read: o.BytesRead()}
	for i, t := range targets {
		result.Targets = append(result.Targets, wroteTarget(t.path, r.layers[i]))
	}
	if r.state != nil {
		result.State = &writtenState{r.state.path, state}
	}
	return a.result(result)
}
