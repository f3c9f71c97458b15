package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"cbt/internal/fail"
	"cbt/internal/imagelock"
	"cbt/internal/infile"
	"cbt/internal/record"
	"cbt/internal/text"
	"cbt/qcow2"
	"cbt/sparse"
)

// maxChain is how many images may stand on one another.
const maxChain = 256

// image is an open file together with those it stands on.
type image struct {
	file   *file
	format string
	view   sparse.View // raw: the file; qcow2: the active state
	qcow   *qcow2.Image
	states map[int]*qcow2.View // snapshots that were asked for

	backing     *image // nil if there is none
	backingName string // as the image names it
	warnCut     func(v *qcow2.View, whose string)
	leftOut     bool  // there is a backing file, which was left out
	data        *file // external data file, nil if there is none
	held        bool  // its read locks are
}

// load opens f, which it takes over, as an image of the given format, with all
// that it stands on; above are the files that stand on it. With hold, the
// active state is going to be read.
func (o *opener) load(ctx context.Context, f *file, format string, p policy, above []infile.ID, hold bool) (*image, error) {
	key := imageKey{f.Info.Identity(), format}
	if !hold {
		o.reads.Audit.MayChange(key.id)
	}
	if img := o.images[key]; img != nil {
		f.Close()
		if hold {
			return img, o.hold(img, len(above) > 0)
		}
		return img, nil
	}
	o.files = append(o.files, f)
	if err := o.refuseWritten(f); err != nil {
		return nil, err
	}
	img := &image{file: f, format: format, states: make(map[int]*qcow2.View)}
	if hold {
		if err := o.hold(img, len(above) > 0); err != nil {
			return nil, err
		}
		if err := o.settle(ctx, f); err != nil {
			return nil, err
		}
	}
	var err error
	if format == formatRaw {
		err = o.loadRaw(img)
	} else {
		err = o.loadQcow2(ctx, img, p, append(above, key.id))
	}
	if err != nil {
		return nil, err
	}
	o.images[key] = img
	return img, nil
}

func (o *opener) loadRaw(img *image) error {
	if err := o.refuseIncomplete(img.file); err != nil {
		return err
	}
	if v := img.file.vol; v != nil {
		img.view = v.View
		return nil
	}
	raw, err := sparse.OpenRaw(img.file.File)
	if err != nil {
		return fmt.Errorf("%s: %w", img.file.Path, err)
	}
	img.view = &countedView{raw, img.file.Count}
	return nil
}

// refuseIncomplete refuses what cbt left half written, also where an image
// stands on it. info only looks.
func (o *opener) refuseIncomplete(f *file) error {
	if o.metadataOnly || f.vol != nil {
		return nil
	}
	r, how, err := record.WholeRecord(o.reads.Audit, f.File, f.Real, "")
	if err == nil && how == record.FitsNot && r != nil && r.Pending != nil {
		o.Warnf("%s: the record beside it says that the %s to a file of this name was interrupted, and this is another file: a copy of that one is half written (cbt restore --in-place makes it whole); else remove the record",
			text.Printable(f.Path), text.Printable(r.Pending.Command))
	}
	return err
}

func (o *opener) loadQcow2(ctx context.Context, img *image, p policy, chain []infile.ID) (err error) {
	var inner error // says more than what qcow2 makes of it
	img.qcow, err = qcow2.Open(img.file, img.file.Info.Size, qcow2.Options{
		Backing: func(name, format string) (sparse.View, error) {
			img.backing, inner = o.loadBacking(ctx, img.file, name, format, p, chain)
			if inner != nil {
				return nil, inner
			}
			img.backingName = name
			if img.backing == nil {
				img.leftOut = true
				return sparse.Missing(fmt.Sprintf("%s %q of %s, which --backing none leaves out", backingFile, name, img.file.Path)), nil
			}
			return img.backing.view, nil
		},
		Data: func(name string) (io.ReaderAt, int64, error) {
			img.data, inner = o.loadData(ctx, img.file, name, p, chain)
			if inner != nil {
				return nil, 0, inner
			}
			return img.data, img.data.Info.Size, nil
		},
		AllowCorrupt: o.Force,
	})
	switch {
	case inner != nil:
		return inner
	case errors.Is(err, qcow2.ErrCorrupt), errors.Is(err, qcow2.ErrCutL1):
		return fail.Usage("%s: %w (--force reads it as it is)", img.file.Path, err)
	case errors.Is(err, qcow2.ErrEncrypted):
		return fail.Usage("%s: %w (--format raw takes the file as it is, encrypted and with all snapshots; who has the key can make a plain copy with qemu-img convert)", img.file.Path, err)
	case err != nil:
		return fmt.Errorf("%s: %w", img.file.Path, err)
	}
	img.view = img.qcow.Active()
	img.warnCut = func(v *qcow2.View, whose string) {
		if n, from := v.CutL1(); n > 0 {
			o.Warnf("%s: the file ends before %s does, of which the last %d entries are missing: from byte %d of %d on nothing counts as stored in it",
				img.file.Path, whose, n, from, v.Size())
		}
	}
	img.warnCut(img.qcow.Active(), "its L1 table")
	if img.leftOut && !o.metadataOnly {
		o.Warnf("%s: its %s %s is left out: what lies there is unknown, and cannot be read", img.file.Path, backingFile, text.Printable(img.backingName))
	}
	if img.qcow.Dirty() {
		o.Warnf("%s: is marked dirty: a machine did not close it; what it flushed is read", img.file.Path)
	}
	return nil
}

