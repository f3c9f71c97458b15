package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/outfile"
)

// Moment is longer than restore keeps a directory locked.
const Moment = time.Second

// Share keeps prune out of a directory of deltas until the opener is
// closed: for commands that build on what is there, or read it for long. The
// directory itself is locked: nothing is written to it.
func (o *Files) Share(ctx context.Context, dir string, wait time.Duration) error {
	return o.lockDeltas(ctx, dir, false, wait)
}

// Own keeps everybody who calls shareDir out of a directory of deltas, and
// prune in others: for prune itself.
func (o *Files) Own(ctx context.Context, dir string, wait time.Duration) error {
	return o.lockDeltas(ctx, dir, true, wait)
}

func (o *Files) lockDeltas(ctx context.Context, dir string, alone bool, wait time.Duration) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return DirError(dir, err)
	}
	if !infile.IsDir(real) {
		return DirError(dir, syscall.ENOTDIR)
	}
	if real, err = filepath.Abs(real); err != nil {
		return err
	}
	if o.locked[real] != nil {
		return nil
	}
	lock, err := outfile.LockDir(ctx, real, alone, max(wait, 2*Moment))
	switch {
	case errors.Is(err, outfile.ErrLocked) && alone:
		return fail.Busy("%s: is in use: it is mounted, served or verified, a backup is being written there, or another prune runs (--wait waits for them)", dir)
	case errors.Is(err, outfile.ErrLocked):
		return fail.Busy("%s: is being pruned (--wait waits for that)", dir)
	case errors.Is(err, errors.ErrUnsupported):
		o.Warnf("%s: cannot be locked: do not prune it meanwhile", dir)
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", dir, err)
	}
	if o.locked == nil {
		o.locked = make(map[string]*os.File)
	}
	o.locked[real] = lock
	return nil
}
