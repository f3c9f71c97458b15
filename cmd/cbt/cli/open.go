package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"cbt/cbt"
	"cbt/qcow2"
	"cbt/sparse"
)

// openerOptions are the flags of every command that reads images.
type openerOptions struct {
	Format        string
	Allow         []string
	BackingFormat string
	Force         bool
	Frozen        bool
}

func (o *openerOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Format, "format", "", "format of what the command names: qcow2 or raw (default: by its header)")
	fs.StringArrayVar(&o.Allow, "allow", nil, "also open backing and data files in or below `DIR` (repeatable; CBT_ALLOW has a list)")
	fs.StringVar(&o.BackingFormat, "backing-format", "", "format of backing files whose image names none: qcow2 or raw")
	fs.BoolVar(&o.Force, "force", false, "read images that are marked corrupt")
	fs.BoolVar(&o.Frozen, "frozen", false, "nobody writes to the active states named here: give them a point")
}

// opener opens all sources of one run. One file is opened once: an image named
// twice, or named and in another's backing chain, is the same image with the
// same views, which is what qcow2.Changed goes by.
//
// Everything is opened for reading only. An opener is not safe for concurrent
// use; what it opened is.
type opener struct {
	openerOptions
	allow []string                         // Allow and CBT_ALLOW, resolved
	warn  func(format string, args ...any) // a line on stderr

	metadataOnly bool // no guest data are read: no machine needs to be kept out

	// openDelta opens the state after the delta at path. Set by the commands
	// that know deltas.
	openDelta func(ctx context.Context, path string, opt refOptions) (*source, error)
	// rawPoint may replace the point of a raw file or device (own, which a
	// device has not), or refuse it as a source.
	rawPoint func(path string, own string) (string, error)

	images map[imageKey]*image
	deltas map[*cbt.Delta]*deltaFile
	files  []*file
	reads  atomic.Int64
}

type imageKey struct {
	id     fileID
	format string
}

// source is an image at one instant, open for reading.
type source struct {
	View    sparse.View
	Ref     string    // as the user named it
	Path    string    // of its file
	Format  string    // "raw", "qcow2" or "cbt"
	Point   string    // empty: not frozen
	Instant time.Time // when it was frozen, or last written to
	Img     *qcow2.Image

	img     *image
	delta   *deltaFile // of a .cbt
	recheck func() error
	close   func() error
}

// Recheck says whether somebody changed the source since it was opened. Call
// it when everything is read, before anything is made of it.
func (s *source) Recheck() error {
	if s.recheck == nil {
		return nil
	}
	return s.recheck()
}

// Close releases what only this source holds; files are the opener's.
func (s *source) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

func (a *app) newOpener(opt openerOptions) (*opener, error) {
	if err := checkFormat("--format", opt.Format); err != nil {
		return nil, err
	}
	if err := checkFormat("--backing-format", opt.BackingFormat); err != nil {
		return nil, err
	}
	allow, err := allowDirs(opt.Allow, a.Getenv("CBT_ALLOW"))
	if err != nil {
		return nil, err
	}
	o := &opener{openerOptions: opt, allow: allow, warn: a.warnf, images: make(map[imageKey]*image)}
	o.rawPoint = pointOfRaw("")
	o.openDelta = func(_ context.Context, path string, ref refOptions) (*source, error) {
		return o.openChain(path, path, ref, chainOptions{})
	}
	return o, nil
}

// BytesRead is how much was read so far from all files of the opener.
func (o *opener) BytesRead() int64 { return o.reads.Load() }

// closeOpener closes o, with -v after saying what was read. Files that were
// only read have nothing to say when they are closed.
func (a *app) closeOpener(o *opener) {
	if a.verbose {
		fmt.Fprintf(a.Stderr, "cbt: %d bytes read\n", o.BytesRead())
	}
	_ = o.Close()
}

// Close closes all files, and with them releases their locks.
func (o *opener) Close() error {
	var err error
	for _, f := range o.files {
		err = errors.Join(err, f.Close())
	}
	o.files, o.images = nil, nil
	return err
}

