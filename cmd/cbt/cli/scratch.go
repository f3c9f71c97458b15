package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/outfile"
	"cbt/internal/overlay"
	"cbt/internal/text"
	"cbt/sparse"
)

// overlayOptions say where to what is written to a served or mounted image.
type overlayOptions struct{ path string }

// overlayTmp is the FILE that means one without a name.
const overlayTmp = "tmp"

func (o *overlayOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.path, "overlay", "", "let it be written to: what is written goes to `FILE`, which a later run goes on with, or, for \"tmp\", to a file that is gone afterwards; the source stays as it is")
}

// overlay puts a file over view, the guarded view of s: what is written goes
// there. FILE is made if it is not there; one that was made over another image,
// or that is no overlay, is refused. syncOverlays makes durable what was
// written; the opener closes the file.
func (o *opener) overlay(s *source, view sparse.View, path string) (*overlay.Image, error) {
	if path == overlayTmp {
		f, err := infile.Unnamed(o.spoolDir)
		if err != nil {
			return nil, fmt.Errorf("--overlay tmp: %w", err)
		}
		return o.overlayIn(view, "", "", f)
	}
	identity := identityOf(s)
	if identity == "" {
		return nil, fail.Usage("%s: nothing tells whether it stays what it is, so what --overlay %s holds would mean nothing later: --overlay tmp forgets it", s.Ref, text.Quote(path))
	}
	f, err := o.openOverlayFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := o.makeOverlay(view, identity, path); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		f, err = o.openOverlayFile(path)
	}
	if err != nil {
		return nil, err
	}
	img, err := o.overlayIn(view, identity, path, f)
	switch {
	case errors.Is(err, overlay.ErrOtherTimes):
		return nil, fail.WrongBase("%s: %w: a ctime of %s is another one, as after a write whose time was put back, or a chmod, chown, link or rename: --frozen says that nobody wrote to it", path, err, s.Ref)
	case errors.Is(err, overlay.ErrOtherBase):
		return nil, fail.WrongBase("%s: %w: it needs %s as it was then", path, err, s.Ref)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return img, nil
}

// identityOf is what a later run must find the same: a point, or what would be
// one if the user had said that nobody writes to it.
func identityOf(s *source) string {
	switch {
	case s.Point != "":
		return s.Point
	case s.chain != nil:
		id := s.chain.delta.ID()
		return "delta:" + string(id[:]) + ":" + s.stream // the 32 bytes, not their digits: a format
	case s.img != nil && s.img.qcow != nil:
		return activePoint(s.img)
	}
	return ""
}

// makeOverlay gives an overlay its name when it is whole.
func (o *opener) makeOverlay(view sparse.View, identity, path string) error {
	f, err := o.reads.Audit.Create(path, false)
	if err != nil {
		return err
	}
	defer f.Abort()
	target, err := sparse.OpenTarget(f.File.File)
	if err != nil {
		return err
	}
	if _, err := overlay.Open(view, identity, target); err != nil {
		return err
	}
	return f.Commit()
}

// openOverlayFile opens an existing overlay and keeps other runs out of it. It
// must not be a file that is read.
func (o *opener) openOverlayFile(path string) (*os.File, error) {
	if err := o.reads.Audit.RefuseSelf(path); err != nil {
		return nil, err
	}
	look, err := infile.Open(path, nil)
	if err != nil {
		return nil, err
	}
	defer look.Close()
	look.Count = &o.reads.Int64
	head, err := readHead(look, 8)
	if err != nil {
		return nil, err
	}
	if look.Info.Block || look.Info.Size > 0 && !overlay.IsOverlay(head) {
		err := fail.Usage("%s: is there already, and no overlay", path)
		return nil, errors.Join(o.reads.Audit.Input(look), err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(real, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	now, err := infile.StatOf(f)
	if err == nil && now.Identity() != look.Info.Identity() {
		err = fmt.Errorf("%s: replaced while it was opened", path)
	}
	if err == nil {
		if err = outfile.Lock(f); errors.Is(err, outfile.ErrLocked) {
			err = fail.Busy("%s: another run of cbt has this overlay", path)
		}
	}
	for _, src := range o.everyFile() {
		if src.Info.Identity() == now.Identity() && err == nil {
			err = fail.Usage("%s: is also what is read", path)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (o *opener) overlayIn(view sparse.View, identity, path string, f *os.File) (*overlay.Image, error) {
	target, err := sparse.OpenTarget(f)
	if err == nil {
		var img *overlay.Image
		open := overlay.Open
		if o.Frozen {
			open = overlay.Adopt
		}
		if img, err = open(view, identity, target); err == nil {
			o.scratch = append(o.scratch, scratch{img, f, path})
			return img, nil
		}
	}
	f.Close()
	return nil, err
}

// scratch is an open overlay.
type scratch struct {
	*overlay.Image
	f    *os.File
	path string // empty: it has no name
}

// syncOverlays makes durable what was written to overlays that have a name,
// and returns how much there is. Call it when nobody writes any more, before
// the run ends well.
func (o *opener) syncOverlays() (written int64, err error) {
	for _, s := range o.scratch {
		written += s.Written()
		err = errors.Join(err, s.Sync())
		if s.path != "" && err == nil {
			err = o.reads.Audit.Wrote("overlay", s.path)
		}
	}
	return written, err
}

func (o *opener) closeOverlays() error {
	var err error
	for _, s := range o.scratch {
		err = errors.Join(err, s.f.Close())
	}
	o.scratch = nil
	return err
}
