package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/outfile"
	"cbt/internal/store"
	"cbt/internal/text"
)

type backupOptions struct {
	source    openerOptions
	ref       refOptions
	name      string
	continues string
	since     string // what --bitmap began at
	full      bool
	fullEvery int
	dryRun    bool
	unneeded  bool        // say what is no longer needed whatever else is quiet
	diff      diffOptions // what diff -o takes too
}

func newBackupCommand(a *app) *cobra.Command {
	opt := &backupOptions{}
	c := &cobra.Command{
		Use:   "backup REF... DIR",
		Short: "add a delta of REF to a directory of deltas: the line for cron",
		Long: `backup writes what changed in REF since the newest point that DIR has of it, as
one more delta in DIR. It finds OLD by itself:

  1. the newest point in DIR that the source still has: an internal snapshot of
     the same image, a file of its backing chain, a snapshot of the same volume;
     then what changed is in the source's own metadata;
  2. else the newest delta of the machine in DIR: its content is compared with REF;
  3. else nothing: the delta is full.

Where a dirty bitmap tells what changed, --bitmap names it, and --since the delta
in DIR, or the point, that it began at: no other OLD is looked for then.

So it does not fail because snapshots were deleted, renamed or rolled back, or
because the image was replaced: it reads more, and says why. What is in DIR
already is not written again: then it says so and ends with 0.

A delta says of which machine it is: --name, else by the first disk itself, its
UUID or a hash of what the file system has for it. --name vm1 on the cron line
is all it takes: what has that name goes on, whatever was copied, renamed or
restored. Without it, a disk that DIR does not know is refused (exit 2), with the
commands that say what it is, until one run was told: --name NAME for another
machine, --continue MACHINE for one that is there.

Several REFs are the disks of one machine at one instant: one delta of all of
them. A disk is called by NAME in NAME=REF, else by its file's or volume's name.
External snapshots, where the machine writes to an overlay meanwhile: --frozen
says that nobody writes to REF, so that the next run can build on it.
RAM that was saved with a snapshot goes along (--ram). RAM that lies elsewhere is
named by --new-state: QEMU puts a machine's state into the first disk that can
take it, often that of the UEFI variables.

The delta is named IMAGE-TIME-ID.cbt: the machine's name or that of the file (of a
snapshot of a volume: VG-ORIGIN), the time of the source, and what the delta's
ID begins with. It appears when it is whole, synced and spot-checked. Its path
goes to stdout. On stderr are the snapshots that are no longer needed, because
DIR has them and the next run goes on from a newer one, each with the command
that deletes it: cbt deletes none. While a machine has the image open that is a
command for virsh or for its monitor, because qemu-img must not write to it.
-q leaves these lines out too; -q --unneeded prints them alone, for cron.

DIR must exist: where it does not, the disk that it is on may not be mounted.`,
		Example: `  cbt backup disk.qcow2@tuesday backups/
  cbt backup --name vm1 --full-every 30 lvm:vg0/vm1-tue backups/
  cbt backup --name vm1 sda=a.qcow2@tue sdb=b.qcow2@tue backups/
  cbt backup --new-state nvram.qcow2@tue disk.qcow2@tue backups/`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode, fail.BusyCode),
		Args:        wantArgs("REF...", "DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			last := len(args) - 1
			opt.diff.labelled = c.Flags().Changed("consistency")
			return a.backup(c.Context(), args[:last], args[last], opt)
		},
	}
	flags := c.Flags()
	flags.StringVar(&opt.name, "name", "", "`NAME` of the machine, in its deltas and their names: what has it is continued, whatever became of its disks")
	flags.StringVar(&opt.continues, "continue", "", "these are the disks of `MACHINE`, which DIR has: copied, restored or replaced")
	flags.BoolVar(&opt.full, "full", false, "write a full delta")
	flags.Var(&wholeValue{&opt.fullEvery, 0, "never"}, "full-every", "write a full delta when this would be number `N`+1 of its chain (1: always full, 0: never)")
	flags.StringVar(&opt.diff.bitmap, "bitmap", "", "go by the dirty bitmap `NAME` of REF, which recorded since --since")
	flags.StringVar(&opt.since, "since", "", "the `DELTA` in DIR, or the point, that --bitmap began at")
	flags.BoolVar(&opt.dryRun, "dry-run", false, "say what REF would be compared with, why, and how much may have changed; write nothing")
	flags.BoolVar(&opt.unneeded, "unneeded", false, "say which snapshots are no longer needed, with --quiet too")
	flags.StringVar(&opt.diff.ram, "ram", ramAuto, "`WHICH`: auto: RAM too if REF has it; no")
	flags.StringVar(&opt.diff.newState, "new-state", "", "`REF` of the machine state that goes with REF, where it lies elsewhere")
	flags.StringVar(&opt.diff.spotCheck, "spot-check", "64M", "compare a sample of this `SIZE` of what did not change; or off")
	opt.diff.addConsistencyFlag(flags)
	flags.Var(workersValue(&opt.diff.workers), "workers", "`N`: how many read, compare and compress (default: one per processor, at most 16)")
	flags.StringVar(&opt.diff.stateDir, "state-dir", "", "records of devices that were restored are in `DIR`")
	opt.source.addFlags(flags)
	opt.ref.addFlags(flags, "", "REF")
	return c
}

