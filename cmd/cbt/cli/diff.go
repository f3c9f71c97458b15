package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/sparse"
)

type diffOptions struct {
	command     string // diff or backup: what progress is called
	source      openerOptions
	oldRef      refOptions
	newRef      refOptions
	fullRef     refOptions // of NEW with --full
	chain       store.ChainOptions
	olds, news  []string
	full        bool
	out         string
	method      string
	bitmap      string
	refine      string
	spotCheck   string
	consistency string
	labelled    bool // by --consistency
	ram         string
	oldState    string
	newState    string
	newMachine  *machine // of newState, if it is open already
	oldStateRef refOptions
	newStateRef refOptions
	stateDir    string
	workers     int
	machine     string // whose images these are, if that is known
}

func newDiffCommand(a *app) *cobra.Command {
	opt := &diffOptions{command: "diff"}
	c := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "print or write what changed between two images",
		Long: `diff finds what changed from OLD to NEW in metadata that the images keep anyway,
and prints the changed extents. With -o it reads them, keeps the 4 KiB blocks
that really differ, and writes a delta; -o - writes it to stdout. --full NEW
takes no OLD and writes all of NEW: the beginning of a chain.

It takes the cheapest method that is right: the tables that two states of one
qcow2 image share; an overlay over its own backing chain; the mapping trees of a
thin pool; the exception tables of thick snapshots; else the content of what
either image stores. A bitmap is used only when it is named, because
nothing in it tells what it started from.

OLD may be a delta (tuesday.cbt): the state after it. So a chain goes on when
the snapshot that it ended with is gone.

Where NEW was saved with the machine's RAM, the delta has the pages that changed
and the state of the devices too (--ram no leaves them out). RAM that lies
elsewhere is named by --old-state and --new-state; OLD and NEW may also be saved
states themselves: files of virsh save or of QEMU's migration.

Before a delta becomes whole, a random sample of what metadata calls unchanged
is compared, and the sources are looked at again: whoever changed them
meanwhile makes diff fail. An active image has no point, so nothing can build on
a delta of it: take a snapshot and name that.`,
		Example: `  cbt diff disk.qcow2@monday disk.qcow2@tuesday
  cbt diff --full disk.qcow2@monday -o monday.cbt
  cbt diff disk.qcow2@monday disk.qcow2@tuesday -o tuesday.cbt
  cbt diff lvm:vg0/vm1-mon lvm:vg0/vm1-tue -o tuesday.cbt
  cbt diff mon.save tue.save -o tue-ram.cbt
  cbt diff --pv disk.raw lvm:vg0/vm1-mon lvm:vg0/vm1-tue
  cbt diff --old sda=a.qcow2@mon --new sda=a.qcow2@tue --old sdb=b.qcow2@mon --new sdb=b.qcow2@tue -o tue.cbt`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.FindingsCode, fail.WrongBaseCode, fail.BusyCode),
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case len(opt.news) > 0 || len(opt.olds) > 0:
				if len(args) > 0 {
					return fail.Usage("diff: %s: --old and --new name the images already", text.Printable(args[0]))
				}
				return nil
			case opt.full:
				return wantArgs("NEW")(c, args)
			}
			return wantArgs("OLD", "NEW")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			opt.labelled = c.Flags().Changed("consistency")
			return a.diff(c.Context(), args, opt)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&opt.out, "output", "o", "", "write a delta to `FILE`, which must not exist; - is stdout")
	flags.BoolVar(&opt.full, "full", false, "no OLD: all of NEW")
	flags.StringArrayVar(&opt.olds, "old", nil, "old image of one of several disks (`NAME=REF`, repeatable)")
	flags.StringArrayVar(&opt.news, "new", nil, "new image of one of several disks (`NAME=REF`, repeatable)")
	flags.StringVar(&opt.method, "method", methodAuto, "`METHOD`: auto, tables, overlay, thin, thick, bitmap or content")
	flags.StringVar(&opt.ram, "ram", ramAuto, "`WHICH`: auto: RAM too if NEW has it; no; only: nothing but RAM")
	flags.StringVar(&opt.oldState, "old-state", "", "`REF` of the machine state that goes with OLD")
	flags.StringVar(&opt.newState, "new-state", "", "`REF` of the machine state that goes with NEW")
	flags.StringVar(&opt.bitmap, "bitmap", "", "changes that the persistent bitmap `NAME` of NEW recorded since OLD")
	flags.StringVar(&opt.refine, "refine", "on", "`on` or off: write whole changed clusters, read nothing of OLD")
	flags.StringVar(&opt.spotCheck, "spot-check", "64M", "compare a sample of this `SIZE` of what did not change; or off")
	opt.addConsistencyFlag(flags)
	flags.Var(workersValue(&opt.workers), "workers", "`N`: how many read, compare and compress (default: one per processor, at most 16)")
	flags.StringVar(&opt.stateDir, "state-dir", "", "records of devices that were restored are in `DIR`")
	opt.source.addFlags(flags)
	opt.oldRef.addFlags(flags, "old-", "OLD")
	opt.newRef.addFlags(flags, "new-", "NEW")
	opt.fullRef.addFlags(flags, "", "the NEW of --full")
	addChainFlag(&opt.chain, flags)
	return c
}

