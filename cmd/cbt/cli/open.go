package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/hostlvm"
	"cbt/internal/infile"
	"cbt/internal/report"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/lvm/thin"
	"cbt/qcow2"
	"cbt/sparse"
)

// openerOptions are the flags of the commands that read images.
type openerOptions struct {
	Format        string
	Allow         []string
	BackingFormat string
	Backing       []string // what stands for names inside images
	DataFile      []string
	Force         bool
	Frozen        bool
	StateOffset   sizeValue
	canFreeze     bool // the command has --frozen
	volumeOptions
}

// addFlags registers all of them, for commands that read images.
func (o *openerOptions) addFlags(fs *pflag.FlagSet) {
	o.addFormatFlag(fs)
	o.addReadFlags(fs)
}

// addReadFlags registers those besides --format.
func (o *openerOptions) addReadFlags(fs *pflag.FlagSet) {
	o.canFreeze = true
	fs.BoolVar(&o.Frozen, "frozen", false, "nobody writes to the active states, devices and volumes named here: read them, and give them a point if they can have one")
	fs.StringArrayVar(&o.Allow, "allow", nil, "also open backing and data files in or below `DIR` (repeatable; CBT_ALLOW has a list)")
	fs.StringVar(&o.BackingFormat, "backing-format", "", "`FORMAT` of backing files whose image names none: qcow2 or raw")
	o.addStandInFlags(fs)
	fs.BoolVar(&o.Force, "force", false, "read images that are marked corrupt, and thin pools that need checking")
	fs.Var(&o.StateOffset, "state-offset", "machine states that are not at the beginning of their files are at this byte (with --format state)")
	o.volumeOptions.addFlags(fs)
}

func (o *openerOptions) addFormatFlag(fs *pflag.FlagSet) {
	fs.StringVar(&o.Format, "format", "", "`FORMAT` of what the command names: qcow2, raw or state (default: by its header)")
}

// opener opens all sources of one run. One file is opened once: an image named
// twice, or named and in another's backing chain, is the same image with the
// same views, which is what qcow2.Changed goes by.
//
// Everything is opened for reading only. An opener is not safe for concurrent
// use; what it opened is.
type opener struct {
	openerOptions
	report.Reporter
	*store.Files
	allow []string  // Allow and CBT_ALLOW, resolved
	stand *standIns // Backing and DataFile

	headOnly     bool // of compressed machine states the head will do
	metadataOnly bool // no guest data are read: no machine needs to be kept out

	// openDelta opens the state after the delta at path. Set by the commands
	// that know deltas.
	openDelta func(ctx context.Context, path string, opt refOptions) (*source, error)
	empty     emptyRule

	// rawPoint may replace the point of a raw file or device (own, which a
	// device has not), name one that it may be at, or refuse it as a source.
	rawPoint func(path string, own string) (point, perhaps string, err error)

	lockDir  string // of the locks on thin pools in use
	spoolDir string // of files without a name
	host     *host
	pvs      *physical
	devices  []*hostlvm.Direct // of --pv and --thin-...
	inUse    bool              // so is one of them
	bare     *barePool         // of --thin-metadata
	thin     []*thin.Metadata  // all that were opened

	images   map[imageKey]*image
	carriers map[string]uint64 // numbers of volumes that hold images, by UUID
	machines []*machine
	waiting  []*machine // whose states are not read yet
	together bool       // read them with the next ones
	files    []*file
	scratch  []scratch // what is written to sources goes there
	reads    audit.Reading
}

type imageKey struct {
	id     infile.ID
	format string
}

func (a *app) newOpener(opt openerOptions) (*opener, error) {
	if err := checkFormat("--format", opt.Format); err != nil {
		return nil, err
	}
	if opt.BackingFormat == formatState {
		return nil, fail.Usage("--backing-format state: is qcow2 or raw")
	}
	if err := checkFormat("--backing-format", opt.BackingFormat); err != nil {
		return nil, err
	}
	allow, err := allowDirs(opt.Allow, a.Getenv("CBT_ALLOW"))
	if err != nil {
		return nil, err
	}
	stand, err := a.standIns(opt)
	if err != nil {
		return nil, err
	}
	o := &opener{openerOptions: opt, allow: allow, stand: stand, Reporter: a, images: make(map[imageKey]*image), lockDir: a.Getenv("CBT_LOCK_DIR"), spoolDir: a.spoolDir("")}
	o.reads.Audit, o.reads.Frozen = a.audit, opt.Frozen
	o.Files = store.NewFiles(&o.reads, a, explainDelta)
	o.rawPoint = o.pointOfRaw("")
	o.chainFrom(store.ChainOptions{})
	return o, nil
}

