// Package infile opens what is only read: regular files and block devices, each
// judged before it is opened, and without touching its access time where that is
// possible. It tells files apart, and whether one was written to.
package infile

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Input is a regular file or a block device, open for reading only and without
// touching its access time where that is possible.
type Input struct {
	*os.File
	Path  string        // as it was named
	Real  string        // where the open descriptor is, links resolved
	Info  Stat          // when it was opened
	Count *atomic.Int64 // counts the bytes that are read, if not nil
}

// ReadAt is safe for concurrent use.
func (f *Input) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if f.Count != nil {
		f.Count.Add(int64(n))
	}
	return n, err
}

// Written says whether the time tells that somebody wrote to f since it was
// opened. It is for deltas, whose bytes have checksums: they may be linked and
// renamed meanwhile.
func (f *Input) Written() error {
	now, err := StatOf(f.File)
	if err == nil && !f.Info.Unwritten(now) {
		err = fmt.Errorf("%s: changed while it was read", f.Path)
	}
	return err
}

// KindError says why a file of this mode is no source. What blocks, has side
// effects or no size is refused.
func KindError(path string, mode os.FileMode) error {
	kind := "no regular file and no block device"
	switch {
	case mode.IsRegular(), mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&os.ModeNamedPipe != 0:
		kind = "a pipe"
	case mode&os.ModeCharDevice != 0:
		kind = "a character device"
	case mode&os.ModeSocket != 0:
		kind = "a socket"
	}
	return fmt.Errorf("%s: is %s: images are regular files and block devices", path, kind)
}

// Stamp is what a file's times say.
type Stamp struct {
	Mtime, Ctime time.Time
	size         int64
}

// RealPath returns where path leads, absolute and with all links resolved.
func RealPath(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(real)
}

// DeviceNumber prints a device number as ls does, where that has parts.
func DeviceNumber(n uint64) string {
	major, minor := SplitDevice(n)
	return fmt.Sprintf("%d:%d", major, minor)
}
