package outfile

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often LockDir looks whether the others are done.
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
	how := unix.LOCK_SH
	if alone {
		how = unix.LOCK_EX
	}
	deadline := time.Now().Add(wait)
	for {
		err := unix.Flock(fd, how|unix.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			err = ErrLocked
		case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOSYS):
			err = errors.ErrUnsupported
		}
		if !errors.Is(err, ErrLocked) || time.Until(deadline) <= 0 {
			f.Close()
			return nil, &os.PathError{Op: "lock", Path: dir, Err: err}
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(min(lockPoll, time.Until(deadline))):
		}
	}
}