// chainFrom says where the deltas are that a delta builds on.
func (o *opener) chainFrom(chain store.ChainOptions) {
	o.openDelta = func(_ context.Context, path string, ref refOptions) (*source, error) {
		return o.openChain(path, path, ref, chain)
	}
}

// BytesRead is how much was read so far from all files of the opener.
func (o *opener) BytesRead() int64 { return o.reads.Load() }

// closeOpener closes o, with -v after saying what was read. Files that were
// only read have nothing to say when they are closed; a metadata snapshot that
// could not be released is worth a warning.
func (a *app) closeOpener(o *opener) {
	if a.verbose {
		if n := o.nodesRead(); n > 0 {
			a.Debugf("%d nodes of mapping trees read", n)
		}
		a.Debugf("%d bytes read", o.BytesRead())
	}
	if err := o.releasePools(); err != nil {
		a.Warnf("%v", err)
	}
	for _, flag := range o.stand.unused() {
		a.Warnf("%s: no image that was read names such a file", flag)
	}
	_ = o.Close()
}

// Close closes all files, and with them releases their locks.
func (o *opener) Close() error {
	var err error
	if o.host != nil {
		err = o.host.close()
	}
	for _, m := range o.machines {
		if m.State != nil {
			err = errors.Join(err, m.Close())
		}
	}
	for _, d := range o.devices {
		err = errors.Join(err, d.Close())
	}
	for _, f := range o.files {
		err = errors.Join(err, f.Close())
	}
	err = errors.Join(err, o.closeOverlays())
	err = errors.Join(err, o.Files.Close())
	o.machines, o.devices, o.files, o.images, o.host, o.pvs = nil, nil, nil, nil, nil, nil
	return err
}

// open opens the image that ref names.
func (o *opener) open(ctx context.Context, ref string, opt refOptions) (*source, error) {
	v, ok, err := o.parseVolumeRef(ref, opt)
	switch {
	case err != nil:
		return nil, err
	case ok && v.thin:
		return o.openThin(ctx, ref, v.id)
	case ok && o.holdsImage(opt):
		return o.openImageIn(ctx, ref, v, opt)
	case ok:
		return o.openVolume(ctx, ref, v, opt)
	}
	return o.openImage(ctx, ref, opt)
}

