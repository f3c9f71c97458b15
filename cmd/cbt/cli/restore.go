package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"cbt/cbt"
)

type restoreOptions struct {
	chain     chainOptions
	overwrite bool
	inPlace   bool
	format    string
	stateDir  string

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
--chain DIR. All of them are verified before the first byte is written.

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

DELTA may be - for standard input. A delta of several disks: NAME=TARGET for
each disk that is wanted.`,
		Example: `  cbt restore tuesday.cbt disk.raw
  cbt restore --target-format qcow2 tuesday.cbt disk.qcow2
  cbt restore tuesday.cbt disk.raw --state tuesday.state`,
		Annotations: exits(exitDone, exitFailed, exitUsage, exitWrongBase, exitBusy),
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
	opt.chain.addFlags(flags)
	opt.chain.addSpoolFlag(flags)
	return c
}

func (a *app) restore(ctx context.Context, args []string, opt *restoreOptions) error {
	switch {
	case opt.overwrite && opt.inPlace:
		return usageErrorf("--overwrite and --in-place exclude each other")
	case opt.format != "" && opt.format != formatRaw && opt.format != formatQcow2:
		return usageErrorf("--target-format %s: must be raw or qcow2", printable(opt.format))
	case opt.format == formatQcow2 && opt.inPlace:
		return usageErrorf("--in-place is for raw targets: a qcow2 image is written anew (--overwrite)")
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
		return usageErrorf("restore: takes one delta, got %d: usage is `cbt restore DELTA TARGET`, or NAME=TARGET for each of several disks", len(names))
	}
	start := time.Now()
	o, err := a.newOpener(openerOptions{})
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	o.spoolDir = a.spoolDir(opt.chain.spoolDir)
	deltas, err := a.openDeltas(ctx, o, names, opt.chain)
	if err != nil {
		return err
	}
	streams, err := deltas[0].match(targets)
	if err != nil {
		return err
	}
	var inPlace []*task
	var fresh []*newTarget
	defer func() {
		for _, n := range fresh {
			n.abort()
		}
	}()
	var layers [][]cbt.Layer
	for i := range targets {
		chain, err := o.chain(deltas[0], streams[i], opt.chain)
		if err != nil {
			return err
		}
		layers = append(layers, chain)
	}
	if err := o.refuseSources(targets); err != nil {
		return err
	}
	for i, t := range targets {
		// What a link leads to is the target: its record lies beside it.
		if real, err := filepath.EvalSymlinks(t.path); err == nil {
			t.path = real
		}
		chain := layers[i]
		merge, err := cbt.NewMerge(chain...)
		if err != nil {
			return err
		}
		block, err := checkRestoreTarget(t.path, opt)
		if err != nil {
			return err
		}
		if opt.inPlace && exists(t.path) || block {
			target, err := openTarget(t.path, opt.stateDir, opt.format == formatRaw)
			if err != nil {
				return err
			}
			defer target.Close()
			if err := tooSmall(target, merge.Size()); err != nil {
				return err
			}
			inPlace = append(inPlace, &task{target: target, layers: chain, merge: merge})
			continue
		}
		n, err := createTarget(t.path, opt, chain, merge)
		if err != nil {
			return err
		}
		fresh = append(fresh, n)
	}
	var state *stateTarget
	if opt.state != "" {
		if state, err = o.openStateTarget(deltas[0], targets, opt); err != nil {
			return err
		}
		defer state.abort()
		layers = append(layers, state.layers()...)
	} else {
		a.withoutMemory(deltas[0])
	}
	if err := a.verifyAll(ctx, o, layers); err != nil {
		return err
	}

	var written int64
	if state != nil {
		if written, err = state.write(ctx, a); err != nil {
			return err
		}
	}
	total, err := a.writeTasks(ctx, inPlace, "restore", cbt.ApplyOptions{Compare: true})
	if err != nil {
		return err
	}
	for _, n := range fresh {
		st, err := n.write(ctx, a)
		total.Add(st)
		if err != nil {
			return fmt.Errorf("%s: %w", n.path, err)
		}
	}
	for _, n := range fresh {
		if err := n.commit(ctx); err != nil {
			return fmt.Errorf("%s: %w", n.path, err)
		}
	}
	if state != nil {
		if err := state.file.Commit(); err != nil {
			return refError(state.path, err)
		}
	}
	a.notef("restored %s from %s in %s: %s written, %s zeroed, %s left as they were%s; %s read",
		countOf(len(targets), "image"), countOf(len(layers[0]), "delta"), elapsed(start),
		formatSize(total.Written), formatSize(total.Zeroed), formatSize(total.Same), opt.describeState(state, written), formatSize(o.BytesRead()))
	return nil
}

// checkRestoreTarget says whether the path may be written to, and whether it
// is a device.
func checkRestoreTarget(path string, opt *restoreOptions) (block bool, err error) {
	st, err := os.Stat(path)
	switch {
	case isNotExist(err):
		if opt.format == "" {
			err = refuseContainer(path, nil)
		} else {
			err = nil
		}
		return false, err
	case err != nil:
		return false, err
	}
	if err := kindError(path, st.Mode()); err != nil {
		return false, err
	}
	block = st.Mode()&os.ModeDevice != 0
	switch {
	case !opt.inPlace && block:
		return block, usageErrorf("%s: is a device: --in-place writes over what is there", path)
	case !opt.overwrite && !opt.inPlace:
		return block, usageErrorf("%s: exists already: --overwrite replaces it, --in-place writes where it differs", path)
	case block && opt.format == formatQcow2:
		return block, usageErrorf("%s: is a device: a qcow2 image is written to a file", path)
	}
	return block, nil
}

func tooSmall(t *imageTarget, size int64) error {
	if t.stat.block && t.Size() < size {
		return fmt.Errorf("%s: a device of %d bytes cannot hold the image of %d", t.path, t.Size(), size)
	}
	return nil
}