// loadBacking opens a backing file, or what stands for it. It returns nil if
// that is to be left out.
func (o *opener) loadBacking(ctx context.Context, owner *file, name, format string, p policy, chain []infile.ID) (*image, error) {
	f, err := o.openStandIn(owner, backingFile, name)
	switch {
	case err != nil:
		return nil, err
	case f != nil:
		format, err = o.standInFormat(owner, name, format, f)
		p.own = slices.Concat(p.own, ownDirs(f)) // the user named it
		if err != nil {
			f.Close()
			return nil, err
		}
	case o.stand.none:
		return nil, nil
	default:
		if format, err = o.backingFormat(owner, name, format); err != nil {
			return nil, err
		}
		if f, err = o.openNamed(ctx, owner, backingFile, name, p); err != nil {
			return nil, err
		}
	}
	if err := checkChain(owner, backingFile, name, f, chain); err != nil {
		f.Close()
		return nil, err
	}
	return o.load(ctx, f, format, p, chain, true)
}

func (o *opener) loadData(ctx context.Context, owner *file, name string, p policy, chain []infile.ID) (*file, error) {
	f, err := o.openStandIn(owner, dataFile, name)
	if err == nil && f == nil {
		f, err = o.openNamed(ctx, owner, dataFile, name, p)
	}
	if err != nil {
		return nil, err
	}
	o.files = append(o.files, f)
	if err := checkChain(owner, dataFile, name, f, chain); err != nil {
		return nil, err
	}
	if err := o.refuseIncomplete(f); err != nil {
		return nil, err
	}
	if err := o.refuseWritten(f); err != nil {
		return nil, err
	}
	img := &image{file: f}
	if err := o.hold(img, true); err != nil {
		return nil, err
	}
	return f, o.settle(ctx, f)
}

// openStandIn opens the file that the user says stands for a name inside the
// image opened as owner; nil if there is none.
func (o *opener) openStandIn(owner *file, role, name string) (*file, error) {
	path, ok, err := o.stand.find(owner, role, name)
	if err != nil || !ok {
		return nil, err
	}
	f, err := openFile(path, &o.reads, nil)
	if err != nil {
		return nil, namedError(owner, role, name, err)
	}
	return f, nil
}

func checkChain(owner *file, role, name string, f *file, chain []infile.ID) error {
	switch {
	case slices.Contains(chain, f.Info.Identity()):
		return fmt.Errorf("%s: %s %q closes a loop", owner.Path, role, name)
	case len(chain) >= maxChain:
		return fmt.Errorf("%s: %s %q is number %d of its chain, %d are the limit", owner.Path, role, name, len(chain)+1, maxChain)
	}
	return nil
}

// hold keeps machines that would write to img from starting until it is
// closed.
func (o *opener) hold(img *image, below bool) error {
	o.reads.Audit.MustStand(img.file.Info.Identity())
	if img.held || o.metadataOnly || img.file.vol != nil {
		return nil
	}
	err := imagelock.HoldRead(img.file.File)
	for _, node := range img.file.nodes {
		err = errors.Join(err, imagelock.HoldRead(node))
	}
	switch {
	case errors.Is(err, imagelock.ErrBusy) && below:
		return fail.Busy("%s: another program writes to this backing or data file: %w", img.file.Path, err)
	case errors.Is(err, imagelock.ErrBusy) && img.format == formatRaw:
		return fail.Busy("%s: a running machine or another program writes to it: shut the machine down: %w", img.file.Path, err)
	case errors.Is(err, imagelock.ErrBusy):
		return fail.Busy("%s: a running machine or another program writes to it: take a snapshot and name that (%s), or shut the machine down: %w",
			img.file.Path, text.Quote(img.file.Path+"@NAME"), err)
	case err != nil:
		o.Warnf("%s: cannot be locked, so a machine that starts meanwhile is not noticed: %v", img.file.Path, err)
	}
	img.held = true
	return nil
}

// snapshot returns one and the same view for one and the same snapshot.
func (img *image) snapshot(i int) (*qcow2.View, error) {
	if v := img.states[i]; v != nil {
		return v, nil
	}
	v, err := img.qcow.Snapshot(i)
	switch {
	case errors.Is(err, qcow2.ErrCutL1):
		return nil, fail.Usage("%w (--force reads it as it is)", err)
	case err != nil:
		return nil, err
	}
	img.states[i] = v
	img.warnCut(v, "the L1 table of snapshot "+text.Printable(v.Snapshot().Name))
	return v, nil
}

// changed says whether a file of the chain was written to since it was opened.
func (img *image) changed() error {
	for ; img != nil; img = img.backing {
		if err := img.file.changed(); err != nil {
			return err
		}
		if img.data != nil {
			if err := img.data.changed(); err != nil {
				return err
			}
		}
	}
	return nil
}

// countedView adds up what is read from a raw image or a device.
type countedView struct {
	sparse.View
	read *atomic.Int64
}

func (v *countedView) ReadAt(p []byte, off int64) (int, error) {
	n, err := v.View.ReadAt(p, off)
	v.read.Add(int64(n))
	return n, err
}
