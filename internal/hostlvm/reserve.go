package hostlvm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"cbt/internal/dm"
)

// HeldError says that a metadata snapshot is there which this run did not
// take. A pool can have only one, and only its owner knows when it is done.
type HeldError struct {
	Name string // of the pool
	Root uint64 // metadata block, 0 if not known
	Left string // what run of cbt left it behind; empty if no record says so
}

func (e *HeldError) Error() string {
	whose := "it belongs to another program, or to a run of cbt that was killed; once no program uses it,"
	if e.Left != "" {
		whose = e.Left + " left it behind;"
	}
	at := ""
	if e.Root != 0 {
		at = fmt.Sprintf(" (metadata block %d)", e.Root)
	}
	return fmt.Sprintf("%s: the pool has a metadata snapshot already%s: %s `cbt lvm release-metadata-snap %s` releases it", e.Name, at, whose, e.Name)
}

// Is makes a HeldError an ErrBusy.
func (e *HeldError) Is(target error) bool { return target == ErrBusy }

// Snapshot takes the pool's metadata snapshot, calls read, and releases it
// again, whatever read does: returns, fails or panics. Meanwhile the trees
// under held, the block of the metadata where the snapshot's superblock is, do
// not change. A snapshot of another transaction than that of the text in the
// PoolRef is not read: *TransactionError. Runs of cbt that want the same pool's
// snapshot wait for each other, here for at most wait, and less if ctx is
// cancelled; the error then wraps ErrBusy. A snapshot that is there already is
// left alone: a *HeldError.
//
// read should return soon when its context is cancelled. If it does not and
// the process has to end, ReleaseAll does what is left to do.
//
// An error of the release is an error of Snapshot: if somebody else released
// the snapshot too early, what read has read is worth nothing.
func (p *Pool) Snapshot(ctx context.Context, wait time.Duration, read func(ctx context.Context, held uint64) error) error {
	return p.snapshot(ctx, wait, func(ctx context.Context, held uint64, status dm.PoolStatus) error {
		if err := checkTransaction(status, p.ref); err != nil {
			return err
		}
		return read(ctx, held)
	})
}

func (p *Pool) snapshot(ctx context.Context, wait time.Duration, read func(context.Context, uint64, dm.PoolStatus) error) (err error) {
	defer func() {
		if err != nil && !errors.As(err, new(*HeldError)) {
			err = fmt.Errorf("%s: %w", p.ref.Name, err)
		}
	}()
	lock, err := lockPool(ctx, p.host.lockDir, p.ref, wait)
	if err != nil {
		return err
	}
	defer lock.unlock()
	status, err := p.Status()
	if err != nil {
		return err
	}
	if err := usable(status); err != nil {
		return err
	}
	if status.HeldRoot != 0 {
		return &HeldError{p.ref.Name, status.HeldRoot, lock.left(status.HeldRoot)}
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	r := &reservation{name: p.ref.Name, ctl: p.host.ctl, device: p.device, lock: lock}
	if err := r.reserve(); errors.Is(err, syscall.EBUSY) {
		return &HeldError{Name: p.ref.Name}
	} else if err != nil {
		return fmt.Errorf("take the metadata snapshot: %w", err)
	}
	defer func() {
		if rerr := r.release(); rerr != nil {
			err = errors.Join(err, rerr)
		}
	}()
	return read(ctx, r.root, r.status)
}

// reservation is a metadata snapshot that this process took.
type reservation struct {
	name   string // of the pool
	ctl    *dm.Control
	device dm.Device
	lock   *poolLock
	root   uint64
	status dm.PoolStatus // when it had been taken

	mu   sync.Mutex // held while a message is on its way
	done bool
	err  error // of release
}

// reservations are those that the process still holds, or is about to.
var reservations struct {
	sync.Mutex
	all map[*reservation]struct{}
}

func (r *reservation) reserve() (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reservations.Lock()
	if reservations.all == nil {
		reservations.all = map[*reservation]struct{}{}
	}
	reservations.all[r] = struct{}{}
	reservations.Unlock()
	defer func() {
		if err != nil {
			r.finish()
		}
	}()
	// Written before, so that a run killed at any instant has left its mark.
	if err := r.lock.record(0); err != nil {
		return err
	}
	if _, err := r.ctl.Message(r.device, 0, "reserve_metadata_snap"); err != nil {
		return errors.Join(err, r.lock.erase())
	}
	status, err := poolStatus(r.ctl, r.device)
	if err == nil && status.HeldRoot == 0 {
		return errors.New("somebody else released it at once")
	}
	if err == nil {
		r.root, r.status = status.HeldRoot, status
		err = r.lock.record(r.root)
	}
	if err != nil {
		_, rerr := r.ctl.Message(r.device, 0, "release_metadata_snap")
		return errors.Join(err, rerr)
	}
	return nil
}

// release gives the snapshot back, once; further calls return what the first
// one did. One that has become somebody else's is left alone.
func (r *reservation) release() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return r.err
	}
	defer r.finish()
	status, err := poolStatus(r.ctl, r.device)
	switch {
	case err != nil:
		r.err = r.stillHeld(err)
	case status.Failed:
		r.err = r.stillHeld(errors.New("the pool has failed"))
	case status.HeldRoot == 0:
		r.err = errors.Join(errors.New("somebody else released the metadata snapshot while it was in use"), r.lock.erase())
	case status.HeldRoot != r.root:
		r.err = errors.Join(fmt.Errorf("somebody else released the metadata snapshot while it was in use, and took one at block %d", status.HeldRoot), r.lock.erase())
	default:
		// The kernel has no release that names a block. Between the look and
		// the message somebody would have to release ours and take another.
		if _, err := r.ctl.Message(r.device, 0, "release_metadata_snap"); err != nil {
			r.err = r.stillHeld(err)
		} else {
			r.err = r.lock.erase()
		}
	}
	return r.err
}

