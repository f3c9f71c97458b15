package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cbt/internal/hostlvm"
	"cbt/internal/text"
	"cbt/lvm"
	"cbt/lvm/thin"
)

// livePool is a thin pool in use.
//
// Its metadata snapshot is held while volumes of it are opened and compared,
// because the way to a device's tree may change at any time. The tree itself
// is not written to as long as nobody writes to the device: its nodes are
// copied before they change, and freed only with the device. So the snapshot
// is given back before data are copied, which may take hours; that the devices
// are what they were is looked at in another one at the end.
type livePool struct {
	*hostlvm.Pool
	group *lvm.Group // read through the snapshot, so by no volume of another pool
	wait  time.Duration
	ctx   context.Context

	done  chan struct{} // closed: release
	ended chan error    // from Snapshot; nil: none is held
}

// openHostPool opens the pool that volumes of g are in, if it is in use, and
// takes its metadata snapshot. It returns the group to open them from. A pool
// that is not in use is read from the disks: then it returns nil, and g.
func (o *opener) openHostPool(ctx context.Context, ref string, h *host, g *lvm.Group, name string) (*livePool, *lvm.Group, error) {
	const tries = 4
	for try := 1; ; try++ {
		p, through, err := o.tryHostPool(ctx, h, g, name)
		var early *hostlvm.TransactionError
		switch {
		case errors.Is(err, hostlvm.ErrInactive):
			return nil, g, nil
		case errors.As(err, &early) && try < tries:
			// The text was read while LVM was at work, or before.
			if err := sleep(ctx, time.Duration(try)*200*time.Millisecond); err != nil {
				return nil, nil, err
			}
			h.groups = nil
			if g, err = h.group(ctx, g.ID, o.Warnf); err != nil {
				return nil, nil, err
			}
		case err != nil:
			return nil, nil, hostError(ref, err)
		default:
			return p, through, nil
		}
	}
}

// tryHostPool reads the text first: taking the snapshot compares it with the
// transaction that is held.
func (o *opener) tryHostPool(ctx context.Context, h *host, g *lvm.Group, name string) (*livePool, *lvm.Group, error) {
	lv := g.LV(name)
	if lv == nil {
		return nil, nil, fmt.Errorf("volume group %s has no logical volume %s", text.Printable(g.Name), text.Printable(name))
	}
	ref, err := hostlvm.RefOf(lv)
	if err != nil {
		return nil, nil, err
	}
	if p := h.pools[ref.Pool]; p != nil && p.held() {
		return p, p.group, nil
	}
	groups, err := h.scan(ctx, o.Warnf)
	if err != nil {
		return nil, nil, err
	}
	through, err := lvm.FindGroup(groups, g.ID)
	if err != nil {
		return nil, nil, err
	}
	if lv = through.LV(name); lv == nil {
		return nil, nil, fmt.Errorf("volume group %s has no logical volume %s any more", text.Printable(g.Name), text.Printable(name))
	}
	if ref, err = hostlvm.RefOf(lv); err != nil {
		return nil, nil, err
	}
	pool, err := h.OpenPool(ref)
	if err != nil {
		return nil, nil, err
	}
	p := &livePool{Pool: pool, group: through, ctx: ctx, wait: o.Wait.d}
	if err := p.begin(); err != nil {
		return nil, nil, err
	}
	if h.pools[ref.Pool] == nil {
		for _, w := range p.Warnings {
			o.Warnf("%s: %s", p.Name(), w)
		}
	}
	h.pools[ref.Pool] = p
	return p, through, nil
}

// held says that the metadata snapshot is there.
func (p *livePool) held() bool { return p.ended != nil }

// begin takes the metadata snapshot.
func (p *livePool) begin() error {
	ready := make(chan struct{})
	done, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- p.Snapshot(p.ctx, p.wait, func(ctx context.Context, _ uint64) error {
			close(ready)
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	select {
	case <-ready:
		p.done, p.ended = done, ended
		return nil
	case err := <-ended:
		return err
	}
}

// end releases the metadata snapshot, if it is held.
func (p *livePool) end() error {
	if p.ended == nil {
		return nil
	}
	close(p.done)
	err := <-p.ended
	p.ended = nil
	return err
}

// recheck compares devices with what they were.
func (p *livePool) recheck(prints []thin.Fingerprint) error {
	if err := p.end(); err != nil {
		return err
	}
	return p.Verify(p.ctx, p.wait, prints...)
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
