package sparse

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Target is what an image is written to. Writing and zeroing work only inside [0, Size()), so
// Truncate comes first. Calls for ranges that do not overlap may run concurrently, but nothing may
// run beside Truncate.
type Target interface {
	io.ReaderAt
	io.WriterAt

	// Size returns bytes; for a device, its own size.
	Size() int64

	// Truncate makes a file exactly size bytes long. Bytes that are added read as zeros. A device
	// cannot change its size: Truncate fails if it is too small and does nothing otherwise.
	Truncate(size int64) error

	// Zero makes [off, off+n) read as zeros, whatever was there before. After an error part of the
	// range may be zeros.
	Zero(off, n int64) error

	// Sync returns once all that was written survives a loss of power.
	Sync() error
}

// OpenTarget returns a target that writes to f. f must be a regular file or a block device, open
// for reading and writing and not for appending. Anything else is refused. The caller closes f.
//
// In a file Zero punches holes. On a device it has the kernel write zeros (fallocate with
// FALLOC_FL_ZERO_RANGE, linux 4.9). It never discards, because only the device decides whether a
// discarded block reads as zeros. So a device that allocates on demand, such as a thin volume,
// allocates what is zeroed. If the system can do neither, zeros are written.
func OpenTarget(f *os.File) (Target, error) {
	if err := flagsForTarget(f); err != nil {
		return nil, err
	}
	size, device, err := fileSize(f)
	if err != nil {
		return nil, err
	}
	file := &targetFile{f: f}
	file.size.Store(size)
	if !device {
		return &fileTarget{file}, nil
	}
	block, err := deviceBlock(f)
	if err != nil {
		return nil, err
	}
	// Not finer than a page. Otherwise the kernel might zero one part of a page in the device's
	// cache while another part is written.
	return &deviceTarget{file, max(block, 4096)}, nil
}

// targetFile is what files and devices have in common.
type targetFile struct {
	f    *os.File
	size atomic.Int64
}

func (t *targetFile) Size() int64 { return t.size.Load() }

func (t *targetFile) Sync() error { return t.f.Sync() }

func (t *targetFile) ReadAt(p []byte, off int64) (int, error) {
	return readInside(t.f, p, off, t.Size())
}

func (t *targetFile) WriteAt(p []byte, off int64) (int, error) {
	if err := t.check("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	return t.f.WriteAt(p, off)
}

func (t *targetFile) check(what string, off, n int64) error {
	if err := CheckRange(off, n, t.Size()); err != nil {
		return fmt.Errorf("%s: %s: %w", t.f.Name(), what, err)
	}
	return nil
}

// zeroRange zeroes a range with the given system call, or by writing zeros if that is not possible.
func (t *targetFile) zeroRange(call func(f *os.File, off, n int64) (bool, error), off, n int64) error {
	if n == 0 {
		return nil
	}
	if ok, err := call(t.f, off, n); ok || err != nil {
		return err
	}
	return writeZeros(t.f, off, n)
}

type fileTarget struct{ *targetFile }

func (t *fileTarget) Truncate(size int64) error {
	if err := t.f.Truncate(size); err != nil {
		return err
	}
	t.size.Store(size)
	return nil
}

func (t *fileTarget) Zero(off, n int64) error {
	if err := t.check("zero", off, n); err != nil {
		return err
	}
	return t.zeroRange(punchHole, off, n)
}

type deviceTarget struct {
	*targetFile
	align int64
}

func (t *deviceTarget) Truncate(size int64) error {
	if size < 0 || size > t.Size() {
		return fmt.Errorf("%s: a device of %d bytes cannot hold %d", t.f.Name(), t.Size(), size)
	}
	return nil
}

func (t *deviceTarget) Zero(off, n int64) error {
	if err := t.check("zero", off, n); err != nil {
		return err
	}
	end := off + n
	first, last := min(end, (off+t.align-1)/t.align*t.align), end/t.align*t.align
	if first >= last {
		return writeZeros(t.f, off, n)
	}
	if err := writeZeros(t.f, off, first-off); err != nil {
		return err
	}
	if err := t.zeroRange(zeroDevice, first, last-first); err != nil {
		return err
	}
	return writeZeros(t.f, last, end-last)
}
