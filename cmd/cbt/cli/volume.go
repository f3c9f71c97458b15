package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cbt/internal/fail"
	"cbt/internal/text"
	"cbt/lvm"
	"cbt/lvm/thin"
)

// formatVolume is what messages and info call a logical volume.
const formatVolume = "lvm"

// volume is a logical volume as a source.
type volume struct {
	*lvm.Volume
	pvs  *physical // that --pv named; nil for those of this host
	live *liveVolume
}

// openVolume opens what lvm:VG/LV or its path means.
func (o *opener) openVolume(ctx context.Context, ref string, r volumeRef, opt refOptions) (*source, error) {
	if len(o.PVs) == 0 {
		return o.openHostVolume(ctx, ref, r, opt)
	}
	pvs, err := o.physical(ctx)
	if err != nil {
		return nil, err
	}
	g, err := lvm.FindGroup(pvs.groups, r.group)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, noGroup(err, pvs.groups))
	}
	if g.LV(r.name) == nil {
		return nil, fmt.Errorf("%s: %w", ref, noVolume(g, r.name))
	}
	v, err := g.Open(r.name, lvm.OpenOptions{AllowNeedsCheck: o.Force})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, volumeError(err))
	}
	return o.volumeSource(ctx, ref, &volume{Volume: v, pvs: pvs}, opt)
}

// volumeSource makes a source of an open volume. What it holds is a guest's
// disk: that it looks like an image is no reason to take it for one.
func (o *opener) volumeSource(ctx context.Context, ref string, v *volume, opt refOptions) (*source, error) {
	if err := o.refuseContent(ref, v.Volume, opt); err != nil {
		return nil, err
	}
	if m := v.Pool(); m != nil && !slices.Contains(o.thin, m) {
		o.thin = append(o.thin, m)
	}
	s := &source{View: v.Volume, Ref: ref, Path: ref, Format: formatVolume, vol: v}
	s.Instant = v.instant()
	s.recheck = func() error {
		if v.live != nil {
			return v.live.recheck(ctx, ref, v)
		}
		if err := v.Recheck(ctx); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
		return v.pvs.recheck()
	}
	return s, nil
}

// refuseContent refuses a volume that starts like an image, unless the user
// said what it is.
func (o *opener) refuseContent(ref string, v *lvm.Volume, opt refOptions) error {
	flag, forced := o.formatOf(opt)
	if forced == formatRaw || forced == formatState {
		return nil
	}
	head := make([]byte, 4)
	if v.Size() < int64(len(head)) || o.metadataOnly {
		return nil
	}
	if _, err := v.ReadAt(head, 0); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	if string(head) == signatures[0].magic {
		return fail.Usage("%s: starts like a qcow2 image, which may be a guest's doing: say what it is with %s qcow2 or raw", ref, flag)
	}
	return nil
}

// instant is when a snapshot was taken, as LVM notes it, to the second; for
// other volumes there is none.
func (v *volume) instant() time.Time {
	lv := v.LV()
	if lv.CreationTime == 0 || lv.Origin() == "" && lv.Snapshot == nil {
		return time.Time{}
	}
	return time.Unix(lv.CreationTime, 0).UTC()
}

// volumeError gives the errors of packages lvm and thin their exit codes.
func volumeError(err error) error {
	var missing *lvm.MissingError
	switch {
	case errors.As(err, &missing) && !strings.Contains(missing.Reason, " and on "):
		return fmt.Errorf("%w (each physical volume of the group goes with a --pv of its own)", err)
	case errors.Is(err, thin.ErrNoDevice):
		return fmt.Errorf("%w: the group's text and the pool's metadata do not fit", err)
	}
	return err
}

// noVolume is the error of a name that no volume of g has, with those that
// there are.
func noVolume(g *lvm.Group, name string) error {
	const most = 20
	var list []string
	more := 0
	for _, lv := range g.LVs {
		switch {
		case !lv.Visible():
		case len(list) == most:
			more++
		default:
			list = append(list, text.Printable(lv.Name))
		}
	}
	if more > 0 {
		list = append(list, fmt.Sprintf("and %d more (cbt info lists them)", more))
	}
	if list == nil {
		list = []string{"none"}
	}
	return fmt.Errorf("volume group %s has no logical volume %s; there are: %s", text.Printable(g.Name), text.Printable(name), strings.Join(list, ", "))
}

// noGroup adds what there is to the error of a group that is not.
func noGroup(err error, groups []*lvm.Group) error {
	if !errors.Is(err, lvm.ErrNoGroup) {
		return fail.Usage("%w", err)
	}
	names := "none"
	if len(groups) > 0 {
		var list []string
		for _, g := range groups {
			list = append(list, text.Printable(g.Name))
		}
		names = strings.Join(list, ", ")
	}
	return fmt.Errorf("%w; there are: %s", err, names)
}