// disk is one stream to compare.
type disk struct {
	name     string
	old, img *source // old is nil for a full stream
	method   method
	ram      bool // not a disk: a block of RAM, or the rest of a machine's state
}

func (a *app) diff(ctx context.Context, args []string, opt *diffOptions) error {
	if err := opt.check(a); err != nil {
		return err
	}
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	if opt.out != "" {
		o.empty = emptyRefused
	}
	defer a.closeOpener(o)
	o.rawPoint = o.pointOfRaw(opt.stateDir)
	o.openDelta = func(_ context.Context, path string, ref refOptions) (*source, error) {
		return o.openChain(path, path, ref, opt.chain)
	}
	disks, err := opt.open(ctx, o, args)
	if err != nil {
		return err
	}
	for i := range disks {
		if err := disks[i].compare(opt.method, opt.bitmap); err != nil {
			return err
		}
	}
	if opt.out == "" && opt.ram != ramOnly {
		return a.printDiff(ctx, disks) // of RAM only if asked: it has no metadata that tell
	}
	for i := range disks {
		if err := disks[i].freeze(ctx, opt.source.Frozen); err != nil {
			return err
		}
	}
	a.warnOneDisk(disks)
	if dir := opt.chainDir(); dir != "" {
		for i := range disks {
			if err := a.keepChain(ctx, o, &disks[i], dir); err != nil {
				return err
			}
		}
	}
	a.warnOfRAM(o, disks, opt)
	if disks, err = a.addRAM(ctx, o, disks, opt); err != nil {
		return err
	}
	if err := o.releasePools(); err != nil {
		return err
	}
	if opt.out == "" {
		return a.printDiff(ctx, disks)
	}
	if err := a.checkConsistency(ctx, disks, opt); err != nil {
		return err
	}
	return a.writeDelta(ctx, o, disks, opt)
}

// chainDir is where the deltas are that the new one will be beside; "" if that is
// not known, or there will be none.
func (opt *diffOptions) chainDir() string {
	switch {
	case opt.chain.Dir != "" || opt.out == "":
		return opt.chain.Dir
	case opt.out == stdinName:
		return ""
	}
	return filepath.Dir(opt.out)
}

// compare finds the method that tells what changed.
func (d *disk) compare(want, bitmap string) (err error) {
	if d.old == nil {
		return nil
	}
	if d.method, err = findMethod(d.old, d.img, want, bitmap); err != nil {
		return err
	}
	// Whatever stands in NEW's backing chain is frozen as long as its files are
	// what they were.
	if d.method.name == methodOverlay && d.old.Point == "" && d.old.img != nil {
		d.old.Point = activePoint(d.old.img)
	}
	return nil
}

// freeze finds out at which points volumes are, which may take reading their
// mapping trees.
func (d *disk) freeze(ctx context.Context, frozen bool) (err error) {
	if d.old != nil && d.old.vol != nil {
		if d.old.Point, err = d.old.vol.point(ctx, frozen, d.img); err != nil {
			return fmt.Errorf("%s: %w", d.old.Ref, err)
		}
	}
	if d.img.vol != nil {
		if d.img.Point, err = d.img.vol.point(ctx, frozen, d.old); err != nil {
			return fmt.Errorf("%s: %w", d.img.Ref, err)
		}
	}
	return nil
}

