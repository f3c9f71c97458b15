package outfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	noFollow     = unix.O_NOFOLLOW
	canLock      = true
	openNonblock = unix.O_NONBLOCK
)

// createUnnamed makes a file without a name (O_TMPFILE). Kernels and file
// systems that cannot answer with one of these errors; see open(2).
func createUnnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), filepath.Join(dir, "(unnamed)")), nil
	case err == unix.EOPNOTSUPP, err == unix.EISDIR, err == unix.EINVAL:
		return nil, errors.ErrUnsupported
	}
	return nil, &os.PathError{Op: "create a file in", Path: dir, Err: err}
}

// unnamedPath leads to a file without a name.
func unnamedPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// linkUnnamed gives f a name that nothing has yet.
func linkUnnamed(f *os.File, path string) error {
	if err := unix.Linkat(unix.AT_FDCWD, unnamedPath(f), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	return nil
}

func renameNew(temp, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL || err == unix.ENOSYS {
		return linkNew(temp, path)
	}
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	return nil
}

// Lock keeps other processes that call it out of a file until it is closed; if
// one is in already the error is ErrLocked.
func Lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some network file systems cannot sync a directory and need not.
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// lockLog waits until no other process appends, where the file system has
// locks.
func lockLog(f *os.File) error {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err {
		case unix.EINTR:
		case unix.ENOLCK, unix.EOPNOTSUPP, unix.EBADF:
			return nil
		default:
			return err
		}
	}
}

func unlockLog(f *os.File) {
	// Closing it does it too.
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
}
