package cli

import (
	"errors"
	"fmt"
	"time"

	"cbt/cbt"
	"cbt/qcow2"
	"cbt/sparse"
)

// source is an image at one instant, open for reading.
type source struct {
	View    sparse.View
	Ref     string    // as the user named it
	Path    string    // of its file
	Format  string    // "raw", "qcow2", "cbt", "lvm" or "state"
	Point   string    // empty: not frozen
	Instant time.Time // when it was frozen, or last written to
	Img     *qcow2.Image

	written bool // Instant is only when it was last written to

	// perhaps is a point that it may be at, if its bytes are what they were;
	// mayBe tells of further ones.
	perhaps string

	img     *image
	vol     *volume     // a logical volume
	bare    *barePool   // of thin:ID
	stream  string      // of a .cbt
	layers  []cbt.Layer // of a .cbt: how its stream came to be
	chain   *chainRef   // of a .cbt
	machine *machine    // saved with it, once that was asked for
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

// freezeHint says how an image that nobody writes to is told from one that
// somebody may write to, where that can be said.
func (s *source) freezeHint() string {
	if s.Point != "" || s.img == nil || s.Img == nil || activePoint(s.img) == "" {
		return ""
	}
	return "; if nobody writes to it meanwhile, because a machine writes to an overlay over it or is off, --frozen says so, and the next run goes on from there"
}

// Close releases what only this source holds; files are the opener's.
func (s *source) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

func (o *opener) openSnapshot(s *source, r reference, opt refOptions) error {
	i, err := r.find(s.Img.Snapshots(), opt)
	if err != nil {
		return err
	}
	if err := s.setSnapshot(i); err != nil {
		return fmt.Errorf("%s: %w", r, err)
	}
	return nil
}

// setSnapshot makes s the internal snapshot at place i of its image's table.
func (s *source) setSnapshot(i int) error {
	view, err := s.img.snapshot(i)
	if err != nil {
		return err
	}
	snap := view.Snapshot()
	s.View, s.Point, s.Instant = view, snapshotPoint(s.img, snap), snap.Date
	s.recheck = func() error {
		// A machine may go on writing to the active state beside it.
		err := errors.Join(recheck(s.Ref, view), s.img.backing.changed())
		if s.img.file.vol != nil {
			err = errors.Join(err, s.img.file.changed()) // where it lies may be another place now
		}
		return err
	}
	return nil
}

func (o *opener) openActive(s *source) {
	view := s.Img.Active()
	s.View, s.Instant, s.written = view, s.img.file.Info.LastChange(), true
	if o.Frozen || s.img.file.cannotBeWritten() {
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
	s.View, s.Instant, s.written, s.Point = s.img.view, s.img.file.Info.LastChange(), true, rawPoint(s.img.file.Info)
	s.recheck = s.img.changed
	if s.img.file.lv != nil {
		return nil
	}
	if o.rawPoint != nil {
		s.Point, s.perhaps, err = o.rawPoint(s.Path, s.Point)
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
