package cli

import (
	"context"
	"errors"
	"fmt"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/sparse"
)

// canResume says whether an interrupted apply of t left its target with the size
// that it has.
func (t *task) canResume() error {
	size, from, to := t.target.stat.Size, t.merge.From().Size, t.merge.Size()
	if t.target.stat.Block && size >= max(from, to) || size == from || size == to {
		return nil
	}
	return fail.WrongBase("%s: wrong base: has %d bytes; its interrupted apply left %d or %d%s", t.target.path, size, from, to, makeWhole)
}

// makeWhole is what is left to do with a target that cannot be completed.
const makeWhole = " (nothing was written; cbt restore --in-place writes all of it anew)"

// checkHalf refuses to complete an apply on a target that somebody else wrote to
// meanwhile. Nothing but its bytes can tell: all of them are compared with the
// base and with what the deltas lead to, and each must be of one of these.
// The base's chain is looked for as restore does it, or named by --base.
// --assume-base does without, and looks only at what the deltas replace.
// It returns how many bytes of the old content were looked at; t.compared says that
// it was all.
func (a *app) checkHalf(ctx context.Context, o *opener, t *task, deltas []*store.File, opt *applyOptions) (seen int64, err error) {
	view, err := t.target.view()
	if err != nil {
		return 0, err
	}
	if opt.assumeBase {
		seen, err = t.merge.CheckHalfBlind(ctx, view)
		if err != nil {
			return 0, t.halfError(err)
		}
		a.Warnf("%s: completing an interrupted apply: %s were looked at, the rest is taken to be what it was (--assume-base)", t.target.path, text.Size(seen))
		return seen, nil
	}
	base, err := o.baseLayers(t, deltas, opt)
	if errors.As(err, new(*cbt.MissingError)) {
		return 0, fail.WrongBase("%w; so nothing tells whether %s is what its interrupted apply left: put the base's deltas there, or name it by --base DELTA; --assume-base takes your word for what cannot be seen", err, t.target.path)
	}
	if err != nil {
		return 0, err
	}
	p := a.Start("comparing what was interrupted", max(t.merge.From().Size, t.merge.Size()))
	defer p.Finish()
	t.compared = true
	return 0, t.halfError(t.merge.CheckHalf(ctx, view, base, p.Set))
}

// baseLayers is the chain that leads to what t's deltas were made from.
func (o *opener) baseLayers(t *task, deltas []*store.File, opt *applyOptions) ([]cbt.Layer, error) {
	from := t.merge.From()
	if opt.base != "" {
		base, err := o.openChain(opt.base, opt.base, refOptions{}, opt.chain)
		if err != nil {
			return nil, err
		}
		if base.Point != from.Point || from.Point == "" {
			return nil, fail.WrongBase("--base %s: %w", opt.base, &cbt.WrongBaseError{Stream: t.stream(), Want: from.Point, Have: base.Point})
		}
		return base.layers, nil
	}
	layers, err := o.Chain(deltas[0], t.layers[0].Stream, opt.chain)
	if err != nil {
		return nil, err
	}
	return layers[:len(layers)-1], nil
}

func (t *task) halfError(err error) error {
	if half := (*cbt.NotHalfError)(nil); errors.As(err, &half) {
		return fail.WrongBase("%s: somebody else wrote to it after its apply was interrupted, or a crash tore a sector: %w%s", t.target.path, err, makeWhole)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.target.path, err)
	}
	return nil
}

// view is the target as an image, which knows its holes if it is a file.
func (t *imageTarget) view() (sparse.View, error) {
	if t.stat.Block {
		return sparse.Plain(t, t.Size()), nil
	}
	return sparse.OpenRaw(t.f)
}
