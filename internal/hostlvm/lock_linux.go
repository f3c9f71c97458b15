package hostlvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"cbt/internal/outfile"
)

// lockPool locks a pool against other runs of cbt, waiting for at most wait.
func lockPool(ctx context.Context, dir string, ref PoolRef, wait time.Duration) (_ *poolLock, err error) {
	f, err := openLock(dir, "thin-pool-"+plain(ref.VG)+plain(ref.Pool))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	err = outfile.LockWait(ctx, f, true, wait)
	switch {
	case errors.Is(err, outfile.ErrLocked):
		return nil, fmt.Errorf("another run of cbt%s reads the metadata of this pool: %w", holder(f), ErrBusy)
	case err != nil:
		return nil, err
	}
	return &poolLock{f}, nil
}

// holder names the process that the file's record names.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxLockRecord))
	var r lockRecord
	if err != nil || json.Unmarshal(b, &r) != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", r.PID)
}

// openLock opens, or makes, a lock file. The directory and the file must be
// this user's alone: /run/lock is anybody's on some systems, and who can put a
// file or a link there could make root write elsewhere or wait forever.
func openLock(dir, name string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	dfd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(dfd)
	var st unix.Stat_t
	if err := unix.Fstat(dfd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("%s: lock directory of user %d, mode %04o: others could write there", dir, st.Uid, st.Mode&0o7777)
	}
	path := filepath.Join(dir, name)
	fd, err := unix.Openat(dfd, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