func (opt *diffOptions) check(a *app) error {
	switch {
	case opt.refine != "on" && opt.refine != "off":
		return fail.Usage("--refine %s: must be on or off", text.Printable(opt.refine))
	case opt.full && (opt.bitmap != "" || opt.method != methodAuto):
		return fail.Usage("--full takes all of NEW: no --method and no --bitmap")
	case opt.full && (len(opt.olds) > 0 || opt.oldRef != refOptions{prefix: opt.oldRef.prefix}):
		return fail.Usage("--full takes no OLD: no --old and no --old-...")
	case !opt.full && (opt.fullRef.Snapshot != "" || opt.fullRef.SnapshotID != "" || opt.fullRef.Path):
		return fail.Usage("of which image? --old-snapshot and --new-snapshot (or -id, -path) say")
	case opt.full && opt.newRef != refOptions{prefix: opt.newRef.prefix}:
		opt.fullRef = opt.newRef
	case opt.ram != ramAuto && opt.ram != ramNo && opt.ram != ramOnly:
		return fail.Usage("--ram %s: must be auto, no or only", text.Printable(opt.ram))
	case opt.ram == ramNo && (opt.oldState != "" || opt.newState != ""):
		return fail.Usage("--ram no: and --old-state or --new-state names some")
	case opt.full && opt.oldState != "":
		return fail.Usage("--full takes no OLD: no --old-state")
	}
	if c := cbt.Consistency(opt.consistency); c != cbt.Crash && c != cbt.Filesystem && c != cbt.Application {
		return fail.Usage("--consistency %s: must be crash, filesystem or application", text.Printable(opt.consistency))
	}
	if opt.out == stdinName && a.StdoutTerminal {
		return fail.Usage("-o -: stdout is a terminal: redirect it, or name a file")
	}
	if opt.out == stdinName {
		if err := a.keepsStdout(); err != nil {
			return err
		}
	}
	if opt.spotCheck != "off" {
		if n, err := text.ParseSize(opt.spotCheck); err != nil {
			return fail.Usage("--spot-check: %w, or off", err)
		} else if n == 0 {
			return fail.Usage("--spot-check 0: must be a size, or off")
		}
	}
	return nil
}

// printDiff prints the changed extents.
func (a *app) printDiff(ctx context.Context, disks []disk) error {
	out := newExtentPrinter(a, len(disks) > 1)
	for _, d := range disks {
		var data, zero, count int64
		for e, err := range d.extents() {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			if e.Kind == sparse.Data {
				data += e.Len
			} else {
				zero += e.Len
			}
			count++
			if err := out.print(d.name, e); err != nil {
				return err
			}
		}
		if err := d.recheck(); err != nil {
			return err
		}
		a.Notef("%s: %s in %s: %s data, %s zero%s", d.summary(len(disks) > 1), text.Size(data+zero), text.Count(int(count), "extent"),
			text.Size(data), text.Size(zero), d.sizeChange())
	}
	if err := out.end(); err != nil {
		return err
	}
	return nil
}

// extents are the changed extents as they are printed.
func (d *disk) extents() sparse.Seq {
	switch {
	case d.old == nil:
		return d.img.View.Extents(0, d.img.View.Size())
	case d.method.exact != nil:
		return d.method.exact()
	}
	return d.method.changed(0, max(d.old.View.Size(), d.img.View.Size()))
}

// stream is the name of the stream that the disk becomes.
func (d *disk) stream() string {
	switch {
	case d.ram:
		return d.name
	case d.old != nil && d.old.stream != "":
		return d.old.stream
	}
	return "disk/" + d.name
}

func (d *disk) summary(named bool) string {
	str := d.method.text
	if d.old == nil {
		str = "all of " + d.img.Ref
	}
	if named {
		return text.Printable(d.name) + ": " + str
	}
	return str
}

func (d *disk) sizeChange() string {
	if d.old == nil || d.old.View.Size() == d.img.View.Size() {
		return ""
	}
	return fmt.Sprintf("; size %d -> %d bytes", d.old.View.Size(), d.img.View.Size())
}

// recheck says whether somebody changed the images meanwhile.
func (d *disk) recheck() error {
	if d.old != nil {
		if err := d.old.Recheck(); err != nil {
			return err
		}
		if d.method.recheck != nil {
			if err := d.method.recheck(); err != nil {
				return err
			}
		}
	}
	return d.img.Recheck()
}
