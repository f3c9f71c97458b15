package hostlvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"cbt/internal/dm"
)

// Buffers of one Direct: at most directBuffers of directBuffer bytes, mapped
// when first needed and resident as far as they were read into.
const (
	directAlign   = 4096 // at least; a device's logical block if that is larger
	directBuffer  = 1 << 20
	directBuffers = 8
)

// Direct reads a block device past the page cache, in aligned pieces of 4096
// bytes through aligned buffers, at any offset and of any length. It is an
// io.ReaderAt that is safe for concurrent use; up to eight reads run at a
// time, each of at most a megabyte, and it keeps no more than 8 MiB.
type Direct struct {
	f      *os.File
	number dm.Number
	size   int64
	whole  int64 // up to the last whole logical block
	align  int64
	free   chan []byte // directBuffers in all; nil ones are not mapped yet
	closed atomic.Bool
	ctx    context.Context // reads fail once it is cancelled
}

// OpenDirect opens a block device for reading. The size is what it is now: a
// device that grows is read no further.
func OpenDirect(path string) (*Direct, error) { return openDirect(context.Background(), path) }

func openDirect(ctx context.Context, path string) (_ *Direct, err error) {
	// O_NONBLOCK: a drive without a medium, a device that is being set up.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, fmt.Errorf("%s: not a block device", path)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	block, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
	if err != nil {
		return nil, &os.PathError{Op: "ioctl BLKSSZGET", Path: path, Err: err}
	}
	if block <= 0 || block&(block-1) != 0 || block > directBuffer {
		return nil, fmt.Errorf("%s: logical blocks of %d bytes", path, block)
	}
	size, err := unix.Seek(fd, 0, io.SeekEnd)
	if err != nil {
		return nil, &os.PathError{Op: "seek", Path: path, Err: err}
	}
	rdev := uint64(st.Rdev)
	d := &Direct{
		f: os.NewFile(uintptr(fd), path), number: dm.Number{Major: unix.Major(rdev), Minor: unix.Minor(rdev)},
		size: size, whole: size &^ (int64(block) - 1), align: max(directAlign, int64(block)), free: make(chan []byte, directBuffers),
		ctx: ctx,
	}
	for range directBuffers {
		d.free <- nil
	}
	return d, nil
}

// Name is the path that was opened.
func (d *Direct) Name() string { return d.f.Name() }

// Size is the device's size in bytes when it was opened.
func (d *Direct) Size() int64 { return d.size }

// Number is the device number of what was opened.
func (d *Direct) Number() dm.Number { return d.number }

// ReadAt reads len(p) bytes; at the end of the device fewer, with io.EOF.
func (d *Direct) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, &os.PathError{Op: "read", Path: d.Name(), Err: errors.New("negative offset")}
	}
	end := off + int64(len(p))
	if end > d.size || end < off {
		if off >= d.size {
			return 0, io.EOF
		}
		n, err = d.ReadAt(p[:d.size-off], off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	buf := <-d.free
	defer func() { d.free <- buf }()
	if d.closed.Load() {
		return 0, &os.PathError{Op: "read", Path: d.Name(), Err: os.ErrClosed}
	}
	if buf == nil {
		if buf, err = unix.Mmap(-1, 0, directBuffer, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON); err != nil {
			return 0, os.NewSyscallError("mmap", err)
		}
	}
	for n < len(p) {
		if d.ctx.Err() != nil {
			return n, &os.PathError{Op: "read", Path: d.Name(), Err: context.Cause(d.ctx)}
		}
		at := off + int64(n)
		start := at &^ (d.align - 1)
		want := min(int64(len(buf)), (end-start+d.align-1)&^(d.align-1), d.whole-start)
		if want <= 0 {
			// A loop device's size may be no multiple of its logical blocks.
			return n, &os.PathError{Op: "read", Path: d.Name(), Err: fmt.Errorf("at %d: less than a logical block before the end", at)}
		}
		got, err := d.f.ReadAt(buf[:want], start)
		if int64(got) <= at-start {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, &os.PathError{Op: "read", Path: d.Name(), Err: fmt.Errorf("at %d: %w", at, err)}
		}
		n += copy(p[n:], buf[at-start:got])
	}
	return n, nil
}

// Close waits for reads under way, frees the buffers and closes the device.
func (d *Direct) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	for range directBuffers {
		if buf := <-d.free; buf != nil {
			_ = unix.Munmap(buf) // it was mapped, and nothing else can be wrong
		}
	}
	for range directBuffers {
		d.free <- nil
	}
	return d.f.Close()
}