// check completes what diff's code goes by.
func (opt *backupOptions) check(a *app) error {
	switch {
	case opt.full && opt.fullEvery > 0:
		return fail.Usage("--full and --full-every exclude each other")
	case opt.diff.bitmap != "" && opt.since == "":
		return fail.Usage("--bitmap %s: --since DELTA says what it began at: nothing in a bitmap does", text.Printable(opt.diff.bitmap))
	case opt.since != "" && opt.diff.bitmap == "":
		return fail.Usage("--since %s: --bitmap NAME says which bitmap began there", text.Printable(opt.since))
	case opt.since != "" && opt.full:
		return fail.Usage("--full and --bitmap exclude each other")
	case opt.diff.ram == ramOnly:
		return fail.Usage("--ram only: a backup is of disks; cbt diff takes RAM alone")
	case opt.diff.ram != ramAuto && opt.diff.ram != ramNo:
		return fail.Usage("--ram %s: must be auto or no", text.Printable(opt.diff.ram))
	case opt.name != "" && opt.continues != "":
		return fail.Usage("--name and --continue exclude each other: --name gives a name from now on, --continue keeps the one that is there")
	case opt.name != "" && store.ImageName(opt.name) != opt.name:
		return badName(opt.name)
	}
	opt.diff.command = "backup"
	opt.diff.refine, opt.diff.method, opt.diff.source = "on", methodAuto, opt.source
	return opt.diff.check(a)
}

// badName refuses a name that a delta's file could not have.
func badName(name string) error {
	return fail.Usage("--name %s: must be of letters, digits, and . _ - that are not its first, and not longer than %d bytes", text.Printable(name), store.MaxImageName)
}

