package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/text"
)

// chooseBitmap has a disk compared with what --since names, by the bitmap that
// began there. Nothing else will do in its place: who names a bitmap wants to
// know if it does not fit.
func (b *backupRun) chooseBitmap(ctx context.Context, i int) error {
	d := &b.disks[i]
	l, err := b.sinceOf(d)
	if err != nil {
		return err
	}
	if d.old, err = b.openLast(l, d); err != nil {
		return err
	}
	if err := d.compare(methodAuto, b.opt.diff.bitmap); err != nil {
		return err
	}
	b.bases[i] = base{delta: l, ref: l.File + " by bitmap " + b.opt.diff.bitmap, why: "--since says that it began there"}
	return ctx.Err()
}

// sinceOf is the delta that --since names: a file of the directory, or one that
// leads to a point of the disk.
func (b *backupRun) sinceOf(d *disk) (*store.Entry, error) {
	since, dir, stream := b.opt.since, text.Printable(b.store.Dir), d.stream()
	l := b.store.ByFile[filepath.Base(since)]
	if l == nil {
		if l = b.store.Leading(stream, since); l == nil {
			return nil, fail.WrongBase("--since %s: is neither a delta in %s, nor a point of %s that a whole chain there leads to", text.Printable(since), dir, text.Printable(stream))
		}
		return l, nil
	}
	switch to := l.To(stream); {
	case l.Error != "":
		return nil, fmt.Errorf("--since: %s", l.Error)
	case !l.Has(stream):
		return nil, fail.WrongBase("--since %s: has no %s", text.Printable(since), text.Printable(stream))
	case to == "":
		return nil, fail.WrongBase("--since %s: is no base: it was made from an image that was not frozen, so nothing can build on it", text.Printable(since))
	case !slices.Contains(b.store.Ends[store.Point{Stream: stream, Point: to}], l):
		return nil, fail.WrongBase("--since %s: cannot be restored: deltas are missing that it builds on", text.Printable(since))
	}
	return l, nil
}
