package imagelock

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Permissions, in QEMU's order (include/block/block-common.h: BLK_PERM_*).
const (
	consistentRead = iota
	write
	writeUnchanged
	resize
	permissions
)

var permissionNames = [permissions]string{"consistent read", "write", "write unchanged", "resize"}

const (
	usedBase     = 100 // RAW_LOCK_PERM_BASE
	unsharedBase = 200 // RAW_LOCK_SHARED_BASE
)

// claim is what an opener uses and what it keeps others from using.
type claim struct{ uses, refuses []int }

var (
	readClaim  = claim{[]int{consistentRead}, []int{write, resize}}
	writeClaim = claim{
		[]int{consistentRead, write, writeUnchanged, resize},
		[]int{consistentRead, write, writeUnchanged, resize},
	}
)

// Writer reports whether another opener of f writes or resizes it, or may
// begin to without being stopped: a machine that finished an outgoing
// migration gives up all locks but that on reading, and takes them back when
// it continues. One who reads and lets others write (qemu-img -U) looks the
// same. f may be open for reading only.
//
// That nobody writes at this moment does not keep anybody from it: HoldRead
// does. The error is for a file that cannot be locked; where its filesystem
// has no such locks it is errors.ErrUnsupported.
func Writer(f *os.File) (bool, error) {
	for _, p := range []int{write, resize} {
		if used, err := locked(f, usedBase+p); used || err != nil {
			return used, err
		}
	}
	reader, err := locked(f, usedBase+consistentRead)
	if !reader || err != nil {
		return false, err
	}
	kept, err := locked(f, unsharedBase+write)
	return !kept, err
}

// HoldRead keeps writers out for as long as f is open: a machine that wants to
// write the image does not start, and one that has stopped with it does not
// go on; readers are let in. It fails with ErrBusy if somebody writes already,
// or does not let others read. f may be open for reading only. After an error
// f holds no locks.
func HoldRead(f *os.File) error { return readClaim.hold(f) }

// HoldWrite keeps everybody out for as long as f is open, readers too: what is
// being written is no image yet. It fails with ErrBusy if anybody at all has
// the image open, unless he said not to lock it. After an error f holds no
// locks.
func HoldWrite(f *os.File) error { return writeClaim.hold(f) }

// attempts is how often hold tries, and backoff the longest pause in between.
const (
	attempts = 5
	backoff  = 20 * time.Millisecond
)

// hold takes the claim's locks. Two who try at once can each see the other's
// locks and give up, so it tries again after pauses of random length, and one
// of the two gets them. Where somebody keeps the file that delays the answer by
// 40 ms on average.
func (c claim) hold(f *os.File) error {
	for i := 1; ; i++ {
		err := c.try(f)
		if !errors.Is(err, ErrBusy) || i == attempts {
			return err
		}
		time.Sleep(rand.N(backoff))
	}
}

// try takes the claim's locks and then looks for others that contradict them.
// Of two who do so at once both may fail, but never neither.
func (c claim) try(f *os.File) (err error) {
	defer func() {
		if err != nil {
			// The first error tells more than this one could.
			_ = setLock(f, unix.F_UNLCK, usedBase, permissions)
			_ = setLock(f, unix.F_UNLCK, unsharedBase, permissions)
		}
	}()
	for _, p := range c.uses {
		if err := setLock(f, unix.F_RDLCK, usedBase+p, 1); err != nil {
			return err
		}
	}
	for _, p := range c.refuses {
		if err := setLock(f, unix.F_RDLCK, unsharedBase+p, 1); err != nil {
			return err
		}
	}
	for _, p := range c.refuses {
		used, err := locked(f, usedBase+p)
		if err != nil {
			return err
		}
		if used {
			return fmt.Errorf("%s: %w, which holds the %q lock", f.Name(), ErrBusy, permissionNames[p])
		}
	}
	for _, p := range c.uses {
		refused, err := locked(f, unsharedBase+p)
		if err != nil {
			return err
		}
		if refused {
			return fmt.Errorf("%s: %w, which does not share the %q lock", f.Name(), ErrBusy, permissionNames[p])
		}
	}
	return nil
}

// locked reports whether another open file description has a lock on a byte.
func locked(f *os.File, at int) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(at), Len: 1}
	err := fcntl(f, unix.F_OFD_GETLK, &l)
	return l.Type != unix.F_UNLCK, err
}

func setLock(f *os.File, kind int16, at, n int) error {
	l := unix.Flock_t{Type: kind, Start: int64(at), Len: int64(n)}
	return fcntl(f, unix.F_OFD_SETLK, &l)
}

func fcntl(f *os.File, cmd int, l *unix.Flock_t) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := c.Control(func(fd uintptr) { err = unix.FcntlFlock(fd, cmd, l) })
	switch {
	case cerr != nil:
		return fmt.Errorf("%s: %w", f.Name(), cerr)
	case err == nil:
		return nil
	case err == unix.EAGAIN || err == unix.EACCES:
		// An exclusive lock, which QEMU does not take.
		return fmt.Errorf("%s: %w, which has locked it", f.Name(), ErrBusy)
	case err == unix.EINVAL || err == unix.ENOLCK || err == unix.EOPNOTSUPP || err == unix.ENOSYS:
		return fmt.Errorf("%s: the filesystem does not lock it: %w (%w)", f.Name(), errors.ErrUnsupported, err)
	}
	return fmt.Errorf("%s: lock: %w", f.Name(), err)
}

// OpenForWriting says whether anybody has the regular file f open for writing or
// mapped so, and asks the kernel by a lease, which it gives only where nobody
// has. f must be open for reading only, by its owner or by root (CAP_LEASE);
// else, and where the file system has no leases, that is an error.
func OpenForWriting(f *os.File) (bool, error) {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return false, err
}
