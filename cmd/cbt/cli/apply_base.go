package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/record"
	"cbt/internal/store"
	"cbt/sparse"
)

// checkPoint refuses a target that is not known to be at the base.
func (a *app) checkPoint(ctx context.Context, o *opener, t *task, opt *applyOptions) error {
	from, target := t.merge.From(), t.target
	r, err := record.Read(a.audit, target.record)
	if err != nil {
		return err
	}
	how := r.Fit(target.f, target.stat)
	if r != nil && r.Pending != nil && target.stat.Block && how != record.Fits {
		// After a reboot the name may mean another device: nothing is resumed.
		return record.ErrIncompleteElsewhere(target.path)
	}
	if r != nil && how == record.FitsNot {
		a.Debugf("%s is of another file, or the target was written to since", target.record)
		r = nil
	}
	if r != nil && r.Pending != nil {
		if !r.Pending.Continues(t.pending("apply")) {
			return r.Incomplete(target.path)
		}
		t.resume = true
		return t.canResume()
	}
	if r == nil && record.IsMarkedIncomplete(target.f) {
		return record.ErrIncompleteElsewhere(target.path)
	}
	if r != nil && r.Delta == t.lastID() {
		t.done, t.doubt = true, how != record.Fits
		return nil
	}
	if st := target.stat; st.Size != from.Size && !(st.Block && st.Size > from.Size) {
		return fail.WrongBase("%s: wrong base: has %d bytes, the delta was made from an image of %d", target.path, st.Size, from.Size)
	}
	if !target.stat.Block && t.merge.Size() > target.stat.Size {
		a.Debugf("%s grows from %d to %d bytes", target.path, target.stat.Size, t.merge.Size())
	} else if target.stat.Block && t.merge.Size() > target.stat.Size {
		return fmt.Errorf("%s: a device of %d bytes cannot hold the image of %d", target.path, target.stat.Size, t.merge.Size())
	}
	have := ""
	switch {
	case opt.assumeBase:
		return nil
	case opt.base != "":
		return a.compareBase(ctx, o, t, opt)
	case from.Point == "":
		return fail.WrongBase("%s: the delta was made from an image that was not frozen: only --assume-base applies it", target.path)
	case how == record.Fits && r.Point == from.Point, rawPoint(target.stat) == from.Point:
		return nil
	case how == record.FitsMaybe && r.Point == from.Point, store.MayBe(rawPoint(target.stat), from.Point):
		t.doubt = true
		return nil
	case r != nil:
		have = r.Point
	default:
		return fail.WrongBase("%s: wrong base, or unknown: no record says at which point it is (--base DELTA compares it with the state after DELTA)", target.path)
	}
	return wrongPoint(o, t, opt.chain, have)
}

// compareBase compares the whole target with the state after --base.
func (a *app) compareBase(ctx context.Context, o *opener, t *task, opt *applyOptions) error {
	base, err := o.openChain(opt.base, opt.base, refOptions{}, opt.chain)
	if err != nil {
		return err
	}
	from := t.merge.From()
	if base.Point != from.Point || from.Point == "" {
		err := error(&cbt.WrongBaseError{Stream: t.stream(), Want: from.Point, Have: base.Point})
		if d := o.FileOf(t.layers[0].Delta); d != nil {
			err = o.PointsByName(d, opt.chain, err)
		}
		return fail.WrongBase("--base %s: %w", opt.base, err)
	}
	return a.compareTarget(ctx, t, base.View, "the state after "+opt.base)
}

func (a *app) compareTarget(ctx context.Context, t *task, with sparse.View, what string) error {
	img, err := t.target.view()
	if err != nil {
		return err
	}
	p := a.Start("comparing the base", with.Size())
	defer p.Finish()
	for e, err := range sparse.Compare(sparse.Resize(img, with.Size()), with, 0, with.Size()) {
		if err != nil {
			return err
		}
		return fail.WrongBase("%s: wrong base: differs from %s at offset %d", t.target.path, what, e.Off)
	}
	return ctx.Err()
}

// confirm compares a target of which only the ctime leaves a doubt with the
// state that it should be at: the base, or where the deltas lead.
func (a *app) confirm(ctx context.Context, o *opener, t *task, deltas []*store.File, opt *applyOptions) error {
	layers, err := o.baseLayers(t, deltas, opt)
	if errors.As(err, new(*cbt.MissingError)) {
		return fail.WrongBase("%s: may not be what its record says: its ctime is another, as after a write whose time was put back, or after chmod, a link or a rename; and there is nothing to compare it with: %w (--base DELTA names it; --assume-base takes your word)", t.target.path, err)
	}
	if err != nil {
		return err
	}
	if t.done {
		layers = append(slices.Clip(layers), t.layers...)
	}
	view, err := cbt.NewStack(layers...)
	if err != nil {
		return err
	}
	a.Debugf("%s: its ctime is not that of its record: comparing all of it", t.target.path)
	return a.compareTarget(ctx, t, view, "the state that it should be at")
}

// unfinished leaves out the targets that an interrupted run of the same
// command finished. If it finished all, or never ran, being there already is a
// wrong base.
func (a *app) unfinished(ctx context.Context, o *opener, tasks []*task, deltas []*store.File, opt *applyOptions) ([]*task, error) {
	var rest []*task
	resumed := false
	for _, t := range tasks {
		if resumed = resumed || t.resume; !t.done {
			rest = append(rest, t)
		}
	}
	for _, t := range tasks {
		if t.done && !resumed {
			return nil, fail.WrongBase("%s: wrong base: is already at the state that the deltas lead to", t.target.path)
		}
		if t.done && t.doubt {
			if err := a.confirm(ctx, o, t, deltas, opt); err != nil {
				return nil, err
			}
		}
	}
	return rest, nil
}

// lastID is the ID of the delta that the target will be at.
func (t *task) lastID() string {
	ids := idsOf(t.layers[len(t.layers)-1:])
	return ids[0]
}

// baseError gives errors about bases their exit code.
func baseError(err error) error {
	var mismatch *cbt.BaseMismatchError
	var wrong *cbt.WrongBaseError
	if errors.As(err, &mismatch) || errors.As(err, &wrong) {
		return &fail.Error{Code: fail.WrongBaseCode, Err: err}
	}
	return err
}