func (a *app) backup(ctx context.Context, refs []string, dir string, opt *backupOptions) error {
	if err := opt.check(a); err != nil {
		return err
	}
	start := time.Now()
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	if o.stand.none {
		return fail.Usage("--backing none: what is left out is unknown, and a backup has all: name what stands for the backing file")
	}
	o.empty = emptyRefused
	defer a.closeOpener(o)
	o.rawPoint = o.pointOfRaw(opt.diff.stateDir)
	o.chainFrom(store.ChainOptions{Dir: dir})
	if err := dirLast(refs, dir); err != nil {
		return err
	}
	if err := haveDir(dir); err != nil {
		return err
	}
	if err := o.Share(ctx, dir, o.Wait.d); err != nil {
		return err
	}
	if !opt.dryRun {
		if err := outfile.Sweep(dir, store.Suffix); err != nil {
			a.Warnf("%s: %v", text.Printable(dir), err) // whoever may not write here hears it again
		}
	}
	store, err := store.Read(ctx, a.audit, dir)
	if err != nil {
		return err
	}
	if n, first := store.Unread(); n > 0 {
		a.Warnf("%s: passed over: %s that cannot be read as deltas, the first: %s", text.Printable(dir), text.Count(n, "file"), first)
	}
	b := &backupRun{app: a, opt: opt, opener: o, store: store}
	if err := b.open(ctx, refs); err != nil {
		return err
	}
	for i := range b.disks {
		if err := b.disks[i].freeze(ctx, opt.source.Frozen); err != nil {
			return err
		}
	}
	a.warnOneDisk(b.disks)
	if err := b.look(ctx); err != nil {
		return err
	}
	if err := b.openNewState(ctx); err != nil {
		return err
	}
	a.warnOfRAM(o, b.disks, &opt.diff)
	if err := b.identify(refs); err != nil {
		return err
	}
	if there := b.there(); there != nil {
		return b.reportThere(there)
	}
	if err := b.lookFurther(ctx); err != nil {
		return err
	}
	if err := b.choose(ctx); err != nil {
		return err
	}
	if err := b.addRAM(ctx); err != nil {
		return err
	}
	if err := o.releasePools(); err != nil {
		return err
	}
	if err := a.checkConsistency(ctx, b.disks, &opt.diff); err != nil {
		return err
	}
	if opt.dryRun {
		return b.dryRun(ctx)
	}
	if err := b.write(ctx); err != nil {
		return err
	}
	return b.report(time.Since(start))
}

// dirLast refuses arguments whose directory is not the last one: what is there
// instead may be the name of an image, and no directory should be made of it.
func dirLast(refs []string, dir string) error {
	if infile.IsDir(dir) {
		return nil
	}
	at := slices.IndexFunc(refs, infile.IsDir)
	if at < 0 {
		return nil
	}
	command := "cbt backup"
	for _, ref := range append(slices.Delete(slices.Clone(refs), at, at+1), dir, refs[at]) {
		command += " " + text.Quote(text.PathArgument(ref))
	}
	return fail.Usage("%s: the directory comes last: `%s`", text.Printable(refs[at]), command)
}

// haveDir says what to do where there is no directory: it is not made here, or
// a disk that is not mounted would be filled below its mount point.
func haveDir(dir string) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && infile.AddressError(dir) != nil:
		return infile.AddressError(dir)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no such directory: is its disk mounted? `mkdir -m 700 %s` makes a new one", text.Printable(dir), text.Quote(text.PathArgument(dir)))
	case err != nil:
		return err
	case !st.IsDir():
		return fail.Usage("%s: is no directory: usage is `cbt backup REF... DIR`", text.Printable(dir))
	}
	return nil
}

// backupRun is one run of backup.
type backupRun struct {
	app     *app
	opt     *backupOptions
	opener  *opener
	store   *store.Store
	image   string // of the names of its deltas
	disks   []disk
	kept    [][]kept          // for each disk, what the source has of it
	lost    [][]kept          // for each disk, its snapshots that the directory has not
	refs    []string          // as the user named them
	own     []map[string]bool // for each disk, the points that it has or had itself
	of      map[int]bool      // the machines of the directory that these disks are of
	known   map[int]bool      // those that the source itself tells
	bases   []base            // for each disk
	running map[*image]bool   // which images a machine has open
	job     *deltaJob
	file    string // what was written
}

// base is what a disk is compared with.
type base struct {
	delta *store.Entry // that leads to it; nil: none
	ref   string       // how the source calls it; empty: the chain has it
	why   string       // it is no better one
}

