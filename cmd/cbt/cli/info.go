package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/qcow2"
)

type infoOptions struct {
	source openerOptions
	ref    refOptions
}

func newInfoCommand(a *app) *cobra.Command {
	opt := &infoOptions{}
	c := &cobra.Command{
		Use:   "info REF",
		Short: "say what an image is",
		Long: `info says what an image is: format, sizes, snapshots with their time and RAM size,
bitmaps, features, the files it stands on and, where REF is frozen, the point
that deltas know it by. With --json it has the keys of
qemu-img info --output=json where they exist. It takes images that a machine
is using, and those whose backing file is missing or not allowed.

Of core files of a machine it tells the segments of memory, of what was written
with --overlay how much it is.

Of a snapshot with the machine's RAM, and of a saved machine state, it tells the
machine type, the blocks of RAM and the devices. Of a compressed one it unpacks
only the beginning; -v unpacks all of it, for the devices and how much of RAM is
not zero.

With --pv and no REF it lists the volume groups on these physical volumes, with
lvm:VG one of them (or of this host), with lvm:VG/LV one volume; with
--thin-metadata and no REF the devices of a bare thin pool.`,
		Example: `  cbt info disk.qcow2
  cbt info --json disk.qcow2@monday
  cbt info vm.save
  cbt info --pv disk.raw
  cbt info --pv guest.qcow2@monday lvm:vg0/root`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode),
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 && (len(opt.source.PVs) > 0 || opt.source.ThinMetadata != "") {
				return nil
			}
			return wantArgs("REF")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.info(c.Context(), strings.Join(args, ""), opt)
		},
	}
	opt.source.addFlags(c.Flags())
	opt.ref.addFlags(c.Flags(), "", "REF")
	return c
}

func (a *app) info(ctx context.Context, ref string, opt *infoOptions) error {
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	o.metadataOnly, o.headOnly = true, !a.verbose
	if opt.source.Format == formatState && ref != "" {
		return a.infoState(ctx, o, ref, opt.ref)
	}
	if ok, err := a.infoVolume(ctx, o, ref, opt.ref); ok || err != nil {
		return err
	}
	if ok, err := a.infoOther(o, ref, opt.ref); ok || err != nil {
		return err
	}
	d, err := o.describe(ctx, a, ref, opt.ref)
	if err != nil || d == nil {
		return err
	}
	if a.json {
		return writeJSON(a.Stdout, d.json())
	}
	return d.print(a.Stdout)
}

// description is what info knows of an image.
type description struct {
	file     *file
	format   string
	size     int64 // bytes of the disk that REF names
	point    string
	luks     bool            // raw: what it holds is encrypted
	qcow     *qcow2.Image    // nil unless it is one
	snapshot *qcow2.Snapshot // if REF names one
	machine  *machineJSON    // what that snapshot was saved with
	bitmaps  []qcow2.Bitmap
	img      *image  // with all that it stands on; nil if that was not possible
	problems []error // why it was not, and what else cannot be told
}

// describe opens what ref names for its metadata. Without an error it returns
// nil if it printed a delta or a machine state itself.
func (o *opener) describe(ctx context.Context, a *app, ref string, opt refOptions) (*description, error) {
	r, f, format, err := o.locateAny(ctx, ref, opt)
	if err != nil {
		return nil, err
	}
	if f != nil {
		o.files = append(o.files, f)
	}
	if format == formatState {
		return nil, a.infoState(ctx, o, ref, opt)
	}
	if format == formatDelta {
		return nil, a.infoDelta(o, r.path)
	}
	d := &description{file: f, format: format, size: f.Info.Size}
	if format == formatRaw {
		if d.luks, err = startsLikeLUKS(f); err != nil {
			return nil, err
		}
		if err := o.judgeEmpty(ref, d.size, opt); err != nil {
			return nil, err
		}
		d.point = rawPoint(f.Info)
		if o.rawPoint != nil {
			if d.point, _, err = o.rawPoint(r.path, d.point); err != nil {
				d.problems = append(d.problems, err)
			}
		}
		return d, nil
	}
	return d, o.describeQcow2(ctx, d, r, opt)
}

func (o *opener) describeQcow2(ctx context.Context, d *description, r reference, opt refOptions) (err error) {
	img := &image{file: d.file, format: formatQcow2, states: make(map[int]*qcow2.View)}
	p := policy{own: ownDirs(d.file), allow: o.allow}
	if problem := o.loadQcow2(ctx, img, p, []infile.ID{d.file.Info.Identity()}); problem == nil {
		d.img, d.qcow = img, img.qcow
	} else {
		d.problems = append(d.problems, problem)
		if d.qcow, err = o.inspect(d.file); err != nil {
			return err // the trouble is not in what it stands on
		}
	}
	d.size = int64(d.qcow.Header().Size)
	if d.bitmaps, err = d.qcow.Bitmaps(); err != nil {
		d.problems = append(d.problems, err)
	}
	if !r.byName && !r.byID {
		if d.img != nil && (o.Frozen || d.file.cannotBeWritten()) {
			d.point = activePoint(img)
		}
		return nil
	}
	table := d.qcow.Snapshots()
	i, err := r.find(table, opt)
	if err != nil {
		return err
	}
	d.snapshot, d.size = &table[i], table[i].DiskSize
	d.point = d.pointOf(d.snapshot)
	if d.img == nil || d.snapshot.VMStateSize == 0 {
		return nil
	}
	view, err := img.snapshot(i)
	if err == nil {
		var m *machine
		if m, err = o.machineOf(ctx, &source{Ref: r.String(), View: view}); err == nil {
			d.machine = describeMachine(m.State)
			return nil
		}
	}
	d.problems = append(d.problems, err)
	return nil
}

func (d *description) pointOf(s *qcow2.Snapshot) string {
	if d.img == nil {
		return ""
	}
	return snapshotPoint(d.img, s)
}