// openImage opens a file or a device. Machines that might write to it are kept
// out of it until the opener is closed.
func (o *opener) openImage(ctx context.Context, ref string, opt refOptions) (*source, error) {
	r, f, format, err := o.locate(ref, opt)
	if err != nil {
		return nil, err
	}
	if format == formatDelta {
		if f != nil {
			f.Close()
		}
		return o.delta(ctx, ref, r, opt)
	}
	if format == formatState {
		return o.openState(ctx, ref, r, f, opt)
	}
	p := policy{own: ownDirs(f), allow: o.allow}
	img, err := o.load(ctx, f, format, p, nil, !r.byName && !r.byID)
	if err != nil {
		return nil, err
	}
	s := &source{Ref: ref, Path: r.path, Format: format, Img: img.qcow, img: img}
	switch {
	case r.byName || r.byID:
		err = o.openSnapshot(s, r, opt)
	case format == formatRaw:
		if err = o.openRaw(s); err == nil {
			err = o.judgeEmpty(s.Ref, s.View.Size(), opt)
		}
	default:
		o.openActive(s)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// emptyRule is what a command does with raw files of 0 bytes where no flag says that they
// are raw.
type emptyRule int

const (
	emptyWarned  emptyRule = iota
	emptyRefused           // by commands that keep what it holds
	emptyTaken             // by those that take any file, as sha256sum does
)

// judgeEmpty is for a raw file of 0 bytes, which is hardly ever what was meant.
func (o *opener) judgeEmpty(ref string, size int64, opt refOptions) error {
	flag, forced := o.formatOf(opt)
	switch {
	case size > 0 || o.empty == emptyTaken:
	case forced == formatRaw:
		o.Warnf("%s: is empty", text.Printable(ref))
	case o.empty == emptyRefused:
		return fail.Usage("%s: is empty: is that the right file? %s raw takes it as a disk of 0 bytes", text.Printable(ref), flag)
	default:
		o.Warnf("%s: is empty: is that the right file?", text.Printable(ref))
	}
	return nil
}

// formatOf is what the user said that a reference is, and by which flag.
func (o *opener) formatOf(opt refOptions) (flag, forced string) {
	switch {
	case opt.prefix == pvPrefix:
		return "--pv-format", o.PVFormat
	case opt.Format != "":
		return opt.flag("format"), opt.Format
	}
	return "--format", o.Format
}

// locate finds out what ref means and what is there. The file is nil if ref
// is a delta by its name.
func (o *opener) locate(ref string, opt refOptions) (r reference, f *file, format string, err error) {
	flag, forced := o.formatOf(opt)
	if err := checkFormat(flag, forced); err != nil {
		return r, nil, "", err
	}
	if r, err = o.parse(ref, opt); err != nil {
		return r, nil, "", err
	}
	if forced == "" && strings.EqualFold(filepath.Ext(r.path), ".cbt") {
		return r, nil, formatDelta, nil
	}
	if f, err = openFile(r.path, &o.reads, nil); err != nil {
		return r, nil, "", err
	}
	if forced == formatState && o.StateOffset.n > 0 {
		format = formatState // it is looked at there
	} else {
		format, err = decideFormat(f, flag, forced)
	}
	if err == nil && format == formatRaw && (r.byName || r.byID) {
		err = fail.Usage("%s: is raw and has no snapshots", r.path)
	}
	if err != nil {
		f.Close()
		return r, nil, "", err
	}
	return r, f, format, nil
}

func (o *opener) delta(ctx context.Context, ref string, r reference, opt refOptions) (*source, error) {
	if o.openDelta == nil {
		return nil, fail.Usage("%s: is a delta, which this command does not take", ref)
	}
	if r.byName {
		opt.Snapshot = r.want
	}
	return o.openDelta(ctx, r.path, opt)
}

// inspect opens a qcow2 image for its metadata alone, also one that is marked
// corrupt or encrypted: no file that it names is opened, so its views are not to be read.
func (o *opener) inspect(f *file) (*qcow2.Image, error) {
	img, err := qcow2.Open(f, f.Info.Size, qcow2.Options{
		Backing:      func(string, string) (sparse.View, error) { return sparse.Zeros(0), nil },
		Data:         func(string) (io.ReaderAt, int64, error) { return bytes.NewReader(nil), 0, nil },
		AllowCorrupt: true, AllowEncrypted: true,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return img, nil
}

// hasSnapshot says whether path is a qcow2 image with a snapshot of that name.
func (o *opener) hasSnapshot(path, name string) bool {
	return slices.ContainsFunc(o.snapshotsIn(path), func(s qcow2.Snapshot) bool { return s.Name == name })
}

// snapshotsIn are the snapshots of the qcow2 image at path; none if it is no such
// image.
func (o *opener) snapshotsIn(path string) []qcow2.Snapshot {
	f, err := openFile(path, &o.reads, nil)
	if err != nil {
		return nil
	}
	defer f.Close()
	if format, err := sniff(f, f.Info.Size); err != nil || format != formatQcow2 {
		return nil
	}
	img, err := o.inspect(f)
	if err != nil {
		return nil
	}
	return img.Snapshots()
}

// everyFile returns all files that are open, deltas too.
func (o *opener) everyFile() []*infile.Input {
	all := slices.Clone(o.Files.Inputs)
	for _, f := range o.files {
		all = append(all, f.Input)
	}
	return all
}
