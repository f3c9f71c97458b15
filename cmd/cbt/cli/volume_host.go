package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cbt/internal/dm"
	"cbt/internal/fail"
	"cbt/internal/hostlvm"
	"cbt/internal/text"
	"cbt/lvm"
	"cbt/lvm/thin"
	"cbt/sparse"
)

// host is the LVM of this host, as far as a run needed it.
type host struct {
	*hostlvm.Host
	groups []*lvm.Group         // all; nil: not looked for yet
	shared map[*lvm.Group]bool  // with other hosts, and said so
	pools  map[string]*livePool // by UUID
}

// liveVolume is what a volume of this host needs besides its metadata.
type liveVolume struct {
	host     *host
	writable bool // in use, and may be written to
	pool     *livePool
	thick    *hostlvm.ThickSnapshot
	prints   []thin.Fingerprint // of the volume and the thin volumes below it
}

// openHost opens the host's LVM, once.
func (o *opener) openHost(ctx context.Context) (*host, error) {
	if o.host != nil {
		return o.host, nil
	}
	h, err := hostlvm.Open(hostlvm.Options{Context: ctx, LockDir: o.lockDir, Opened: o.reads.Audit.Device})
	if err != nil {
		return nil, fmt.Errorf("this host's volumes: %w (--pv reads volumes without it)", err)
	}
	o.host = &host{Host: h, shared: map[*lvm.Group]bool{}, pools: map[string]*livePool{}}
	return o.host, nil
}

