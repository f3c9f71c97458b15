package sparse

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// deviceSize returns the size of a block device in bytes. For the kernel that is where its end is
// (block/fops.c: blkdev_llseek).
func deviceSize(f *os.File) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return size, err
}

// syncForMap writes f back, so that what nextData says about it is true. It reports whether the
// filesystem can tell data from holes. A filesystem mounted read-only has nothing to write back.
func syncForMap(f *os.File) (bool, error) {
	switch err := f.Sync(); {
	case err == nil || errors.Is(err, unix.EROFS):
	case unsupported(err):
		return false, nil
	default:
		return false, err
	}
	switch _, err := f.Seek(0, unix.SEEK_DATA); {
	case err == nil || errors.Is(err, unix.ENXIO):
		return true, nil
	case unsupported(err):
		return false, nil
	default:
		return false, err
	}
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// nextData returns the first run of data [data, hole) at or after pos, which must be inside the
// image. If there is none both are the image's size.
func (v *Raw) nextData(pos int64) (data, hole int64, err error) {
	data, err = v.f.Seek(pos, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		// A hole up to the end of the file, wherever that is now.
		return v.size, v.size, v.stillLong()
	}
	if err != nil {
		return 0, 0, err
	}
	hole, err = v.f.Seek(data, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) {
		if err = v.stillLong(); err == nil {
			err = fmt.Errorf("%s: SEEK_HOLE at %d finds no end of the data there", v.f.Name(), data)
		}
	}
	if err != nil {
		return 0, 0, err
	}
	if hole <= data {
		// Somebody punched a hole between the two calls. It is never wrong to call a byte data, and
		// it makes progress.
		hole = data + 1
	}
	return data, hole, nil
}

// stillLong returns an error if the file has become shorter than the image.
func (v *Raw) stillLong() error {
	fi, err := v.f.Stat()
	if err == nil && fi.Size() < v.size {
		err = fmt.Errorf("%s: %d bytes long now, was %d: %w", v.f.Name(), fi.Size(), v.size, io.ErrUnexpectedEOF)
	}
	return err
}

// flagsForTarget refuses a descriptor on which positioned writes do not work.
func flagsForTarget(f *os.File) error {
	var flags int
	err := control(f, func(fd int) (err error) {
		flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("%s: fcntl: %w", f.Name(), err)
	case flags&unix.O_ACCMODE != unix.O_RDWR:
		return fmt.Errorf("%s: not open for reading and writing", f.Name())
	case flags&unix.O_APPEND != 0:
		return fmt.Errorf("%s: open for appending", f.Name())
	}
	return nil
}

// punchHole makes a range of a regular file a hole. ok is false if the filesystem cannot.
func punchHole(f *os.File, off, n int64) (ok bool, err error) {
	return fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// zeroDevice has the kernel zero a range of a block device, which must be aligned to its blocks.
// For ZERO_RANGE the kernel neither discards nor unmaps (block/fops.c: blkdev_fallocate,
// BLKDEV_ZERO_NOUNMAP). If the device has no command for it, the kernel writes zeros itself. It
// refuses (EBUSY) while somebody else has the device open exclusively and pages of the range are
// dirty.
func zeroDevice(f *os.File, off, n int64) (ok bool, err error) {
	return fallocate(f, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func fallocate(f *os.File, mode uint32, off, n int64) (ok bool, err error) {
	err = control(f, func(fd int) error { return unix.Fallocate(fd, mode, off, n) })
	if err == nil {
		return true, nil
	}
	if unsupported(err) || errors.Is(err, unix.EBUSY) {
		return false, nil
	}
	return false, fmt.Errorf("%s: fallocate of %d bytes at %d: %w", f.Name(), n, off, err)
}

// deviceBlock returns the logical block size of a block device in bytes.
func deviceBlock(f *os.File) (int64, error) {
	var size uint32
	err := control(f, func(fd int) (err error) {
		size, err = unix.IoctlGetUint32(fd, unix.BLKSSZGET)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s: BLKSSZGET: %w", f.Name(), err)
	}
	return int64(size), nil
}

// control calls do with the descriptor of f, again if a signal interrupts it.
func control(f *os.File, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := c.Control(func(fd uintptr) {
		for {
			if err = do(int(fd)); err != unix.EINTR {
				return
			}
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}