// open opens all REFs.
func (b *backupRun) open(ctx context.Context, refs []string) error {
	b.image = b.opt.name
	for _, ref := range refs {
		name, rest, ok := strings.Cut(ref, "=")
		if !ok || strings.ContainsAny(name[:min(len(name), 1)], "./") || strings.Contains(name, ":") || infile.Exists(ref) {
			name, rest = "", ref
		}
		switch {
		case ok && name == "" && strings.HasPrefix(ref, "="):
			return fail.Usage("%s: must be NAME=REF", text.Printable(ref))
		case rest == "":
			return fail.Usage("%s: no reference after the =: is a variable unset?", text.Printable(ref))
		}
		img, err := b.opener.open(ctx, rest, b.opt.ref)
		if err != nil {
			return err
		}
		if err := oneImage(b.disks, img, "back up one after the other, the older one first"); err != nil {
			return err
		}
		if name == "" && len(refs) == 1 {
			name = "0"
		} else if name == "" {
			name = img.ownName()
		}
		for _, d := range b.disks {
			if d.name == name {
				return fail.Usage("%s and %s are both called %s: NAME=REF gives another name", text.Printable(d.img.Ref), text.Printable(img.Ref), text.Printable(name))
			}
		}
		if b.image == "" {
			b.image = store.ImageName(img.imageName())
		}
		b.disks = append(b.disks, disk{name: name, img: img})
	}
	n := len(b.disks)
	b.refs, b.lost = refs, make([][]kept, n)
	b.kept, b.own, b.bases = make([][]kept, n), make([]map[string]bool, n), make([]base, n)
	return nil
}

// imageName tells the image from others in the names of its deltas; fileName
// makes a part of a file's name of it.
func (s *source) imageName() string {
	if s.vol == nil {
		return s.ownName()
	}
	return s.vol.LV().Group().Name + "-" + s.ownName()
}

// ownName is that of a file without its extension, or that of a volume: of a
// snapshot, the name of what it is a snapshot of, as its own is another one
// every day.
func (s *source) ownName() string {
	if s.vol != nil {
		lv := s.vol.LV()
		if lv.Snapshot != nil && lv.Snapshot.Origin != "" {
			return lv.Snapshot.Origin
		}
		if origin := lv.Origin(); origin != "" {
			return origin
		}
		return lv.Name
	}
	if s.bare != nil {
		return strings.ReplaceAll(s.Ref, ":", "-")
	}
	name := filepath.Base(s.Path)
	if short := strings.TrimSuffix(name, filepath.Ext(name)); short != "" {
		return short
	}
	return name
}

// there finds a delta that has all that would be backed up.
func (b *backupRun) there() *store.Entry {
	if b.opt.full {
		return nil
	}
	var ends []store.Point
	ram := false
	for i, d := range b.disks {
		if d.img.Point == "" {
			return nil
		}
		ends = append(ends, store.Point{Stream: d.stream(), Point: d.img.Point})
		for _, k := range b.kept[i] {
			ram = ram || k.ram && k.point == d.img.Point && b.opt.diff.ram != ramNo
		}
	}
	state, frozen := b.stateEnds()
	if !frozen {
		return nil
	}
	return b.store.With(append(ends, state...), ram, func(l *store.Entry) bool {
		return l.Machine == "" || b.of[b.store.Machines.Of[b.store.Place[l]]]
	})
}

// addRAM adds the streams of RAM. What of OLD's RAM no delta leads to is no
// base, whatever the source has of it.
func (b *backupRun) addRAM(ctx context.Context) error {
	full := true
	for _, d := range b.disks {
		full = full && d.old == nil
	}
	b.opt.diff.full = full
	if b.opt.diff.newState != "" && !full {
		b.opt.diff.oldState = b.stateOfBase()
	}
	disks, err := b.app.addRAM(ctx, b.opener, b.disks, &b.opt.diff)
	if err != nil {
		return err
	}
	for i := range disks {
		d := &disks[i]
		if d.ram && d.old != nil && b.store.Leading(d.stream(), d.old.Point) == nil {
			d.old, d.method = nil, method{}
		}
	}
	b.disks = disks
	return nil
}
