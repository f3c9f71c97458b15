package cli

import (
	"context"
	"fmt"

	"cbt/cbt"
	"cbt/internal/text"
)

// effect is what the merges would write: data and zeros, in bytes.
func effect(ctx context.Context, merges []*cbt.Merge) (data, zero int64, err error) {
	for _, m := range merges {
		d, z, err := m.Effect(ctx)
		if err != nil {
			return 0, 0, err
		}
		data, zero = data+d, zero+z
	}
	return data, zero, nil
}

// planApply says what apply would write, after all checks that it makes.
func (a *app) planApply(ctx context.Context, o *opener, tasks []*task, result writtenImages) error {
	var merges []*cbt.Merge
	for _, t := range tasks {
		if err := a.audit.Probe(t.target.record, true); err != nil {
			return fmt.Errorf("writing the record of the target's state: %w", err)
		}
		merges = append(merges, t.merge)
	}
	data, zero, err := effect(ctx, merges)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if t.compared {
			d, z, err := effect(ctx, []*cbt.Merge{t.merge})
			if err != nil {
				return err
			}
			*result.Checked += d + z
		}
	}
	unchecked := max(0, data+zero-*result.Checked)
	for _, t := range tasks {
		what := "would be taken to the later point"
		if t.resume {
			what = "was left by an interrupted apply, which would be completed"
		}
		a.Notef("%s: %s", t.target.path, what)
	}
	a.Notef("would apply %s: %s to write, %s to zero; %s of the old content checked, %s unchecked; nothing was written",
		text.Count(len(tasks[0].layers), "delta"), text.Size(data), text.Size(zero), text.Size(*result.Checked), text.Size(unchecked))
	result.DryRun, result.Written, result.Zeroed, result.Unchecked, result.Read = true, data, zero, &unchecked, o.BytesRead()
	return a.result(result)
}

// plan says what restore would write, after all checks that it makes.
func (r *restoration) plan(ctx context.Context, targets []namedTarget) error {
	var merges []*cbt.Merge // in place, then the others
	for _, t := range r.inPlace {
		if err := r.audit.Probe(t.target.record, true); err != nil {
			return fmt.Errorf("writing the record of the target's state: %w", err)
		}
		merges = append(merges, t.merge)
		r.Notef("%s: would be written where it differs", t.target.path)
	}
	for _, n := range r.fresh {
		merges = append(merges, n.merge)
		if n.old != nil {
			r.Notef("%s: would be replaced", n.path)
		} else {
			r.Notef("%s: would be made", n.path)
		}
	}
	data, zeroed, err := effect(ctx, merges[:len(r.inPlace)])
	if err != nil {
		return err
	}
	fresh, holes, err := effect(ctx, merges[len(r.inPlace):])
	if err != nil {
		return err
	}
	data, zero := data+fresh, zeroed+holes
	// In a new file zeros are what nothing is written to; what an old one has
	// already is not compared yet.
	result := writtenImages{DryRun: true, Targets: []writtenTarget{}, Written: data, Zeroed: zeroed, Same: new(int64), Read: r.opener.BytesRead()}
	for i, t := range targets {
		result.Targets = append(result.Targets, wroteTarget(t.path, r.layers[i]))
	}
	if r.state != nil {
		r.Notef("%s: the machine's state would be written", r.state.path)
	}
	r.Notef("would restore %s from %s: at most %s to write, %s of zeros; nothing was written",
		text.Count(len(targets), "image"), text.Count(len(r.layers[0]), "delta"), text.Size(data), text.Size(zero))
	return r.result(result)
}
