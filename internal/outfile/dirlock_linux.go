package outfile

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often LockWait looks whether the others are done.
const lockPoll = 100 * time.Millisecond

// LockDir locks a directory until the file that it returns is closed: shared
// with others that do, or for this one alone. It waits for at most wait, then
// the error is ErrLocked. The lock is on the directory itself, so nothing is
// written there. Where the file system has no such locks the error is
// errors.ErrUnsupported.
func LockDir(ctx context.Context, dir string, alone bool, wait time.Duration) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	err = LockWait(ctx, f, alone, wait)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOSYS):
		err = &os.PathError{Op: "lock", Path: dir, Err: errors.ErrUnsupported}
	}
	f.Close()
	return nil, err
}

// LockWait locks a file until it is closed, as flock(2) does: shared with others
// that do, or for this one alone. It waits for at most wait, then the error wraps
// ErrLocked; if ctx ends before, it is the cause of that.
func LockWait(ctx context.Context, f *os.File, alone bool, wait time.Duration) error {
	how := unix.LOCK_SH
	if alone {
		how = unix.LOCK_EX
	}
	deadline := time.Now().Add(wait)
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		case time.Until(deadline) <= 0:
			return &os.PathError{Op: "lock", Path: f.Name(), Err: ErrLocked}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(lockPoll, time.Until(deadline))):
		}
	}
}
