package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"cbt/internal/store"
	"cbt/internal/text"
)

// choose finds what each disk is compared with.
func (b *backupRun) choose(ctx context.Context) error {
	if b.opt.full {
		b.allFull("--full says so")
		return nil
	}
	length := 0
	for i := range b.disks {
		if c := b.candidates(i); len(c) > 0 {
			length = max(length, b.store.Length(c[0].delta, b.disks[i].stream()))
		}
	}
	if n := b.opt.fullEvery; n > 0 && length >= n {
		b.allFull(fmt.Sprintf("--full-every %d, and the chain has %s", n, text.Count(length, "delta")))
		return nil
	}
	for i := range b.disks {
		choose := b.chooseFor
		if b.opt.diff.bitmap != "" {
			choose = b.chooseBitmap
		}
		if err := choose(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (b *backupRun) allFull(why string) {
	for i := range b.bases {
		b.bases[i] = base{why: why}
	}
}

// candidate is a possible base.
type candidate struct {
	base
	open func(context.Context) (*source, error)
}

// candidates are the possible bases of a disk, the best first.
func (b *backupRun) candidates(i int) (list []candidate) {
	d := &b.disks[i]
	if k := b.newestKept(i); k != nil {
		list = append(list, candidate{
			base{delta: b.store.Leading(d.stream(), k.point), ref: k.ref, why: "the newest point in " + text.Printable(b.store.Dir) + " that the source has"},
			func(context.Context) (*source, error) { return k.open() },
		})
	}
	// Next, what its times say that it still is, or nearly: bytes will tell.
	if l := mayLead(b.store, b.of, d.stream(), d.img); l != nil {
		list = append(list, candidate{
			base{delta: l, why: "files of the source have another ctime than when it was made, so its content is compared"},
			func(context.Context) (*source, error) { return b.openLast(l, d) },
		})
	}
	if l, _ := b.store.Newest(b.of, d.stream(), d.img.identity(), d.img.Point); l != nil {
		list = append(list, candidate{
			base{delta: l, why: "the source has no point that " + text.Printable(b.store.Dir) + " has"},
			func(context.Context) (*source, error) { return b.openLast(l, d) },
		})
	}
	return list
}

// openLast opens what l leads to.
func (b *backupRun) openLast(l *store.Entry, d *disk) (*source, error) {
	if err := b.opener.OpenChainOf(b.store, l); err != nil {
		return nil, err
	}
	path := filepath.Join(b.store.Dir, l.File)
	return b.opener.openChain(path, path, refOptions{Snapshot: d.stream()}, store.ChainOptions{Dir: b.store.Dir})
}

// newestKept is the newest state that is both in the source and in the
// directory, but for NEW itself; rather an older one than NEW if there is one.
func (b *backupRun) newestKept(i int) (best *kept) {
	img := b.disks[i].img
	later := func(k *kept) bool { return !img.Instant.IsZero() && k.instant.After(img.Instant) }
	for n := range b.kept[i] {
		k := &b.kept[i][n]
		switch {
		case k.point == img.Point:
		case best == nil, later(best) && !later(k), later(best) == later(k) && b.newer(i, k, best):
			best = k
		}
	}
	return best
}

// newer says which of two states of a disk is newer. Where times are whole
// seconds, the one further from the full delta is.
func (b *backupRun) newer(i int, k, than *kept) bool {
	if !k.instant.Equal(than.instant) {
		return k.instant.After(than.instant)
	}
	length := func(k *kept) int {
		l := b.store.Leading(b.disks[i].stream(), k.point)
		if l == nil {
			return 0
		}
		return b.store.Length(l, b.disks[i].stream())
	}
	return length(k) > length(than)
}

func (b *backupRun) chooseFor(ctx context.Context, i int) error {
	d := &b.disks[i]
	why := ""
	for _, c := range b.candidates(i) {
		old, err := c.open(ctx)
		if err == nil {
			d.old = old
			if err = d.compare(methodAuto, ""); err == nil {
				b.bases[i] = c.base
				return nil
			}
		}
		d.old, d.method = nil, method{}
		if ctx.Err() != nil {
			return err
		}
		why = "reading what it builds on failed: " + err.Error()
	}
	if why == "" {
		_, there := b.store.Newest(b.of, d.stream(), d.img.identity(), d.img.Point)
		switch {
		case there == 0:
			why = fmt.Sprintf("%s has no delta of %s", text.Printable(b.store.Dir), text.Printable(b.image))
		case b.store.Tips(b.of, d.stream()):
			why = fmt.Sprintf("%s has %s of %s, all of an image that was not frozen, so nothing builds on them%s", text.Printable(b.store.Dir), text.Count(there, "delta"), text.Printable(b.image), d.img.freezeHint())
		default:
			why = fmt.Sprintf("%s has %s of %s, and to none of this disk a whole chain leads", text.Printable(b.store.Dir), text.Count(there, "delta"), text.Printable(b.image))
		}
	} else {
		b.app.Warnf("%s: %s", text.Printable(d.img.Ref), why)
	}
	b.bases[i] = base{why: why}
	return nil
}
