package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// inFile is a regular file or a block device, open for reading only and without
// touching its access time where that is possible.
type inFile struct {
	*os.File
	path string        // as it was named
	real string        // where the open descriptor is, links resolved
	stat fileStat      // when it was opened
	read *atomic.Int64 // counts the bytes that are read, if not nil
}

// ReadAt is safe for concurrent use.
func (f *inFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if f.read != nil {
		f.read.Add(int64(n))
	}
	return n, err
}

// written says whether the time tells that somebody wrote to f since it was
// opened. It is for deltas, whose bytes have checksums: they may be linked and
// renamed meanwhile.
func (f *inFile) written() error {
	now, err := statFile(f.File)
	if err == nil && !f.stat.unwritten(now) {
		err = fmt.Errorf("%s: changed while it was read", f.path)
	}
	return err
}

// kindError says why a file of this mode is no source. What blocks, has side
// effects or no size is refused.
func kindError(path string, mode os.FileMode) error {
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

// stamp is what a file's times say.
type stamp struct {
	mtime, ctime time.Time
	size         int64
}

// realPath returns where path leads, absolute and with all links resolved.
func realPath(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(real)
}

// deviceNumber prints a device number as ls does, where that has parts.
func deviceNumber(n uint64) string {
	major, minor := splitDevice(n)
	return fmt.Sprintf("%d:%d", major, minor)
}