// stillHeld is an error after which the record of the snapshot stays.
func (r *reservation) stillHeld(err error) error {
	return fmt.Errorf("the metadata snapshot at block %d is still held: %w; once the pool works, `cbt lvm release-metadata-snap %s` releases it", r.root, err, r.name)
}

// finish forgets the reservation; r.mu is held.
func (r *reservation) finish() {
	r.done = true
	reservations.Lock()
	delete(reservations.all, r)
	reservations.Unlock()
}

// ReleaseAll releases every metadata snapshot that the process holds, for the
// moment before it ends without having returned from Snapshot: after a second
// signal, or when a command does not end. It returns false if that did not
// work within the time given.
func ReleaseAll(timeout time.Duration) bool {
	reservations.Lock()
	var all []*reservation
	for r := range reservations.all {
		all = append(all, r)
	}
	reservations.Unlock()
	results := make(chan error, len(all))
	for _, r := range all {
		go func() { results <- r.release() }()
	}
	late := time.After(timeout)
	ok := true
	for range all {
		select {
		case err := <-results:
			ok = ok && err == nil
		case <-late:
			return false
		}
	}
	return ok
}

// ReleaseMetadataSnap releases whatever metadata snapshot a pool has, and
// returns the block where it was: for one that a killed run left behind. The
// error wraps ErrBusy while another run of cbt holds the pool's lock, and
// ErrInactive if the pool is not active. Without a snapshot the error is
// ErrNotHeld.
func (h *Host) ReleaseMetadataSnap(ctx context.Context, ref PoolRef) (root uint64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", ref.Name, err)
		}
	}()
	device, err := h.layer(ref.VG, ref.Pool, dm.LayerPool)
	if err != nil {
		return 0, err
	}
	lock, err := lockPool(ctx, h.lockDir, ref, 0)
	if err != nil {
		return 0, err
	}
	defer lock.unlock()
	status, err := poolStatus(h.ctl, device)
	switch {
	case err != nil:
		return 0, err
	case status.Failed:
		return 0, fmt.Errorf("the pool has failed, the kernel log says why: %w", ErrUnhealthy)
	case status.HeldRoot == 0:
		return 0, errors.Join(ErrNotHeld, lock.erase())
	}
	if _, err := h.ctl.Message(device, 0, "release_metadata_snap"); err != nil {
		return 0, err
	}
	return status.HeldRoot, lock.erase()
}

// ErrNotHeld says that a pool has no metadata snapshot.
var ErrNotHeld = errors.New("the pool has no metadata snapshot")