// scan reads the groups of this host's disks.
func (h *host) scan(ctx context.Context, warn func(string, ...any)) ([]*lvm.Group, error) {
	groups, notes, err := h.Groups(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	for _, note := range notes {
		warn("%s", note)
	}
	return groups, nil
}

// all are the groups of this host, read once.
func (h *host) all(ctx context.Context, warn func(string, ...any)) (_ []*lvm.Group, err error) {
	if h.groups == nil {
		h.groups, err = h.scan(ctx, warn)
	}
	return h.groups, err
}

// group finds a group of this host.
func (h *host) group(ctx context.Context, name string, warn func(string, ...any)) (*lvm.Group, error) {
	groups, err := h.all(ctx, warn)
	if err != nil {
		return nil, err
	}
	g, err := lvm.FindGroup(groups, name)
	if err != nil {
		return nil, noGroup(err, groups)
	}
	if g.LockType != "" && !h.shared[g] {
		h.shared[g] = true
		warn("volume group %s is shared (%s): other hosts may write to it", g.Name, text.Printable(g.LockType))
	}
	return g, nil
}

// release releases the metadata snapshots that are held.
func (h *host) release() error {
	var err error
	for _, p := range h.pools {
		err = errors.Join(err, p.end())
	}
	return err
}

func (h *host) close() error { return errors.Join(h.release(), h.Close()) }

// releasePools ends the time in which the trees of pools in use stand still.
// Those of frozen devices stand still without it; see livePool.
func (o *opener) releasePools() error {
	if o.host == nil {
		return nil
	}
	return o.host.release()
}

// openHostVolume opens a volume of this host.
func (o *opener) openHostVolume(ctx context.Context, ref string, r volumeRef, opt refOptions) (*source, error) {
	h, err := o.openHost(ctx)
	if err != nil {
		return nil, err
	}
	g, lv, err := h.find(ctx, r, o.Warnf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	live := &liveVolume{host: h}
	if err := o.judge(h, ref, lv, live); err != nil {
		return nil, err
	}
	if name := poolBelow(g, lv); name != "" {
		if live.pool, g, err = o.openHostPool(ctx, ref, h, g, name); err != nil {
			return nil, err
		}
	}
	if lv.Snapshot != nil {
		live.thick, err = h.OpenThickSnapshot(lv.FullName(), g.ID, lv.ID)
		if err != nil && !errors.Is(err, hostlvm.ErrInactive) {
			return nil, hostError(ref, err)
		}
	}
	v, err := g.Open(lv.Name, lvm.OpenOptions{
		Held:            live.pool != nil,
		AllowNeedsCheck: o.Force && live.pool == nil,
		Device:          o.counted(h.Device),
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, volumeError(err))
	}
	if live.prints, err = fingerprints(v); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return o.volumeSource(ctx, ref, &volume{Volume: v, live: live}, opt)
}

// poolBelow is the thin pool whose metadata say what a volume stores: its own,
// or that of a thick snapshot's origin.
func poolBelow(g *lvm.Group, lv *lvm.LV) string {
	if lv.Snapshot != nil {
		if origin := g.LV(lv.Snapshot.Origin); origin != nil {
			return origin.Pool()
		}
	}
	return lv.Pool()
}

// find finds a volume in the text of its group.
func (h *host) find(ctx context.Context, r volumeRef, warn func(string, ...any)) (*lvm.Group, *lvm.LV, error) {
	g, err := h.group(ctx, r.group, warn)
	if err != nil {
		return nil, nil, err
	}
	for _, lv := range g.LVs {
		if r.uuid != "" && strings.ReplaceAll(lv.ID, "-", "") == r.uuid || r.uuid == "" && lv.Name == r.name {
			return g, lv, nil
		}
	}
	return nil, nil, noVolume(g, r.name)
}

// judge refuses volumes that somebody may write to while they are read.
func (o *opener) judge(h *host, ref string, lv *lvm.LV, live *liveVolume) error {
	err := h.Frozen(lv.Group().ID, lv.ID)
	if err == nil {
		return nil
	}
	if !errors.Is(err, hostlvm.ErrWritable) {
		return fmt.Errorf("%s: %w", ref, err)
	}
	live.writable = true
	// LVM makes thick snapshots writable and active: what counts is whether
	// somebody has one open.
	if o.Frozen || o.metadataOnly || lv.Snapshot != nil && openCount(lv) == 0 {
		return nil
	}
	return fail.Busy("%s: %w (--frozen: nobody writes to it)", ref, err)
}

// openCount is how often a volume's device is open.
func openCount(lv *lvm.LV) int {
	ctl, err := dm.Open()
	if err != nil {
		return 0
	}
	defer ctl.Close()
	d, err := ctl.ByUUID(dm.LVMUUID(lv.Group().ID, lv.ID, dm.LayerNone))
	if err != nil {
		return 0
	}
	return d.OpenCount
}

// counted adds what is read from devices to what the run has read.
func (o *opener) counted(device func(*lvm.LV, lvm.Layer) (io.ReaderAt, int64, error)) func(*lvm.LV, lvm.Layer) (io.ReaderAt, int64, error) {
	return func(lv *lvm.LV, layer lvm.Layer) (io.ReaderAt, int64, error) {
		r, size, err := device(lv, layer)
		if err != nil {
			return nil, 0, hostError(lv.FullName(), err)
		}
		if r == nil {
			return nil, 0, nil
		}
		return &countedView{sparse.Plain(r, size), &o.reads.Int64}, size, nil
	}
}

// hostError gives the errors of hostlvm their exit codes.
func hostError(ref string, err error) error {
	if errors.Is(err, hostlvm.ErrBusy) {
		return fail.Busy("%s: %w", ref, err)
	}
	return fmt.Errorf("%s: %w", ref, err)
}

// recheck says whether somebody changed a volume of this host since it was
// opened.
func (l *liveVolume) recheck(ctx context.Context, ref string, v *volume) error {
	// Fingerprints do not see writes to chunks that the volume has for itself.
	if !l.writable {
		if err := l.host.Frozen(v.LV().Group().ID, v.LV().ID); err != nil {
			return fmt.Errorf("%s: became writable while it was read: %w", ref, err)
		}
	}
	if l.thick != nil {
		if err := l.thick.Recheck(); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
	}
	if l.pool == nil {
		if err := v.Recheck(ctx); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
		return nil
	}
	// A snapshot that is no longer held cannot be read again. A thick snapshot's
	// origin may be written to: what that changes, its own table keeps.
	if c := v.COW(); c != nil {
		if err := c.Store().Recheck(); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
	}
	if len(l.prints) == 0 {
		return nil
	}
	if err := l.pool.recheck(l.prints); err != nil {
		return hostError(ref, err)
	}
	return nil
}

// fingerprints are those of a thin volume and of the thin volumes that it
// stands on.
func fingerprints(v *lvm.Volume) ([]thin.Fingerprint, error) {
	var list []thin.Fingerprint
	for v != nil && v.Thin() != nil {
		f, err := v.Thin().Fingerprint()
		if err != nil {
			return nil, err
		}
		list = append(list, f)
		v, _ = v.Thin().External().(*lvm.Volume)
	}
	return list, nil
}