// open opens the image that ref names. Machines that might write to it are
// kept out of it until the opener is closed.
func (o *opener) open(ctx context.Context, ref string, opt refOptions) (*source, error) {
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
		err = o.openRaw(s)
	default:
		o.openActive(s)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// locate finds out what ref means and what is there. The file is nil if ref
// is a delta by its name.
func (o *opener) locate(ref string, opt refOptions) (r reference, f *file, format string, err error) {
	flag, forced := "--format", o.Format
	if opt.Format != "" {
		flag, forced = opt.flag("format"), opt.Format
	}
	if err := checkFormat(flag, forced); err != nil {
		return r, nil, "", err
	}
	if r, err = parseRef(ref, opt, o.hasSnapshot); err != nil {
		return r, nil, "", err
	}
	if forced == "" && strings.EqualFold(filepath.Ext(r.path), ".cbt") {
		return r, nil, formatDelta, nil
	}
	if f, err = openFile(r.path, &o.reads, nil); err != nil {
		return r, nil, "", err
	}
	format, err = decideFormat(f, flag, forced)
	if err == nil && format == formatRaw && (r.byName || r.byID) {
		err = usageErrorf("%s: is raw and has no snapshots", r.path)
	}
	if err != nil {
		f.Close()
		return r, nil, "", err
	}
	return r, f, format, nil
}

func (o *opener) delta(ctx context.Context, ref string, r reference, opt refOptions) (*source, error) {
	if o.openDelta == nil {
		return nil, usageErrorf("%s: is a delta, which this command does not take", ref)
	}
	if r.byName {
		opt.Snapshot = r.want
	}
	return o.openDelta(ctx, r.path, opt)
}

func (o *opener) openSnapshot(s *source, r reference, opt refOptions) error {
	i, err := r.find(s.Img.Snapshots(), opt)
	if err != nil {
		return err
	}
	view, err := s.img.snapshot(i)
	if err != nil {
		return fmt.Errorf("%s: %w", r, err)
	}
	snap := view.Snapshot()
	s.View, s.Point, s.Instant = view, snapshotPoint(s.img, snap), snap.Date
	s.recheck = func() error {
		// A machine may go on writing to the active state beside it.
		return errors.Join(recheck(s.Ref, view), s.img.backing.changed())
	}
	return nil
}

func (o *opener) openActive(s *source) {
	view := s.Img.Active()
	s.View, s.Instant = view, s.img.file.stat.mtime
	if o.Frozen {
		s.Point = activePoint(s.img)
	}
	s.recheck = func() error {
		if err := s.img.changed(); err != nil {
			return err
		}
		return recheck(s.Ref, view)
	}
}

func (o *opener) openRaw(s *source) (err error) {
	s.View, s.Instant, s.Point = s.img.view, s.img.file.stat.mtime, rawPoint(s.img.file.stat)
	s.recheck = s.img.changed
	if o.rawPoint != nil {
		s.Point, err = o.rawPoint(s.Path, s.Point)
	}
	return err
}

// recheck reads again what describes a state of a qcow2 image.
func recheck(ref string, v *qcow2.View) error {
	if err := v.Image().Recheck(v); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	return nil
}

// inspect opens a qcow2 image for its metadata alone: no file that it names
// is opened, so its views are not to be read.
func (o *opener) inspect(f *file) (*qcow2.Image, error) {
	img, err := qcow2.Open(f, f.stat.size, qcow2.Options{
		Backing:      func(string, string) (sparse.View, error) { return sparse.Zeros(0), nil },
		Data:         func(string) (io.ReaderAt, int64, error) { return bytes.NewReader(nil), 0, nil },
		AllowCorrupt: o.Force,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return img, nil
}

// hasSnapshot says whether path is a qcow2 image with a snapshot of that name.
func (o *opener) hasSnapshot(path, name string) bool {
	f, err := openFile(path, &o.reads, nil)
	if err != nil {
		return false
	}
	defer f.Close()
	if format, err := sniff(f); err != nil || format != formatQcow2 {
		return false
	}
	img, err := o.inspect(f)
	if err != nil {
		return false
	}
	for _, s := range img.Snapshots() {
		if s.Name == name {
			return true
		}
	}
	return false
}
